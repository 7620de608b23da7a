//! Vector registers of a number type, for the kernels that say themselves what lies in a register.

use num_traits::Float;
use pulp::{Simd, WithSimd};

use crate::instruction_set::arch;

/// What the products need of a register of `Self`, on any instruction set.
///
/// The public can see this trait as a bound of [`Real`](crate::Real) but cannot name it.
#[doc(hidden)]
pub trait Vectors: Float + 'static {
    /// A register.
    type Vector<S: Simd>: Copy;

    /// Numbers in a register.
    fn lanes<S: Simd>() -> usize;

    /// `x` in every lane.
    fn splat<S: Simd>(simd: S, x: Self) -> Self::Vector<S>;

    /// `a b + c`, fused where the machine does that.
    fn multiply_add<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>, c: Self::Vector<S>) -> Self::Vector<S>;

    /// `a + b`.
    fn plus<S: Simd>(simd: S, a: Self::Vector<S>, b: Self::Vector<S>) -> Self::Vector<S>;

    /// The sum of the lanes.
    fn sum_of<S: Simd>(simd: S, x: Self::Vector<S>) -> Self;

    /// A slice as registers, without what is left over at its end.
    fn registers<S: Simd>(x: &[Self]) -> &[Self::Vector<S>];

    /// As [`Vectors::registers`], to be written.
    fn registers_mut<S: Simd>(x: &mut [Self]) -> &mut [Self::Vector<S>];

    /// A register from fewer numbers than it has lanes; zero in the others.
    fn load_part<S: Simd>(simd: S, x: &[Self]) -> Self::Vector<S>;

    /// The first lanes of a register into fewer numbers than it has.
    fn store_part<S: Simd>(simd: S, x: &mut [Self], register: Self::Vector<S>);

    /// Numbers in a register of this machine.
    fn lanes_here() -> usize;
}

macro_rules! impl_vectors {
    ($float:ident: $vector:ident, $lanes:ident, $splat:ident, $multiply_add:ident, $plus:ident, $sum:ident, $registers:ident, $registers_mut:ident, $load:ident, $store:ident) => {
        impl Vectors for $float {
            type Vector<S: Simd> = S::$vector;

            #[inline(always)]
            fn lanes<S: Simd>() -> usize {
                S::$lanes
            }

            #[inline(always)]
            fn splat<S: Simd>(simd: S, x: Self) -> S::$vector {
                simd.$splat(x)
            }

            #[inline(always)]
            fn multiply_add<S: Simd>(simd: S, a: S::$vector, b: S::$vector, c: S::$vector) -> S::$vector {
                simd.$multiply_add(a, b, c)
            }

            #[inline(always)]
            fn plus<S: Simd>(simd: S, a: S::$vector, b: S::$vector) -> S::$vector {
                simd.$plus(a, b)
            }

            #[inline(always)]
            fn sum_of<S: Simd>(simd: S, x: S::$vector) -> Self {
                simd.$sum(x)
            }

            #[inline(always)]
            fn registers<S: Simd>(x: &[Self]) -> &[S::$vector] {
                S::$registers(x).0
            }

            #[inline(always)]
            fn registers_mut<S: Simd>(x: &mut [Self]) -> &mut [S::$vector] {
                S::$registers_mut(x).0
            }

            #[inline(always)]
            fn load_part<S: Simd>(simd: S, x: &[Self]) -> S::$vector {
                simd.$load(x)
            }

            #[inline(always)]
            fn store_part<S: Simd>(simd: S, x: &mut [Self], register: S::$vector) {
                simd.$store(x, register);
            }

            fn lanes_here() -> usize {
                struct Lanes;
                impl WithSimd for Lanes {
                    type Output = usize;
                    #[inline(always)]
                    fn with_simd<S: Simd>(self, _: S) -> usize {
                        S::$lanes
                    }
                }
                arch().dispatch(Lanes)
            }
        }
    };
}

impl_vectors!(f32: f32s, F32_LANES, splat_f32s, mul_add_e_f32s, add_f32s, reduce_sum_f32s, as_simd_f32s, as_mut_simd_f32s, partial_load_f32s, partial_store_f32s);
impl_vectors!(f64: f64s, F64_LANES, splat_f64s, mul_add_e_f64s, add_f64s, reduce_sum_f64s, as_simd_f64s, as_mut_simd_f64s, partial_load_f64s, partial_store_f64s);
