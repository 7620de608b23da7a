//! Composition: static ([`Then`]), backwards ([`InverseOf`]), for one shape type ([`Pinned`]), boxed.

mod boxed;
mod inverse_of;
mod pinned;
mod then;

pub use inverse_of::InverseOf;
pub use pinned::Pinned;
pub use then::Then;
