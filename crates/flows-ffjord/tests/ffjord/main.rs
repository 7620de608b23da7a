//! Continuous flows against closed forms, finite differences, `PyTorch` and torchdiffeq.

mod common;
mod conformance;
mod flows;
mod golden;
mod gradients;
mod solvers;
mod specs;
mod traces;
