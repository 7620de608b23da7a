//! Composition: static ([`Then`]), dynamic ([`Chain`]), backwards ([`InverseOf`]), for one shape type ([`Pinned`]), boxed.

mod boxed;
mod chain;
mod inverse_of;
mod pinned;
mod then;

pub use chain::Chain;
pub use inverse_of::InverseOf;
pub use pinned::Pinned;
pub use then::Then;
