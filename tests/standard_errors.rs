//! What the standard errors of estimated log-dets cover, of one item and over many.

use flow_api::module::{EntryMut, load, save, update};
use flow_api::spec::{EventShape, Model, ModelSpec, Spec, from_ron};
use flow_kernels::noise::Stream;
use mixerflow_toolkit as _; // registers all kinds
use mixerflow_toolkit::train::data::{InMemory, ItemShape, Values};
use mixerflow_toolkit::train::{EvaluateOptions, Events, Scores, score};
use std::path::Path;

const ITEMS: usize = 60;
const SEEDS: u64 = 30;

fn normal(len: usize, name: &str) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(11, 0, name).row(0).gaussian(&mut values);
    values
}

fn model(flow: &str) -> Model<f64> {
    let spec: Spec<dyn ModelSpec> = from_ron(&format!("VectorFlow(flows: [{flow}])")).unwrap();
    spec.build::<f64>(EventShape::Vector(2), 3).unwrap()
}

/// Two probes in one layer of two dimensions, where they agree for half of the items: one estimate says little of an
/// item, sixteen do, and over the items one is enough.
#[test]
fn errors_cover_what_they_say() {
    for (exact, estimated) in [
        ("Ffjord(hidden: 8, solver: Rk4(steps: 6))", "Ffjord(hidden: 8, solver: Rk4(steps: 6), evaluation_trace: Hutchinson(probes: 2))"),
        ("Residual(hidden: 8)", "Residual(hidden: 8, evaluation: Truncated(terms: 60, probes: 2))"),
    ] {
        let mut truth = model(exact);
        update(&mut truth, |path, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                let noise = normal(values.len(), path);
                values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.7 * noise);
            }
        })
        .unwrap();
        let mut model = model(estimated);
        load(&mut model, &save(&truth)).unwrap();
        let data =
            InMemory::new(Path::new("normal"), Values::Real(normal(2 * ITEMS, "x")), ItemShape::Vector { dims: 2 }, None, None).unwrap();
        let events = Events::new(&data, model.preprocessing(), 0).unwrap();
        let scores = |model: &Model<f64>, estimates, seed| -> Scores {
            score(model, &data, &events, &EvaluateOptions { estimates, seed, ..EvaluateOptions::default() }).unwrap()
        };
        let truth = scores(&truth, 1, 0).log_likelihood;
        // Shares of items beyond two standard errors, of items without an error, and of means over all items beyond two
        // standard errors.
        let shares = |estimates| {
            let (mut beyond, mut without, mut means) = (0.0, 0.0, 0.0);
            for seed in 0..SEEDS {
                let found = scores(&model, estimates, seed);
                let variance = found.log_det_variance.unwrap();
                let errors: Vec<f64> = found.log_likelihood.iter().zip(&truth).map(|(found, truth)| found - truth).collect();
                for (error, variance) in errors.iter().zip(&variance) {
                    beyond += f64::from(u8::from(error.abs() > 2.0 * variance.sqrt() + 1e-9));
                    without += f64::from(u8::from(*variance < 1e-18 && error.abs() > 1e-9));
                }
                means += f64::from(u8::from(errors.iter().sum::<f64>().abs() > 2.0 * variance.iter().sum::<f64>().sqrt()));
            }
            let items = SEEDS as f64 * ITEMS as f64;
            [beyond / items, without / items, means / SEEDS as f64]
        };
        let (one, many) = (shares(1), shares(16));
        assert!(one[0] > 0.2, "{estimated}: a single estimate, {one:?}");
        assert!(many[0] < 0.09 && many[1] < 0.001, "{estimated}: sixteen estimates, {many:?}");
        assert!(one[2] < 0.2 && many[2] < 0.2, "{estimated}: over the items, {one:?} and {many:?}");
    }
}
