//! Spectral norms by power iteration, and weights that are divided by them.

use faer::{Mat, Side};
use flow_kernels::Real;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::noise::Stream;
use flow_kernels::simd::{axpy, dot, scale};
use num_traits::Float;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// How far the power iteration goes whenever the weights have changed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerIteration {
    /// It stops when ‖Wᵀu − σv‖ ≤ tolerance · σ and no singular value is above (1 + tolerance) σ, which a Cholesky
    /// factorisation makes sure of. Taken to be at most (1/c − 1)/2 for a coefficient c, so that c (1 + tolerance)
    /// stays below 1. Default 1e-3.
    pub tolerance: f64,
    /// And after so many iterations, where the largest singular value is taken from a decomposition instead.
    /// Default 200.
    pub iterations: usize,
}

impl Default for PowerIteration {
    fn default() -> Self {
        Self { tolerance: 1e-3, iterations: 200 }
    }
}

/// The number of largest size in a weight that has no norm: NaN, infinite, or too large to be squared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct BadWeight(pub(crate) f64);

/// Iterations at creation, at the least: weights that nothing is known of.
pub(crate) const AT_CREATION: usize = 200;

/// Iterations between two factorisations that tell whether a singular value is above the bound.
const CHECKED_EVERY: usize = 4;

/// Vectors that are iterated side by side.
pub(crate) const VECTORS: usize = 4;

/// The largest singular value σ of a weight W (out × in), by a power iteration that goes on from one set of weights to
/// the next.
///
/// # The iteration
/// Plain power iteration, u ← Wv/‖Wv‖, v ← Wᵀu/‖Wᵀu‖ (Miyato et al. 2018, arXiv:1802.05957, section 2.1), is slow where
/// the largest singular values are close, as they are in random matrices, and does not notice when another singular
/// value overtakes the one that it has settled on. So a few orthonormal vectors v are iterated side by side, and the
/// best combination of them is taken (Rayleigh-Ritz): v = v₁ and u belong to the largest. The last of the vectors
/// starts anew, at random, whenever the weights have changed, so that no direction stays unseen.
///
/// # The bound
/// An iteration finds σ from below. That no singular value is above b = (1 + tolerance) σ is known once `b² I − WᵀW`
/// has a Cholesky factorisation (up to rounding); where it has none the iteration goes on, and at its end a
/// decomposition takes its place. Beside a training step it costs nothing that could be measured: 2.7 s of processor
/// time with it and without it for 12 steps of `specs/digits-residual.ron`.
///
/// # State
/// `u` (out), `v` (vectors × in, v₁ first) and `weights`, a hash of the weights that they belong to. While the weights
/// are the same bits, nothing is done: a loaded model has the very σ that it was saved with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SpectralNorm<E> {
    pub(crate) u: Vec<E>,
    pub(crate) v: Vec<E>,
    pub(crate) hash: [usize; 1],
}

impl<E: Real> SpectralNorm<E> {
    /// The norm of `weight`, with many iterations, and no singular value more than `tolerance` above it.
    pub(crate) fn new(weight: &[E], rows: usize, tolerance: f64) -> Result<Self, BadWeight> {
        let cols = weight.len() / rows;
        let vectors = VECTORS.min(rows).min(cols);
        let mut v = vec![E::zero(); vectors * cols];
        random(&mut v, 0);
        orthonormalise(&mut v, cols, 0);
        let mut norm = Self { u: vec![E::zero(); rows], v, hash: [0] };
        let settled = PowerIteration { tolerance: 16.0 * E::epsilon().as_f64(), iterations: AT_CREATION };
        norm.iterate(weight, settled, tolerance, hash(weight))?;
        Ok(norm)
    }

    /// Brings u and v up to date: at least one iteration if the weights have changed, none otherwise.
    ///
    /// # Errors
    /// [`BadWeight`] for weights that are no numbers, or whose squares overflow.
    pub(crate) fn refresh(&mut self, weight: &[E], settings: PowerIteration) -> Result<(), BadWeight> {
        let hash = hash(weight);
        if self.hash == [hash] { Ok(()) } else { self.iterate(weight, settings, settings.tolerance, hash) }
    }

