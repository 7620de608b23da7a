//! Every spec under `specs/` builds at the size that it is for, survives its own text, and passes the conformance suite
//! at a small size.

use flow_api::context::Kernels;
use flow_api::module::{Entry, EntryMut, update, visit};
use flow_api::testkit::{Subject, check_model};
use flow_api::{Parameter, Scalar as _};
use mixerflow_toolkit::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("specs");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "ron"));
    files.sort();
    assert!(files.len() >= 7, "{files:?}");
    files
}

fn parse(path: &Path) -> Spec<dyn ModelSpec> {
    let text = std::fs::read_to_string(path).unwrap();
    from_ron(&text).unwrap_or_else(|e| panic!("{}:{e}", path.display()))
}

/// The root of a model for data with ten classes and two numbers to be conditioned on.
fn scope() -> BuildScope {
    BuildScope::new(1).with_given(Given { classes: 10, conditions: 2 })
}

/// The event that a spec is for: stated, or by the convention of file names.
fn event(path: &Path, spec: &Spec<dyn ModelSpec>) -> EventShape {
    let name = path.file_name().unwrap().to_string_lossy();
    spec.event().unwrap_or(if name.starts_with("digits-") {
        EventShape::Image { channels: 1, height: 8, width: 8 }
    } else {
        EventShape::Vector(2)
    })
}

/// The cost of a spec is at most what its model holds, and at least a quarter of it (dense connections are not
/// counted): a bound on it is one on memory.
#[test]
fn costs_are_bounds_from_below_that_mean_something() {
    for path in files() {
        let spec = parse(&path);
        let event = event(&path, &spec);
        let (cost, model) = (spec.cost(event), f32::model(&spec, event, &scope()).unwrap());
        let mut held = 0;
        visit(&model, |_, entry| {
            held += match entry {
                Entry::Parameter { values, .. } | Entry::Reals(values) => values.len(),
                Entry::Indices(values) => values.len(),
                _ => 1,
            }
        });
        assert!(cost.numbers <= held && held <= 4 * cost.numbers, "{}: {cost:?}, {held} held", path.display());
        assert_eq!(cost.flows, model.describe().unwrap().len(), "{}", path.display());
    }
}

#[test]
fn every_spec_builds_and_survives_its_text() {
    for path in files() {
        let spec = parse(&path);
        let event = event(&path, &spec);
        let model = f32::model(&spec, event, &scope()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(!model.describe().unwrap().is_empty());
        let text = to_ron(&spec).unwrap();
        assert_eq!(to_ron(&from_ron::<Spec<dyn ModelSpec>>(&text).unwrap()).unwrap(), text, "{}", path.display());
        let comments = std::fs::read_to_string(&path).unwrap();
        assert!(comments.starts_with("//"), "{} says what it is for", path.display());
    }
}

/// Maps of whole images within each other, as no spec of `specs/` has them.
const NESTED: &str = "MixerFlow(patch: 2, layers: 1, shift: None, channel: [], patches: [], whole: [
    ActNorm(),
    Repeat(times: 2, flows: [PixelWise(flows: [LuLinear(), AffineCoupling(hidden: 4)]), ChannelWise(flows: [LuLinear()])]),
    ConvCoupling(hidden: 4),
])";

/// A base with numbers of its own that sees a condition.
const GIVEN: &str = "VectorFlow(flows: [ActNorm()], base: DiagonalNormal, condition: Vector())";

