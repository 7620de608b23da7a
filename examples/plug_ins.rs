//! Three plug-ins, defined outside the toolkit's crates: an element-wise flow, a base density and a map of whole
//! samples. Each goes through the testkit, is named in one RON spec, and is trained with it on the digits.
//!
//! A crate with such parts depends on `mixerflow-toolkit`, `serde` (with its `derive`) and `typetag`.
//!
//! It should print that the three conform, the model's table, and a loss that falls over 200 steps from 4.7 to 3.7 bits
//! a dimension:
//!
//! ```sh
//! cargo run --release --example plug_ins
//! ```

use mixerflow_toolkit::api::bases::check_sizes;
use mixerflow_toolkit::api::rows::Buffer;
use mixerflow_toolkit::api::samples::{SamplePull, SampleTape, Samples};
use mixerflow_toolkit::api::spec::one_flow;
use mixerflow_toolkit::api::testkit::{Subject, check_base, check_model};
use mixerflow_toolkit::prelude::*;
use mixerflow_toolkit::train::{Settings, Silent, Trainer, data};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::sync::atomic::AtomicBool;

/// y = x + e^w tanh(x) with a weight w that is learned for every feature; the inverse is solved for.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bump {}
register_row_flow!(Bump);

impl ElementMap for Bump {
    const KIND: &'static str = "Bump";

    fn parameters(&self) -> Vec<(&'static str, f64)> {
        vec![("log_weight", -1.0)]
    }

    fn map<N: Number>(&self, x: N, parameters: &[N]) -> (N, N) {
        let (weight, tanh) = (parameters[0].exp(), x.tanh());
        (x + weight * tanh, (N::of(1.0) + weight * (N::of(1.0) - tanh * tanh)).ln())
    }
}

/// Laplace's density with a learned log-scale s for every feature: log p(z) = Σⱼ −|zⱼ| e^{−sⱼ} − sⱼ − ln 2.
struct LaplaceDensity<E: Scalar>(Parameter<E>);

impl<E: Scalar> Module<E> for LaplaceDensity<E> {
    module_fields!(E; parameter 0 as "log_scale");
}

impl<E: Scalar> BaseDensity<E> for LaplaceDensity<E> {
    fn kind(&self) -> &'static str {
        "Laplace"
    }

    fn dim(&self) -> usize {
        self.0.values().len()
    }

    fn log_prob(&self, z: &[E], out: &mut [E], cx: &Context<E>) -> Result<(), FlowError> {
        check_sizes(self, "log_prob", out.len(), &[z.len()], None, cx)?;
        for (z, out) in z.chunks_exact(self.dim().max(1)).zip(out) {
            let each = z.iter().zip(self.0.values()).map(|(z, s)| -z.as_f64().abs() * (-s.as_f64()).exp() - s.as_f64() - 2.0_f64.ln());
            *out = E::of(each.sum());
        }
        Ok(())
    }

    fn sample(&self, rows: usize, temperature: E, cx: &Context<E>) -> Result<Vec<E>, FlowError> {
        let (noise, mut values) = (cx.noise(), vec![E::zero(); rows * self.dim()]);
        for (row, values) in values.chunks_exact_mut(self.dim().max(1)).enumerate() {
            // The difference of two exponential numbers is Laplace's: as ½(a² + b² − c² − d²) of normal ones.
            let mut normal = vec![E::zero(); 4 * values.len()];
            noise.row(row as u64).gaussian(&mut normal);
            for ((value, n), s) in values.iter_mut().zip(normal.chunks_exact(4)).zip(self.0.values()) {
                let difference = n[0] * n[0] + n[1] * n[1] - n[2] * n[2] - n[3] * n[3];
                *value = temperature * E::of(0.5 * s.as_f64().exp()) * difference;
            }
        }
        Ok(values)
    }

    fn pullback(&self, z: &[E], weights: &[E], dz: &mut [E], gradients: &mut [E], cx: &Context<E>) -> Result<Option<Vec<E>>, FlowError> {
        check_sizes(self, "pullback", weights.len(), &[z.len(), dz.len()], Some(gradients.len()), cx)?;
        let dim = self.dim().max(1);
        for ((z, dz), &weight) in z.chunks_exact(dim).zip(dz.chunks_exact_mut(dim)).zip(weights) {
            for (((z, dz), s), gradient) in z.iter().zip(dz).zip(self.0.values()).zip(gradients.iter_mut()) {
                let inverse_scale = E::of((-s.as_f64()).exp());
                *dz = -weight * E::of(z.as_f64().signum()) * inverse_scale;
                *gradient += weight * (E::of(z.as_f64().abs()) * inverse_scale - E::one());
            }
        }
        Ok(None)
    }
}

/// The spec of Laplace's density.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Laplace {}
register_base!(Laplace);

impl BuildBase for Laplace {
    fn build<E: SpecScalar>(&self, dim: usize, _: &BuildScope) -> Result<Box<dyn BaseDensity<E>>, SpecError> {
        Ok(Box::new(LaplaceDensity(Parameter::new(&[dim], vec![E::zero(); dim]))))
    }
}