    /// Iterates until σ has settled and no singular value is above (1 + `above`) σ.
    fn iterate(&mut self, weight: &[E], settings: PowerIteration, above: f64, hash: usize) -> Result<(), BadWeight> {
        let (rows, cols) = (self.u.len(), weight.len() / self.u.len());
        let vectors = self.v.len() / cols;
        let weights = Operand::new(weight, rows, cols);
        let tolerance = E::of(settings.tolerance);
        if vectors > 1 {
            random(&mut self.v[(vectors - 1) * cols..], hash);
        }
        orthonormalise(&mut self.v, cols, hash);
        let mut images = vec![E::zero(); vectors * rows];
        let mut next = vec![E::zero(); vectors * cols];
        let mut check_at = 1;
        for iteration in 0.. {
            matmul(&mut images, Accumulate::Replace, Operand::new(&self.v, vectors, cols), weights.transposed());
            if !rayleigh_ritz(&mut images, &mut self.v, vectors) {
                // Written so that NaN stays.
                let larger = |largest: E, w: E| if w > largest || Float::is_nan(w) { w } else { largest };
                let largest = weight.iter().map(|&w| Float::abs(w)).fold(E::zero(), larger);
                return Err(BadWeight(largest.as_f64()));
            }
            let image = &images[..rows];
            let sigma = Float::sqrt(dot(image, image));
            // A weight of zeros has no direction: any v will do.
            if sigma > E::zero() {
                scale(&mut images, E::one() / sigma);
            }
            self.u.copy_from_slice(&images[..rows]);
            matmul(&mut next, Accumulate::Replace, Operand::new(&images, vectors, rows), weights);
            // next₁ = WᵀW v₁ / σ = Wᵀu.
            let mut residual = next[..cols].to_vec();
            axpy(&mut residual, -sigma, &self.v[..cols]);
            let converged = Float::sqrt(dot(&residual, &residual)) <= tolerance * sigma;
            let ends = iteration >= settings.iterations.max(1);
            if ends || (iteration >= check_at && (converged || check_at > 1)) {
                if is_bound(weight, rows, sigma * E::of(1.0 + above)) {
                    break;
                }
                if ends {
                    self.decompose(weight);
                    break;
                }
                check_at = iteration + CHECKED_EVERY;
            }
            std::mem::swap(&mut self.v, &mut next);
            orthonormalise(&mut self.v, cols, hash);
        }
        self.hash = [hash];
        Ok(())
    }

    /// Takes u and v₁ from the eigenvectors of the smaller one of `WᵀW` and `WWᵀ`.
    fn decompose(&mut self, weight: &[E]) {
        let (rows, cols) = (self.u.len(), weight.len() / self.u.len());
        let Some(gram) = Gram::new(weight, rows, E::one() / self.sigma(weight)) else { return };
        let Ok(eigen) = gram.matrix().self_adjoint_eigen(Side::Lower) else { return };
        // Eigenvalues ascend.
        let largest = |i: usize| E::of(eigen.U()[(i, gram.dim - 1)]);
        let Self { u, v, .. } = self;
        let weights = Operand::new(weight, rows, cols);
        if gram.dim == cols {
            v[..cols].iter_mut().enumerate().for_each(|(i, v)| *v = largest(i));
            matmul(u, Accumulate::Replace, weights, Operand::new(&v[..cols], cols, 1));
            normalise(u);
        } else {
            u.iter_mut().enumerate().for_each(|(i, u)| *u = largest(i));
            matmul(&mut v[..cols], Accumulate::Replace, Operand::new(u, 1, rows), weights);
            normalise(&mut v[..cols]);
        }
    }

    /// v₁.
    pub(crate) fn right(&self, cols: usize) -> &[E] {
        &self.v[..cols]
    }

    /// σ = uᵀ W v.
    pub(crate) fn sigma(&self, weight: &[E]) -> E {
        let cols = weight.len() / self.u.len();
        let image = weight.chunks_exact(cols).map(|row| dot(row, self.right(cols)));
        image.zip(&self.u).map(|(image, &u)| image * u).sum()
    }

    /// W / max(1, σ/c).
    pub(crate) fn normalised<'a>(&self, weight: &'a [E], coefficient: E) -> Cow<'a, [E]> {
        let sigma = self.sigma(weight);
        if sigma <= coefficient {
            return weight.into();
        }
        let factor = coefficient / sigma;
        weight.iter().map(|&w| factor * w).collect::<Vec<_>>().into()
    }

    /// Adds ∂L/∂W, given ∂L/∂(W / max(1, σ/c)), where ∂σ/∂W = u vᵀ: (c/σ) (G − ⟨G, W⟩/σ · u vᵀ) if σ > c, else G.
    pub(crate) fn add_gradient(&self, weight: &[E], coefficient: E, normalised: &[E], gradient: &mut [E]) {
        let sigma = self.sigma(weight);
        if sigma <= coefficient {
            axpy(gradient, E::one(), normalised);
            return;
        }
        let factor = coefficient / sigma;
        axpy(gradient, factor, normalised);
        let along = factor * dot(normalised, weight) / sigma;
        let cols = weight.len() / self.u.len();
        for (row, &u) in gradient.chunks_exact_mut(cols).zip(&self.u) {
            axpy(row, -along * u, self.right(cols));
        }
    }
}