/// A model is built for the tensors that were saved of it, under the very paths at which its parts are built, and not
/// for others: whichever of a bijector or a base is not there ends the building where it would be built.
#[test]
fn every_spec_builds_for_what_was_saved_of_it_and_for_nothing_else() {
    let all = files().into_iter().map(|path| (path.display().to_string(), shrunk(&path)));
    let nested = (from_ron(NESTED).unwrap(), EventShape::Image { channels: 1, height: 4, width: 4 });
    let given = (from_ron(GIVEN).unwrap(), EventShape::Vector(2));
    for (path, (spec, event)) in all.chain([("nested".to_owned(), nested), ("given".to_owned(), given)]) {
        let build = |scope: &BuildScope| f64::model(&spec, event, scope);
        let mut shapes = BTreeMap::new();
        visit(&build(&scope()).unwrap(), |path, entry| drop(shapes.insert(path.to_owned(), entry.shape())));
        build(&scope().for_saved(shapes.clone())).unwrap_or_else(|e| panic!("{path}: {e}"));
        let names = shapes.keys().filter(|name| ["bijector", "base"].iter().any(|part| name.starts_with(part)));
        for name in names {
            let mut shapes = shapes.clone();
            let shape = shapes.remove(name).unwrap();
            let error = build(&scope().for_saved(shapes)).err().map_or_else(|| "no error".to_owned(), |error| error.to_string());
            assert_eq!(error, format!("{name}: shape: expected no such tensor, as was saved, got {shape:?}"), "{path}");
        }
    }
}

/// What is small in a shrunk spec. Differences see the error of a solver: its tolerance is small as well.
const SMALL: [(&str, &str); 12] = [
    ("steps: ", "2"),
    ("layers: ", "2"),
    ("hidden: ", "5"),
    ("patch: ", "2"),
    ("every: ", "2"),
    ("frame: ", "1"),
    ("repeat: ", "2"),
    ("times: ", "1"),
    ("width: ", "4"),
    ("heads: ", "2"),
    ("rtol: ", "1e-8"),
    ("atol: ", "1e-8"),
];

/// The same architecture, small: few layers, narrow networks, a tiny image. The fields are changed in the text, so any
/// kind of spec takes part.
fn shrunk(path: &Path) -> (Spec<dyn ModelSpec>, EventShape) {
    let text = std::fs::read_to_string(path).unwrap();
    let mut small = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//") && !line.trim_start().starts_with("image:")) {
        let mut line = line.to_owned();
        for (field, value) in SMALL {
            // A network's own `layers` stands behind its width: it stays.
            if field == "layers: " && line.contains("hidden: ") {
                continue;
            }
            let mut parts = line.split(field).map(str::to_owned).collect::<Vec<_>>();
            for part in parts.iter_mut().skip(1) {
                let digits = part.chars().take_while(|c| c.is_ascii_digit() || "e-.".contains(*c)).count();
                *part = format!("{value}{}", &part[digits..]);
            }
            line = parts.join(field);
        }
        small.push_str(&line);
        small.push('\n');
    }
    let spec: Spec<dyn ModelSpec> = from_ron(&small).unwrap_or_else(|e| panic!("{}, shrunk:{e}\n{small}", path.display()));
    let image = |side| EventShape::Image { channels: 1, height: side, width: side };
    let event = match event(path, &parse(path)) {
        // What is squeezed twice has no odd half, and what is cut into patches behind that more than one of them.
        EventShape::Image { .. } => [6, 4].map(image).into_iter().find(|event| spec.build::<f32>(*event, 1).is_ok()).unwrap_or(image(8)),
        EventShape::Vector(_) => EventShape::Vector(2),
    };
    (spec, event)
}

#[test]
fn every_spec_conforms_at_a_small_size() {
    for path in files() {
        let (spec, event) = shrunk(&path);
        let model = f64::model(&spec, event, &scope()).unwrap();
        let iterative = model.flow().bijector().facts().inverse == flow_api::InverseKind::Iterative;
        let subject = Subject {
            inverse_tolerance: iterative.then_some(1e-6),
            shake: 0.1,
            ..Subject::new(path.file_stem().unwrap().to_string_lossy(), event.len())
        };
        let report = check_model(&subject, &spec, event).unwrap();
        assert!(report.items.contains(&"samples"), "{report}");
    }
}

