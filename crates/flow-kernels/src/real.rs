//! The number type that all kernels are generic over.

use std::fmt::{Debug, Display};
use std::iter::Sum;

use num_traits::FromPrimitive;

use crate::matmul::Products;
use crate::scalar::Elementary;
use crate::workspace::Pooled;

/// A floating-point type that kernels compute in: `f32` or `f64`.
///
/// It adds to the numeric traits what the elementary functions of [`mod@crate::scalar`], the matrix products of
/// [`mod@crate::matmul`] and the pools of [`crate::workspace`] need, and is sealed.
pub trait Real: Elementary + FromPrimitive + Field + Default + Debug + Display + Sum + Send + Sync + Pooled + Products {
    /// The number nearest to `x`.
    #[inline(always)]
    fn of(x: f64) -> Self {
        Self::nearest(x)
    }

    /// The same value as `f64`: exact.
    fn as_f64(self) -> f64;
}

/// What dense linear algebra asks of a number type, with the feature `linalg`; without, nothing.
///
/// The public can see this trait as a bound of [`Real`] but cannot name it.
#[cfg(feature = "linalg")]
#[doc(hidden)]
pub trait Field: faer::traits::RealField {}

/// What dense linear algebra asks of a number type, with the feature `linalg`; without, nothing.
#[cfg(not(feature = "linalg"))]
#[doc(hidden)]
pub trait Field {}

macro_rules! impl_real {
    ($($float:ident),*) => {$(
        impl Field for $float {}

        impl Real for $float {
            #[inline(always)]
            fn as_f64(self) -> f64 {
                f64::from(self)
            }
        }
    )*};
}
impl_real!(f32, f64);
