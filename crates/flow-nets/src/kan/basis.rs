//! What an edge of a Kolmogorov–Arnold network is a combination of: silu and uniform B-splines.

use flow_api::Scalar;
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, scalar, vectorized};

/// silu(x) and the G + k B-splines of order k on G intervals of equal width that fill [−R, R], with k further knots on
/// either side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Basis<E> {
    /// Intervals, G.
    pub(super) grid: usize,
    /// Order, k.
    pub(super) order: usize,
    /// Half the width of the grid, R.
    pub(super) range: E,
}

impl<E: Scalar> Basis<E> {
    /// B-splines.
    pub(super) fn splines(&self) -> usize {
        self.grid + self.order
    }

    /// Functions: the splines, and silu in front of them.
    pub(super) fn functions(&self) -> usize {
        1 + self.splines()
    }

    /// Intervals between the first knot and the last.
    fn intervals(&self) -> usize {
        self.grid + 2 * self.order
    }

    /// x in intervals, counted from the first knot: knot i is at i.
    fn scale(&self) -> (E, E) {
        let steepness = E::of(self.grid as f64) / (E::of(2.0) * self.range);
        (steepness, E::of(self.order as f64) + E::of(self.grid as f64) / E::of(2.0))
    }

    /// All functions of all numbers: (features · functions) × lanes, of features × lanes.
    pub(super) fn expand(&self, x: &[E], lanes: usize) -> Buffer<E> {
        let mut expanded = Buffer::take(x.len() * self.functions());
        let (mut places, mut splines) = (Buffer::take(lanes), Buffer::take((self.intervals() + 1) * lanes));
        for (x, to) in x.chunks_exact(lanes).zip(expanded.chunks_exact_mut(self.functions() * lanes)) {
            let (of_silu, of_splines) = to.split_at_mut(lanes);
            silu(of_silu, x);
            place(&mut places, x, self.scale());
            indicate(&mut splines, &places);
            (1..=self.order).for_each(|order| raise(&mut splines, &places, order));
            of_splines.copy_from_slice(&splines[..of_splines.len()]);
        }
        expanded
    }

    /// ∂L/∂x, given ∂L/∂ all functions.
    pub(super) fn pull(&self, x: &[E], cotangent: &[E], lanes: usize) -> Buffer<E> {
        let mut pulled = Buffer::take(x.len());
        let (mut places, mut splines) = (Buffer::take(lanes), Buffer::take((self.intervals() + 1) * lanes));
        let parts = x.chunks_exact(lanes).zip(cotangent.chunks_exact(self.functions() * lanes));
        for ((x, cotangent), pulled) in parts.zip(pulled.chunks_exact_mut(lanes)) {
            let (of_silu, of_splines) = cotangent.split_at(lanes);
            place(&mut places, x, self.scale());
            indicate(&mut splines, &places);
            (1..self.order).for_each(|order| raise(&mut splines, &places, order));
            pulled.fill(E::zero());
            add_slopes(pulled, &splines, of_splines);
            finish_slopes(pulled, x, of_silu, self.scale().0);
        }
        pulled
    }
}

