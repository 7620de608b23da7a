//! The passes of the smooth MLP against a plain per-row network, central differences and each other.

use flow_kernels::Real;
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::{Activation, Layer, MlpKernel, Modulated, Modulation, Trace};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LANES: usize = 3;
const STEP: f64 = 1e-5;

/// What a network has besides weights, biases and activations.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Variant {
    Plain,
    Shift,
    ScaleShift,
    Concat,
    ConcatScaleShift,
}

impl Variant {
    const ALL: [Self; 5] = [Self::Plain, Self::Shift, Self::ScaleShift, Self::Concat, Self::ConcatScaleShift];

    fn concat(self) -> bool {
        matches!(self, Self::Concat | Self::ConcatScaleShift)
    }

    fn modulated(self) -> Modulated {
        match self {
            Self::Plain | Self::Concat => Modulated::No,
            Self::Shift => Modulated::Shift,
            Self::ScaleShift | Self::ConcatScaleShift => Modulated::ScaleShift,
        }
    }
}

/// A network with all its numbers in one list, in the documented order of the sums.
#[derive(Debug, Clone)]
struct Net {
    activation: Activation,
    variant: Variant,
    input: usize,
    outputs: Vec<usize>,
    numbers: Vec<f64>,
}

/// One layer's numbers, read off the list.
struct Numbers {
    weight: Vec<f64>,
    bias: Vec<f64>,
    beta: f64,
    eta: Option<[f64; 2]>,
}

fn draw(rng: &mut ChaCha8Rng, len: usize) -> Vec<f64> {
    (0..len).map(|_| rng.gen_range(-1.0..1.0)).collect()
}

impl Net {
    fn new(activation: Activation, variant: Variant, input: usize, outputs: &[usize]) -> Self {
        let mut net = Self { activation, variant, input, outputs: outputs.to_vec(), numbers: Vec::new() };
        // Enough for the list to be read; then its true length.
        net.numbers = vec![0.5; 1 << 16];
        let len = net.read().3;
        net.numbers = draw(&mut ChaCha8Rng::seed_from_u64(len as u64), len);
        net
    }

    /// Layers, scale, shift, and how many numbers they took.
    fn read(&self) -> (Vec<Numbers>, Vec<f64>, Vec<f64>, usize) {
        let mut at = 0;
        let mut take = |len: usize| {
            at += len;
            self.numbers[at - len..at].to_vec()
        };
        let mut width = self.input;
        let mut layers = Vec::new();
        for (i, &output) in self.outputs.iter().enumerate() {
            let hidden = i + 1 < self.outputs.len();
            let (weight, bias) = (take(output * width), take(output));
            let beta = if hidden && self.activation.has_beta() { take(1)[0] } else { 0.0 };
            let eta = (hidden && self.variant.concat()).then(|| take(2)).map(|eta| [eta[0], eta[1]]);
            layers.push(Numbers { weight, bias, beta, eta });
            width = if self.variant.concat() { width } else { 0 } + output * self.activation.branches();
        }
        let total = self.outputs.iter().sum();
        let scale = take(if self.variant.modulated() == Modulated::ScaleShift { total } else { 0 });
        let shift = take(if self.variant.modulated() == Modulated::No { 0 } else { total });
        (layers, scale, shift, at)
    }

    /// Makes the kernel and the modulation and hands them to `f`.
    fn with<E: Real, R>(&self, f: impl FnOnce(&MlpKernel<'_, E>, Modulation<'_, E>) -> R) -> R {
        let (layers, scale, shift, _) = self.read();
        let count = layers.len();
        let layers = layers.into_iter().enumerate().map(|(i, numbers)| {
            let layer = Layer::new(cast::<E>(&numbers.weight), cast::<E>(&numbers.bias));
            let layer = if i + 1 < count { layer.activated(self.activation, E::of(numbers.beta)) } else { layer };
            match numbers.eta {
                Some(eta) => layer.concat(eta.map(E::of)),
                None => layer,
            }
        });
        let kernel = MlpKernel::new(self.input, layers.collect(), self.variant.modulated()).unwrap();
        f(&kernel, Modulation { scale: &cast::<E>(&scale), shift: &cast::<E>(&shift), offset: &[] })
    }

