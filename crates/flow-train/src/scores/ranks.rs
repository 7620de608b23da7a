//! Ranks among reference values.

/// Which values are unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// Low ones.
    Low,
    /// Low and high ones.
    Both,
}

/// Reference values in ascending order, the finite ones.
#[derive(Clone, Debug)]
pub(super) struct Ranks {
    sorted: Vec<f64>,
    /// Between the quartiles, or a multiple of nothing where most values are equal.
    spread: f64,
}

impl Ranks {
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        let quartile = |quarter: usize| sorted.get(sorted.len() * quarter / 4).copied().unwrap_or(0.0);
        let spread = quartile(3) - quartile(1);
        Self { sorted, spread }
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    /// The p-value of a value: (1 + k)/(n + 1), where k of n reference values are at least as far out (Phipson and
    /// Smyth 2010, *Permutation p-values should never be zero*), twice the smaller one of two sides and 1 at most. What
    /// is no number is as far out as can be.
    pub(super) fn p(&self, value: f64, side: Side) -> f64 {
        side.of(self.tails(value, 0, |_| 1.0))
    }

    /// The same, continued: beyond the outermost reference value it goes on falling with the distance, so that order is
    /// kept where ranks end. It is not calibrated there. One of the reference values themselves leaves itself out.
    pub(super) fn continued(&self, value: f64, side: Side, is_reference: bool) -> f64 {
        let beyond = |distance: f64| {
            // Where there is no spread either, everything beyond is equally far.
            let share = self.spread / (self.spread + distance);
            if distance == 0.0 {
                1.0
            } else if share.is_nan() {
                0.0
            } else {
                share
            }
        };
        side.of(self.tails(value, usize::from(is_reference), beyond))
    }

    /// Rank probabilities of a value from below and from above, with so many copies of it left out; `beyond` is a
    /// factor for one that lies at a distance beyond the outermost reference value.
    fn tails(&self, value: f64, left_out: usize, beyond: impl Fn(f64) -> f64) -> [f64; 2] {
        let all = (self.len() + 1) as f64;
        if value.is_nan() {
            return [beyond(f64::INFINITY) / all; 2];
        }
        let below = self.sorted.partition_point(|r| *r < value);
        let up_to = self.sorted.partition_point(|r| *r <= value) - left_out;
        let above = self.len() - left_out - below;
        let tail = |count: usize, nearest: Option<&f64>| match nearest {
            Some(nearest) if count == 0 => beyond((value - nearest).abs()) / all,
            _ => (1 + count) as f64 / all,
        };
        [tail(up_to, self.sorted.get(below + left_out)), tail(above, below.checked_sub(1).and_then(|at| self.sorted.get(at)))]
    }
}

impl Side {
    fn of(self, [low, high]: [f64; 2]) -> f64 {
        match self {
            Self::Low => low,
            Self::Both => (2.0 * low.min(high)).min(1.0),
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "quotients of small numbers, and what is as far out as can be")]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_counted_and_go_on_beyond_the_ends() {
        let ranks = Ranks::of([3.0, 1.0, f64::NAN, 2.0, 4.0]);
        let p = |value, side| ranks.p(value, side);
        // One, two, … of the five numbers that the value makes with them.
        assert_eq!([0.0, 1.0, 1.5, 4.0, 9.0].map(|x| p(x, Side::Low)), [0.2, 0.4, 0.4, 1.0, 1.0]);
        assert_eq!([0.0, 1.0, 2.0, 2.5, 4.0, 9.0].map(|x| p(x, Side::Both)), [0.4, 0.8, 1.0, 1.0, 0.8, 0.4]);
        assert_eq!([p(f64::NAN, Side::Low), p(f64::NEG_INFINITY, Side::Both)], [0.2, 0.4]);
        // Quartiles of 2 and 4: half of it at a distance of 2.
        let far = |x| ranks.continued(x, Side::Low, false);
        assert!((far(-1.0) - 0.1).abs() < 1e-15 && far(-5.0) < far(-1.0) && far(f64::NEG_INFINITY) == 0.0 && far(f64::NAN) == 0.0);
        assert_eq!((far(1.0), far(99.0)), (0.4, 1.0));
        // A reference value does not count itself.
        assert!((ranks.continued(1.0, Side::Low, true) - 0.2 * 2.0 / 3.0).abs() < 1e-15);
        assert_eq!(ranks.continued(2.0, Side::Low, true), 0.4);
        assert!(ranks.continued(4.0, Side::Both, true) < 0.4);
        // Where most reference values are equal, everything beyond them is.
        let flat = Ranks::of([5.0; 4]);
        assert_eq!((flat.continued(5.0, Side::Both, false), flat.continued(5.1, Side::Both, false)), (1.0, 0.0));
        assert_eq!(Ranks::of([]).p(1.0, Side::Both), 1.0);
    }
}
