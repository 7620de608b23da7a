//! Glow and its parts through the conformance suite, and what their specs refuse.

use flow_api::samples::{Grid, Skeleton};
use flow_api::spec::{EventShape, FlowSpec, ModelSpec, SampleSpec, Spec, from_ron, to_ron};
use flow_api::testkit::{Subject, check, check_model};
use flow_api::{Bijector, Context};
use flow_nets::{Affine, ConvLayers, Split};
use flows_glow::conv_coupling;

const fn image(channels: usize, height: usize, width: usize) -> EventShape {
    EventShape::Image { channels, height, width }
}

#[test]
fn models_conform() {
    for (text, event) in [
        ("ImageFlow(flows: [Squeeze(), ActNorm(), Conv1x1(), ConvCoupling(hidden: 4)])", image(1, 4, 4)),
        (
            "ImageFlow(flows: [Squeeze(), ConvCoupling(hidden: 4, network: Residual(blocks: 1), transformer: Spline(bins: 3))])",
            image(1, 4, 4),
        ),
        (
            "ImageFlow(flows: [Repeat(times: 2, flows: [ConvCoupling(hidden: 3, split: Interleaved, transformer: Additive)])])",
            image(3, 2, 3),
        ),
        ("ImageFlow(flows: [Squeeze(), ConvCoupling(hidden: 4, condition: 2), FactorOut(condition: 2), Conv1x1()])", image(1, 4, 4)),
        (
            "ImageFlow(flows: [FactorOut(prior: None), ConvCoupling(hidden: 4), FactorOut(prior: Spline(bins: 3)), ActNorm()])",
            image(5, 2, 2),
        ),
        ("Glow(levels: 2, steps: 2, coupling: Affine(hidden: 4))", image(1, 4, 4)),
        ("Glow(levels: 1, steps: 1, coupling: Spline(hidden: 4, bins: 3, network: Residual(blocks: 2)), prior: None)", image(2, 2, 4)),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
        let subject = Subject { shake: 0.1, ..Subject::new(text, event.len()) };
        let report = check_model(&subject, &spec, event).unwrap();
        assert!(report.items.contains(&"log-det"), "{report}");
        let written = to_ron(&spec).unwrap();
        assert_eq!(to_ron(&from_ron::<Spec<dyn ModelSpec>>(&written).unwrap()).unwrap(), written);
    }
}

#[test]
fn a_coupling_sees_what_its_convolutions_reach() {
    // Three layers of 3 × 3, 1 × 1 and 3 × 3 see two pixels to every side; the first channel passes.
    let (height, width) = (4, 5);
    let at = |channel: usize, y: usize, x: usize| (channel * height + y) * width + x;
    let places = || (0..height).flat_map(|y| (0..width).map(move |x| (y, x)));
    let mut independent: Vec<_> = places().map(|(y, x)| (at(0, y, x), at(0, y, x))).collect();
    for (y, x) in places() {
        let far = places().filter(|(v, u)| v.abs_diff(y) > 2 || u.abs_diff(x) > 2);
        independent.extend(far.map(|(v, u)| (at(1, y, x), at(0, v, u))));
        independent.extend(places().filter(|place| *place != (y, x)).map(|(v, u)| (at(1, y, x), at(1, v, u))));
    }
    let subject = Subject { independent, identity_start: true, ..Subject::new("ConvCoupling", 2 * height * width) };
    let report = check(&subject, |seed| {
        let partition = Split::Halves.partition(2, false)?;
        let affine = Box::new(Affine::new(2.0)?);
        let layers = ConvLayers::Three { hidden: 4 };
        let coupling = conv_coupling::<f64>(&Grid::image(2, height, width)?, partition, affine, layers, 0, seed)?;
        Skeleton::new("Coupling", subject.dim, vec![vec![("coupling".to_owned(), Box::new(coupling) as _)]])
    });
    assert!(report.unwrap().items.contains(&"structure"));
}

#[test]
fn couplings_of_steps_take_a_condition_of_their_own() {
    for coupling in ["Affine(hidden: 4, condition: 2)", "Spline(hidden: 4, bins: 3, condition: 2)"] {
        let text = format!("Glow(levels: 1, steps: 1, coupling: {coupling})");
        let (spec, event): (Spec<dyn ModelSpec>, _) = (from_ron(&text).unwrap(), image(1, 2, 2));
        let model = spec.build::<f64>(event, 1).unwrap();
        assert_eq!(model.flow().bijector().facts().condition, Some(2), "{text}");
        check_model(&Subject { shake: 0.1, ..Subject::new(text, event.len()) }, &spec, event).unwrap();
    }
}