    /// The network on one row, as the textbook writes it.
    fn row(&self, x: &[f64]) -> Vec<f64> {
        let (layers, scale, shift, _) = self.read();
        let mut h = x.to_vec();
        let mut place = 0;
        for (i, layer) in layers.iter().enumerate() {
            let z: Vec<f64> = (0..layer.bias.len())
                .map(|j| {
                    let sum: f64 = h.iter().zip(&layer.weight[j * h.len()..]).map(|(h, w)| h * w).sum();
                    let at = place + j;
                    scale.get(at).unwrap_or(&1.0) * (sum + layer.bias[j]) + shift.get(at).unwrap_or(&0.0)
                })
                .collect();
            place += z.len();
            if i + 1 == layers.len() {
                return z;
            }
            let lip = |z: f64| z / (1.0 + (-layer.beta.exp().ln_1p() * z).exp()) / 1.1;
            let mut a: Vec<f64> = match self.activation {
                Activation::Tanh => z.iter().map(|z| z.tanh()).collect(),
                Activation::Softplus => z.iter().map(|z| z.exp().ln_1p()).collect(),
                Activation::Silu => z.iter().map(|z| z / (1.0 + (-z).exp())).collect(),
                Activation::Elu => z.iter().map(|&z| if z > 0.0 { z } else { z.exp_m1() }).collect(),
                Activation::LipSwish => z.iter().map(|&z| lip(z)).collect(),
                Activation::CLipSwish => z.iter().chain(&z.iter().map(|z| -z).collect::<Vec<_>>()).map(|&z| lip(z) / 1.004).collect(),
            };
            h = match layer.eta {
                Some([one, two]) => h.iter().map(|h| one * h).chain(a.iter().map(|a| two * a)).collect(),
                None => std::mem::take(&mut a),
            };
        }
        h
    }
}

fn cast<E: Real>(values: &[f64]) -> Vec<E> {
    values.iter().map(|&v| E::of(v)).collect()
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

fn forward(net: &Net, x: &[f64]) -> Vec<f64> {
    net.with(|kernel, modulation| {
        let lanes = x.len() / kernel.input();
        let mut y = vec![0.0; kernel.output() * lanes];
        kernel.forward(x, lanes, modulation, &mut y);
        y
    })
}

/// J u of every row, through the trace.
fn jvp(net: &Net, x: &[f64], u: &[f64]) -> Vec<f64> {
    traced(net, x, |kernel, trace, _| {
        let mut out = vec![0.0; kernel.output() * u.len() / kernel.input()];
        kernel.jvp(trace, &kernel.tangents(Buffer::copy_of(u)), &mut out);
        out
    })
}

fn traced<R>(net: &Net, x: &[f64], f: impl FnOnce(&MlpKernel<'_, f64>, &Trace<f64>, Vec<f64>) -> R) -> R {
    net.with(|kernel, modulation| {
        let lanes = x.len() / kernel.input();
        let mut y = vec![0.0; kernel.output() * lanes];
        let trace = kernel.forward_traced(x, lanes, modulation, &mut y);
        f(kernel, &trace, y)
    })
}

/// Central differences of `f` with respect to every number of `at`.
fn differences(at: &[f64], mut f: impl FnMut(&[f64]) -> f64) -> Vec<f64> {
    let mut moved = at.to_vec();
    (0..at.len())
        .map(|i| {
            let mut side = |h: f64| {
                moved[i] = at[i] + h;
                f(&moved)
            };
            let slope = (side(STEP) - side(-STEP)) / (2.0 * STEP);
            moved[i] = at[i];
            slope
        })
        .collect()
}

fn assert_close(what: &str, got: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * (1.0 + e.abs()), "{what} [{i}]: {g} instead of {e}");
    }
}

/// A small network of every kind, with a block of rows for it.
fn cases() -> impl Iterator<Item = (String, Net, Vec<f64>, ChaCha8Rng)> {
    let kinds = Activation::ALL.into_iter().flat_map(|a| Variant::ALL.map(|v| (a, v)));
    kinds.enumerate().map(|(i, (activation, variant))| {
        let mut rng = ChaCha8Rng::seed_from_u64(i as u64);
        let x = draw(&mut rng, 3 * LANES);
        (format!("{activation:?} {variant:?}"), Net::new(activation, variant, 3, &[5, 2, 4]), x, rng)
    })
}

