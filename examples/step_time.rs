//! Times a training step, `log_prob` and sampling of a spec: one JSON line.
//!
//! ```sh
//! cargo run --release --example step_time -- specs/digits-affine.ron 1,8,8 128
//! ```

use mixerflow_toolkit::prelude::*;
use std::time::Instant;

fn median(mut f: impl FnMut() -> Result<(), Box<dyn std::error::Error>>, runs: usize) -> Result<f64, Box<dyn std::error::Error>> {
    f()?;
    let mut times = Vec::with_capacity(runs);
    for _ in 0..runs {
        let began = Instant::now();
        f()?;
        times.push(began.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[runs / 2])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, shape, batch, memory @ ..] = arguments.as_slice() else {
        return Err("usage: step_time SPEC C,H,W BATCH [store|recompute|invert]".into());
    };
    let shape: Vec<usize> = shape.split(',').map(str::parse).collect::<Result<_, _>>()?;
    let [channels, height, width] = shape[..] else { return Err("a shape is C,H,W".into()) };
    let batch: usize = batch.parse()?;
    let memory = match memory.first().map(String::as_str) {
        None | Some("store") => Memory::Store,
        Some("recompute") => Memory::Recompute,
        Some("invert") => Memory::Invert,
        Some(other) => return Err(format!("unknown memory setting `{other}`").into()),
    };
    let spec: Spec<dyn ModelSpec> = from_ron(&std::fs::read_to_string(path)?)?;
    let event = EventShape::Image { channels, height, width };
    let mut model = f32::model(spec.0.as_ref(), event, &BuildScope::new(DefaultDevice::default(), 7))?;
    let mut images = vec![0.0_f32; batch * event.len()];
    flow_kernels::noise::Stream::new(1, 0, "images").row(0).gaussian(&mut images);
    let images = model.batch(images)?;
    let cx = Context::new(1).in_mode(Mode::Train).with_memory(memory);
    model.flow_mut().initialise(images.clone(), &cx)?;
    let mut gradients = Gradients::zeros(&model);
    let train = median(
        || {
            gradients.clear();
            model.flow().nll(images.clone(), &mut gradients, &cx)?;
            Ok(())
        },
        7,
    )?;
    let log_prob = median(|| Ok(model.flow().log_prob(images.clone(), &cx).map(|_| ())?), 7)?;
    let sample = median(|| Ok(model.sample(batch, 1.0, &cx).map(|_| ())?), 7)?;
    println!(
        "{{\"train_s\": {train:.5}, \"log_prob_s\": {log_prob:.5}, \"sample_s\": {sample:.5}, \"parameters\": {}, \"memory\": \"{memory:?}\", \"threads\": {}}}",
        flow_api::parameter_count(&model),
        std::thread::available_parallelism()?
    );
    Ok(())
}