#[test]
fn latents_have_levels_and_a_temperature_each() {
    let spec: Spec<dyn ModelSpec> = from_ron("Glow(levels: 2, steps: 1, coupling: Affine(hidden: 4))").unwrap();
    let mut model = spec.build::<f64>(image(1, 4, 4), 1).unwrap();
    let noise: Vec<f64> = (0..8 * 16).map(|i| (0.7 * f64::from(i)).sin()).collect();
    let cx = Context::new(3);
    let first = model.batch(noise).unwrap();
    model.flow_mut().initialise(first, &cx).unwrap();
    // The last two of the four channels that every 2 × 2 pixels are leave first: the lower ones.
    let levels: Vec<_> = model.levels().iter().map(|level| (level.name.as_str(), level.places.clone())).collect();
    assert_eq!(levels, [("levels.0", vec![4, 5, 6, 7, 12, 13, 14, 15]), ("rest", vec![0, 1, 2, 3, 8, 9, 10, 11])]);
    assert_eq!(model.sample_by_level(3, &[0.5, 0.5], &cx).unwrap(), model.sample(3, 0.5, &cx).unwrap());
    let mixed = model.encode(model.sample_by_level(3, &[0.0, 0.7], &cx).unwrap(), &cx).unwrap();
    let expected = model.encode(model.sample(3, 0.7, &cx).unwrap(), &cx).unwrap();
    for (at, (mixed, expected)) in mixed.iter().zip(expected).enumerate() {
        let expected = if at % 8 < 4 { expected } else { 0.0 };
        assert!((mixed - expected).abs() < 1e-9, "{at}: {mixed}, {expected}");
    }
    let error = model.sample_by_level(3, &[1.0], &cx).unwrap_err().to_string();
    assert_eq!(error, "model: temperatures: expected one for each of 2 levels, got 1");
}

#[test]
fn what_cannot_be_built_is_told() {
    let digits = image(1, 8, 8);
    for (text, event, expected) in [
        ("Glow(levels: 4, steps: 1)", digits, "bijector.levels.3: height 1 is not divisible by factor 2"),
        ("Glow(levels: 2, steps: 0)", digits, "bijector: steps: expected 1 to 2048, got 0"),
        ("Glow(levels: 0, steps: 1)", digits, "bijector: levels: expected 1 to 2048, got 0"),
        ("Glow(levels: 1, steps: 1)", EventShape::Vector(64), "bijector: expected images, got data of shape (64)"),
        (
            "Glow(levels: 1, steps: 1, coupling: Affine(hidden: 0))",
            digits,
            "bijector.levels.0.steps.0.coupling.ConvCoupling: hidden: expected 1 to 16384, got 0",
        ),
        (
            "Glow(levels: 1, steps: 1, coupling: Spline(network: Residual(blocks: 0)))",
            digits,
            "bijector.levels.0.steps.0.coupling.ConvCoupling: blocks: expected 1 to 16384, got 0",
        ),
        ("ImageFlow(flows: [ConvCoupling()])", digits, "bijector.0.ConvCoupling: channels: expected at least 2, got 1"),
        ("ImageFlow(flows: [FactorOut()])", digits, "bijector.0.FactorOut: channels: expected at least 2, got 1"),
        (
            "Glow(levels: 1, steps: 2048, coupling: Affine(hidden: 8192))",
            digits,
            "bijector: numbers: expected at most 536870912 in all, parameters and other state, got 138344972288",
        ),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
        assert_eq!(spec.build::<f32>(event, 1).unwrap_err().to_string(), expected, "{text}");
    }
}

#[test]
fn unknown_maps_are_told_with_the_known_ones() {
    let error = from_ron::<SampleSpec>("ConvCupling()").unwrap_err().to_string();
    for known in ["Conv1x1", "ConvCoupling", "FactorOut", "Repeat", "Squeeze"] {
        assert!(error.contains(&format!("`{known}`")), "{error}");
    }
    // A map of whole samples is no flow of rows.
    assert!(from_ron::<FlowSpec>("ConvCoupling()").is_err());
}
