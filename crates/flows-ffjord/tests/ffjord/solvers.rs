//! Solvers on their own.

use flows_ffjord::ode::{Adaptive, Fixed, Layout, OdeError, Solver, System};

const RELAXED: Adaptive =
    Adaptive { rtol: 1e-5, atol: 1e-5, safety: 0.9, shrink: 0.2, growth: 10.0, smallest_step: 0.0, max_evaluations: 10_000 };

fn adaptive(tolerance: f64) -> [Solver; 2] {
    let settings = Adaptive { rtol: tolerance, atol: tolerance, ..RELAXED };
    [Solver::Dopri5(settings), Solver::Bosh3(settings)]
}

/// y₀' = −y₀² cos t, y₁' = y₀: 1/(1 + sin t) and its integral, in either direction of time.
#[test]
fn tolerances_are_met_and_cost_evaluations() {
    let mut system = |t: f64, y: &[f64], dy: &mut [f64]| (dy[0], dy[1]) = (-y[0] * y[0] * t.cos(), y[0]);
    for which in 0..2 {
        let mut before = 0;
        for tolerance in [1e-3, 1e-5, 1e-7, 1e-9] {
            let solver = adaptive(tolerance)[which];
            let mut y = [1.0, 0.0];
            let work = solver.solve(&mut system, 0.0, 1.5, &mut y).unwrap();
            // ∫ dt/(1 + sin t) = −2/(1 + tan(t/2)).
            let exact = [1.0 / (1.0 + 1.5_f64.sin()), 2.0 - 2.0 / (1.0 + 0.75_f64.tan())];
            let error = (y[0] - exact[0]).abs().max((y[1] - exact[1]).abs());
            assert!(error < 10.0 * tolerance, "{solver:?}: error {error:e}");
            assert!(work.evaluations > before, "{solver:?}: {} evaluations, {before} at the looser tolerance", work.evaluations);
            before = work.evaluations;
            solver.solve(&mut system, 1.5, 0.0, &mut y).unwrap();
            let error = (y[0] - 1.0).abs().max(y[1].abs());
            assert!(error < 100.0 * tolerance, "{solver:?}: back at the start with error {error:e}");
        }
    }
}

#[test]
fn evaluations_are_counted() {
    let fixed = [(Solver::Rk4(Fixed { steps: 7 }), 4), (Solver::Midpoint(Fixed { steps: 3 }), 2), (Solver::Euler(Fixed { steps: 5 }), 1)];
    let [dopri5, bosh3] = adaptive(1e-6);
    for (solver, a_step, first) in [(dopri5, 6, 2), (bosh3, 3, 2)].into_iter().chain(fixed.map(|(solver, stages)| (solver, stages, 0))) {
        let mut calls = 0;
        let mut system = |_: f64, y: &[f64], dy: &mut [f64]| {
            calls += 1;
            dy[0] = 10.0 * y[0] * (1.0 - y[0]);
        };
        let work = solver.solve(&mut system, 0.0, 1.0, &mut [0.01]).unwrap();
        assert_eq!(work.evaluations, calls, "{solver:?}");
        assert_eq!(work.evaluations, first + a_step * (work.accepted + work.rejected), "{solver:?}");
    }
}

#[test]
fn nothing_happens_in_no_time() {
    let mut never = |_: f64, _: &[f64], _: &mut [f64]| panic!("evaluated");
    for solver in adaptive(1e-5).into_iter().chain([Solver::Euler(Fixed { steps: 2 })]) {
        let mut y = [1.0, -2.0];
        let work = solver.solve(&mut never, 0.7, 0.7, &mut y).unwrap();
        assert_eq!((y, work), ([1.0, -2.0], flows_ffjord::ode::Work::default()));
    }
}

fn unlimited(solver: Solver) -> Solver {
    match solver {
        Solver::Dopri5(settings) => Solver::Dopri5(Adaptive { max_evaluations: usize::MAX, ..settings }),
        Solver::Bosh3(settings) => Solver::Bosh3(Adaptive { max_evaluations: usize::MAX, ..settings }),
        fixed => fixed,
    }
}

