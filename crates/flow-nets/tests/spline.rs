//! The spline where splines break: at knots, at the ends of the interval, in the tails, with extreme numbers.

use flow_api::Scalar;
use flow_api::rows::{Real, RowTape};
use flow_kernels::noise::Stream;
use flow_kernels::workspace::Buffer;
use flow_nets::{Additive, Affine, RationalQuadratic, Transformer};
use num_traits::Float;

const BINS: usize = 8;
const BOUND: f64 = 3.0;

/// Standard normal numbers that `name` decides.
fn normal<E: Scalar>(len: usize, name: &str) -> Vec<E> {
    let mut values = vec![0.0; len];
    Stream::new(3, 0, name).row(0).gaussian(&mut values);
    values.into_iter().map(E::of).collect()
}

/// The same spline for every value.
struct Spline<E> {
    spline: RationalQuadratic<E>,
    numbers: Vec<E>,
}

impl<E: Scalar> Spline<E> {
    fn new(numbers: Vec<E>) -> Self {
        Self { spline: RationalQuadratic::new(BINS, E::of(BOUND)).unwrap(), numbers }
    }

    /// Numbers drawn with a standard deviation.
    fn random(seed: usize, deviation: f64) -> Self {
        let scaled = |n: E| E::of(deviation) * n;
        Self::new(normal::<E>(3 * BINS - 1, &format!("numbers {seed}")).into_iter().map(scaled).collect())
    }

    fn block(&self, lanes: usize) -> Buffer<E> {
        let mut block = Buffer::take(self.numbers.len() * lanes);
        block.chunks_exact_mut(lanes).zip(&self.numbers).for_each(|(row, &number)| row.fill(number));
        block
    }

    fn run(&self, x: &[E], inverse: bool) -> (Vec<E>, Vec<E>) {
        let (mut values, mut log_slopes) = (x.to_vec(), vec![E::zero(); x.len()]);
        let way = if inverse { Transformer::inverse } else { Transformer::forward };
        way(&self.spline, &mut values, self.block(x.len()), &mut log_slopes, &mut RowTape::idle());
        (values, log_slopes)
    }

    /// ∂L/∂x and ∂L/∂numbers for L = Σ y + Σ ln(dy/dx).
    fn gradients(&self, x: &[E]) -> (Vec<E>, Vec<E>) {
        let (mut values, mut log_slopes, mut tape) = (x.to_vec(), vec![E::zero(); x.len()], RowTape::recording());
        self.spline.forward(&mut values, self.block(x.len()), &mut log_slopes, &mut tape);
        let ones = vec![E::one(); x.len()];
        let mut cotangent = ones.clone();
        let numbers = self.spline.pullback(&mut cotangent, &ones, &mut tape).unwrap();
        (cotangent, numbers.to_vec())
    }

    /// Knots and slopes there, by their definition.
    fn knots(&self) -> Vec<[f64; 3]> {
        let numbers: Vec<f64> = self.numbers.iter().map(|n| n.as_f64()).collect();
        let ends = |numbers: &[f64]| {
            let sum: f64 = numbers.iter().map(|n| n.exp()).sum();
            let mut at = -BOUND;
            let sizes = numbers.iter().map(move |n| 2.0 * BOUND * (1e-3 + (1.0 - 1e-3 * BINS as f64) * n.exp() / sum));
            std::iter::once(at)
                .chain(sizes.map(move |size| {
                    at += size;
                    at
                }))
                .collect::<Vec<f64>>()
        };
        let (x, y) = (ends(&numbers[..BINS]), ends(&numbers[BINS..2 * BINS]));
        let offset = (0.999_f64.exp() - 1.0).ln();
        let inner = numbers[2 * BINS..].iter().map(|n| 1e-3 + (n + offset).exp().ln_1p());
        let slopes = std::iter::once(1.0).chain(inner).chain([1.0]);
        x.into_iter().zip(y).zip(slopes).map(|((x, y), slope)| [x, y, slope]).collect()
    }
}

fn neighbours<E: Scalar>(x: f64) -> [E; 3] {
    let ulp = <E as Float>::epsilon() * E::of(x.abs().max(1.0));
    [E::of(x) - ulp, E::of(x), E::of(x) + ulp]
}

/// The slope may change fast next to a knot, so it is checked to `log_slope_tolerance`.
fn at_knots<E: Scalar>(log_slope_tolerance: f64) {
    for seed in 0..20 {
        let spline = Spline::<E>::random(seed, 1.5);
        for [x, y, slope] in spline.knots() {
            for x_near in neighbours::<E>(x) {
                let ((got, log_slope), tolerance) = (spline.run(&[x_near], false), 400.0 * <E as Float>::epsilon().as_f64());
                let steep = slope.max(1.0);
                assert!((got[0].as_f64() - y).abs() < tolerance * steep, "{seed}: y({x}) = {} instead of {y}", got[0]);
                let difference = (log_slope[0].as_f64() - slope.ln()).abs();
                assert!(difference < log_slope_tolerance, "{seed}: ln y'({x}) = {} instead of {}", log_slope[0], slope.ln());
                let (for_x, for_numbers) = spline.gradients(&[x_near]);
                assert!(for_x.iter().chain(&for_numbers).all(|g| Float::is_finite(*g)), "{seed}: {x}: {for_x:?} {for_numbers:?}");
            }
            for y_near in neighbours::<E>(y) {
                let (got, log_slope) = spline.run(&[y_near], true);
                let tolerance = 400.0 * <E as Float>::epsilon().as_f64() * (1.0 / slope).max(1.0);
                assert!((got[0].as_f64() - x).abs() < tolerance, "{seed}: x({y}) = {} instead of {x}", got[0]);
                assert!((log_slope[0].as_f64() + slope.ln()).abs() < log_slope_tolerance, "{seed}: ln x'({y}) = {}", log_slope[0]);
            }
        }
    }
}

