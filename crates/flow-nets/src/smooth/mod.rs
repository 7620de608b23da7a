//! A smooth multilayer perceptron with explicit first- and second-order passes, on feature-major blocks.
//!
//! Residual flows and continuous flows differentiate through a Jacobian: their log-dets are made of vᵀ J u.
//! [`MlpKernel`] gives these products and their exact gradients without a tape, all directions of all rows through one
//! matrix product a layer.
//!
//! # The network
//! With h₀ = x, layer i computes
//! ```text
//! zᵢ = sᵢ ⊙ (Wᵢ hᵢ + oᵢ + bᵢ) + tᵢ      pre-activation; s = 1, t = 0 unless the network is modulated
//! hᵢ₊₁ = φ(zᵢ)                          or, densely connected, [η₁ hᵢ ; η₂ φ(zᵢ)]
//! ```
//! and the last layer's pre-activation is the output y. The first layer alone may have an offset o of every row, the
//! others have none: that is how a condition enters ([`ConditionInput`]). The rest of a [`Modulation`], s and t, is
//! constant over a block: that is how a time enters (`Concat`: t = w τ; `ConcatSquash`: s = σ(w' τ + b'), t = w τ;
//! Grathwohl et al. 2019, arXiv:1810.01367). Dense connections: Perugachi-Diaz et al. 2021, "Invertible `DenseNets`",
//! section 3 (arXiv:2102.02694).
//!
//! # The passes
//! Tangents u (J u is wanted) obey, with φ′ at zᵢ,
//! ```text
//! żᵢ = sᵢ ⊙ (Wᵢ ḣᵢ)          ḣᵢ₊₁ = φ′ ⊙ żᵢ      or [η₁ ḣᵢ ; η₂ φ′ ⊙ żᵢ]
//! ```
//! and the reverse pass over both, for S = ⟨ȳ, y⟩ + Σₖ ⟨vₖ, J uₖ⟩, with h̄ = ∂S/∂h and ḣ̄ₖ = ∂S/∂ḣₖ (without dense
//! connections; with them the cotangents of the two parts go their own ways and η₁, η₂ multiply), is
//! ```text
//! ż̄ₖ = φ′ ⊙ ḣ̄ₖ                           z̄ = φ′ ⊙ h̄ + φ″ ⊙ Σₖ ḣ̄ₖ ⊙ żₖ
//! hᵢ-bar = Wᵀ(s ⊙ z̄)                     ḣᵢ-bar = Wᵀ(s ⊙ ż̄ₖ)
//! W̄ = s ⊙ M, M = z̄ hᵀ + Σₖ ż̄ₖ ḣₖᵀ        b̄ = s ⊙ Σ z̄        t̄ = Σ z̄        s̄ = rowsum(W ⊙ M) + b ⊙ Σ z̄ + Σ o ⊙ z̄        ō = s ⊙ z̄
//! β̄ = (⟨z, z̄⟩ − ⟨h̄, φ⟩) ∂ln b/∂β       η̄₁ = ⟨h̄¹, h⟩ + Σₖ ⟨ḣ̄ₖ¹, ḣₖ⟩      η̄₂ = ⟨h̄², φ⟩ + Σₖ ⟨ḣ̄ₖ², φ′ ⊙ żₖ⟩
//! ```
//! where sums run over the rows of the block. (β enters as φ(z) = F(b z)/b, so that b ∂φ/∂b = z φ′ − φ and b ∂φ′/∂b = z
//! φ″, which needs nothing new.) This one operation, [`MlpKernel::pullback_dual`], gives the gradient of every quantity
//! that is made of vᵀ J u: a Neumann series' last product, Hutchinson's or the exact trace, tr(M J) with any matrix M
//! that is held fixed, ‖J u‖².
//!
//! # Blocks
//! A block of `lanes` rows is feature-major: feature j of lane r at `j * lanes + r`. With k tangents (or cotangents) a
//! row, blocks lie side by side: feature j of tangent t of lane r at `(j * k + t) * lanes + r`. A block should stay in
//! the L2 cache: about 128 columns (k · lanes, up to a thousand) of the widest layer.

mod activation;
mod condition;
mod elementwise;
mod forward;
mod jacobian;
mod kernel;
mod module;
mod reverse;

pub use activation::Activation;
pub use condition::ConditionInput;
pub use forward::{TangentTrace, Tangents, Trace};
pub use jacobian::JacobianFactors;
pub use kernel::{Layer, LayerSums, MlpKernel, Modulated, Modulation};
pub use module::{Mlp, MlpConfig, MlpLayer};
