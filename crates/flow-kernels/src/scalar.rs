//! The number types of the host kernels.

use num_traits::{Float, FloatConst, FromPrimitive, NumAssign, ToPrimitive};
use std::fmt::{Debug, Display};

/// `f32` or `f64`.
pub trait Real:
    Float
    + FloatConst
    + NumAssign
    + FromPrimitive
    + ToPrimitive
    + faer::traits::RealField
    + Copy
    + Default
    + Debug
    + Display
    + Send
    + Sync
    + std::iter::Sum
    + 'static
{
    /// The nearest value of this type.
    fn of(value: f64) -> Self;
    /// As `f64`.
    fn as_f64(self) -> f64;
}
macro_rules! real { ($($t:ty),*) => { $(impl Real for $t {
    fn of(value: f64) -> Self { value as $t }
    fn as_f64(self) -> f64 { self as f64 }
})* } }
real!(f32, f64);