#[test]
fn forward_is_the_textbook_network() {
    for (name, net, x, _) in cases() {
        let expected: Vec<Vec<f64>> = (0..LANES).map(|r| net.row(&x.iter().skip(r).step_by(LANES).copied().collect::<Vec<_>>())).collect();
        let expected: Vec<f64> = (0..4 * LANES).map(|i| expected[i % LANES][i / LANES]).collect();
        assert_close(&name, &forward(&net, &x), &expected, 1e-13);
        assert_close(&name, &traced(&net, &x, |_, _, y| y), &expected, 1e-13);
    }
}

#[test]
fn tangents_and_cotangents() {
    for (name, net, x, mut rng) in cases() {
        for k in [1, 3] {
            let (columns, name) = (k * LANES, format!("{name}, k = {k}"));
            let (u, v) = (draw(&mut rng, 3 * columns), draw(&mut rng, 4 * columns));
            let ju = jvp(&net, &x, &u);
            for t in 0..k {
                let moved = |h: f64| {
                    let x: Vec<f64> = (0..3 * LANES).map(|i| x[i] + h * u[i / LANES * columns + t * LANES + i % LANES]).collect();
                    forward(&net, &x)
                };
                let slope: Vec<f64> = moved(STEP).iter().zip(moved(-STEP)).map(|(a, b)| (a - b) / (2.0 * STEP)).collect();
                let got: Vec<f64> = (0..4 * LANES).map(|i| ju[i / LANES * columns + t * LANES + i % LANES]).collect();
                assert_close(&format!("{name}: J u"), &got, &slope, 1e-8);
            }
            let (jtv, recorded) = traced(&net, &x, |kernel, trace, _| {
                let (mut out, mut recorded) = (vec![0.0; 3 * columns], vec![0.0; 4 * columns]);
                kernel.vjp(trace, &v, &mut out);
                let _ = kernel.jvp_traced(trace, &kernel.tangents(Buffer::copy_of(&u)), &mut recorded);
                (out, recorded)
            });
            assert_close(&format!("{name}: traced J u"), &recorded, &ju, 1e-15);
            // ⟨v, J u⟩ = ⟨Jᵀ v, u⟩ in every column.
            let inner = |a: &[f64], b: &[f64]| -> Vec<f64> {
                (0..columns).map(|c| (c..a.len()).step_by(columns).map(|i| a[i] * b[i]).sum()).collect()
            };
            assert_close(&format!("{name}: Jᵀ v"), &inner(&jtv, &u), &inner(&v, &ju), 1e-12);
        }
    }
}

#[test]
fn first_order_gradient() {
    for (name, net, x, mut rng) in cases() {
        let c = draw(&mut rng, 4 * LANES);
        let (x_bar, sums) = traced(&net, &x, |kernel, trace, _| {
            let (mut x_bar, mut sums) = (vec![f64::NAN; x.len()], vec![1.0; kernel.sums_len()]);
            kernel.pullback(trace, &c, &mut x_bar, &mut [], &mut sums);
            (x_bar, sums)
        });
        assert_close(&format!("{name}: x̄"), &x_bar, &differences(&x, |x| dot(&c, &forward(&net, x))), 1e-8);
        // The sums are added to what was there.
        let expected = differences(&net.numbers, |n| dot(&c, &forward(&Net { numbers: n.to_vec(), ..net.clone() }, &x)));
        assert_close(&format!("{name}: sums"), &sums, &expected.iter().map(|e| e + 1.0).collect::<Vec<_>>(), 1e-8);
    }
}

