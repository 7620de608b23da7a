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

/// Takes some of the steps of a grid; `y` is the state at the first one's beginning, and then the one at the last one's end.
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
            system.derivative(grid.time(step, node), stage, &mut own[0]);
        }
        combine(&mut next, y, &terms(grid.dt(), tableau.weights, &k));
        y.copy_from_slice(&next);
    }
    Work { evaluations: count * tableau.nodes.len(), accepted: count, rejected: 0 }
}