vectorized! {
    fn silu<E: Real>(y: &mut [E], x: &[E]) {
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = scalar::silu(x));
    }

    fn place<E: Real>(places: &mut [E], x: &[E], scale: (E, E)) {
        places.iter_mut().zip(x).for_each(|(place, &x)| *place = x * scale.0 + scale.1);
    }

    /// The splines of order 0, one row of lanes each: 1 where a place is in their interval.
    fn indicate<E: Real>(splines: &mut [E], places: &[E]) {
        for (i, splines) in splines.chunks_exact_mut(places.len().max(1)).enumerate() {
            let (low, high) = (E::of(i as f64), E::of(i as f64 + 1.0));
            for (spline, &place) in splines.iter_mut().zip(places) {
                *spline = if place >= low && place < high { E::one() } else { E::zero() };
            }
        }
    }

    /// The splines of an order from those of the order before (Cox and de Boor), in place: with knots at whole numbers
    /// Bᵢ ← ((u − i) Bᵢ + (i + p + 1 − u) Bᵢ₊₁) / p. What stands behind the last is left.
    fn raise<E: Real>(splines: &mut [E], places: &[E], order: usize) {
        let (share, lanes) = (E::one() / E::of(order as f64), places.len().max(1));
        let mut rest = splines;
        let mut i = 0.0;
        while rest.len() > lanes {
            let (own, behind) = rest.split_at_mut(lanes);
            let (first, end) = (E::of(i), E::of(i + order as f64 + 1.0));
            for ((own, &next), &place) in own.iter_mut().zip(&*behind).zip(places) {
                *own = ((place - first) * *own + (end - place) * next) * share;
            }
            rest = behind;
            i += 1.0;
        }
    }

    /// Adds Σ g B′ with B′ᵢ = Bᵢ − Bᵢ₊₁ of the order before.
    fn add_slopes<E: Real>(slopes: &mut [E], splines: &[E], cotangent: &[E]) {
        let lanes = slopes.len().max(1);
        for (i, g) in cotangent.chunks_exact(lanes).enumerate() {
            let (own, next) = splines[i * lanes..][..2 * lanes].split_at(lanes);
            for (((slope, &g), &own), &next) in slopes.iter_mut().zip(g).zip(own).zip(next) {
                *slope += g * (own - next);
            }
        }
    }

    /// From intervals to units of x, and silu's share.
    fn finish_slopes<E: Real>(slopes: &mut [E], x: &[E], cotangent: &[E], steepness: E) {
        for ((slope, &x), &g) in slopes.iter_mut().zip(x).zip(cotangent) {
            *slope = *slope * steepness + g * scalar::silu_with_derivative(x).1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B-splines by their definition, recursively.
    fn spline(i: usize, order: usize, u: f64) -> f64 {
        let at = i as f64;
        if order == 0 {
            return if (at..at + 1.0).contains(&u) { 1.0 } else { 0.0 };
        }
        let p = order as f64;
        ((u - at) * spline(i, order - 1, u) + (at + p + 1.0 - u) * spline(i + 1, order - 1, u)) / p
    }

    #[test]
    fn functions_and_slopes_are_those_of_the_definition() {
        for (grid, order, range) in [(5, 3, 2.0), (1, 1, 0.5), (4, 2, 3.0), (7, 5, 1.0)] {
            let basis = Basis { grid, order, range };
            // None of them on a knot, where slopes of order 2 have corners.
            let x: Vec<f64> = (0..24).map(|i| range * (0.131 * f64::from(i) - 1.493)).collect();
            let (functions, lanes) = (basis.functions(), 8);
            let expanded = basis.expand(&x, lanes);
            for (at, &x) in x.iter().enumerate() {
                let (feature, lane) = (at / lanes, at % lanes);
                let u = (x + range) / (2.0 * range) * grid as f64 + order as f64;
                let got = |k: usize| expanded[(feature * functions + k) * lanes + lane];
                assert!((got(0) - x / (1.0 + (-x).exp())).abs() < 1e-14);
                for k in 0..basis.splines() {
                    assert!((got(1 + k) - spline(k, order, u)).abs() < 1e-12, "{grid} {order}: {k} at {x}");
                }
                // Within the grid they add up to one.
                if x.abs() < range {
                    assert!(((1..functions).map(got).sum::<f64>() - 1.0).abs() < 1e-12, "{grid} {order} at {x}");
                }
            }
            let weights: Vec<f64> = (0..expanded.len()).map(|i| (1.3 * i as f64).sin()).collect();
            let pulled = basis.pull(&x, &weights, lanes);
            let loss = |x: &[f64]| basis.expand(x, lanes).iter().zip(&weights).map(|(y, w)| y * w).sum::<f64>();
            for at in 0..x.len() {
                let shifted = |h: f64| x.iter().enumerate().map(|(i, &x)| if i == at { x + h } else { x }).collect::<Vec<_>>();
                let expected = (loss(&shifted(1e-6)) - loss(&shifted(-1e-6))) / 2e-6;
                // Splines of order 1 have corners at their knots.
                assert!((pulled[at] - expected).abs() < 1e-7 || order == 1, "{grid} {order} at {at}: {} {expected}", pulled[at]);
            }
        }
    }
}