#[test]
fn second_order_gradient() {
    for (name, net, x, mut rng) in cases() {
        for k in [1, 3] {
            let name = format!("{name}, k = {k}");
            let (c, u, v) = (draw(&mut rng, 4 * LANES), draw(&mut rng, 3 * k * LANES), draw(&mut rng, 4 * k * LANES));
            let s = |net: &Net, x: &[f64], u: &[f64]| dot(&c, &forward(net, x)) + dot(&v, &jvp(net, x, u));
            let (x_bar, u_bar, sums) = traced(&net, &x, |kernel, trace, _| {
                let (mut x_bar, mut u_bar, mut sums) = (vec![f64::NAN; x.len()], vec![f64::NAN; u.len()], vec![1.0; kernel.sums_len()]);
                let u = kernel.tangents(Buffer::copy_of(&u));
                let tangents = kernel.jvp_traced(trace, &u, &mut []);
                kernel.pullback_dual(trace, &tangents, &c, &v, &mut x_bar, Some(&mut u_bar), &mut [], &mut sums);
                // Without the sums everything else is the same.
                let (mut x_alone, mut u_alone) = (vec![f64::NAN; x.len()], vec![f64::NAN; u_bar.len()]);
                kernel.pullback_dual(trace, &tangents, &c, &v, &mut x_alone, Some(&mut u_alone), &mut [], &mut []);
                assert_eq!((&x_alone, &u_alone), (&x_bar, &u_bar), "{name}");
                (x_bar, u_bar, sums)
            });
            assert_close(&format!("{name}: x̄"), &x_bar, &differences(&x, |x| s(&net, x, &u)), 1e-7);
            assert_close(&format!("{name}: ū"), &u_bar, &differences(&u, |u| s(&net, &x, u)), 1e-7);
            let expected = differences(&net.numbers, |n| s(&Net { numbers: n.to_vec(), ..net.clone() }, &x, &u));
            assert_close(&format!("{name}: sums"), &sums, &expected.iter().map(|e| e + 1.0).collect::<Vec<_>>(), 1e-7);
        }
    }
}

/// A row's offset of the first layer is a bias of its own.
#[test]
fn offsets() {
    for (name, net, x, mut rng) in cases() {
        let [c, u, v, offset] = [4, 3, 4, 5].map(|rows| draw(&mut rng, rows * LANES));
        let values = |net: &Net, offset: &[f64]| -> (Vec<f64>, Vec<f64>) {
            net.with(|kernel, modulation| {
                let (mut y, mut again, mut ju) = (vec![0.0; 4 * LANES], vec![0.0; 4 * LANES], vec![0.0; 4 * LANES]);
                let modulation = Modulation { offset, ..modulation };
                kernel.forward(&x, LANES, modulation, &mut y);
                let trace = kernel.forward_traced(&x, LANES, modulation, &mut again);
                assert_eq!(y, again, "{name}");
                kernel.jvp(&trace, &kernel.tangents(Buffer::copy_of(&u)), &mut ju);
                (y, ju)
            })
        };
        let (y, _) = values(&net, &offset);
        for r in 0..LANES {
            let mut moved = net.clone();
            moved.numbers[5 * 3..5 * 3 + 5].iter_mut().zip(offset.iter().skip(r).step_by(LANES)).for_each(|(b, o)| *b += o);
            let at = |values: &[f64]| values.iter().skip(r).step_by(LANES).copied().collect::<Vec<_>>();
            assert_close(&format!("{name}: row {r}"), &at(&y), &moved.row(&at(&x)), 1e-13);
        }
        let s = |net: &Net, offset: &[f64]| {
            let (y, ju) = values(net, offset);
            dot(&c, &y) + dot(&v, &ju)
        };
        let (offset_bar, sums) = net.with(|kernel, modulation| {
            let (mut offset_bar, mut sums) = (vec![1.0; offset.len()], vec![0.0; kernel.sums_len()]);
            let trace = kernel.forward_traced(&x, LANES, Modulation { offset: &offset, ..modulation }, &mut [0.0; 4 * LANES]);
            let u = kernel.tangents(Buffer::copy_of(&u));
            let tangents = kernel.jvp_traced(&trace, &u, &mut []);
            kernel.pullback_dual(&trace, &tangents, &c, &v, &mut vec![0.0; x.len()], None, &mut offset_bar, &mut sums);
            (offset_bar, sums)
        });
        // Cotangents are added to what was there.
        let expected: Vec<f64> = differences(&offset, |offset| s(&net, offset)).iter().map(|e| e + 1.0).collect();
        assert_close(&format!("{name}: ō"), &offset_bar, &expected, 1e-7);
        let expected = differences(&net.numbers, |n| s(&Net { numbers: n.to_vec(), ..net.clone() }, &offset));
        assert_close(&format!("{name}: sums"), &sums, &expected, 1e-7);
    }
}

