//! Prints one JSON line: median seconds of a training step and of a sampling solve of one FFJORD flow, with the evaluations of each.
//!
//! The field is the one that `torch_families.py ffjord` has: tanh, two hidden layers, the time as one more input of the first; f32, dopri5, one Rademacher
//! probe, the adjoint, Adam. `benches/beside_torch.py` runs both in turn.
//!
//! `cargo run --release -p flows-ffjord --example measure_ffjord -- --dim 48 --hidden 64 --rows 4096 --threads 2 --steps 5 --tol 1e-5 --seminorm false`

use dfdx::prelude::{Cpu, TensorFromVec};
use flow_api::{Bijector, Context, EntryMut, Flow, Gradients, Mode, Rows, StandardNormal, update};
use flow_kernels::noise::Stream;
use flows_ffjord::ode::{Adaptive, Solver};
use flows_ffjord::{Adjoint, ContinuousFlow, Ffjord, Gradient, TimeInput};
use std::error::Error;
use std::time::Instant;

/// The argument behind `--name`, or its default.
fn argument<T: std::str::FromStr>(name: &str, default: T) -> T {
    let arguments: Vec<String> = std::env::args().collect();
    let at = arguments.iter().position(|a| a.strip_prefix("--") == Some(name));
    at.and_then(|at| arguments.get(at + 1)).and_then(|a| a.parse().ok()).unwrap_or(default)
}

/// Median seconds of some calls after one that does not count.
fn median(steps: usize, mut f: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    f()?;
    let mut seconds = Vec::with_capacity(steps);
    for _ in 0..steps {
        let start = Instant::now();
        f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// Adam with its usual constants.
struct Adam {
    moments: Vec<[f32; 2]>,
    step: i32,
}

impl Adam {
    fn step(&mut self, flow: &mut impl flow_api::Module<f32>, gradients: &[f32]) -> flow_api::Result<()> {
        self.step += 1;
        let corrections = [1.0 - 0.9_f32.powi(self.step), 1.0 - 0.999_f32.powi(self.step)];
        let mut rest = gradients.iter().zip(&mut self.moments);
        update(flow, |_, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                for (value, (g, m)) in values.iter_mut().zip(&mut rest) {
                    *m = [0.9 * m[0] + 0.1 * g, 0.999 * m[1] + 0.001 * g * g];
                    *value -= 1e-3 * (m[0] / corrections[0]) / ((m[1] / corrections[1]).sqrt() + 1e-8);
                }
            }
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let (dim, hidden, rows) = (argument("dim", 48), argument("hidden", 64), argument("rows", 4096));
    let (threads, steps, tol) = (argument("threads", 2), argument("steps", 5), argument("tol", 1e-5));
    let seminorm = argument("seminorm", false);
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;

    let device = Cpu::default();
    let spec = Ffjord {
        hidden,
        time: TimeInput::Concat,
        solver: Solver::Dopri5(Adaptive { rtol: tol, atol: tol, ..Adaptive::default() }),
        gradient: Gradient::Adjoint(Adjoint { seminorm }),
        zero_init: false,
        ..Ffjord::default()
    };
    let mut flow = Flow::new(Rows(ContinuousFlow::<f32, Cpu>::new(&spec, dim, 0, &device)?), StandardNormal::new(dim));
    // The time enters the first layer alone.
    update(&mut flow, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && path.ends_with("time_shift")
        {
            values[hidden..].fill(0.0);
        }
    })?;
    let mut x = vec![0.0_f32; rows * dim];
    Stream::new(0, 0, "measure").row(0).gaussian(&mut x);
    let x = device.tensor_from_vec(x, (rows, dim));

    let mut gradients = Gradients::zeros(&flow);
    let mut adam = Adam { moments: vec![[0.0; 2]; gradients.values().len()], step: 0 };
    let (mut step, mut forward) = (0, 0);
    let train = median(steps, || {
        step += 1;
        gradients.clear();
        let cx = Context::new(0).in_mode(Mode::Train).at_step(step);
        forward = flow.nll(x.clone(), &mut gradients, &cx)?.report.evaluations;
        Ok(adam.step(&mut flow, gradients.values())?)
    })?;
    // Of the last step alone.
    flow.bijector().0.take_pullback_report();
    flow.nll(x.clone(), &mut gradients, &Context::new(0).in_mode(Mode::Train).at_step(step + 1))?;
    let backward = flow.bijector().0.take_pullback_report().evaluations;

    let mut sampling = 0;
    let cx = Context::new(0).without_log_det();
    let sample = median(steps, || {
        sampling = flow.bijector().inverse(x.clone(), &cx)?.report.evaluations;
        Ok(())
    })?;
    let line = serde_json::json!({
        "train_s": train, "train_evaluations": forward + backward, "forward_evaluations": forward, "sample_s": sample,
        "sample_evaluations": sampling,
        "config": {"dim": dim, "hidden": hidden, "rows": rows, "threads": threads, "steps": steps, "tol": tol, "seminorm": seminorm},
    });
    println!("{line}");
    Ok(())
}
