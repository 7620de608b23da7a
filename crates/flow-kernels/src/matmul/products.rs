//! The products of each number type, compiled for every instruction set.

use crate::instruction_set::arch;
use crate::vector::Vectors;

use super::dots::Dots;
use super::tile::Strip;
use super::transpose::Transpose;

/// The parts of a product. Here and not generic, so that they are compiled once, with the settings of this crate, and
/// not by every user.
///
/// The public can see this trait as a bound of [`Real`](crate::Real) but cannot name it.
#[doc(hidden)]
pub trait Products: Vectors {
    /// Computes some rows of a product.
    fn multiply(strip: Strip<'_, Self>);

    /// Computes dot products.
    fn dots(dots: Dots<'_, Self>);

    /// Turns rows into columns.
    fn turn(rows: Transpose<'_, Self>);
}

impl Products for f32 {
    #[inline(never)]
    fn multiply(strip: Strip<'_, Self>) {
        arch().dispatch(strip);
    }

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
}

impl Products for f64 {
    #[inline(never)]
    fn multiply(strip: Strip<'_, Self>) {
        arch().dispatch(strip);
    }

    #[inline(never)]
    fn turn(rows: Transpose<'_, Self>) {
        arch().dispatch(rows);
    }

    #[inline(never)]
    fn dots(dots: Dots<'_, Self>) {
        arch().dispatch(dots);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::dots::{Dots, Fold};
    use super::super::transpose::{SIDE, Square, Transpose};
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
