//! Loops that run in the widest vector registers of the machine, without compiler flags, and the slice operations that
//! kernels share.
//!
//! A library is compiled for the oldest processor it may meet. [`vectorized!`](crate::vectorized) compiles a function
//! several times, for AVX-512, AVX2, NEON and the baseline, and picks at run time (by [pulp](https://docs.rs/pulp)). No
//! instruction set gives these loops another result than another: the compiler neither fuses nor reorders
//! floating-point operations, and the reductions here have a fixed order. Matrix products are another matter: see
//! [`mod@crate::matmul`].
//!
//! The environment variable `MIXERFLOW_SIMD` restricts what is picked ([`instruction_set`]).
//!
//! Dispatch costs a few nanoseconds, so a function should do a block's worth of work; dispatch inside of dispatch is
//! harmless. Everything that such a function calls in its loop must be `#[inline(always)]`, like the functions of
//! [`crate::scalar`].

use crate::real::Real;

#[doc(hidden)]
pub use crate::instruction_set::arch;
pub use crate::instruction_set::{RESTRICTION, UnknownSet, instruction_set};
#[doc(hidden)]
pub use pulp as __pulp;

/// Compiles functions for each instruction set and dispatches at run time.
///
/// A plain closure given to pulp will not do: it has three call sites, so LLVM does not inline a long one, and it
/// silently runs as baseline code. Here the body is inlined by force.
///
/// The syntax is that of functions with plain arguments and type parameters with at most one bound; an argument's type
/// may elide lifetimes, a result's may not.
///
/// ```
/// use flow_kernels::{scalar, vectorized, Real};
///
/// vectorized! {
///     /// `y[i] += σ(x[i])`.
///     pub fn add_sigmoid<E: Real>(y: &mut [E], x: &[E]) {
///         for (y, &x) in y.iter_mut().zip(x) {
///             *y += scalar::sigmoid(x);
///         }
///     }
/// }
///
/// let mut y = [1.0_f32; 3];
/// add_sigmoid(&mut y, &[0.0, 1e6, -1e6]);
/// assert_eq!(y, [1.5, 2.0, 1.0]);
/// ```
#[macro_export]
macro_rules! vectorized {
    ($(
        $(#[$attr:meta])*
        $vis:vis fn $name:ident $(<$($generic:ident $(: $bound:path)?),* $(,)?>)? ($($arg:ident: $ty:ty),* $(,)?) $(-> $out:ty)? $body:block
    )*) => {$(
        $(#[$attr])*
        $vis fn $name $(<$($generic $(: $bound)?),*>)? ($($arg: $ty),*) $(-> $out)? {
            struct Arguments<T>(T);
            impl $(<$($generic $(: $bound)?),*>)? $crate::simd::__pulp::WithSimd for Arguments<($($ty,)*)> {
                type Output = $crate::vectorized!(@output $($out)?);
                #[inline(always)]
                fn with_simd<AnySimd: $crate::simd::__pulp::Simd>(self, _: AnySimd) -> Self::Output {
                    let ($($arg,)*) = self.0;
                    $body
                }
            }
            $crate::simd::arch().dispatch(Arguments(($($arg,)*)))
        }
    )*};
    (@output) => { () };
    (@output $out:ty) => { $out };
}

vectorized! {
    /// `x[j, r] = x[j, r] · scale[j] + shift[j]`: the forward of an activation normalisation.
    ///
    /// # Panics
    /// If `lanes` is zero, and in debug builds if `block` is not `scale.len()` × `lanes`.
    pub fn scale_and_shift<E: Real>(block: &mut [E], scale: &[E], shift: &[E], lanes: usize) {
        debug_assert_eq!(block.len(), scale.len() * lanes, "block is features × lanes");
        debug_assert_eq!(scale.len(), shift.len());
        for (feature, (&scale, &shift)) in block.chunks_exact_mut(lanes).zip(scale.iter().zip(shift)) {
            for x in feature {
                *x = *x * scale + shift;
            }
        }
    }

    /// `y += x`.
    pub fn add<E: Real>(y: &mut [E], x: &[E]) {
        debug_assert_eq!(y.len(), x.len());
        for (y, &x) in y.iter_mut().zip(x) {
            *y += x;
        }
    }

    /// `y += a x`.
    pub fn axpy<E: Real>(y: &mut [E], a: E, x: &[E]) {
        debug_assert_eq!(y.len(), x.len());
        for (y, &x) in y.iter_mut().zip(x) {
            *y += a * x;
        }
    }

    /// `x = a x`.
    pub fn scale<E: Real>(x: &mut [E], a: E) {
        for x in x {
            *x *= a;
        }
    }

    /// Adds up the lanes of each feature: `y[j] += Σ_r x[j, r]`. The gradient of a bias.
    ///
    /// # Panics
    /// If `lanes` is zero.
    pub fn add_lanes<E: Real>(y: &mut [E], x: &[E], lanes: usize) {
        debug_assert_eq!(x.len(), y.len() * lanes, "x is features × lanes");
        for (y, feature) in y.iter_mut().zip(x.chunks_exact(lanes)) {
            *y += sum_here(feature);
        }
    }

    /// Adds up the products over the lanes of each feature: `z[j] += Σ_r x[j, r] y[j, r]`. The gradient of a scale.
    ///
    /// # Panics
    /// If `lanes` is zero.
    pub fn add_lane_products<E: Real>(z: &mut [E], x: &[E], y: &[E], lanes: usize) {
        debug_assert_eq!(x.len(), z.len() * lanes, "x is features × lanes");
        debug_assert_eq!(x.len(), y.len());
        for (z, (x, y)) in z.iter_mut().zip(x.chunks_exact(lanes).zip(y.chunks_exact(lanes))) {
            *z += lanewise(x, y, |x, y| x * y);
        }
    }

    /// `Σ x`, in the fixed order of [`WIDTH`] running sums.
    pub fn sum<E: Real>(x: &[E]) -> E {
        sum_here(x)
    }

    /// `Σ x y`, in the fixed order of [`WIDTH`] running sums.
    pub fn dot<E: Real>(x: &[E], y: &[E]) -> E {
        debug_assert_eq!(x.len(), y.len());
        lanewise(x, y, |x, y| x * y)
    }
}

/// `Σ x` in the order of [`sum`], to be inlined where the caller was dispatched already.
#[inline(always)]
pub fn sum_here<E: Real>(x: &[E]) -> E {
    lanewise(x, x, |x, _| x)
}

/// How many running sums a reduction keeps: element `i` is added to sum `i % WIDTH`, on every instruction set, so that
/// the result is one and the same everywhere. Two AVX-512 registers of f32.
pub const WIDTH: usize = 32;

/// `Σ f(x, y)` with [`WIDTH`] running sums, which are then added up as a binary tree; to be inlined where the caller
/// was dispatched already.
#[inline(always)]
pub fn lanewise<E: Real>(x: &[E], y: &[E], f: impl Fn(E, E) -> E) -> E {
    let mut sums = [E::zero(); WIDTH];
    let (xs, x_rest) = x.as_chunks::<WIDTH>();
    let (ys, y_rest) = y.as_chunks::<WIDTH>();
    for (x, y) in xs.iter().zip(ys) {
        // A loop that adds in place is taken apart into scalars before it is vectorised.
        sums = std::array::from_fn(|i| sums[i] + f(x[i], y[i]));
    }
    for ((sum, &x), &y) in sums.iter_mut().zip(x_rest).zip(y_rest) {
        *sum += f(x, y);
    }
    let mut width = WIDTH;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            let upper = sums[i + width];
            sums[i] += upper;
        }
    }
    sums[0]
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "results are exact")]
mod tests {
    use super::*;
    use crate::scalar;

