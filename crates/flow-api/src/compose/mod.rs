//! Composition: static ([`Then`]), dynamic ([`Chain`]), backwards ([`InverseOf`]), boxed.

mod boxed;
mod chain;
mod inverse_of;
mod then;

pub use chain::Chain;
pub use inverse_of::InverseOf;
pub use then::Then;
