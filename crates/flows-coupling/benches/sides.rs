//! What a side of a mixing layer on 32×32 images is made of, and a whole side: 48 features, hidden width 128, one
//! block, 4,096 rows, all threads. And a linear map of 768 features.
//!
//! The throughput is that of the matrix products alone: an "element" is one of their floating-point operations, two a
//! multiply-add, and a pullback does twice those of a forward pass. The step of a spline coupling counts its own,
//! larger last layer. Bytes are those of rows, cotangents, weights and gradients, each counted once; not those of the
//! tape.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flow_api::bijector::{Cotangent, Point};
use flow_api::module::{EntryMut, parameter_count, update};
use flow_api::rows::{RowChain, Rows};
use flow_api::spec::{BuildScope, FlowSpec, SpecScalar, from_ron};
use flow_api::{Bijector, Context, Gradients, Memory, RowFlow, Scalar};
use flow_kernels::noise::Stream;
use flows_coupling as _;

fn normal(len: usize, name: &str, deviation: f32) -> Vec<f32> {
    let mut values = vec![0.0_f32; len];
    Stream::new(1, 0, name).row(0).gaussian(&mut values);
    values.into_iter().map(|x| x * deviation).collect()
}

/// Features, rows and flows. `ActNorm` and LU of 48 features are one affine map; 768 are multiplied by U and by L.
const SIDES: [(usize, usize, &[&str]); 6] = [
    (48, 4096, &["ActNorm()", "LuLinear()"]),
    (48, 4096, &["AdditiveCoupling(hidden: 128, blocks: 1)"]),
    (48, 4096, &["AffineCoupling(hidden: 128, blocks: 1)"]),
    (48, 4096, &["SplineCoupling(hidden: 128, blocks: 1)"]),
    (48, 4096, &["ActNorm()", "LuLinear()", "AffineCoupling(hidden: 128, blocks: 1)"]),
    (768, 256, &["LuLinear()"]),
];

fn sides(criterion: &mut Criterion) {
    for (dim, rows, flows) in SIDES {
        let scope = BuildScope::new(1);
        let build = |ron: &&str| {
            let spec: FlowSpec = from_ron(ron).expect("a spec");
            f32::row_flow(&spec, dim, &scope).expect("a flow")
        };
        let mut flow = RowChain::new(dim, flows.iter().map(build).collect()).expect("flows on rows of one size");
        update(&mut flow, |path, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                let noise = normal(values.len(), path, 0.02);
                values.iter_mut().zip(noise).for_each(|(value, noise)| *value += noise);
            }
        })
        .expect("parameters");
        let x = f32::tensor(normal(dim * rows, "x", 1.0), (rows, dim));
        let mut flow = Rows(flow);
        let cx = Context::new(0);
        flow.initialise(x.clone(), &cx).expect("rows that vary");
        let cotangent = || Cotangent { value: x.clone(), log_det: f32::tensor(vec![1.0 / rows as f32; rows], (rows,)) };
        let mut gradients = Gradients::zeros(&flow);

        let mut group = criterion.benchmark_group(format!("{dim}: {}", flows.join(", ")));
        let forward = 2 * RowFlow::facts(&flow.0).multiply_adds * rows as u64;
        let (numbers_of_rows, parameters) = (dim * rows, parameter_count(&flow));
        let throughput =
            |flops, numbers: usize| Throughput::ElementsAndBytes { elements: flops, bytes: (numbers * size_of::<f32>()) as u64 };
        group.throughput(throughput(forward, 2 * numbers_of_rows + parameters));
        group.bench_function("forward", |bencher| bencher.iter(|| flow.forward(x.clone(), &cx)));
        group.bench_function("inverse", |bencher| bencher.iter(|| flow.inverse(x.clone(), &cx)));
        group.throughput(throughput(3 * forward, 4 * numbers_of_rows + 2 * parameters));
        for (name, memory) in [("forward and pullback", Memory::Store), ("forward and pullback, inverting", Memory::Invert)] {
            let cx = cx.clone().with_memory(memory);
            group.bench_function(name, |bencher| {
                bencher.iter(|| {
                    let (_, kept) = flow.forward_keeping(x.clone(), &cx).expect("a forward pass");
                    flow.pullback(Point::Kept(kept), cotangent(), &mut gradients, &cx)
                });
            });
        }
        group.finish();
    }
}

criterion_group!(benches, sides);
criterion_main!(benches);