fn determinant(mut m: Vec<f64>, n: usize) -> f64 {
    let mut product = 1.0;
    for p in 0..n {
        let pivot = (p..n).max_by(|&a, &b| m[a * n + p].abs().total_cmp(&m[b * n + p].abs())).unwrap();
        if pivot != p {
            product = -product;
            (0..n).for_each(|j| m.swap(p * n + j, pivot * n + j));
        }
        product *= m[p * n + p];
        for i in p + 1..n {
            let factor = m[i * n + p] / m[p * n + p];
            (p..n).for_each(|j| m[i * n + j] -= factor * m[p * n + j]);
        }
    }
    product
}

/// Row-major (rows × inner) · (inner × columns), plus the identity.
fn identity_plus(a: &[f64], b: &[f64], rows: usize) -> Vec<f64> {
    let (inner, columns) = (a.len() / rows, rows);
    let entry = |i: usize, j: usize| (0..inner).map(|k| a[i * inner + k] * b[k * columns + j]).sum::<f64>();
    (0..rows * columns).map(|i| entry(i / columns, i % columns) + f64::from(u8::from(i / columns == i % columns))).collect()
}

#[test]
fn jacobians_and_their_factors() {
    for activation in Activation::ALL {
        for variant in Variant::ALL {
            // The wide one takes several chunks of lanes.
            for (dim, hidden, lanes) in [(4, vec![6, 3], LANES), (4, vec![2, 5], LANES), (4, vec![], LANES), (40, vec![90, 70], 13)] {
                let name = format!("{activation:?} {variant:?} {dim} {hidden:?}");
                let outputs: Vec<usize> = hidden.iter().copied().chain([dim]).collect();
                let mut net = Net::new(activation, variant, dim, &outputs);
                net.numbers.iter_mut().for_each(|n| *n /= (dim as f64).sqrt());
                let x = draw(&mut ChaCha8Rng::seed_from_u64(1), dim * lanes);
                let units: Vec<f64> =
                    (0..dim * dim * lanes).map(|i| f64::from(u8::from(i / (dim * lanes) == i % (dim * lanes) / lanes))).collect();
                let columns = jvp(&net, &x, &units);
                let expected: Vec<f64> = (0..dim * dim * lanes)
                    .map(|at| {
                        let (r, i, j) = (at / (dim * dim), at / dim % dim, at % dim);
                        columns[(i * dim + j) * lanes + r]
                    })
                    .collect();
                let (jacobian, factors) = traced(&net, &x, |kernel, trace, _| {
                    let mut jacobian = vec![f64::NAN; dim * dim * lanes];
                    kernel.jacobian(trace, &mut jacobian);
                    (jacobian, kernel.jacobian_factors(trace))
                });
                assert_close(&name, &jacobian, &expected, 1e-13);
                let narrow = !variant.concat() && hidden.iter().any(|&w| w < dim);
                assert_eq!(factors.as_ref().map(|f| f.inner), narrow.then(|| *hidden.iter().min().unwrap()), "{name}");
                let Some(factors) = factors else { continue };
                let m = factors.inner;
                for r in 0..lanes {
                    let j = &jacobian[r * dim * dim..][..dim * dim];
                    let (a, b) = (&factors.a[r * dim * m..][..dim * m], &factors.b[r * dim * m..][..dim * m]);
                    let large = identity_plus(a, b, dim);
                    assert_close(&format!("{name}: A B"), &large, &identity_plus(j, &identity_plus(&[], &[], dim), dim), 1e-13);
                    let (large, small) = (determinant(large, dim), determinant(identity_plus(b, a, m), m));
                    assert_close(&format!("{name}: determinant"), &[small], &[large], 1e-12);
                }
            }
        }
    }
}

