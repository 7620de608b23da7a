//! One bin of a rational-quadratic spline: the formulas of Gregory & Delbourgo, on one number.
//!
//! With θ = (x − x₀)/w, p = 1 − θ, q = θp, s = h/w and e = d₀ + d₁ − 2s:
//! y = y₀ + h(sθ² + d₀q)/(s + eq) and dy/dx = s²(d₁θ² + 2sq + d₀p²)/(s + eq)².
//! They are written so that a bin with w = h and d₀ = d₁ = 1 is the identity to the last bit.

use flow_api::rows::Real;
use flow_kernels::scalar;
use num_traits::Float;

/// A bin: its lower left corner, its size, and the slopes at its ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<E> {
    pub(super) left: E,
    pub(super) bottom: E,
    pub(super) width: E,
    pub(super) height: E,
    pub(super) slope_left: E,
    pub(super) slope_right: E,
}

/// What both directions and the pullback compute of a place in a bin.
#[derive(Clone, Copy)]
struct Place<E> {
    theta: E,
    rest: E,
    /// q.
    both: E,
    /// s.
    mean: E,
    /// e.
    excess: E,
    /// s + eq, at least s/2.
    denominator: E,
    /// d₁θ² + 2sq + d₀p², as its difference from θ² + 2q + p² = 1.
    numerator: E,
}

impl<E: Real> Segment<E> {
    #[inline(always)]
    fn place(self, theta: E) -> Place<E> {
        let (one, two) = (E::one(), E::of(2.0));
        let theta = Float::max(Float::min(theta, one), E::zero());
        let rest = one - theta;
        let both = theta * rest;
        let mean = self.height / self.width;
        let excess = (self.slope_left - mean) + (self.slope_right - mean);
        let numerator = one + (self.slope_right - one) * theta * theta + two * (mean - one) * both + (self.slope_left - one) * rest * rest;
        Place { theta, rest, both, mean, excess, denominator: mean + excess * both, numerator }
    }

    /// y and ln dy/dx.
    #[inline(always)]
    pub(super) fn forward(self, x: E) -> (E, E) {
        let along = x - self.left;
        let at = self.place(along / self.width);
        // (y − y₀)/(x − x₀) − 1.
        let steeper =
            (at.mean * ((at.mean - E::one()) * at.theta + (self.slope_left - E::one()) * at.rest) - at.excess * at.both) / at.denominator;
        (x + (self.bottom - self.left) + along * steeper, at.log_slope())
    }

    /// x and ln dy/dx there.
    ///
    /// θ solves aθ² + bθ + c = 0; of the two forms of its root the one that subtracts nothing is taken. All of it is
    /// divided by h.
    #[inline(always)]
    pub(super) fn inverse(self, y: E) -> (E, E) {
        let (one, two) = (E::one(), E::of(2.0));
        let along = y - self.bottom;
        let v = Float::max(Float::min(along / self.height, one), E::zero());
        let mean = self.height / self.width;
        let excess = (self.slope_left - mean) + (self.slope_right - mean);
        let (a, b) = ((mean - self.slope_left) + v * excess, self.slope_left - v * excess);
        let root = Float::sqrt(Float::max(b * b + E::of(4.0) * mean * v * a, E::zero()));
        // (x − x₀)/(y − y₀). Where b < 0, a = s − b and v are above 0.
        let shallower = if b < E::zero() { (root - b) / (two * mean * a * v) } else { two / (b + root) };
        (y + (self.left - self.bottom) + along * (shallower - one), self.place(along * shallower / self.width).log_slope())
    }

    /// ∂L/∂ of x and of the bin, given x, ∂L/∂y and ∂L/∂ln(dy/dx).
    #[inline(always)]
    pub(super) fn pull(self, x: E, for_y: E, for_log_slope: E) -> (E, Segment<E>) {
        let (one, two) = (E::one(), E::of(2.0));
        let at = self.place((x - self.left) / self.width);
        let Place { theta, rest, both, mean, excess, denominator, numerator } = at;
        let tilt = one - two * theta;
        let (per_numerator, per_denominator, per_width) = (one / numerator, one / denominator, one / self.width);
        // F = (y − y₀)/h and its derivatives, and those of ln(dy/dx) = 2 ln s + ln numerator − 2 ln denominator.
        let fraction = theta * (mean * theta + self.slope_left * rest) * per_denominator;
        let for_fraction = for_y * self.height * per_denominator;
        let (for_numerator, for_denominator) = (for_log_slope * per_numerator, two * for_log_slope * per_denominator);
        let for_theta = for_fraction * mean * (numerator * per_denominator)
            + for_numerator * two * (self.slope_right * theta + mean * tilt - self.slope_left * rest)
            - for_denominator * excess * tilt;
        let for_mean = for_fraction * (theta * theta - fraction * (one - two * both)) + two * (for_log_slope / mean + for_numerator * both)
            - for_denominator * (one - two * both);
        let slope_left = for_fraction * both * (one - fraction) + for_numerator * rest * rest - for_denominator * both;
        let slope_right = for_numerator * theta * theta - for_fraction * both * fraction - for_denominator * both;
        let for_x = for_theta * per_width;
        let for_mean = for_mean * per_width;
        let pulled = Segment {
            left: -for_x,
            bottom: for_y,
            width: -for_x * theta - for_mean * mean,
            height: for_y * fraction + for_mean,
            slope_left,
            slope_right,
        };
        (for_x, pulled)
    }
}

impl<E: Real> Place<E> {
    #[inline(always)]
    fn log_slope(self) -> E {
        let ratio = self.mean / self.denominator;
        scalar::ln(ratio * self.numerator * ratio)
    }
}
