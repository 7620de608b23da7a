//! Composition: static ([`Then`]), backwards ([`InverseOf`]), for one shape type ([`Pinned`]), boxed.

mod boxed;
#[cfg(feature = "linalg")]
mod inverse_of;
mod pinned;
mod then;

#[cfg(feature = "linalg")]
pub use inverse_of::InverseOf;
pub use pinned::Pinned;
pub use then::Then;
