//! Couplings of tokens through the conformance suite, what passes and what sees what, and what specs refuse.

use flow_api::module::{EntryMut, update};
use flow_api::samples::{Grid, Skeleton};
use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron, to_ron};
use flow_api::testkit::{Subject, check, check_model};
use flow_api::{Bijector, Context, Scalar, to_host};
use flow_nets::{SigmoidAffine, Split, TokenMixing};
use flows_jet::{TokenConditioner, TokenSplit, token_coupling};

const fn image(channels: usize, height: usize, width: usize) -> EventShape {
    EventShape::Image { channels, height, width }
}

#[test]
fn models_conform() {
    let (vit, mixer) = ("VisionTransformer(width: 4, blocks: 1, heads: 2, hidden: 6)", "Mixer(width: 3, blocks: 2, hidden: 5)");
    for (text, event) in [
        (format!("Squeeze(), TokenCoupling(network: {vit}, transformer: SigmoidAffine())"), image(1, 4, 4)),
        (format!("TokenCoupling(split: Checkerboard, network: {vit}, transformer: SigmoidAffine(max_scale: 3.0))"), image(2, 3, 3)),
        (format!("TokenCoupling(split: Rows, flipped: true, network: {mixer}, condition: 2), Squeeze()"), image(2, 4, 2)),
        (format!("TokenCoupling(split: Channels(Interleaved), network: {mixer}, condition: 2)"), image(3, 2, 2)),
        (format!("TokenCoupling(split: Left, network: {vit}, condition: 2, transformer: Spline(bins: 3))"), image(1, 2, 3)),
        (
            format!("Repeat(times: 2, flows: [Squeeze(), TokenCoupling(network: {mixer}), TokenCoupling(split: Upper, network: {mixer})])"),
            image(1, 8, 4),
        ),
    ] {
        let text = format!("ImageFlow(flows: [{text}])");
        let spec: Spec<dyn ModelSpec> = from_ron(&text).unwrap();
        let report = check_model(&Subject { shake: 0.3, ..Subject::new(&text, event.len()) }, &spec, event).unwrap();
        assert!(report.items.contains(&"log-det") && report.items.contains(&"threads"), "{report}");
        let written = to_ron(&spec).unwrap();
        assert_eq!(to_ron(&from_ron::<Spec<dyn ModelSpec>>(&written).unwrap()).unwrap(), written);
    }
}

const NETWORKS: [TokenMixing; 2] = [TokenMixing::Attention { heads: 2 }, TokenMixing::Mlp { hidden: 3 }];

fn coupling(grid: &Grid, split: TokenSplit, flipped: bool, mixing: TokenMixing, seed: u64) -> flow_api::Result<Skeleton<f64>> {
    let net = TokenConditioner { width: 4, blocks: 1, hidden: 5, mixing, condition: 0 };
    let coupling = token_coupling(grid, split, flipped, Box::new(SigmoidAffine::new(2.0)?), &net, seed)?;
    Skeleton::new("Coupling", grid.sample_len(), vec![vec![("coupling".to_owned(), Box::new(coupling) as _)]])
}

#[test]
fn couplings_start_as_the_identity() {
    let grid = Grid::image(2, 3, 3).unwrap();
    for mixing in NETWORKS {
        let subject = Subject { identity_start: true, ..Subject::new(format!("{mixing:?}"), 18) };
        check(&subject, |seed| coupling(&grid, TokenSplit::Checkerboard, true, mixing, seed)).unwrap();
    }
}

/// One row of places after the other, `#` for what passes.
const SPLITS: [(TokenSplit, &str); 5] = [
    (TokenSplit::Checkerboard, "#.#.# .#.#. #.#.#"),
    (TokenSplit::Rows, "##### ..... #####"),
    (TokenSplit::Columns, "#.#.# #.#.# #.#.#"),
    (TokenSplit::Upper, "##### ..... ....."),
    (TokenSplit::Left, "##... ##... ##..."),
];