#[test]
fn knots_and_their_neighbours() {
    at_knots::<f64>(1e-6);
    at_knots::<f32>(0.3);
}

#[test]
fn tails_are_the_identity_to_the_bit_and_move_no_number() {
    let beyond = f32::from_bits(3.0_f32.to_bits() + 1);
    let x = [1e6, -1e6, 3.5, -3.5, beyond, -beyond, f32::MAX, f32::MIN];
    for seed in 0..20 {
        let spline = Spline::<f32>::random(seed, 3.0);
        for inverse in [false, true] {
            assert_eq!(spline.run(&x, inverse), (x.to_vec(), vec![0.0; x.len()]));
        }
        let (for_x, for_numbers) = spline.gradients(&x);
        assert_eq!(for_x, [1.0; 8]);
        assert!(for_numbers.iter().all(|&g| g == 0.0));
        // The last numbers inside stay inside.
        let (y, _) = spline.run(&[3.0, -3.0], false);
        assert!(y[0] <= 3.0 && y[0] > 2.999_99 && y[1] >= -3.0 && y[1] < -2.999_99, "{y:?}");
    }
}

#[test]
fn increasing_and_inverted_however_steep() {
    fn check<E: Scalar>() {
        let (grid, epsilon) = (2000, <E as Float>::epsilon().as_f64());
        let x: Vec<E> = (0..=grid).map(|k| E::of(BOUND * (2.0 * f64::from(k) / f64::from(grid) - 1.0))).collect();
        for seed in 0..30 {
            let spline = Spline::<E>::random(seed, [0.5, 3.0, 30.0][seed % 3]);
            let (y, log_slope) = spline.run(&x, false);
            let (back, inverse_log_slope) = spline.run(&y, true);
            for k in 0..x.len() {
                assert!(Float::is_finite(y[k]) && Float::is_finite(log_slope[k]) && Float::is_finite(inverse_log_slope[k]));
                let rises = k == 0 || y[k].as_f64() >= y[k - 1].as_f64() - 8.0 * epsilon * BOUND;
                assert!(rises, "{seed}: y({}) = {} after {}", x[k], y[k], y[k - 1]);
                // An error of a few ulps of y is 1/slope times that in x; the slope itself may vary within such an
                // error.
                let slope = log_slope[k].as_f64().min(-inverse_log_slope[k].as_f64()).exp();
                let error = (back[k] - x[k]).as_f64().abs();
                assert!(error < 64.0 * epsilon * BOUND * (1.0 + 1.0 / slope), "{seed}: {} came back as {}, slope {slope}", x[k], back[k]);
            }
        }
    }
    check::<f64>();
    check::<f32>();
}

#[test]
fn extreme_numbers_give_finite_values_and_gradients() {
    let x: Vec<f32> = (-40..=40).map(|k| 0.1 * k as f32).collect();
    for extreme in [1e3, 1e6, -1e6, 1e15] {
        for only in 0..3 * BINS {
            // One number, or all of them.
            let numbers = (0..3 * BINS - 1).map(|k| if only == 3 * BINS - 1 || k == only { extreme } else { 0.0 }).collect();
            let spline = Spline::<f32>::new(numbers);
            let ((y, l), (z, m), (for_x, for_numbers)) = (spline.run(&x, false), spline.run(&x, true), spline.gradients(&x));
            for values in [y, l, z, m, for_x, for_numbers] {
                assert!(values.iter().all(|v| v.is_finite()), "number {only} at {extreme}: {values:?}");
            }
        }
    }
}

#[test]
fn steep_bins_between_flat_knots_are_inverted() {
    // Next to the knots the discriminant is smaller than the rounding of its parts.
    for seed in 0..200 {
        let steep = seed % (BINS - 1);
        let mut numbers = normal::<f32>(3 * BINS - 1, &format!("steep {seed}"));
        (numbers[steep], numbers[BINS + steep]) = (-20.0, 8.0);
        numbers[2 * BINS..].iter_mut().for_each(|slope| *slope -= 10.0);
        let spline = Spline::new(numbers);
        let top = f32::of(spline.knots()[steep + 1][1]);
        for step in -40_i8..=40 {
            let y = top + 2e-7 * f32::from(step);
            let (x, _) = spline.run(&[y], true);
            let (back, _) = spline.run(&x, false);
            // One ulp of x moves y by as much as the steepest slope, some 1,000.
            assert!((back[0] - y).abs() < 1e-2, "{seed}: {y} came back as {}", back[0]);
        }
    }
}

#[test]
fn refused_sizes() {
    for (bins, bound, field) in
        [(1, 3.0, "bins"), (0, 3.0, "bins"), (1000, 3.0, "bins"), (8, 0.0, "tail_bound"), (8, f32::MAX, "tail_bound")]
    {
        let error = RationalQuadratic::new(bins, bound).unwrap_err();
        assert!(matches!(&error, flow_api::FlowError::Setting { field: f, .. } if *f == field), "{error}");
    }
}

#[test]
fn of_no_lanes_nothing_is_made() {
    fn check<T: Transformer<f32>>(transformer: &T) {
        let mut tape = RowTape::recording();
        transformer.forward(&mut [], Buffer::take(0), &mut [], &mut tape);
        assert!(transformer.pullback(&mut [], &[], &mut tape).unwrap().is_empty());
        transformer.inverse(&mut [], Buffer::take(0), &mut [], &mut RowTape::idle());
    }
    check(&Additive);
    check(&Affine::new(2.0_f32).unwrap());
    check(&RationalQuadratic::new(4, 3.0_f32).unwrap());
}
