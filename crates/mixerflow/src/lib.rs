//! `MixerFlow`: an MLP-Mixer made invertible (English, Kirchler & Lippert, arXiv:2310.16777).
//!
//! An image of c × H × W is cut into N = HW/P² patches of C = cP² numbers each: the mixer matrix, N × C. Layer by layer
//! a *channel flow* on R^C transforms every row (one patch) and a *patch flow* on R^N every column (one number of all
//! patches), each with the same parameters for all rows or columns. Every k-th layer works on the patches of the image
//! without a frame, so that what was a patch border lies inside a patch.
//!
//! Any [`RowFlow`](flow_api::RowFlow) plugs in on either side. Neither cutting into patches nor transposing is ever
//! carried out: both sides are [`RowView`](flow_api::rows::RowView)s of the image.

mod patches;
mod spec;

pub use patches::{ImageShape, Patches, Patchify};
pub use spec::{Levels, MixerFlow, Shift, Turns};
