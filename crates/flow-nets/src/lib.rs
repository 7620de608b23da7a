//! Conditioner networks that the flow families share, with explicit derivatives.

pub mod smooth;