#[test]
fn failures_are_errors() {
    let solve = |solver: Solver, f: fn(f64, f64) -> f64, y: f64| {
        solver.solve(&mut |t: f64, y: &[f64], dy: &mut [f64]| dy[0] = f(t, y[0]), 0.0, 1.0, &mut [y]).unwrap_err()
    };
    for solver in adaptive(1e-8) {
        // Stiff: an explicit step has to follow the fast mode.
        match solve(solver, |t, y| -1e7 * (y - t.cos()), 0.0) {
            OdeError::TooManyEvaluations { t, nfe, limit: 10_000 } => assert!(t < 1.0 && nfe <= 10_000),
            other => panic!("{other}"),
        }
        // A pole at t = 1/2.
        match solve(unlimited(solver), |_, y| y * y, 2.0) {
            OdeError::StepUnderflow { t, dt, nfe } => assert!((t - 0.5).abs() < 1e-6 && dt < 1e-12, "{t} {dt} {nfe}"),
            other => panic!("{other}"),
        }
        // No number from t = 0.3 on.
        assert!(matches!(solve(solver, |t, _| if t < 0.3 { 1.0 } else { f64::NAN }, 0.0), OdeError::StepUnderflow { .. }));
        assert!(matches!(solve(solver, |_, _| f64::NAN, 0.0), OdeError::NotFinite { what: "the derivative", index: 0 }));
        assert!(matches!(solve(solver, |_, y| y, f64::NAN), OdeError::NotFinite { what: "the initial state", index: 0 }));
    }
    let coarse = Solver::Dopri5(Adaptive { smallest_step: 0.01, ..RELAXED });
    assert!(matches!(solve(coarse, |t, y| -1e7 * (y - t.cos()), 0.0), OdeError::StepUnderflow { .. }));
    for steps in [0, usize::MAX] {
        let fixed = Solver::Rk4(Fixed { steps });
        assert!(matches!(solve(fixed, |_, y| y, 0.0), OdeError::Setting { field: "steps", .. }) && fixed.least_evaluations() >= steps);
    }
    let fixed = Solver::Euler(Fixed { steps: 4 });
    assert!(matches!(solve(fixed, |_, _| f64::INFINITY, 0.0), OdeError::NotFinite { what: "the state", .. }));
}

/// z' = −z and its integral, and how many of the evaluations had to give the integral's derivative.
struct Decay {
    controlled: bool,
    with_integral: usize,
}

impl System<f64> for Decay {
    fn derivative(&mut self, _: f64, y: &[f64], derivative: &mut [f64]) {
        derivative[0] = -y[0];
        if let Some(integral) = derivative.get_mut(1) {
            *integral = y[0];
            self.with_integral += 1;
        }
    }

    fn layout(&self, len: usize) -> Layout {
        Layout { coupled: 1, controlled: [0..1, 1..len].into_iter().take(1 + usize::from(self.controlled)).collect() }
    }
}

#[test]
fn quadratures_are_evaluated_where_they_enter() {
    let [dopri5, bosh3] = adaptive(1e-6);
    // The second stage of Dopri5 is in no sum.
    for (solver, idle) in [(dopri5, 1), (bosh3, 0)] {
        for controlled in [true, false] {
            let mut system = Decay { controlled, with_integral: 0 };
            let mut y = [1.0, 0.0];
            let work = solver.solve(&mut system, 0.0, 3.0, &mut y).unwrap();
            assert!((y[1] - (1.0 - (-3.0_f64).exp())).abs() < 1e-5, "{solver:?}: {}", y[1]);
            // The trial for the first step's size and the end of the last step are for the error alone.
            let judged = if controlled { 0 } else { 2 };
            let expected = work.evaluations - idle * (work.accepted + work.rejected) - judged;
            assert_eq!(system.with_integral, expected, "{solver:?}, controlled: {controlled}");
        }
    }
}

/// In f32 the time stays in f64: a hundred thousand steps do not lose the end.
#[test]
fn time_is_kept_in_double_precision() {
    let mut last = 0.0;
    let mut system = |t: f64, _: &[f32], dy: &mut [f32]| {
        last = t;
        dy[0] = 0.0;
    };
    Solver::Euler(Fixed { steps: 100_000 }).solve(&mut system, 0.0, 1.0, &mut [0.0_f32]).unwrap();
    assert!((last - (1.0 - 1e-5)).abs() < 1e-12, "{last}");
}
