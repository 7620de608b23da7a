//! The passes of the smooth MLP 48 → 128 → 128 → 48 on 4,096 rows in blocks of 128, f32, on one thread.
//!
//! The passes after the forward one go over one block's trace again and again: a family runs them while the trace is in
//! the cache. Reports floating-point operations of the matrix products a second (as "elem/s"), beside the bare products
//! of the same sizes, and the bytes a second of what a pass is given and gives: rows, weights and their gradients, each
//! counted once; not those of the trace.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::{Activation, Mlp, MlpConfig, Modulation};
use std::hint::black_box;

const DIM: usize = 48;
const LANES: usize = 128;
const BLOCKS: usize = 4096 / LANES;

fn filled(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919) % 1009) as f32 / 504.5 - 1.0).collect()
}

/// Operations, with the bytes of so many numbers.
fn throughput(flops: u64, numbers: usize) -> Throughput {
    Throughput::ElementsAndBytes { elements: flops, bytes: (numbers * size_of::<f32>()) as u64 }
}

fn passes(c: &mut Criterion) {
    for activation in [Activation::Tanh, Activation::LipSwish] {
        let config = MlpConfig { activation, ..MlpConfig::new(DIM, [128, 128], DIM) };
        let Ok(mlp) = Mlp::<f32>::new(&config, 1) else { return };
        let Ok(kernel) = mlp.kernel() else { return };
        let flops = 2 * kernel.multiply_adds() * (BLOCKS * LANES) as u64;
        let mut group = c.benchmark_group(format!("{activation:?}"));
        group.sample_size(30);
        let x = filled(BLOCKS * DIM * LANES);
        let v = filled(DIM * LANES);
        let mut y = filled(DIM * LANES);
        let mut x_bar = filled(DIM * LANES);
        let mut sums = vec![0.0; kernel.sums_len()];
        let blocks = || x.chunks_exact(DIM * LANES);
        let none = Modulation::default();
        // A block of rows, and the weights.
        let (block, weights) = (BLOCKS * DIM * LANES, kernel.sums_len());
        group.throughput(throughput(flops, 2 * block + weights));
        group.bench_function("forward", |b| b.iter(|| blocks().for_each(|x| kernel.forward(x, LANES, none, &mut y))));
        group.bench_function("forward traced", |b| {
            b.iter(|| blocks().for_each(|x| drop(black_box(kernel.forward_traced(x, LANES, none, &mut y)))));
        });
        let trace = kernel.forward_traced(&x[..DIM * LANES], LANES, none, &mut y);
        let u = Buffer::copy_of(&v);
        let u = kernel.tangents(u);
        group.bench_function("jvp", |b| b.iter(|| (0..BLOCKS).for_each(|_| kernel.jvp(&trace, &u, &mut y))));
        group.bench_function("vjp", |b| b.iter(|| (0..BLOCKS).for_each(|_| kernel.vjp(&trace, &v, &mut y))));
        group.throughput(throughput(2 * flops, 2 * block + 2 * weights));
        group.bench_function("pullback", |b| {
            b.iter(|| (0..BLOCKS).for_each(|_| kernel.pullback(&trace, &v, &mut x_bar, &mut [], &mut sums)));
        });
        group.throughput(throughput(4 * flops, 4 * block + 2 * weights));
        let tangents = kernel.jvp_traced(&trace, &u, &mut y);
        group.bench_function("pullback_dual", |b| {
            b.iter(|| {
                for _ in 0..BLOCKS {
                    kernel.pullback_dual(&trace, &tangents, &v, &v, &mut x_bar, Some(&mut y), &mut [], &mut sums);
                }
            });
        });
        let mut jacobians = vec![0.0; LANES * DIM * DIM];
        // The first product needs no computation: its tangents are units.
        group.throughput(throughput((DIM * BLOCKS * LANES * 2 * 128 * (128 + DIM)) as u64, DIM * block + weights));
        group.bench_function("jacobian", |b| {
            b.iter(|| (0..BLOCKS).for_each(|_| kernel.jacobian(&trace, &mut jacobians)));
        });
    }
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("bare products");
    group.sample_size(30);
    for (name, lanes) in [("W·X", LANES), ("Wᵀ·dY", LANES), ("dW+=dY·Xᵀ", LANES), ("W·X", 8 * LANES)] {
        let shapes = [(128, DIM), (128, 128), (DIM, 128)];
        let flops: usize = shapes.iter().map(|(o, i)| 2 * o * i * lanes).sum();
        let (w, x) = (filled(128 * 128), filled(128 * lanes));
        let mut out = filled(128 * lanes.max(128));
        let numbers: usize = shapes.iter().map(|(o, i)| o * i + (o + i) * lanes).sum();
        group.throughput(throughput(flops as u64, numbers));
        group.bench_function(BenchmarkId::new(name, lanes), |b| {
            b.iter(|| {
                for (o, i) in shapes {
                    let (weight, input, output) = (&w[..o * i], &x[..i * lanes], &x[..o * lanes]);
                    let weight = Operand::new(weight, o, i);
                    match name {
                        "W·X" => matmul(&mut out[..o * lanes], Accumulate::Replace, weight, Operand::new(input, i, lanes)),
                        "Wᵀ·dY" => {
                            matmul(&mut out[..i * lanes], Accumulate::Replace, weight.transposed(), Operand::new(output, o, lanes));
                        }
                        _ => matmul(
                            &mut out[..o * i],
                            Accumulate::Add,
                            Operand::new(output, o, lanes),
                            Operand::new(input, i, lanes).transposed(),
                        ),
                    }
                }
            });
        });
    }
}

criterion_group!(benches, products, passes);
criterion_main!(benches);
