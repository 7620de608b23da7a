//! State that is derived from parameters follows the parameters that are loaded, wherever they come from.

use flow_api::Context;
use flow_api::module::{Saved, load, save};
use flow_api::spec::{EventShape, Model, ModelSpec, Spec, from_ron};
use flow_kernels::noise::Stream;
use mixerflow_toolkit as _; // registers all kinds
use mixerflow_toolkit::train::{EventKind, Events, Settings, checkpoint};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::HashMap;
use std::path::Path;

const DIM: usize = 16;
const ROWS: usize = 24;

fn normal(len: usize, name: &str) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(5, 0, name).row(0).gaussian(&mut values);
    values
}

fn spec(flows: &str) -> Spec<dyn ModelSpec> {
    from_ron(&format!("VectorFlow(flows: [{flows}])")).unwrap()
}

/// Puts noise on every weight of an export and leaves all else in it as it is.
fn edit(from: &Path, to: &Path, scale: f64) {
    let bytes = std::fs::read(from).unwrap();
    let mut notes: HashMap<String, String> = SafeTensors::read_metadata(&bytes).unwrap().1.metadata().clone().unwrap();
    // What is edited on purpose has another checksum.
    notes.remove("crc32").unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let changed = file.iter().map(|(name, tensor)| {
        let mut data = tensor.data().to_vec();
        if name.ends_with(".weight") && tensor.dtype() == Dtype::F64 {
            let noise = normal(data.len() / 8, name);
            for (number, noise) in data.chunks_exact_mut(8).zip(noise) {
                let moved = f64::from_le_bytes((&*number).try_into().unwrap()) + scale * noise;
                number.copy_from_slice(&moved.to_le_bytes());
            }
        }
        (name.to_owned(), tensor.dtype(), tensor.shape().to_vec(), data)
    });
    let changed: Vec<_> = changed.collect();
    let views = changed.iter().map(|(name, dtype, shape, data)| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    std::fs::write(to, serialize(views, Some(notes)).unwrap()).unwrap();
}

/// z and log|det| of rows.
fn encode(model: &Model<f64>, x: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let mapped = model.flow().bijector().forward(model.batch(x.to_vec()).unwrap(), &Context::new(0)).unwrap();
    (flow_api::to_host(&mapped.value), flow_api::to_host(&mapped.log_det.value))
}

/// The Jacobian at every row, by central differences.
fn jacobians(model: &Model<f64>, x: &[f64]) -> Vec<faer::Mat<f64>> {
    let step = 1e-5;
    let moved =
        |j: usize, by: f64| encode(model, &x.iter().enumerate().map(|(i, x)| if i % DIM == j { x + by } else { *x }).collect::<Vec<_>>()).0;
    let columns: Vec<_> = (0..DIM).map(|j| (moved(j, step), moved(j, -step))).collect();
    let entry = |row: usize, i: usize, j: usize| (columns[j].0[row * DIM + i] - columns[j].1[row * DIM + i]) / (2.0 * step);
    (0..x.len() / DIM).map(|row| faer::Mat::from_fn(DIM, DIM, |i, j| entry(row, i, j))).collect()
}

/// Weights + 0.3 N(0, 1), as a program that fine-tunes or averages exports leaves them: the norms in the file are those
/// of other weights.
#[test]
fn an_export_whose_weights_were_changed_elsewhere_is_a_bijection() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let spec = spec("Residual(hidden: 32)");
    let model = spec.build::<f64>(EventShape::Vector(DIM), 3).unwrap();
    let kind = EventKind { shape: EventShape::Vector(DIM), levels: None };
    let events = Events::of_kind(kind, model.preprocessing(), 0).unwrap();
    checkpoint::write_model(&at("model"), &spec, &Settings::default(), &events, &save(&model)).unwrap();
    checkpoint::export::<f64>(&at("model"), &at("export.safetensors")).unwrap();
    edit(&at("export.safetensors"), &at("edited.safetensors"), 0.3);
    checkpoint::import::<f64>(&at("edited.safetensors"), &at("imported")).unwrap();
    let imported = checkpoint::open::<f64>(&at("imported")).unwrap().model;

    let x = normal(ROWS * DIM, "x");
    let (z, log_det) = encode(&imported, &x);
    for (row, (jacobian, log_det)) in jacobians(&imported, &x).into_iter().zip(log_det).enumerate() {
        let slope = (&jacobian - faer::Mat::<f64>::identity(DIM, DIM)).singular_values().unwrap()[0];
        assert!(slope < 1.0 && slope > 0.02, "row {row}: the residual branch has a slope of {slope}");
        let expected = jacobian.determinant().ln();
        assert!((log_det - expected).abs() < 1e-6, "row {row}: log-det {log_det}, of the Jacobian {expected}");
    }
    let back = imported.flow().bijector().inverse(imported.batch(z).unwrap(), &Context::new(0)).unwrap();
    for (i, (back, x)) in flow_api::to_host(&back.value).iter().zip(&x).enumerate() {
        assert!((back - x).abs() < 1e-6, "number {i}: {back} where {x} went in");
    }
    // What was imported is up to date: it is written and read back to the bit.
    let again = checkpoint::open::<f64>(&at("imported")).unwrap().model;
    assert!(save(&again) == save(&imported));
}

/// Weights from elsewhere put into the export of a model that has seen no data: no data may overwrite them.
#[test]
fn normalisations_whose_weights_were_set_are_initialised() {
    let build = || spec("ActNorm()").build::<f64>(EventShape::Vector(2), 1).unwrap();
    let (mut model, mut state) = (build(), save(&build()));
    assert!(model.log_prob(vec![0.0; 4], &Context::new(0)).is_err(), "nothing is set yet");
    assert!(state.values().any(|entry| *entry == Saved::Flag(false)));
    let log_scale = 2.0_f64.ln();
    for (path, entry) in &mut state {
        if let (Saved::Parameter { values, .. }, true) = (entry, path.ends_with("log_scale")) {
            values.fill(log_scale);
        }
    }
    load(&mut model, &state).unwrap();
    let far = model.batch(vec![100.0, -3.0, 140.0, 8.0]).unwrap();
    model.flow_mut().initialise(far, &Context::new(0)).unwrap();
    let mapped = model.flow().bijector().forward(model.batch(vec![1.0, -2.0]).unwrap(), &Context::new(0)).unwrap();
    let got = [flow_api::to_host(&mapped.value), flow_api::to_host(&mapped.log_det.value)].concat();
    for (got, expected) in got.iter().zip([2.0, -4.0, 2.0 * log_scale]) {
        assert!((got - expected).abs() < 1e-12, "{got}, expected {expected}");
    }
}
