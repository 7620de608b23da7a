//! A training step under every memory setting, `log_prob` and sampling of whole models.
//!
//! ```sh
//! cargo bench -p flow-train
//! ```

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flow_api::spec::{BuildScope, EventShape, Model, ModelSpec, Spec, SpecScalar, from_ron};
use flow_api::{Context, Gradients, Memory, Mode};
use std::path::Path;
// Linked, so that their flows are registered.
use {flows_coupling as _, mixerflow as _};

/// Spec, shape of an image, images in a batch.
const MODELS: [(&str, (usize, usize, usize), usize); 2] = [("digits-affine", (1, 8, 8), 128), ("mixerflow-32x32", (3, 32, 32), 64)];

fn model(name: &str, event: EventShape, batch: usize) -> (Model<f32>, Vec<f32>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../specs").join(name).with_extension("ron");
    let spec: Spec<dyn ModelSpec> = from_ron(&std::fs::read_to_string(path).expect("a spec of ours")).expect("a spec");
    let mut model = f32::model(&spec, event, &BuildScope::new(7)).expect("a model");
    let mut images = vec![0.0; batch * event.len()];
    flow_kernels::noise::Stream::new(1, 0, "images").row(0).gaussian(&mut images);
    let first = model.batch(images.clone()).expect("whole images");
    model.flow_mut().initialise(first, &Context::new(1)).expect("images that vary");
    (model, images)
}

fn steps(c: &mut Criterion) {
    for (name, (channels, height, width), batch) in MODELS {
        let (model, images) = model(name, EventShape::Image { channels, height, width }, batch);
        let mut group = c.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Elements(batch as u64));
        let mut gradients = Gradients::zeros(&model);
        for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
            let cx = Context::new(1).in_mode(Mode::Train).with_memory(memory);
            group.bench_function(format!("train, {memory:?}"), |b| {
                b.iter(|| {
                    gradients.clear();
                    let batch = model.batch(images.clone()).expect("whole images");
                    model.flow().nll(batch, &mut gradients, &cx).expect("a loss").nll
                });
            });
        }
        let cx = Context::new(1);
        group.bench_function("log_prob", |b| b.iter(|| model.log_prob(images.clone(), &cx).expect("densities").value));
        group.bench_function("sample", |b| b.iter(|| model.sample(batch, 1.0, &cx).expect("samples")));
    }
}

criterion_group!(benches, steps);
criterion_main!(benches);