/// A training step, densities and samples; the parameters that a plain kernel asked the device for.
fn plain_parameters(path: &Path, kernels: Kernels) -> Vec<String> {
    let (spec, event) = shrunk(path);
    let mut model = f32::model(&spec, event, &scope()).unwrap();
    let mut values = vec![0.0; 16 * event.len()];
    flow_kernels::noise::Stream::new(1, 0, "images").row(0).gaussian(&mut values);
    let numbers: Vec<f64> = (0..32).map(|i| f64::from(i * i % 7)).collect();
    if let Some(conditioner) = model.conditioner_mut() {
        conditioner.fit(&numbers).unwrap();
    }
    let of_classes = model.conditioner().is_some_and(|conditioner| conditioner.classes().is_some());
    let cx = |samples: usize| {
        let numbers = Conditions::Numbers(numbers[..2 * samples].to_vec());
        Context::new(1).with_kernels(kernels).given(if of_classes { Conditions::class(3, samples) } else { numbers })
    };
    model.initialise(values.clone(), &cx(16)).unwrap();
    let mut gradients = Gradients::zeros(&model);
    for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
        let cx = cx(16).in_mode(Mode::Train).with_memory(memory);
        model.nll(values.clone(), &mut gradients, &cx).unwrap();
    }
    model.log_prob(values, &cx(16)).unwrap();
    model.sample(4, 1.0, &cx(4)).unwrap();
    let mut mirrored = Vec::new();
    visit(&model, |path, entry| {
        if let Entry::Parameter { parameter, .. } = entry
            && parameter.downcast_ref::<Parameter<f32>>().unwrap().is_mirrored()
        {
            mirrored.push(path.to_owned());
        }
    });
    mirrored
}

/// Of the fused kernels' speed nothing would remain, and no other test would see it.
#[test]
fn fused_kernels_are_the_ones_that_run() {
    let mut seen = 0;
    for path in files() {
        assert_eq!(plain_parameters(&path, Kernels::Fused), [""; 0], "{}", path.display());
        seen += plain_parameters(&path, Kernels::Taped).len();
    }
    assert!(seen > 0, "plain kernels would be noticed");
}

#[test]
fn conditional_models_agree_on_both_kernels() {
    let text = "MixerFlow(patch: 2, layers: 2, channel: [LuLinear(), AffineCoupling(hidden: 6, condition: 3)], patches: [AffineCoupling(hidden: 6, condition: 3)])";
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    let event = EventShape::Image { channels: 1, height: 6, width: 4 };
    let mut model = f64::model(&spec, event, &scope()).unwrap();
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            values.iter_mut().enumerate().for_each(|(i, v)| *v += 0.1 * (i as f64 + path.len() as f64).sin());
        }
    })
    .unwrap();
    let numbers = |count: usize, step: f64| (0..count).map(|i| (step * i as f64).sin()).collect::<Vec<f64>>();
    let images = numbers(2 * event.len(), 0.7);
    let [fused, plain, other] = [(Kernels::Fused, 0.3), (Kernels::Taped, 0.3), (Kernels::Taped, 0.4)].map(|(kernels, step)| {
        let cx = Context::new(1).with_kernels(kernels).with_condition(f64::tensor(numbers(6, step), (2, 3)));
        model.log_prob(images.clone(), &cx).unwrap().value
    });
    for (a, b) in fused.iter().zip(&plain) {
        assert!((a - b).abs() < 1e-12 * a.abs(), "{fused:?} {plain:?}");
    }
    assert_ne!(plain, other);
}

/// A truncated series in one dimension tells no spread, but stays an estimate.
#[test]
fn a_model_whose_training_estimates_says_so() {
    let text = "MixerFlow(patch: 1, layers: 1, shift: None, channel: [Residual(hidden: 4, log_det: Truncated())], patches: [])";
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    let event = EventShape::Image { channels: 1, height: 2, width: 2 };
    let model = f32::model(&spec, event, &BuildScope::new(1)).unwrap();
    for (mode, estimated) in [(Mode::Train, true), (Mode::Evaluate, false)] {
        let scored = model.log_prob(vec![0.1, 0.2, -0.3, 0.4], &Context::new(0).in_mode(mode)).unwrap();
        assert_eq!(scored.standard_error.is_some(), estimated, "{mode:?}");
    }
}
