//! Couplings from their specs: values, log-dets, gradients, text.

mod common;
mod flows;
mod spec;
