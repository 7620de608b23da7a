//! Coefficients of explicit Runge-Kutta methods.

/// An explicit Runge-Kutta method: kᵢ = f(t + cᵢ h, y + h Σⱼ aᵢⱼ kⱼ), y⁺ = y + h Σᵢ bᵢ kᵢ.
#[derive(Debug)]
pub(crate) struct Tableau {
    /// p: the error of a step is O(h^(p+1)).
    pub(crate) order: u8,
    /// cᵢ.
    pub(crate) nodes: &'static [f64],
    /// Row i: aᵢⱼ for j < i.
    pub(crate) stages: &'static [&'static [f64]],
    /// bᵢ.
    pub(crate) weights: &'static [f64],
    /// bᵢ − b̂ᵢ, with b̂ of an embedded method of lower order: there for the adaptive methods, whose last stage is
    /// f(t + h, y⁺), the first one of the next step.
    pub(crate) error: &'static [f64],
}

impl Tableau {
    /// How much of the derivative stage i needs: a stage that enters neither the new state nor the error estimate adds
    /// nothing to quadratures.
    pub(crate) fn needed(&self, stage: usize, coupled: usize, len: usize) -> usize {
        let enters = |weights: &[f64]| weights.get(stage).is_some_and(|w| w.abs() > 0.0);
        if enters(self.weights) || enters(self.error) { len } else { coupled }
    }
}

/// Dormand and Prince 1980, in the form of Shampine 1986: the error weights are those of `torchdiffeq`, not the
/// textbook's (b̂₁ = 5179/57600, …).
pub(crate) const DOPRI5: Tableau = Tableau {
    order: 5,
    nodes: &[0.0, 1.0 / 5.0, 3.0 / 10.0, 4.0 / 5.0, 8.0 / 9.0, 1.0, 1.0],
    stages: &[
        &[],
        &[1.0 / 5.0],
        &[3.0 / 40.0, 9.0 / 40.0],
        &[44.0 / 45.0, -56.0 / 15.0, 32.0 / 9.0],
        &[19372.0 / 6561.0, -25360.0 / 2187.0, 64448.0 / 6561.0, -212.0 / 729.0],
        &[9017.0 / 3168.0, -355.0 / 33.0, 46732.0 / 5247.0, 49.0 / 176.0, -5103.0 / 18656.0],
        DOPRI5_WEIGHTS,
    ],
    weights: &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0, 0.0],
    error: &[
        35.0 / 384.0 - 1951.0 / 21600.0,
        0.0,
        500.0 / 1113.0 - 22642.0 / 50085.0,
        125.0 / 192.0 - 451.0 / 720.0,
        -2187.0 / 6784.0 + 12231.0 / 42400.0,
        11.0 / 84.0 - 649.0 / 6300.0,
        -1.0 / 60.0,
    ],
};
const DOPRI5_WEIGHTS: &[f64] = &[35.0 / 384.0, 0.0, 500.0 / 1113.0, 125.0 / 192.0, -2187.0 / 6784.0, 11.0 / 84.0];

/// Bogacki and Shampine 1989.
pub(crate) const BOSH3: Tableau = Tableau {
    order: 3,
    nodes: &[0.0, 1.0 / 2.0, 3.0 / 4.0, 1.0],
    stages: &[&[], &[1.0 / 2.0], &[0.0, 3.0 / 4.0], &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0]],
    weights: &[2.0 / 9.0, 1.0 / 3.0, 4.0 / 9.0, 0.0],
    error: &[2.0 / 9.0 - 7.0 / 24.0, 1.0 / 3.0 - 1.0 / 4.0, 4.0 / 9.0 - 1.0 / 3.0, -1.0 / 8.0],
};

/// Kutta 1901, the classical one.
pub(crate) const RK4: Tableau = Tableau {
    order: 4,
    nodes: &[0.0, 0.5, 0.5, 1.0],
    stages: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
    weights: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    error: &[],
};

/// Runge 1895: the explicit midpoint rule.
pub(crate) const MIDPOINT: Tableau = Tableau { order: 2, nodes: &[0.0, 0.5], stages: &[&[], &[0.5]], weights: &[0.0, 1.0], error: &[] };

/// Euler 1768.
pub(crate) const EULER: Tableau = Tableau { order: 1, nodes: &[0.0], stages: &[&[]], weights: &[1.0], error: &[] };

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_zero(what: &str, x: f64) {
        assert!(x.abs() < 1e-14, "{what}: off by {x:e}");
    }

    /// Σ bᵢ cᵢ^(q−1) = 1/q up to the order, cᵢ = Σⱼ aᵢⱼ, and what the adaptive step takes for granted.
    #[test]
    fn coefficients_meet_their_conditions() {
        for (name, t) in [("dopri5", &DOPRI5), ("bosh3", &BOSH3), ("rk4", &RK4), ("midpoint", &MIDPOINT), ("euler", &EULER)] {
            let moment = |weights: &[f64], q: i32| weights.iter().zip(t.nodes).map(|(b, c)| b * c.powi(q - 1)).sum::<f64>();
            for q in 1..=i32::from(t.order) {
                assert_zero(name, moment(t.weights, q) - 1.0 / f64::from(q));
            }
            for (row, c) in t.stages.iter().zip(t.nodes) {
                assert_zero(name, row.iter().sum::<f64>() - c);
            }
            if !t.error.is_empty() {
                // b̂ is of order p − 1 and of no higher one.
                (1..i32::from(t.order)).for_each(|q| assert_zero(name, moment(t.error, q)));
                assert!(moment(t.error, i32::from(t.order)).abs() > 1e-5, "{name}: the error estimate is blind");
                let (last, rest) = t.weights.split_last().unwrap();
                assert_eq!((t.stages.last().copied(), *last), (Some(rest), 0.0), "{name}: the last stage is not the new state's");
            }
        }
    }
}
