//! The whole `MixerFlow` against `PyTorch` with nflows parts: latents, log-dets, likelihoods and gradients.

use super::{Golden, assert_close};
use flow_api::module::{EntryMut, update};
use flow_api::{Gradients, Memory};
use mixerflow_toolkit::prelude::*;

/// The golden's name of one of our parameters: `bijector.layers.3.patch.1.bias` is `layers.3.patch.lu.bias` there.
fn part_name(path: &str) -> String {
    let name = path.strip_prefix("bijector.").unwrap().replacen("pixel.0.", "conv.", 1);
    ["actnorm", "lu", "coupling"].iter().enumerate().fold(name, |name, (part, theirs)| {
        ["channel", "patch"].iter().fold(name, |name, side| name.replacen(&format!(".{side}.{part}."), &format!(".{side}.{theirs}."), 1))
    })
}

/// Strict triangles and log-diagonal of the golden's dense matrices, as `LuLinear` holds them.
fn packed(golden: &Golden, stem: &str, field: &str) -> Option<Vec<f64>> {
    let dense = |name: &str| {
        let (shape, values) = golden.tensor(&format!("{stem}.{name}"));
        (shape[0], values)
    };
    match field {
        "lower" => {
            let (d, m) = dense("lower");
            Some((0..d).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| m[i * d + j]).collect())
        }
        "upper" => {
            let (d, m) = dense("upper");
            Some((0..d).flat_map(|i| (i + 1..d).map(move |j| (i, j))).map(|(i, j)| m[i * d + j]).collect())
        }
        "log_diagonal" => {
            let (d, m) = dense("upper");
            Some((0..d).map(|i| m[i * d + i].ln()).collect())
        }
        _ => None,
    }
}

fn load<E: SpecScalar>(golden: &Golden) -> Model<E> {
    let size = |key| golden.size(key);
    let coupling = format!("AffineCoupling(hidden: {}, blocks: {})", size("hidden"), size("blocks"));
    let side = format!("[ActNorm(), LuLinear(), {coupling}]");
    let text = format!(
        "MixerFlow(patch: {}, layers: {}, shift: (every: {}), channel: {side}, patches: {side})",
        size("patch"),
        size("layers"),
        size("shift_every")
    );
    let spec: Spec<dyn ModelSpec> = from_ron(&text).unwrap();
    let event = EventShape::Image { channels: size("channels"), height: size("size"), width: size("size") };
    let mut model = E::model(&spec, event, &BuildScope::new(0)).unwrap();
    update(&mut model, |path, entry| {
        let name = part_name(path);
        let (stem, field) = name.rsplit_once('.').unwrap();
        match entry {
            EntryMut::Parameter { values, .. } => {
                let from = packed(golden, stem, field).unwrap_or_else(|| golden.values(&name));
                assert_eq!(values.len(), from.len(), "{name}");
                values.iter_mut().zip(from).for_each(|(to, from)| *to = E::of(from));
            }
            EntryMut::Indices(values) => {
                values.iter_mut().zip(golden.values(&name)).for_each(|(to, from)| *to = format!("{from}").parse().unwrap());
            }
            EntryMut::Flag(initialised) => *initialised = true,
            // The golden's ActNorm is y = e^log_scale x + shift.
            EntryMut::Reals(middle) if field == "middle" => middle.fill(E::zero()),
            other => panic!("{path}: {other:?}"),
        }
    })
    .unwrap();
    model
}

fn agrees<E: SpecScalar>(values: f64, gradients: f64) {
    let golden = Golden::open("mixerflow");
    let model = load::<E>(&golden);
    let x: Vec<E> = golden.values("x").into_iter().map(E::of).collect();
    let cx = Context::new(0);
    let doubles = |values: &[E]| values.iter().map(|v| v.as_f64()).collect::<Vec<_>>();

    let mapped = model.flow().bijector().forward(model.batch(x.clone()).unwrap(), &cx).unwrap();
    assert_close("z", &doubles(&flow_api::to_host(&mapped.value)), &golden.values("z"), values);
    assert_close("log-det", &doubles(&flow_api::to_host(&mapped.log_det.value)), &golden.values("logdet"), values);
    let log_prob = model.log_prob(x.clone(), &cx).unwrap();
    assert_close("log_prob", &doubles(&log_prob.value), &golden.values("log_prob"), values);
    let back = model.flow().bijector().inverse(mapped.value, &cx).unwrap();
    assert_close("round trip", &doubles(&flow_api::to_host(&back.value)), &golden.values("x"), values);

    for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
        let mut own = Gradients::zeros(&model);
        model.flow().nll(model.batch(x.clone()).unwrap(), &mut own, &cx.clone().with_memory(memory)).unwrap();
        let mut compared = 0;
        for (path, gradient) in own.iter() {
            let name = format!("grad.{}", part_name(path));
            if golden.names().contains(&name) {
                assert_close(&format!("{name} ({memory:?})"), &doubles(gradient), &golden.values(&name), gradients);
                compared += 1;
            }
        }
        assert_eq!(
            compared,
            golden.names().iter().filter(|name| name.starts_with("grad.")).count(),
            "every golden gradient has its parameter"
        );
    }
}

#[test]
fn mixerflow_agrees_with_pytorch_in_f32() {
    agrees::<f32>(1e-4, 1e-3);
}

#[test]
fn mixerflow_agrees_with_pytorch_in_f64() {
    // The golden itself was computed in f32.
    agrees::<f64>(1e-4, 1e-3);
}