/// The second half of a sample, moved by what the whole first half says: with m the mean of tanh over the first half a,
/// b → b + w m. log|det J| = 0.
struct TideFlow<E: Scalar>(Parameter<E>, usize);

impl<E: Scalar> Module<E> for TideFlow<E> {
    module_fields!(E; parameter 0 as "weight");
}

impl<E: Scalar> TideFlow<E> {
    /// Adds ±w m to the second half of every sample.
    fn shift(&self, values: &mut [E], sign: f64) {
        for sample in values.chunks_exact_mut(self.1) {
            let (first, second) = sample.split_at_mut(self.1 / 2);
            let mean = first.iter().map(|x| x.as_f64().tanh()).sum::<f64>() / first.len() as f64;
            second.iter_mut().zip(self.0.values()).for_each(|(x, &w)| *x += w * E::of(sign * mean));
        }
    }
}

impl<E: Scalar> SampleFlow<E> for TideFlow<E> {
    fn facts(&self) -> Facts {
        Facts::new("Tide")
    }

    fn event(&self) -> usize {
        self.1
    }

    fn prepare<'a>(&'a self, _: usize, _: &Context<E>) -> Result<Box<dyn SampleKernel<E> + 'a>, FlowError> {
        Ok(Box::new(Tidal(self)))
    }
}

/// The flow in one call.
struct Tidal<'a, E: Scalar>(&'a TideFlow<E>);

impl<E: Scalar> SampleKernel<E> for Tidal<'_, E> {
    fn forward(&self, samples: &mut Samples<'_, E>, tape: &mut SampleTape<E>) -> Result<(), FlowError> {
        let mut kept = tape.part();
        kept.push(Buffer::copy_of(samples.values));
        tape.push(kept);
        self.0.shift(samples.values, 1.0);
        Ok(())
    }

    fn inverse(&self, samples: &mut Samples<'_, E>) -> Result<(), FlowError> {
        self.0.shift(samples.values, -1.0);
        Ok(())
    }

    fn pull_tape(&self, tape: SampleTape<E>, pull: &mut SamplePull<'_, E>) -> Result<(), FlowError> {
        let TideFlow(weight, event) = self.0;
        for mut part in tape.into_parts() {
            let x = part.pop()?;
            for (x, cotangent) in x.chunks_exact(*event).zip(pull.cotangent.chunks_exact_mut(*event)) {
                let (first, _) = x.split_at(event / 2);
                let (for_first, for_second) = cotangent.split_at_mut(event / 2);
                let tanh: Vec<f64> = first.iter().map(|x| x.as_f64().tanh()).collect();
                let count = first.len() as f64;
                let mean = tanh.iter().sum::<f64>() / count;
                let through: f64 = for_second.iter().zip(weight.values()).map(|(g, w)| g.as_f64() * w.as_f64()).sum();
                for_first.iter_mut().zip(&tanh).for_each(|(g, t)| *g += E::of(through * (1.0 - t * t) / count));
                pull.sums.iter_mut().zip(for_second).for_each(|(sum, g)| *sum += *g * E::of(mean));
            }
        }
        Ok(())
    }

    fn sums_len(&self) -> usize {
        self.0.0.values().len()
    }
}

/// The spec of the map of whole samples.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tide {}
register_sample_flow!(Tide);

impl BuildSampleFlow for Tide {
    fn build<E: SpecScalar>(&self, grid: &Grid, _: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let event = grid.channels() * grid.places();
        let moved = event - event / 2;
        Ok(one_flow(TideFlow(Parameter::new(&[moved], vec![E::zero(); moved]), event)))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    // In one dimension, where the quadrature of the check is fine enough for the density's kink.
    check_base("Laplace", |_| Ok(LaplaceDensity(Parameter::new(&[1], vec![0.3]))))?;
    let spec: Spec<dyn ModelSpec> = "ImageFlow(
        flows: [
            ActNorm(),
            Squeeze(),
            Repeat(times: 2, flows: [
                PixelWise(flows: [LuLinear(), Bump()]),
                ChannelWise(flows: [LuLinear(), Bump()]),
                Tide(),
            ]),
        ],
        base: Laplace(),
    )"
    .parse()?;
    let small = EventShape::Image { channels: 1, height: 4, width: 4 };
    let subject = Subject { inverse_tolerance: Some(1e-9), ..Subject::new("a model of plug-ins", small.len()) };
    check_model(&subject, &spec, small)?;
    println!("The three conform");

    let split = data::digits()?;
    let model: Model<f32> = spec.build(EventShape::Image { channels: 1, height: 8, width: 8 }, 7)?;
    println!("{model}");
    let settings = Settings { steps: 200, report_every: 50, learning_rate: 3e-3, ..Settings::default() };
    let mut trainer = Trainer::new(model, split.train, settings)?;
    trainer.run(&mut Silent, &AtomicBool::new(false))?;
    for report in trainer.history() {
        println!("to step {:3}: {:.3} bits a dimension", report.step, report.train);
    }
    let samples = trainer.finish()?.sample(4, 1.0, &Context::new(1))?;
    println!("{} numbers of four samples", samples.len());
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
