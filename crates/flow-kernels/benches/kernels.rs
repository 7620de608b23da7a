//! What the kernels are made of, and a whole affine coupling made of them.
//!
//! `products` and `coupling` report floating-point operations a second (as "elem/s"), `elementary` elements a second. Threads are those of
//! `RAYON_NUM_THREADS`; `products` uses one.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flow_kernels::blocks::BlockPlan;
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::scalar::{exp, gelu_with_derivative, ln, sigmoid, softplus, tanh};
use flow_kernels::workspace::{Buffer, buffer};
use flow_kernels::{Real, vectorized};

const LANES: [usize; 5] = [64, 96, 128, 192, 256];

fn filled<E: Real>(len: usize, scale: f64) -> Buffer<E> {
    let mut out = buffer(len);
    for (i, x) in out.iter_mut().enumerate() {
        *x = E::of(((i * 7919) % 1009) as f64 / 504.5 - 1.0) * E::of(scale);
    }
    out
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("products");
    for (outputs, inputs) in [(128, 24), (128, 128), (48, 128)] {
        for lanes in LANES {
            let w = filled::<f32>(outputs * inputs, 0.1);
            let (mut x, mut y) = (filled::<f32>(inputs * lanes, 1.0), filled::<f32>(outputs * lanes, 1.0));
            let mut dw = filled::<f32>(outputs * inputs, 1.0);
            let w = Operand::new(&w, outputs, inputs);
            let size = format!("{outputs}x{inputs}x{lanes}");
            group.throughput(Throughput::Elements(2 * (outputs * inputs * lanes) as u64));
            group.bench_function(BenchmarkId::new("W·X", &size), |b| {
                b.iter(|| matmul(&mut y, Accumulate::Replace, w, Operand::new(&x, inputs, lanes)));
            });
            group.bench_function(BenchmarkId::new("Wᵀ·dY", &size), |b| {
                b.iter(|| {
                    matmul(&mut x, Accumulate::Replace, w.transposed(), Operand::new(&y, outputs, lanes));
                });
            });
            group.bench_function(BenchmarkId::new("dW+=dY·Xᵀ", &size), |b| {
                let (x, y) = (Operand::new(&x, inputs, lanes), Operand::new(&y, outputs, lanes));
                b.iter(|| matmul(&mut dw, Accumulate::Add, y, x.transposed()));
            });
        }
    }
    let (a, b) = (filled::<f32>(8192 * 512, 1.0), filled::<f32>(512 * 512, 1.0));
    let mut y = filled::<f32>(8192 * 512, 1.0);
    group.throughput(Throughput::Elements(2 * 8192 * 512 * 512));
    group.bench_function("8192x512x512", |bench| {
        bench.iter(|| {
            matmul(&mut y, Accumulate::Replace, Operand::new(&a, 8192, 512), Operand::new(&b, 512, 512));
        });
    });
}

macro_rules! elementwise {
    ($($name:ident: $f:expr),*) => {
        vectorized! {$(
            fn $name<E: Real>(y: &mut [E], x: &[E]) {
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = $f(x);
                }
            }
        )*}
    };
}
elementwise!(
    all_exp: exp, all_ln: ln, all_tanh: tanh, all_sigmoid: sigmoid, all_softplus: softplus, all_gelu: gelu_with_derivative_sum
);

#[inline(always)]
fn gelu_with_derivative_sum<E: Real>(x: E) -> E {
    let (value, slope) = gelu_with_derivative(x);
    value + slope
}

type Elementwise<E> = fn(&mut [E], &[E]);

fn elementary<E: Real>(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("elementary {}", std::any::type_name::<E>()));
    let x = filled::<E>(128 * 96, 5.0);
    let mut y = filled::<E>(x.len(), 1.0);
    group.throughput(Throughput::Elements(x.len() as u64));
    let functions: [(&str, Elementwise<E>); 6] = [
        ("exp", all_exp),
        ("ln", all_ln),
        ("tanh", all_tanh),
        ("sigmoid", all_sigmoid),
        ("softplus", all_softplus),
        ("gelu and derivative", all_gelu),
    ];
    for (name, f) in functions {
        group.bench_function(name, |b| b.iter(|| f(&mut y, &x)));
    }
}

