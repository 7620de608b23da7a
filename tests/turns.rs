//! Couplings of a list take turns, whatever their kinds and whoever wrote them.

use flow_api::module::{EntryMut, update};
use flow_api::spec::{BuildRowFlow, BuildScope, EventShape, FlowSpec, Model, ModelSpec, Spec, SpecError, SpecScalar, from_ron, to_ron};
use flow_api::{Context, RowFlow, register_row_flow};
use flow_kernels::noise::Stream;
use mixerflow_toolkit as _; // registers all kinds
use serde::{Deserialize, Serialize};

/// A coupling of another crate.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Foreign {}
register_row_flow!(Foreign);

impl BuildRowFlow for Foreign {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        let affine: FlowSpec = from_ron("AffineCoupling(hidden: 4)")?;
        E::row_flow(&affine, dim, scope)
    }

    fn takes_turns(&self) -> bool {
        true
    }
}

fn normal(len: usize, name: &str) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(7, 0, name).row(0).gaussian(&mut values);
    values
}

/// The model of a spec with noise on all its weights.
fn shaken(ron: &str, event: EventShape) -> Model<f64> {
    let spec: Spec<dyn ModelSpec> = from_ron(ron).unwrap();
    let mut model = spec.build::<f64>(event, 3).unwrap();
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let noise = normal(values.len(), path);
            values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.1 * noise);
        }
    })
    .unwrap();
    model
}

/// The numbers of an event that each layer of the table changes, to the bit.
fn moved(model: &Model<f64>) -> Vec<Vec<usize>> {
    let dim = model.event().len();
    let mut before: Vec<f64> = normal(dim, "x").into_iter().map(|x| 0.5 * x).collect();
    let x = before.clone();
    let layers = model.describe().unwrap();
    let behind = |path: &str| model.activations(x.clone(), path, &Context::new(0)).unwrap();
    layers
        .iter()
        .map(|layer| {
            let after = behind(&layer.path);
            let changed = (0..dim).filter(|&i| after[i].to_bits() != before[i].to_bits()).collect();
            before = after;
            changed
        })
        .collect()
}

#[test]
fn couplings_of_a_list_take_turns() {
    let (first, second) = (vec![2, 3, 4], vec![0, 1, 2]);
    for (flows, turns) in [
        // Of one kind, as ever.
        ("AffineCoupling(hidden: 4), AffineCoupling(hidden: 4), AffineCoupling(hidden: 4)", "121"),
        ("SplineCoupling(hidden: 4), AffineCoupling(hidden: 4)", "12"),
        ("AdditiveCoupling(hidden: 4), Foreign(), SplineCoupling(hidden: 4), AffineCoupling(hidden: 4), Foreign()", "12121"),
        // A split that says which part it keeps has no turn either.
        (
            "AffineCoupling(hidden: 4, split: First(2)), AffineCoupling(hidden: 4), SplineCoupling(hidden: 4, split: Last(2)), Foreign()",
            "1122",
        ),
        // What moves everything has no turn.
        ("AffineCoupling(hidden: 4), Residual(hidden: 4), SplineCoupling(hidden: 4), Foreign()", "1a21"),
    ] {
        let model = shaken(&format!("VectorFlow(flows: [{flows}])"), EventShape::Vector(5));
        let expected = turns.chars().map(|turn| match turn {
            '1' => first.clone(),
            '2' => second.clone(),
            _ => (0..5).collect(),
        });
        assert_eq!(moved(&model), expected.collect::<Vec<_>>(), "{flows}");
    }
}

/// Lists of a `MixerFlow`: one round a layer, and every number of the image is moved by the couplings of a side, or of
/// the whole matrix, within two layers.
#[test]
fn couplings_take_turns_over_layers() {
    let tokens = |split: &str| format!("whole: [TokenCoupling(split: {split}, network: Mixer(width: 4))], channel: []");
    for (list, couplings) in [
        ("channel: [AffineCoupling(hidden: 4)]", 1),
        ("channel: [SplineCoupling(hidden: 4), AffineCoupling(hidden: 4)]", 2),
        ("channel: [AffineCoupling(hidden: 4), SplineCoupling(hidden: 4), Foreign()]", 3),
        (&tokens("Checkerboard"), 1),
        (&tokens("Channels(Interleaved)"), 1),
    ] {
        let ron = format!("MixerFlow(patch: 2, layers: 4, pixel: [], shift: None, {list}, patches: [])");
        let moved = moved(&shaken(&ron, EventShape::Image { channels: 1, height: 4, width: 4 }));
        assert_eq!(moved.len(), 4 * couplings);
        for pair in moved.windows(2).step_by(2) {
            let both = [&pair[0][..], &pair[1][..]].concat();
            let distinct: std::collections::BTreeSet<_> = both.iter().collect();
            assert!(both.len() == 16 && distinct.len() == 16, "{list}: {moved:?}");
        }
    }
}

/// Where every second layer is shifted, by half a patch, and all take turns together, the lower halves of patches are
/// the upper ones of shifted patches: the same numbers move in all layers. Apart from each other they move all numbers.
#[test]
fn shifted_layers_can_take_turns_among_themselves() {
    let event = EventShape::Image { channels: 1, height: 6, width: 8 };
    for (turns, still) in [("", 24), (", turns: Together", 24), (", turns: Apart", 0)] {
        let shift = format!("shift: (every: 2{turns})");
        let ron = format!("MixerFlow(patch: 2, layers: 4, {shift}, pixel: [], channel: [AdditiveCoupling(hidden: 4)], patches: [])");
        let moved: std::collections::BTreeSet<usize> = moved(&shaken(&ron, event)).into_iter().flatten().collect();
        assert_eq!(event.len() - moved.len(), still, "{turns}");
        // What is not the default is kept in the spec of a run.
        let spec: Spec<dyn ModelSpec> = from_ron(&ron).unwrap();
        assert_eq!(to_ron(&spec).unwrap().contains("turns"), turns.contains("Apart"));
    }
}
