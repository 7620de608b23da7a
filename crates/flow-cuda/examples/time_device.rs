//! Times a model on the device beside the host: passes, samples, and a training step: its passes with the rest left
//! out, and all of it as one graph, in f32 and in TF32.
//!
//! `cargo run --release -p flow-cuda --example time_device -- [layers [batch…]]`: the layers of a `MixerFlow` on
//! 32×32×3 and the sizes of batches, by default 30 and 64, 256 and 1024. A time is the least of five, after one that is
//! not counted, with what is carried to the device and back.

use flow_api::bijector::{Cotangent, Point};
use flow_api::device::{AdamForm, BaseForm, Engine, LevelsForm, Precision, StepForm, StepSamples, TrainingState};
use flow_api::module::parameter_count;
use flow_api::spec::{EventShape, Model, ModelSpec, Spec, from_ron};
use flow_api::{Bijector, Context, Gradients, Scalar};
use flow_cuda::Cuda;
use flow_train::flat_weights;
use flows_coupling as _;
use mixerflow as _;
use std::time::{Duration, Instant};

type Any = Box<dyn std::error::Error>;

/// The least time of five calls, after one that is not counted.
fn least(mut call: impl FnMut() -> Result<(), Any>) -> Result<Duration, Any> {
    call()?;
    let mut least = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        call()?;
        least = least.min(began.elapsed());
    }
    Ok(least)
}

fn times(model: &Model<f32>, batch: usize) -> Result<[Duration; 3], Any> {
    let (event, cx) = (model.event().len(), Context::new(1).child("bijector"));
    let mut x = vec![0.0; batch * event];
    cx.noise().row(0).gaussian(&mut x);
    let shape = (batch, event);
    let input = || f32::tensor(x.clone(), shape);
    let bijector = model.flow().bijector();
    let mut gradients = Gradients::zeros(model);
    Ok([
        least(|| Ok(bijector.forward(input(), &cx).map(drop)?))?,
        least(|| Ok(bijector.inverse(input(), &cx).map(drop)?))?,
        least(|| {
            gradients.clear();
            let (_, kept) = bijector.forward_keeping(input(), &cx)?;
            let cotangent = Cotangent { value: input(), log_det: f32::tensor(vec![1.0; batch], (batch,)) };
            Ok(bijector.pullback(Point::Kept(kept), cotangent, &mut gradients, &cx).map(drop)?)
        })?,
    ])
}

/// A whole training step from levels, which stays on the device.
fn graph(device: &Cuda, model: &Model<f32>, batch: usize, precision: Precision) -> Result<Duration, Any> {
    let event = model.event().len();
    let levels = LevelsForm { seed: 1, purpose: 1, levels: 256, dropped: 0, row: 32, mirror: true };
    let adam =
        AdamForm { gradient_scale: 1.0 / event as f64, betas: (0.9, 0.999), epsilon: 1e-8, weight_decay: 0.0, clip: Some(5.0), ema: None };
    let form = StepForm { samples: batch, levels: Some(levels), base: BaseForm::StandardNormal, adam, precision };
    let mut session = device.train(event, &model.device_form()?, &form)?;
    let zeros = || vec![0.0; parameter_count(model)];
    session.write(&TrainingState { parameters: flat_weights(model), first: zeros(), second: zeros(), average: None })?;
    println!("{batch:>6} {:>8} {}", "", session.describe());
    let values = vec![127; batch * event];
    let items: Vec<[u64; 2]> = (0..batch as u64).map(|item| [0, item]).collect();
    let mut number = 0;
    least(|| {
        number += 1;
        Ok(session.step(StepSamples::Levels { values: &values, items: &items }, 1e-4, number).map(drop)?)
    })
}

fn main() -> Result<(), Any> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>().map_err(|error| format!("{text}: {error}")));
    let layers = numbers.next().transpose()?.unwrap_or(30);
    let mut batches = numbers.collect::<Result<Vec<_>, _>>()?;
    if batches.is_empty() {
        batches = vec![64, 256, 1024];
    }
    let side = "[LuLinear(), AffineCoupling(hidden: 128, blocks: 1)]";
    let spec: Spec<dyn ModelSpec> = from_ron(&format!("MixerFlow(patch: 4, layers: {layers}, channel: {side}, patches: {side})"))?;
    let build = || spec.build::<f32>(EventShape::Image { channels: 3, height: 32, width: 32 }, 7);
    let device = Cuda::open(0)?;
    println!("{}; {layers} layers", device.info());
    println!("{:>6} {:>8} {:>12} {:>12} {:>12}", "batch", "on", "forward", "inverse", "step");
    let (host, there) = (build()?, build()?.on(&device)?);
    for batch in batches {
        for (name, model) in [("cpu", &host), ("device", &there)] {
            let [forward, inverse, step] = times(model, batch)?.map(|time| format!("{:.2} ms", 1e3 * time.as_secs_f64()));
            println!("{batch:>6} {name:>8} {forward:>12} {inverse:>12} {step:>12}");
        }
        for precision in [Precision::F32, Precision::Tf32] {
            let time = graph(&device, &host, batch, precision)?;
            println!("{batch:>6} {:>8} {:>12} {:>12} {:>9.2} ms a whole step", precision.to_string(), "", "", 1e3 * time.as_secs_f64());
        }
    }
    Ok(())
}
