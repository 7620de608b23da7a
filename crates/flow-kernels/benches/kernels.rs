//! What the kernels are made of, on one thread: `products` reports floating-point operations a second (as "elem/s"), `elementary` elements a second.

#![allow(missing_docs, reason = "criterion's macros make undocumented items")]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::scalar::{exp, gelu_with_derivative, ln, sigmoid, softplus, tanh};
use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};

const LANES: [usize; 5] = [64, 96, 128, 192, 256];

fn filled<E: Real>(len: usize, scale: f64) -> Buffer<E> {
    let mut out = Buffer::take(len);
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

criterion_group!(benches, products, elementary::<f32>, elementary::<f64>);
criterion_main!(benches);
