//! The smooth MLP against `PyTorch`: y = x + g(x), log|det(I + J)| and its exact gradient.

use flow_nets::smooth::{Activation, Layer, MlpKernel, Modulated, Modulation};
use safetensors::SafeTensors;

fn golden(tensors: &SafeTensors<'_>, name: &str) -> Vec<f64> {
    let bytes = tensors.tensor(name).unwrap().data();
    bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
}

/// log|det M| and M⁻¹ by Gauss-Jordan elimination.
fn log_det_and_inverse(mut m: Vec<f64>, n: usize) -> (f64, Vec<f64>) {
    let mut inverse: Vec<f64> = (0..n * n).map(|i| if i / n == i % n { 1.0 } else { 0.0 }).collect();
    let mut log_det = 0.0;
    for p in 0..n {
        let pivot = (p..n).max_by(|&a, &b| m[a * n + p].abs().total_cmp(&m[b * n + p].abs())).unwrap();
        for j in 0..n {
            m.swap(p * n + j, pivot * n + j);
            inverse.swap(p * n + j, pivot * n + j);
        }
        let value = m[p * n + p];
        log_det += value.abs().ln();
        for j in 0..n {
            m[p * n + j] /= value;
            inverse[p * n + j] /= value;
        }
        for i in (0..n).filter(|&i| i != p) {
            let factor = m[i * n + p];
            for j in 0..n {
                m[i * n + j] -= factor * m[p * n + j];
                inverse[i * n + j] -= factor * inverse[p * n + j];
            }
        }
    }
    (log_det, inverse)
}

fn assert_close(what: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() < 1e-9, "{what} [{i}]: {g} instead of {e}");
    }
}

#[test]
fn residual_block_of_pytorch() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/residual.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let get = |name: &str| golden(&tensors, name);
    let (dim, lanes) = (get("b3").len(), get("logdet").len());
    let names = ["w1", "b1", "w2", "b2", "w3", "b3"];
    let layers = names.chunks(2).map(|pair| Layer::new(get(pair[0]), get(pair[1])));
    let layers = layers.enumerate().map(|(i, layer)| if i < 2 { layer.activated(Activation::LipSwish, 0.5) } else { layer });
    let kernel = MlpKernel::new(dim, layers.collect(), Modulated::No).unwrap();

    // Rows of the file are lanes of the block.
    let block = |rows: Vec<f64>| -> Vec<f64> { (0..dim * lanes).map(|i| rows[i % lanes * dim + i / lanes]).collect() };
    let x = block(get("x"));
    let mut g = vec![0.0; dim * lanes];
    let trace = kernel.forward_traced(&x, lanes, Modulation::default(), &mut g);
    assert_close("y", &x.iter().zip(&g).map(|(x, g)| x + g).collect::<Vec<_>>(), &block(get("y")));

    let mut jacobians = vec![0.0; dim * dim * lanes];
    kernel.jacobian(&trace, &mut jacobians);
    let solved: Vec<(f64, Vec<f64>)> = jacobians
        .chunks_exact_mut(dim * dim)
        .map(|j| {
            (0..dim).for_each(|i| j[i * dim + i] += 1.0);
            log_det_and_inverse(j.to_vec(), dim)
        })
        .collect();
    assert_close("logdet", &solved.iter().map(|s| s.0).collect::<Vec<_>>(), &get("logdet"));

    // ∇ log|det(I + J)| = tr((I + J)⁻¹ ∇J): unit tangents eₖ with cotangents (I + J)⁻ᵀ eₖ held fixed.
    let columns = dim * lanes;
    let units: Vec<f64> = (0..dim * columns).map(|i| if i / columns == i % columns / lanes { 1.0 } else { 0.0 }).collect();
    let cotangents: Vec<f64> = (0..dim * columns).map(|i| solved[i % lanes].1[i % columns / lanes * dim + i / columns]).collect();
    let tangents = kernel.jvp_traced(&trace, &units, &mut vec![0.0; dim * columns]);
    let mut sums = vec![0.0; kernel.sums_len()];
    kernel.pullback_dual(&trace, &tangents, &vec![0.0; dim * lanes], &cotangents, &mut vec![0.0; dim * lanes], None, &mut sums);
    for (i, pair) in names.chunks(2).enumerate() {
        let places = kernel.layer_sums(i);
        for (name, place) in pair.iter().zip([&places.weight, &places.bias]) {
            assert_close(name, &sums[place.clone()], &get(&format!("grad_logdet.{name}")));
        }
    }
}
