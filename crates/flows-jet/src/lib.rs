//! Couplings of whole images by networks of tokens (Kolesnikov et al., "Jet: a modern transformer-based normalizing
//! flow", arXiv:2412.15129).
//!
//! The places of a grid are tokens, such as the patches of an image behind a squeeze or those of a mixing layer. A
//! [`token_coupling`] lets some channels of all places pass, or all channels of some places, and moves the others by
//! what a vision transformer or an MLP-Mixer makes of all that passes. It is a map of whole samples that any list can
//! name,
//! `TokenCoupling(…)`: in `ImageFlow(flows: […])` it makes a Jet, in the slot `whole` of a `MixerFlow` a mixing layer
//! that sees the whole matrix.

mod coupling;
pub mod spec;
mod split;

pub use coupling::{TokenConditioner, token_coupling};
pub use split::TokenSplit;
