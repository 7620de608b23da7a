//! Steps of equal size.

use super::combine::{combine, terms};
use super::tableau::Tableau;
use super::{System, Work};
use flow_kernels::Real;
use flow_kernels::workspace::Buffer;
use std::ops::Range;

/// Steps of equal size from one time to another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) from: f64,
    pub(crate) to: f64,
    pub(crate) steps: usize,
}

impl Grid {
    /// Step size, negative where time runs backwards.
    pub(crate) fn dt(self) -> f64 {
        (self.to - self.from) / self.steps as f64
    }

    /// How much of the interval lies before a place within step n.
    pub(crate) fn fraction(self, step: usize, node: f64) -> f64 {
        (step as f64 + node) / self.steps as f64
    }

    /// The time at a place within step n.
    pub(crate) fn time(self, step: usize, node: f64) -> f64 {
        self.from + (self.to - self.from) * self.fraction(step, node)
    }
}

/// Takes some of the steps of a grid; `y` is the state at the first one's beginning, and then the one at the last one's
/// end.
pub(crate) fn advance<E: Real, S: System<E> + ?Sized>(
    tableau: &Tableau,
    system: &mut S,
    grid: Grid,
    steps: Range<usize>,
    y: &mut [E],
) -> Work {
    let coupled = system.layout(y.len()).coupled;
    let count = steps.len();
    let mut k: Vec<Buffer<E>> = tableau.nodes.iter().map(|_| Buffer::take(y.len())).collect();
    let mut next = Buffer::take(y.len());
    for step in steps {
        for (i, (&node, row)) in tableau.nodes.iter().zip(tableau.stages).enumerate() {
            let (before, own) = k.split_at_mut(i);
            let stage = &mut next[..coupled];
            combine(stage, y, &terms(grid.dt(), row, before));
            system.derivative(grid.time(step, node), stage, &mut own[0][..tableau.needed(i, coupled, y.len())]);
        }
        combine(&mut next, y, &terms(grid.dt(), tableau.weights, &k));
        y.copy_from_slice(&next);
    }
    Work { evaluations: count * tableau.nodes.len(), accepted: count, ..Work::default() }
}

#[cfg(test)]
mod tests {
    use super::super::tableau::{BOSH3, DOPRI5, EULER, MIDPOINT, RK4};
    use super::*;

    /// y' = (1 + t) y (1 − y) has the solutions 1/(1 + (1/c − 1) e^−(t + t²/2)): nonlinear, and the time matters.
    #[test]
    fn the_error_falls_at_the_order_of_every_method() {
        let starts = [0.5, 1.5, 2.0];
        let end = 2.0_f64;
        let mut system = |t: f64, y: &[f64], dy: &mut [f64]| dy.iter_mut().zip(y).for_each(|(dy, y)| *dy = (1.0 + t) * y * (1.0 - y));
        for tableau in [&DOPRI5, &RK4, &BOSH3, &MIDPOINT, &EULER] {
            let mut error = |steps| {
                let mut y = starts;
                advance(tableau, &mut system, Grid { from: 0.0, to: end, steps }, 0..steps, &mut y);
                let exact = |c: f64| 1.0 / (1.0 + (1.0 / c - 1.0) * (-end - end * end / 2.0).exp());
                y.iter().zip(starts).map(|(y, c)| (y - exact(c)).powi(2)).sum::<f64>().sqrt()
            };
            let observed = (error(64) / error(128)).log2();
            assert!((observed - f64::from(tableau.order)).abs() < 0.2, "order {}: observed {observed}", tableau.order);
        }
    }
}