/// All results of all passes, as f64.
fn everything<E: Real>(net: &Net, x: &[f64], c: &[f64], u: &[f64], v: &[f64]) -> Vec<f64> {
    net.with::<E, _>(|kernel, modulation| {
        let lanes = x.len() / kernel.input();
        let zeros = |len: usize| vec![E::zero(); len];
        let (mut y, mut ju, mut jtv) = (zeros(c.len()), zeros(v.len()), zeros(u.len()));
        let (mut x_bar, mut u_bar, mut sums) = (zeros(x.len()), zeros(u.len()), zeros(kernel.sums_len()));
        let mut jacobian = zeros(lanes * kernel.input() * kernel.output());
        let trace = kernel.forward_traced(&cast::<E>(x), lanes, modulation, &mut y);
        let u = kernel.tangents(Buffer::copy_of(&cast::<E>(u)));
        let tangents = kernel.jvp_traced(&trace, &u, &mut ju);
        kernel.vjp(&trace, &cast::<E>(v), &mut jtv);
        kernel.pullback_dual(&trace, &tangents, &cast::<E>(c), &cast::<E>(v), &mut x_bar, Some(&mut u_bar), &mut [], &mut sums);
        kernel.jacobian(&trace, &mut jacobian);
        [y, ju, jtv, x_bar, u_bar, sums, jacobian].into_iter().flatten().map(Real::as_f64).collect()
    })
}

#[test]
fn single_precision_follows_double_precision() {
    for (name, net, x, mut rng) in cases() {
        let (c, u, v) = (draw(&mut rng, 4 * LANES), draw(&mut rng, 6 * LANES), draw(&mut rng, 8 * LANES));
        assert_close(&name, &everything::<f32>(&net, &x, &c, &u, &v), &everything::<f64>(&net, &x, &c, &u, &v), 1e-5);
    }
}

#[test]
fn far_inputs_stay_finite() {
    for (name, net, x, mut rng) in cases() {
        let x: Vec<f64> = x.iter().map(|x| 1e6 * x).collect();
        let (c, u, v) = (draw(&mut rng, 4 * LANES), draw(&mut rng, 3 * LANES), draw(&mut rng, 4 * LANES));
        assert!(everything::<f32>(&net, &x, &c, &u, &v).iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn lipschitz_constants_hold_and_are_tight() {
    for activation in Activation::ALL {
        let mut largest: f64 = 0.0;
        for beta in [-1.0, 0.5, 2.0] {
            let net = Net { numbers: vec![], ..Net::new(activation, Variant::Plain, 1, &[1, activation.branches()]) };
            let b = activation.branches();
            let mut numbers = vec![1.0, 0.0];
            numbers.extend(activation.has_beta().then_some(beta));
            numbers.extend((0..b * b).map(|i| f64::from(u8::from(i / b == i % b))).chain(vec![0.0; b]));
            let net = Net { numbers, ..net };
            let z: Vec<f64> = (-30_000..=30_000).map(|i| f64::from(i) * 1e-3).collect();
            let slopes = jvp(&net, &z, &vec![1.0; z.len()]);
            let norm = |r: usize| slopes.iter().skip(r).step_by(z.len()).map(|s| s * s).sum::<f64>().sqrt();
            largest = (0..z.len()).map(norm).fold(largest, f64::max);
        }
        let bound = activation.lipschitz();
        assert!((bound * 0.999..=bound).contains(&largest), "{activation:?}: slopes up to {largest}, bound {bound}");
    }
}

#[test]
fn no_layers_or_wrong_sizes_are_errors() {
    let layer = |weights: usize, bias: usize| Layer::<f64>::new(vec![0.0; weights], vec![0.0; bias]);
    let hidden = |weights, bias| layer(weights, bias).activated(Activation::Tanh, 0.0);
    let wrong = [
        vec![],
        vec![layer(5, 2)],
        vec![layer(6, 2), layer(4, 2)],
        vec![hidden(6, 2)],
        vec![hidden(6, 2), layer(6, 2)],
        vec![hidden(6, 2), layer(4, 2).concat([1.0, 1.0])],
        vec![layer(0, 0)],
        vec![hidden(6, 2).concat([1.0, 0.0]), layer(10, 2)],
    ];
    for (i, layers) in wrong.into_iter().enumerate() {
        assert!(MlpKernel::new(3, layers, Modulated::No).is_err(), "case {i}");
    }
    assert!(MlpKernel::new(3, vec![hidden(6, 2), layer(4, 2)], Modulated::No).is_ok());
}
