//! Models of specs against `PyTorch`, flows of images and of vectors: latents in the event's order, log-dets,
//! likelihoods, gradients, and the way back.

use super::{Golden, assert_close};
use flow_api::module::{EntryMut, update};
use flow_api::{Gradients, Memory};
use mixerflow_toolkit::prelude::*;

/// `Affine(hidden: …)` or `Spline(hidden: …)`, with the golden's network.
fn coupling(golden: &Golden) -> String {
    let network = if golden.meta["network"] == "three" { "ThreeLayers" } else { "Residual(blocks: 2)" };
    let (hidden, bins) = (golden.size("hidden"), golden.size("bins"));
    if bins == 0 {
        format!("Affine(hidden: {hidden}, network: {network})")
    } else {
        format!("Spline(hidden: {hidden}, network: {network}, bins: {bins})")
    }
}

/// The spec that the golden states, or Glow's with its sizes.
fn text(golden: &Golden) -> String {
    let glow = || format!("Glow(levels: {}, steps: {}, coupling: {})", golden.size("levels"), golden.size("steps"), coupling(golden));
    golden.meta["spec"].as_str().map_or_else(glow, str::to_owned)
}

fn load<E: SpecScalar>(golden: &Golden) -> Model<E> {
    let spec: Spec<dyn ModelSpec> = from_ron(&text(golden)).unwrap();
    let image = |size| EventShape::Image { channels: golden.size("channels"), height: size, width: size };
    let event = if golden.meta["dim"].is_null() { image(golden.size("size")) } else { EventShape::Vector(golden.size("dim")) };
    let mut model = spec.build::<E>(event, 0).unwrap();
    update(&mut model, |path, entry| {
        let name = path.strip_prefix("bijector.").unwrap();
        match entry {
            EntryMut::Parameter { values, shape } => {
                let (theirs, from) = golden.tensor(name);
                assert_eq!(theirs, shape, "{name}");
                values.iter_mut().zip(from).for_each(|(to, from)| *to = E::of(from));
            }
            EntryMut::Indices(values) => {
                values.iter_mut().zip(golden.values(name)).for_each(|(to, from)| *to = format!("{from}").parse().unwrap());
            }
            EntryMut::Reals(middle) if name.ends_with("middle") => middle.fill(E::zero()),
            EntryMut::Flag(initialised) => *initialised = true,
            other => panic!("{path}: {other:?}"),
        }
    })
    .unwrap();
    model
}

fn agrees<E: SpecScalar>(case: &str, values: f64, gradients: f64) {
    let golden = Golden::open(case);
    let model = load::<E>(&golden);
    let x: Vec<E> = golden.values("x").into_iter().map(E::of).collect();
    let mut cx = Context::new(0);
    if golden.names().contains(&"condition".to_owned()) {
        let (shape, values) = golden.tensor("condition");
        cx = cx.with_condition(E::tensor(values.into_iter().map(E::of).collect(), (shape[0], shape[1])));
    }
    let doubles = |values: &[E]| values.iter().map(|v| v.as_f64()).collect::<Vec<_>>();

    let mapped = model.flow().bijector().forward(model.batch(x.clone()).unwrap(), &cx).unwrap();
    assert_close("z", &doubles(&to_host(&mapped.value)), &golden.values("z"), values);
    assert_close("log-det", &doubles(&to_host(&mapped.log_det.value)), &golden.values("logdet"), values);
    assert_close("log_prob", &doubles(&model.log_prob(x.clone(), &cx).unwrap().value), &golden.values("log_prob"), values);
    let back = model.decode(golden.values("z").into_iter().map(E::of).collect(), &cx).unwrap();
    assert_close("inverse", &doubles(&back), &golden.values("x"), values);

    for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
        let mut own = Gradients::zeros(&model);
        model.flow().nll(model.batch(x.clone()).unwrap(), &mut own, &cx.clone().with_memory(memory)).unwrap();
        let mut compared = 0;
        for (path, gradient) in own.iter() {
            let name = format!("grad.{}", path.strip_prefix("bijector.").unwrap());
            assert_close(&format!("{name} ({memory:?})"), &doubles(gradient), &golden.values(&name), gradients);
            compared += 1;
        }
        let names = golden.names();
        assert_eq!(compared, names.iter().filter(|name| name.starts_with("grad.")).count(), "every gradient has its parameter");
    }
}

#[test]
fn models_agree_with_pytorch() {
    for case in ["glow", "glow_spline", "jet", "kan"] {
        agrees::<f64>(case, 1e-9, 1e-6);
        agrees::<f32>(case, 1e-4, 1e-3);
    }
}
