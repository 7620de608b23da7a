//! Autoregressive flows from their specs: values, log-dets, gradients, inverses, text.

mod common;
mod flows;
mod spec;