#[test]
fn half_passes_and_moves_all_of_the_other_half() {
    let places = 15;
    let grid = Grid::image(2, 3, 5).unwrap();
    let of_places = SPLITS.map(|(split, places)| {
        let passes: Vec<bool> = places.chars().filter(|c| *c != ' ').map(|c| c == '#').collect();
        (split, passes.repeat(2))
    });
    let of_channels = (TokenSplit::Channels(Split::Halves), [vec![true; places], vec![false; places]].concat());
    for (split, passes) in of_places.into_iter().chain([of_channels]) {
        for (flipped, mixing) in [(false, NETWORKS[0]), (true, NETWORKS[1])] {
            let mut flow = coupling(&grid, split, flipped, mixing, 3).unwrap();
            update(&mut flow, |path, entry| {
                if let EntryMut::Parameter { values, .. } = entry {
                    values.iter_mut().enumerate().for_each(|(i, value)| *value += 0.5 * (1.7 * i as f64 + path.len() as f64).sin());
                }
            })
            .unwrap();
            let x: Vec<f64> = (0..30).map(|i| (0.9 * f64::from(i)).cos()).collect();
            let forward = |x: Vec<f64>| to_host(&flow.forward(f64::tensor(x, (1, 30)), &Context::new(0)).unwrap().value);
            let y = forward(x.clone());
            for input in 0..30 {
                let mut other = x.clone();
                other[input] += 0.01;
                let changed: Vec<bool> = forward(other).iter().zip(&y).map(|(a, b)| a.to_bits() != b.to_bits()).collect();
                let expected = |at: usize| at == input || (passes[input] != flipped && passes[at] == flipped);
                assert_eq!(changed, (0..30).map(expected).collect::<Vec<_>>(), "{split:?} {flipped} {mixing:?}, input {input}");
            }
        }
    }
}

#[test]
fn what_cannot_be_built_is_told() {
    let named = "bijector.0.TokenCoupling: ";
    for (text, event, expected) in [
        ("", image(1, 4, 4), "channels: expected at least 2, got 1"),
        ("split: Rows", image(2, 1, 4), "split: expected places on both sides of Rows, got 1 × 4 places"),
        ("split: Left", image(2, 4, 1), "split: expected places on both sides of Left, got 4 × 1 places"),
        ("network: VisionTransformer(width: 6)", image(2, 4, 4), "heads: expected a divisor of the width 6, got 4"),
        ("network: VisionTransformer(heads: 0)", image(2, 4, 4), "heads: expected 1 to 16384, got 0"),
        ("network: Mixer(width: 0)", image(2, 4, 4), "width: expected 1 to 16384, got 0"),
        ("network: Mixer(token_hidden: 0)", image(2, 4, 4), "token_hidden: expected 1 to 16384, got 0"),
        ("network: Mixer(blocks: 16384, width: 16384)", image(2, 4, 4), "hidden: expected 1 to 16384, got 65536"),
        ("condition: 0", image(2, 4, 4), "condition: expected 1 to 16384, got 0"),
        ("transformer: SigmoidAffine(max_scale: 1.0)", image(2, 4, 4), "max_scale: expected a number from 1.1e0 to 1.0e3 in f32, got 1"),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(&format!("ImageFlow(flows: [TokenCoupling({text})])")).unwrap();
        assert_eq!(spec.build::<f32>(event, 1).unwrap_err().to_string(), format!("{named}{expected}"), "{text}");
    }
    let large = "ImageFlow(flows: [Repeat(times: 2048, flows: [TokenCoupling(network: Mixer(width: 1024, blocks: 4))])])";
    let error = from_ron::<Spec<dyn ModelSpec>>(large).unwrap().build::<f32>(image(2, 4, 4), 1).unwrap_err();
    assert!(error.to_string().starts_with("bijector: numbers: expected at most 536870912 in all"), "{error}");
}
