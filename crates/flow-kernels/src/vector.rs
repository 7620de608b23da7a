//! Vector registers of a number type, for the kernels that say themselves what lies in a register.

use pulp::{Simd, WithSimd};

use crate::matmul::{Dots, Strip, Transpose};
use crate::simd::arch;

/// What the products need of a register of `Self`, on any instruction set.
///
/// The public can see this trait as a bound of [`Real`](crate::Real) but cannot name it.
#[doc(hidden)]
pub trait Vectors: Sized + Copy + 'static {
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

    /// Computes some rows of a product. Here and not generic, so that it is compiled once, with the settings of this
    /// crate, and not by every user.
    fn multiply(strip: Strip<'_, Self>);

    /// Computes dot products; as [`Vectors::multiply`].
    fn dots(dots: Dots<'_, Self>);

    /// Turns rows into columns; as [`Vectors::multiply`].
    fn turn(rows: Transpose<'_, Self>);
}

macro_rules! impl_vectors {
    ($float:ident: $vector:ident, $lanes:ident, $splat:ident, $multiply_add:ident, $plus:ident, $sum:ident, $registers:ident, $registers_mut:ident, $load:ident, $store:ident, $($compiled:item)*) => {
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

            #[inline(never)]
            fn multiply(strip: Strip<'_, Self>) {
                arch().dispatch(strip);
            }

            $($compiled)*
        }
    };
}

impl_vectors!(f32: f32s, F32_LANES, splat_f32s, mul_add_e_f32s, add_f32s, reduce_sum_f32s, as_simd_f32s, as_mut_simd_f32s, partial_load_f32s, partial_store_f32s,
    #[inline(never)]
    fn turn(rows: Transpose<'_, Self>) {
        // Left to itself the compiler moves one number at a time, which takes several times as long.
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new().filter(|_| !matches!(arch(), pulp::Arch::Scalar)) {
            return simd.vectorize(x86::Turn { simd, rows });
        }
        arch().dispatch(rows);
    }
    #[inline(never)]
    fn dots(dots: Dots<'_, Self>) {
        #[cfg(target_arch = "x86_64")]
        if let pulp::Arch::V4(simd) = arch() {
            return simd.vectorize(x86::FoldDots { simd, dots });
        }
        arch().dispatch(dots);
    }
);
impl_vectors!(f64: f64s, F64_LANES, splat_f64s, mul_add_e_f64s, add_f64s, reduce_sum_f64s, as_simd_f64s, as_mut_simd_f64s, partial_load_f64s, partial_store_f64s,
    #[inline(never)]
    fn turn(rows: Transpose<'_, Self>) {
        arch().dispatch(rows);
    }
    #[inline(never)]
    fn dots(dots: Dots<'_, Self>) {
        arch().dispatch(dots);
    }
);

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::matmul::{Dots, Fold, SIDE, Square, Transpose};
    use pulp::x86::{V3, V4};
    use pulp::{NullaryFnOnce, Simd, cast};
    use std::arch::x86_64::{__m256, __m512};

    /// Quarters 0 and 1 of both operands, or their numbers of these places.
    const LOWER: i32 = 0b01_00_01_00;
    /// Quarters 2 and 3.
    const UPPER: i32 = 0b11_10_11_10;

    /// A transpose by AVX's shuffles.
    pub(super) struct Turn<'a> {
        pub(super) simd: V3,
        pub(super) rows: Transpose<'a, f32>,
    }

    impl NullaryFnOnce for Turn<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, rows } = self;
            rows.by(|rows| square(simd, rows));
        }
    }

    #[inline(always)]
    fn square(simd: V3, rows: Square<f32>) -> Square<f32> {
        let [a, b, c, d] = half(simd, &rows, 0);
        let [e, f, g, h] = half(simd, &rows, SIDE / 2);
        [a, b, c, d, e, f, g, h]
    }

    /// Four columns from `from` on. A register has four numbers of a row and those of the row four below it, so that
    /// both halves of it are turned together.
    #[inline(always)]
    fn half(simd: V3, rows: &Square<f32>, from: usize) -> [[f32; SIDE]; SIDE / 2] {
        let avx = simd.avx;
        // Written out: behind closures the registers would go through memory.
        let (a, b) = (pair(&rows[0], &rows[4], from), pair(&rows[1], &rows[5], from));
        let (c, d) = (pair(&rows[2], &rows[6], from), pair(&rows[3], &rows[7], from));
        let (low_ab, high_ab) = (avx._mm256_unpacklo_ps(a, b), avx._mm256_unpackhi_ps(a, b));
        let (low_cd, high_cd) = (avx._mm256_unpacklo_ps(c, d), avx._mm256_unpackhi_ps(c, d));
        [
            cast(avx._mm256_shuffle_ps::<LOWER>(low_ab, low_cd)),
            cast(avx._mm256_shuffle_ps::<UPPER>(low_ab, low_cd)),
            cast(avx._mm256_shuffle_ps::<LOWER>(high_ab, high_cd)),
            cast(avx._mm256_shuffle_ps::<UPPER>(high_ab, high_cd)),
        ]
    }

    #[inline(always)]
    fn pair(upper: &[f32; SIDE], lower: &[f32; SIDE], from: usize) -> __m256 {
        cast([
            [upper[from], upper[from + 1], upper[from + 2], upper[from + 3]],
            [lower[from], lower[from + 1], lower[from + 2], lower[from + 3]],
        ])
    }

    /// Dot products by AVX-512, sixteen registers folded into one at once.
    pub(super) struct FoldDots<'a> {
        pub(super) simd: V4,
        pub(super) dots: Dots<'a, f32>,
    }

    impl NullaryFnOnce for FoldDots<'_> {
        type Output = ();

        #[inline(always)]
        fn call(self) {
            let Self { simd, dots } = self;
            dots.by::<V4, 16>(simd, AtOnce);
        }
    }

    #[derive(Clone, Copy)]
    struct AtOnce;

    impl Fold<V4, f32, 16> for AtOnce {
        #[inline(always)]
        fn fold(self, simd: V4, sums: [<V4 as Simd>::f32s; 16]) -> [f32; 16] {
            let avx = simd.avx512f;
            let sums: [__m512; 16] = cast(sums);
            let (q, r) = (quarters(simd, sums, 0), quarters(simd, sums, 1));
            let (s, t) = (quarters(simd, sums, 2), quarters(simd, sums, 3));
            let u = avx._mm512_add_ps(avx._mm512_unpacklo_ps(q, r), avx._mm512_unpackhi_ps(q, r));
            let v = avx._mm512_add_ps(avx._mm512_unpacklo_ps(s, t), avx._mm512_unpackhi_ps(s, t));
            cast(avx._mm512_add_ps(avx._mm512_shuffle_ps::<LOWER>(u, v), avx._mm512_shuffle_ps::<UPPER>(u, v)))
        }
    }

    /// The sum of the quarters of registers i, i + 4, i + 8 and i + 12, each in its quarter.
    #[inline(always)]
    fn quarters(simd: V4, sums: [__m512; 16], i: usize) -> __m512 {
        let (x, y) = (halves(simd, sums[i], sums[i + 4]), halves(simd, sums[i + 8], sums[i + 12]));
        let avx = simd.avx512f;
        avx._mm512_add_ps(avx._mm512_shuffle_f32x4::<0b10_00_10_00>(x, y), avx._mm512_shuffle_f32x4::<0b11_01_11_01>(x, y))
    }

    /// The sum of the halves of each register, in its half.
    #[inline(always)]
    fn halves(simd: V4, x: __m512, y: __m512) -> __m512 {
        let avx = simd.avx512f;
        avx._mm512_add_ps(avx._mm512_shuffle_f32x4::<LOWER>(x, y), avx._mm512_shuffle_f32x4::<UPPER>(x, y))
    }
}