/// The smaller one of `BᵀB` and `BBᵀ` for B = scale · W.
struct Gram<E> {
    dim: usize,
    values: Vec<E>,
}

impl<E: Real> Gram<E> {
    /// None where it is not finite.
    fn new(weight: &[E], rows: usize, factor: E) -> Option<Self> {
        let cols = weight.len() / rows;
        let mut scaled = weight.to_vec();
        scale(&mut scaled, factor);
        let scaled = Operand::new(&scaled, rows, cols);
        let dim = rows.min(cols);
        let mut values = vec![E::zero(); dim * dim];
        let (left, right) = if rows < cols { (scaled, scaled.transposed()) } else { (scaled.transposed(), scaled) };
        matmul(&mut values, Accumulate::Replace, left, right);
        values.iter().all(|g| Float::is_finite(*g)).then_some(Self { dim, values })
    }

    fn matrix(&self) -> Mat<f64> {
        Mat::from_fn(self.dim, self.dim, |i, j| self.values[i * self.dim + j].as_f64())
    }
}

/// Whether no singular value of W is above the bound, up to the rounding of the number type.
fn is_bound<E: Real>(weight: &[E], rows: usize, bound: E) -> bool {
    if bound <= E::zero() {
        return weight.iter().all(|w| *w == E::zero());
    }
    let Some(gram) = Gram::new(weight, rows, E::one() / bound) else { return false };
    let rounding = 8.0 * rows.max(weight.len() / rows) as f64 * E::epsilon().as_f64();
    let mut rest = -gram.matrix();
    (0..gram.dim).for_each(|i| rest[(i, i)] += 1.0 + rounding);
    rest.llt(Side::Lower).is_ok()
}

/// Divides by the length.
fn normalise<E: Real>(x: &mut [E]) {
    let length = Float::sqrt(dot(x, x));
    scale(x, E::one() / length);
}

/// Rotates the vectors v (and their images W v) among themselves so that they are sorted by ‖W v‖, the first one with
/// the largest that any combination has; false, and nothing done, where ‖W v‖² is not finite.
fn rayleigh_ritz<E: Real>(images: &mut [E], v: &mut [E], vectors: usize) -> bool {
    let image = |i: usize| &images[i * images.len() / vectors..][..images.len() / vectors];
    let gram = Mat::from_fn(vectors, vectors, |i, j| dot(image(i), image(j)).as_f64());
    if (0..vectors).any(|i| !gram[(i, i)].is_finite()) {
        return false;
    }
    let Ok(eigen) = gram.self_adjoint_eigen(Side::Lower) else { return false };
    // Eigenvalues ascend.
    let rotation: Vec<E> = (0..vectors * vectors).map(|at| E::of(eigen.U()[(at % vectors, vectors - 1 - at / vectors)])).collect();
    for x in [images, v] {
        let old = x.to_vec();
        let len = old.len() / vectors;
        matmul(x, Accumulate::Replace, Operand::new(&rotation, vectors, vectors), Operand::new(&old, vectors, len));
    }
    true
}

/// Makes rows orthonormal, the first ones first; a row that is nothing but a combination of those before it starts anew
/// at random.
fn orthonormalise<E: Real>(rows: &mut [E], len: usize, seed: usize) {
    for i in 0..rows.len() / len {
        let (before, row) = rows.split_at_mut(i * len);
        let row = &mut row[..len];
        for attempt in 0.. {
            let size = Float::sqrt(dot(row, row));
            scale(row, E::one() / size);
            // Twice is enough (Giraud et al. 2005): what the first pass leaves of rounding, the second one takes.
            for _ in 0..2 {
                for other in before.chunks_exact(len) {
                    let along = dot(row, other);
                    axpy(row, -along, other);
                }
            }
            let left = Float::sqrt(dot(row, row));
            if left > E::of(64.0) * E::epsilon() || attempt == ATTEMPTS {
                scale(row, E::one() / left);
                break;
            }
            random(row, seed.wrapping_add(i * (ATTEMPTS + 1) + attempt));
        }
    }
}

/// Random rows to be tried, all of which would have to lie in the span of fewer others than there are dimensions.
const ATTEMPTS: usize = 8;

fn random<E: Real>(out: &mut [E], seed: usize) {
    Stream::new(seed as u64, 0, "spectral norm").row(0).gaussian(out);
}

/// A hash of the weights' bits (FNV-1a on whole numbers), of 32 bits, so that any machine can hold it; never 0, which
/// is "no weights yet".
fn hash<E: Real>(weight: &[E]) -> usize {
    let hash = weight.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, w| {
        let mixed = (hash ^ w.as_f64().to_bits()).wrapping_mul(0x0000_0100_0000_01b3);
        mixed ^ (mixed >> 29)
    });
    ((hash >> 32) as usize).max(1)
}