    /// Small integers, whose sums are exact in any order.
    fn block(len: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 37 + 11) % 101) as f64 - 50.0).collect()
    }

    #[test]
    fn features_and_lanes_are_what_they_say() {
        for (features, lanes) in [(1, 1), (3, 5), (4, 32), (5, 33), (2, 100)] {
            let x = block(features * lanes);
            let at = |j: usize, r: usize| x[j * lanes + r];
            let (scales, shifts) = (block(features), block(2 * features)[features..].to_vec());

            let y = block(features * lanes + 3)[3..].to_vec();
            let mut z = x.clone();
            scale_and_shift(&mut z, &scales, &shifts, lanes);
            let mut per_feature = vec![1.0; features];
            add_lanes(&mut per_feature, &x, lanes);
            let mut products = vec![1.0; features];
            add_lane_products(&mut products, &x, &y, lanes);

            for j in 0..features {
                for r in 0..lanes {
                    assert_eq!(z[j * lanes + r], at(j, r) * scales[j] + shifts[j]);
                }
                assert_eq!(per_feature[j], 1.0 + (0..lanes).map(|r| at(j, r)).sum::<f64>());
                assert_eq!(products[j], 1.0 + (0..lanes).map(|r| at(j, r) * y[j * lanes + r]).sum::<f64>());
            }
        }
    }

    #[test]
    fn flat_operations_and_reductions() {
        for len in [0, 1, 31, 32, 33, 1000] {
            let (x, y) = (block(len), block(len + 7)[7..].to_vec());
            assert_eq!(sum(&x), x.iter().sum::<f64>());
            assert_eq!(dot(&x, &y), x.iter().zip(&y).map(|(x, y)| x * y).sum::<f64>());
            let mut z = y.clone();
            axpy(&mut z, 3.0, &x);
            add(&mut z, &x);
            scale(&mut z, 2.0);
            assert!((0..len).all(|i| z[i] == 2.0 * (y[i] + 4.0 * x[i])));
        }
    }

    vectorized! {
        fn elementary(y: &mut [[f32; 4]], x: &[f32]) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = [scalar::exp(x), scalar::tanh(x), scalar::ln(x.abs()), scalar::softplus(x)];
            }
        }
    }

    #[test]
    fn dispatched_code_gives_the_bits_of_baseline_code() {
        let x: Vec<f32> = (0..10_000).map(|i| i as f32 * 0.0213 - 100.0).collect();
        let mut dispatched = vec![[0.0; 4]; x.len()];
        elementary(&mut dispatched, &x);
        for (&x, dispatched) in x.iter().zip(dispatched) {
            let x = std::hint::black_box(x);
            let baseline = [scalar::exp(x), scalar::tanh(x), scalar::ln(x.abs()), scalar::softplus(x)];
            assert_eq!(dispatched.map(f32::to_bits), baseline.map(f32::to_bits), "at {x}");
        }
    }

    #[test]
    fn the_order_of_a_reduction_is_fixed() {
        // One term a running sum, so the result shows the tree: neighbours half the width apart come first.
        let mut x = [0.0_f32; WIDTH];
        (x[0], x[16], x[1]) = (1e8, -1e8, 1.0);
        assert_eq!(sum(&x), 1.0);
        (x[0], x[16], x[1]) = (1e8, 1.0, -1e8);
        assert_eq!(sum(&x), 0.0);
    }
}