vectorized! {
    fn bias_relu(block: &mut [f32], bias: &[f32], lanes: usize) {
        for (feature, &bias) in block.chunks_exact_mut(lanes).zip(bias) {
            for x in feature {
                *x = (*x + bias).max(0.0);
            }
        }
    }

    fn skip(block: &mut [f32], residual: &[f32], bias: &[f32], lanes: usize) {
        let features = block.chunks_exact_mut(lanes).zip(residual.chunks_exact(lanes));
        for ((feature, residual), &bias) in features.zip(bias) {
            for (x, &residual) in feature.iter_mut().zip(residual) {
                *x = (*x + residual + bias).max(0.0);
            }
        }
    }

    /// `s = 2 tanh(r / 2)`, `x = x · exp(s) + t`, and the log-det is the sum of `s`.
    fn couple(x: &mut [f32], raw: &[f32], bias: &[f32], log_det: &mut [f32]) {
        let lanes = log_det.len();
        let (raw_scale, shift) = raw.split_at(x.len());
        let (bias_scale, bias_shift) = bias.split_at(bias.len() / 2);
        log_det.fill(0.0);
        let features = x.chunks_exact_mut(lanes).zip(raw_scale.chunks_exact(lanes)).zip(shift.chunks_exact(lanes));
        for (((x, raw), shift), (&bias_raw, &bias_shift)) in features.zip(bias_scale.iter().zip(bias_shift)) {
            for (((x, &raw), &shift), log_det) in x.iter_mut().zip(raw).zip(shift).zip(&mut *log_det) {
                let s = 2.0 * tanh(0.5 * (raw + bias_raw));
                *x = *x * exp(s) + shift + bias_shift;
                *log_det += s;
            }
        }
    }
}

/// Rows of a batch to a feature-major block, and back.
fn gather(block: &mut [f32], rows: &[f32], lanes: usize) {
    let features = block.len() / lanes;
    for (lane, row) in rows.chunks_exact(features).enumerate() {
        for (j, &x) in row.iter().enumerate() {
            block[j * lanes + lane] = x;
        }
    }
}

fn scatter(rows: &mut [f32], block: &[f32], lanes: usize) {
    let features = block.len() / lanes;
    for (lane, row) in rows.chunks_exact_mut(features).enumerate() {
        for (j, x) in row.iter_mut().enumerate() {
            *x = block[j * lanes + lane];
        }
    }
}

fn coupling(c: &mut Criterion) {
    const ROWS: usize = 4096;
    const HALF: usize = 24;
    const HIDDEN: usize = 128;
    const SIZES: [(usize, usize); 4] = [(HIDDEN, HALF), (HIDDEN, HIDDEN), (HIDDEN, HIDDEN), (2 * HALF, HIDDEN)];
    let weights = SIZES.map(|(outputs, inputs)| filled::<f32>(outputs * inputs, 0.1));
    let biases = SIZES.map(|(outputs, _)| filled::<f32>(outputs, 0.1));
    let layer = |i: usize| Operand::new(&weights[i], SIZES[i].0, SIZES[i].1);
    let input = filled::<f32>(ROWS * 2 * HALF, 1.0);
    let (mut output, mut log_dets) = (vec![0.0; ROWS * 2 * HALF], vec![0.0; ROWS]);

    let mut group = c.benchmark_group("coupling");
    group.throughput(Throughput::Elements(SIZES.iter().map(|(m, n)| 2 * (m * n * ROWS) as u64).sum()));
    for max_lanes in LANES {
        let plan = BlockPlan::new(ROWS, max_lanes);
        group.bench_function(BenchmarkId::from_parameter(max_lanes), |b| {
            b.iter(|| {
                let parts = plan.split_mut(&mut output, 2 * HALF).into_iter().zip(plan.split_mut(&mut log_dets, 1));
                plan.map_groups_with(parts.collect(), |group, (output, log_dets)| {
                    for rows in group.blocks() {
                        let lanes = rows.len();
                        let local = rows.start - group.rows.start..rows.end - group.rows.start;
                        let mut x = buffer::<f32>(2 * HALF * lanes);
                        let mut hidden = [(); 3].map(|()| buffer::<f32>(HIDDEN * lanes));
                        let [first, second, third] = &mut hidden;
                        gather(&mut x, &input[rows.start * 2 * HALF..rows.end * 2 * HALF], lanes);
                        let (fixed, moved) = x.split_at_mut(HALF * lanes);
                        matmul(first, Accumulate::Replace, layer(0), Operand::new(fixed, HALF, lanes));
                        bias_relu(first, &biases[0], lanes);
                        matmul(second, Accumulate::Replace, layer(1), Operand::new(first, HIDDEN, lanes));
                        bias_relu(second, &biases[1], lanes);
                        matmul(third, Accumulate::Replace, layer(2), Operand::new(second, HIDDEN, lanes));
                        skip(third, first, &biases[2], lanes);
                        let raw = &mut second[..2 * HALF * lanes];
                        matmul(raw, Accumulate::Replace, layer(3), Operand::new(third, HIDDEN, lanes));
                        couple(moved, raw, &biases[3], &mut log_dets[local.clone()]);
                        scatter(&mut output[local.start * 2 * HALF..local.end * 2 * HALF], &x, lanes);
                    }
                })
            });
        });
    }
}

criterion_group!(benches, products, elementary::<f32>, elementary::<f64>, coupling);
criterion_main!(benches);
