//! Couplings tell which share of their scales' bounds they use, under the paths of the model's table.

use flow_api::bounds_used::BoundsUsed;
use flow_api::module::{EntryMut, update};
use mixerflow_toolkit::prelude::*;

/// tanh(r / 2) for r = 1, and ln 2σ(1) / ln 2.
const AFFINE: f64 = 0.462_117_157_260_009_8;
const SIGMOID: f64 = 0.548_058_916_916_951_9;

#[test]
fn shares_of_bounds_are_told_by_layer() {
    let image = EventShape::Image { channels: 2, height: 4, width: 4 };
    let mixer = "network: Mixer(width: 4)";
    for (text, event, expected) in [
        (
            "VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 4), SplineCoupling(hidden: 4)])",
            EventShape::Vector(3),
            vec![("1", AFFINE)],
        ),
        ("VectorFlow(flows: [Autoregressive(hidden: 4)])", EventShape::Vector(3), vec![("0", AFFINE)]),
        (
            "VectorFlow(flows: [AffineCoupling(network: Kan(hidden: 4)), AdditiveCoupling(hidden: 4)])",
            EventShape::Vector(3),
            vec![("0", 0.0)],
        ),
        (
            &format!("ImageFlow(flows: [ConvCoupling(hidden: 4), TokenCoupling({mixer}, transformer: SigmoidAffine()), FactorOut()])"),
            image,
            vec![("0", AFFINE), ("1", SIGMOID), ("2", AFFINE)],
        ),
        (
            &format!("MixerFlow(patch: 2, layers: 1, channel: [AffineCoupling(hidden: 4)], patches: [], whole: [TokenCoupling({mixer})])"),
            image,
            vec![("layers.0.channel.0", AFFINE), ("layers.0.whole.0", AFFINE)],
        ),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
        let mut model = spec.build::<f64>(event, 1).unwrap();
        // Every network gives ones.
        update(&mut model, |path, entry| match entry {
            EntryMut::Parameter { values, .. } => {
                values.fill(if path.ends_with("final.bias") || path.ends_with("2.bias") || path.ends_with("2.net.0.bias") {
                    1.0
                } else {
                    0.0
                });
            }
            EntryMut::Flag(initialised) => *initialised = true,
            _ => {}
        })
        .unwrap();
        let bounds = BoundsUsed::default();
        let values = (0..5 * event.len()).map(|i| (0.3 * i as f64).sin()).collect();
        model.log_prob(values, &Context::new(0).asking_for(&bounds)).unwrap();
        let (table, told) = (model.describe().unwrap(), bounds.shares());
        assert!(told.iter().all(|(path, _)| table.iter().any(|layer| layer.path == *path)), "{text}: {told:?}");
        let expected: Vec<_> = expected.into_iter().map(|(path, share)| (format!("bijector.{path}"), share)).collect();
        assert_eq!(told.len(), expected.len(), "{text}: {told:?}");
        for ((path, share), (own, expected)) in told.iter().zip(&expected) {
            assert!(path == own && (share - expected).abs() < 1e-6, "{text}: {told:?}, expected {own} {expected}");
        }
    }
}
