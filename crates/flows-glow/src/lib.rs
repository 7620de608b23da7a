//! Glow: flows of images by convolutions (Kingma & Dhariwal, arXiv:1807.03039).
//!
//! Its parts are maps of whole samples that any list can name, in [`spec`]: `Conv1x1()`, an invertible 1×1 convolution;
//! `ConvCoupling(…)`, a coupling of channels whose conditioner sees the neighbours of a pixel; `FactorOut(…)`, which
//! lets half of the channels go to the latents with a prior that the other half gives. With `Squeeze()` and `ActNorm()`
//! of [`flow_api::spec`] they make a model `ImageFlow(flows: […])`; [`spec::Glow`] puts them together as the paper
//! does, and with `Spline` couplings and residual networks it is RQ-NSF (C) (Durkan et al., arXiv:1906.04032).
//!
//! No image is ever squeezed or split in memory: all parts work on [`Grid`](flow_api::samples::Grid)s of the one event,
//! and a latent lies where the event's numbers lie.

mod coupling;
pub mod spec;

pub use coupling::conv_coupling;
