//! What the kernels are made of, on one thread.
//!
//! `products` reports floating-point operations a second (as "elem/s"), the others numbers a second; all of them also
//! the bytes a second of operands and results, each counted once.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flow_kernels::matmul::{Accumulate, Bias, Operand, Part, matmul, matmul_with, triangular_matmul};
use flow_kernels::scalar::{exp, gelu_with_derivative, ln, sigmoid, softplus, tanh};
use flow_kernels::simd::{add, add_lane_products, add_lanes, scale_and_shift};
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};

const LANES: [usize; 3] = [64, 128, 192];

/// Outputs and inputs of layers: those of 32×32×3 images, then those of 8×8×1 images.
const LAYERS: [(usize, usize); 7] = [(128, 24), (128, 128), (48, 128), (64, 2), (64, 64), (4, 64), (16, 64)];

/// Operations, or numbers, with the bytes of so many numbers.
fn throughput<E>(elements: usize, numbers: usize) -> Throughput {
    Throughput::ElementsAndBytes { elements: elements as u64, bytes: (numbers * size_of::<E>()) as u64 }
}

fn filled<E: Real>(len: usize, scale: f64) -> Buffer<E> {
    let mut out = Buffer::take(len);
    for (i, x) in out.iter_mut().enumerate() {
        *x = E::of(((i * 7919) % 1009) as f64 / 504.5 - 1.0) * E::of(scale);
    }
    out
}

fn products(c: &mut Criterion) {
    let mut group = c.benchmark_group("products");
    for (outputs, inputs) in LAYERS {
        for lanes in LANES {
            let w = filled::<f32>(outputs * inputs, 0.1);
            let (mut x, mut y) = (filled::<f32>(inputs * lanes, 1.0), filled::<f32>(outputs * lanes, 1.0));
            let mut dw = filled::<f32>(outputs * inputs, 1.0);
            let w = Operand::new(&w, outputs, inputs);
            let size = format!("{outputs}x{inputs}x{lanes}");
            group.throughput(throughput::<f32>(2 * outputs * inputs * lanes, outputs * inputs + (inputs + outputs) * lanes));
            group.bench_function(BenchmarkId::new("W·X", &size), |b| {
                b.iter(|| matmul(&mut y, Accumulate::Replace, w, Operand::new(&x, inputs, lanes)));
            });
            let bias = filled::<f32>(outputs, 0.1);
            group.bench_function(BenchmarkId::new("W·X+b", &size), |b| {
                b.iter(|| matmul_with(&mut y, Accumulate::Replace, w, Operand::new(&x, inputs, lanes), &mut Bias(&bias)));
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
    group.throughput(throughput::<f32>(2 * 8192 * 512 * 512, (2 * 8192 + 512) * 512));
    group.bench_function("8192x512x512", |bench| {
        bench.iter(|| {
            matmul(&mut y, Accumulate::Replace, Operand::new(&a, 8192, 512), Operand::new(&b, 512, 512));
        });
    });
}

/// L·U and what a gradient of it takes, a third of a full product's operations.
fn triangles(c: &mut Criterion) {
    let mut group = c.benchmark_group("triangles");
    for n in [48, 192, 768] {
        let (a, b) = (filled::<f32>(n * n, 0.1), filled::<f32>(n * n, 0.1));
        // What is outside of a part has to be zero.
        let part = |x: &[f32], keep: fn(usize, usize) -> bool| -> Vec<f32> {
            let entry = |(k, &x): (usize, &f32)| {
                if k / n == k % n {
                    1.0
                } else if keep(k / n, k % n) {
                    x
                } else {
                    0.0
                }
            };
            x.iter().enumerate().map(entry).collect()
        };
        let (lower, upper) = (part(&a, |i, j| j < i), part(&b, |i, j| j > i));
        let mut y = filled::<f32>(n * n, 1.0);
        group.throughput(throughput::<f32>(2 * n * n * n / 3, 2 * n * n));
        group.bench_function(BenchmarkId::new("L·U", n), |bench| {
            let (lower, upper) = (Operand::new(&lower, n, n), Operand::new(&upper, n, n));
            bench.iter(|| triangular_matmul(&mut y, Part::Full, (lower, Part::UnitLower), (upper, Part::Upper)));
        });
    }
}

/// Passes over a block of 128 features.
fn sweeps(c: &mut Criterion) {
    const FEATURES: usize = 128;
    let mut group = c.benchmark_group("sweeps");
    for lanes in LANES {
        let len = FEATURES * lanes;
        let (x, mut y) = (filled::<f32>(len, 1.0), filled::<f32>(len, 1.0));
        let (scale, mut sums) = (filled::<f32>(FEATURES, 1.0), filled::<f32>(FEATURES, 1.0));
        group.throughput(throughput::<f32>(len, 3 * len));
        group.bench_function(BenchmarkId::new("y+=x", lanes), |b| b.iter(|| add(&mut y, &x)));
        group.throughput(throughput::<f32>(len, 2 * len));
        group.bench_function(BenchmarkId::new("scale and shift", lanes), |b| {
            b.iter(|| {
                scale_and_shift(&mut y, &scale, &scale, lanes);
                y.copy_from_slice(&x);
            });
        });
        group.bench_function(BenchmarkId::new("Σ x y", lanes), |b| b.iter(|| add_lane_products(&mut sums, &x, &y, lanes)));
        group.throughput(throughput::<f32>(len, len));
        group.bench_function(BenchmarkId::new("Σ x", lanes), |b| b.iter(|| add_lanes(&mut sums, &x, lanes)));
    }
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
    group.throughput(throughput::<E>(x.len(), 2 * x.len()));
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

criterion_group!(benches, products, triangles, sweeps, elementary::<f32>, elementary::<f64>);
criterion_main!(benches);
