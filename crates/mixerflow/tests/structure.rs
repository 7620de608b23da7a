//! What the skeleton promises: permutations bit for bit, weight sharing, an untouched frame, and specs that say what is
//! wrong with them.

use dfdx::prelude::*;
use flow_api::bijector::{Cotangent, Point};
use flow_api::context::Kernels;
use flow_api::layers::{ActNorm, LuLinear};
use flow_api::module::{EntryMut, update};
use flow_api::rows::RowChain;
use flow_api::samples::{Side, Skeleton};
use flow_api::spec::{BuildScope, EventShape, ModelSpec, Spec, SpecScalar, from_ron, to_ron};
use flow_api::{Bijector, Context, FlowError, Gradients, Memory, SampleFlow, Tensor, to_host};
use flow_kernels::noise::Stream;
use mixerflow::{ImageShape, Patches, Patchify};

const IMAGE: ImageShape = ImageShape { channels: 2, height: 6, width: 8 };

fn device() -> Cpu {
    Cpu::seed_from_u64(3)
}

fn noise(len: usize, seed: u64) -> Vec<f64> {
    let mut values = vec![0.0; len];
    Stream::new(seed, 0, "test").row(0).gaussian(&mut values);
    values
}

fn side(view: flow_api::rows::RowView, chain: RowChain<f64>) -> Box<dyn SampleFlow<f64>> {
    Box::new(Side::new(view, chain).unwrap())
}

/// A skeleton of one side whose linear map is far from the identity.
fn one_side(view: flow_api::rows::RowView) -> Skeleton<f64> {
    let dim = view.dim();
    let mut linear = LuLinear::new(dim);
    update(&mut linear, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let len = values.len();
            values.copy_from_slice(&noise(len, path.len() as u64));
        }
    })
    .unwrap();
    let chain = RowChain::new(dim, vec![Box::new(linear)]).unwrap();
    Skeleton::new("OneSide", IMAGE.len(), vec![vec![("side".to_owned(), side(view, chain))]]).unwrap()
}

fn forward(skeleton: &Skeleton<f64>, images: Vec<f64>) -> Vec<f64> {
    let batch = images.len() / IMAGE.len();
    let x = device().tensor_from_vec(images, (batch, IMAGE.len()));
    skeleton.forward(x, &Context::new(0)).unwrap().value.as_vec()
}

#[test]
fn patchify_is_the_documented_permutation_bit_for_bit() {
    let patchify = Patchify::new(IMAGE, 2).unwrap();
    let images = noise(3 * IMAGE.len(), 1);
    let x: Tensor<(usize, Const<2>, usize, usize), f64> = device().tensor_from_vec(images.clone(), (3, Const, 6, 8));
    let cx = Context::new(0);
    let matrix = patchify.forward(x, &cx).unwrap();
    assert_eq!(*matrix.value.shape(), (3, 12, 8));
    assert_eq!(matrix.log_det.value.as_vec(), [0.0; 3]);
    let values = matrix.value.as_vec();
    for b in 0..3 {
        for n in 0..12 {
            for k in 0..8 {
                let (c, row, column) = (k / 4, k / 2 % 2, k % 2);
                let pixel = ((b * 2 + c) * 6 + n / 4 * 2 + row) * 8 + n % 4 * 2 + column;
                assert_eq!(values[(b * 12 + n) * 8 + k].to_bits(), images[pixel].to_bits());
            }
        }
    }
    let back: Tensor<(usize, Const<2>, usize, usize), f64> = patchify.inverse(matrix.value, &cx).unwrap().value;
    assert_eq!(back.as_vec(), images);
}

/// Applies a permutation to patches (`rows`) or to the numbers of a patch of every image, by way of the mixer matrix.
fn permuted(images: &[f64], patches: &Patches, rows: Option<&[usize]>, columns: Option<&[usize]>) -> Vec<f64> {
    let places: Vec<usize> = patches.channel_view().unwrap().places().collect();
    let (count, len) = (patches.count(), patches.len());
    let mut out = images.to_vec();
    for image in 0..images.len() / IMAGE.len() {
        let at = image * IMAGE.len();
        for n in 0..count {
            for k in 0..len {
                let from = rows.map_or(n, |rows| rows[n]) * len + columns.map_or(k, |columns| columns[k]);
                out[at + places[n * len + k]] = images[at + places[from]];
            }
        }
    }
    out
}

#[test]
fn patches_share_the_channel_flow_and_channels_share_the_patch_flow() {
    let images = noise(2 * IMAGE.len(), 2);
    for frame in [0, 1] {
        let patches = Patches::new(IMAGE, 2, frame, "test").unwrap();
        let (count, len) = (patches.count(), patches.len());
        let rotate = |n: usize| (0..n).map(|i| (i + 2) % n).collect::<Vec<_>>();
        let (rows, columns) = (rotate(count), rotate(len));
        let channel = one_side(patches.channel_view().unwrap());
        assert_eq!(
            forward(&channel, permuted(&images, &patches, Some(&rows), None)),
            permuted(&forward(&channel, images.clone()), &patches, Some(&rows), None)
        );
        let patch = one_side(patches.patch_view().unwrap());
        assert_eq!(
            forward(&patch, permuted(&images, &patches, None, Some(&columns))),
            permuted(&forward(&patch, images.clone()), &patches, None, Some(&columns))
        );
    }
}

#[test]
fn the_frame_of_a_shift_layer_passes_bit_for_bit_and_nothing_else_does() {
    let images = noise(2 * IMAGE.len(), 5);
    let patches = Patches::new(IMAGE, 2, 1, "test").unwrap();
    assert_eq!(patches.count(), 2 * 3);
    for view in [patches.channel_view().unwrap(), patches.patch_view().unwrap()] {
        let out = forward(&one_side(view), images.clone());
        for (at, (x, y)) in images.iter().zip(&out).enumerate() {
            let (row, column) = (at / 8 % 6, at % 8);
            let in_frame = row == 0 || row == 5 || column == 0 || column == 7;
            assert_eq!(in_frame, x.to_bits() == y.to_bits(), "row {row}, column {column}");
        }
    }
}

#[test]
fn errors_say_which_number_does_not_divide_which() {
    let digits = EventShape::Image { channels: 1, height: 8, width: 8 };
    let sides = "channel: [LuLinear()], patches: [LuLinear()]";
    let cases = [
        (format!("MixerFlow(patch: 3, layers: 2, {sides})"), digits, "bijector: height 8 is not divisible by patch 3"),
        (
            format!("MixerFlow(patch: 4, layers: 4, {sides})"),
            EventShape::Image { channels: 3, height: 32, width: 30 },
            "bijector: width 30 is not divisible by patch 4",
        ),
        (
            format!("MixerFlow(patch: 4, layers: 1, shift: (every: 1, frame: 1), {sides})"),
            digits,
            "bijector: height inside the shift frame 6 is not divisible by patch 4",
        ),
        (
            format!("MixerFlow(patch: 2, layers: 1, shift: (every: 1, frame: 2), {sides})"),
            digits,
            "bijector: shift.frame: expected a width that is no multiple of the patch 2, got 2",
        ),
        (
            format!("MixerFlow(patch: 8, layers: 1, shift: (every: 1), {sides})"),
            digits,
            "bijector: frame: expected less than half of the height 8, got 4",
        ),
        (
            format!("MixerFlow(patch: 2, layers: 1, shift: (every: 0), {sides})"),
            digits,
            "bijector: shift.every: expected 1 to 16384, got 0",
        ),
        (format!("MixerFlow(patch: 0, layers: 1, {sides})"), digits, "bijector: patch: expected at least 1, got 0"),
        (format!("MixerFlow(patch: 2, layers: 0, {sides})"), digits, "bijector: layers: expected 1 to 2048, got 0"),
        (
            format!("MixerFlow(image: (1, 8, 8), patch: 2, layers: 1, {sides})"),
            EventShape::Image { channels: 1, height: 28, width: 28 },
            "bijector: image: expected the data's shape (1, 28, 28), got (1, 8, 8)",
        ),
        (
            format!("MixerFlow(patch: 2, layers: 1, whole: [Squeeze()], {sides})"),
            digits,
            "bijector: whole: expected maps that leave the grid (4, 4, 4) as it is, got (16, 2, 2)",
        ),
        (format!("MixerFlow(patch: 2, layers: 1, {sides})"), EventShape::Vector(64), "bijector: expected images, got data of shape (64)"),
    ];
    for (text, event, expected) in cases {
        let spec: Spec<dyn ModelSpec> = from_ron(&text).unwrap();
        let error = f32::model(&spec, event, &BuildScope::new(1)).unwrap_err();
        assert_eq!(error.to_string(), expected, "{text}");
    }
}

#[test]
fn a_spec_survives_its_own_text() {
    let text = "MixerFlow(patch: 2, layers: 4, channel: [ActNorm(), LuLinear(permutation: Reverse)], patches: [LuLinear()], shift: None)";
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    let once = to_ron(&spec).unwrap();
    let again: Spec<dyn ModelSpec> = from_ron(&once).unwrap();
    assert_eq!(to_ron(&again).unwrap(), once);
    assert!(once.contains("LuLinear(") && once.contains("shift: None"), "{once}");
}

/// Mean NLL and gradients of a shaken model under all kernels and memory settings, on pools of 1 and 3 threads:
/// bit-equal where only the threads differ, equal up to rounding otherwise.
fn all_ways_agree(text: &str, (channels, height, width): (usize, usize, usize), batch: usize) {
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    let event = EventShape::Image { channels, height, width };
    let mut model = f64::model(&spec, event, &BuildScope::new(1)).unwrap();
    let images = noise(batch * event.len(), 9);
    let cx = Context::new(1);
    let first = model.batch(images.clone()).unwrap();
    model.flow_mut().initialise(first, &cx).unwrap();
    update(&mut model, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            let shake = noise(values.len(), path.len() as u64);
            values.iter_mut().zip(shake).for_each(|(v, shake)| *v += 0.1 * shake);
        }
    })
    .unwrap();
    let pools = [1, 3].map(|count| rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap());
    let mut results = Vec::new();
    for kernels in [Kernels::Fused, Kernels::Taped] {
        for memory in [Memory::Store, Memory::Recompute, Memory::Invert] {
            let cx = cx.clone().with_kernels(kernels).with_memory(memory);
            let [alone, among_others] = [&pools[0], &pools[1]].map(|pool| {
                pool.install(|| {
                    let mut gradients = Gradients::zeros(&model);
                    let loss = model.flow().nll(model.batch(images.clone()).unwrap(), &mut gradients, &cx).unwrap();
                    assert_eq!(gradients.untouched().count(), 0);
                    (loss.nll, gradients.values().to_vec())
                })
            });
            assert!(alone == among_others, "{kernels:?} {memory:?}: threads change the result");
            results.push(alone);
        }
    }
    for (nll, gradients) in &results[1..] {
        assert!((nll - results[0].0).abs() < 1e-11 * nll.abs());
        for (a, b) in gradients.iter().zip(&results[0].1) {
            assert!((a - b).abs() < 1e-9 * (1.0 + a.abs()), "{a} {b}");
        }
    }
}

#[test]
fn fused_and_plain_kernels_agree_on_the_whole_skeleton() {
    let text =
        "MixerFlow(patch: 2, layers: 2, channel: [ActNorm(), LuLinear(permutation: Random)], patches: [LuLinear()], shift: (every: 2))";
    all_ways_agree(text, (2, 6, 8), 5);
}

#[test]
fn whole_maps_are_a_part_of_their_layer() {
    let sides = "MixerFlow(patch: 2, layers: 2, shift: (every: 2), channel: [ActNorm(), LuLinear(permutation: Random)], ";
    let whole = "whole: [ActNorm(), ChannelWise(flows: [LuLinear(permutation: Reverse)])]";
    all_ways_agree(&format!("{sides} patches: [], {whole})"), (2, 6, 8), 5);
    // A channel-wise map of the matrix is what a patch side is.
    let event = EventShape::Image { channels: 2, height: 6, width: 8 };
    let table = |text: &str| {
        let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
        let table = f64::model(&spec, event, &BuildScope::new(1)).unwrap().describe().unwrap();
        table.into_iter().map(|layer| (layer.path, layer.input)).collect::<Vec<_>>()
    };
    let whole = table(&format!("{sides} patches: [], whole: [ChannelWise(flows: [LuLinear()])])"));
    let side = table(&format!("{sides} patches: [LuLinear()])"));
    assert_eq!(whole[3], ("bijector.layers.0.whole.0.0".to_owned(), vec![8, 12]));
    assert_eq!(whole.into_iter().map(|(_, shape)| shape).collect::<Vec<_>>(), side.into_iter().map(|(_, shape)| shape).collect::<Vec<_>>());
}

#[test]
fn levels_work_on_what_is_left() {
    let flows = "channel: [ActNorm(), LuLinear(permutation: Random)], patches: [LuLinear()], shift: (every: 3)";
    let text = |levels: &str| format!("MixerFlow(patch: 2, layers: 2, {flows}, levels: {levels})");
    all_ways_agree(&text("(count: 2, between: [ActNorm(), Squeeze()])"), (1, 8, 8), 5);
    let event = EventShape::Image { channels: 1, height: 8, width: 8 };
    let spec: Spec<dyn ModelSpec> = from_ron(&text("(count: 2, between: [Squeeze()])")).unwrap();
    let model = f64::model(&spec, event, &BuildScope::new(1)).unwrap();
    let table: Vec<_> = model.describe().unwrap().into_iter().map(|layer| (layer.path, layer.input)).collect();
    // 16 patches of 4 numbers; on the next level 4 channels of 4 × 4 pixels are 4 patches of 16, or 1 in the shifted
    // layer.
    for (at, path, shape) in
        [(1, "layers.0.channel.0", vec![16, 4]), (7, "layers.2.channel.0", vec![16]), (12, "layers.3.patch.0", vec![16, 4])]
    {
        assert_eq!(table[at], (format!("bijector.{path}"), shape));
    }
    assert_eq!(spec.cost(event).flows, table.len());
    for (levels, expected) in [
        ("(count: 0, between: [])", "bijector: levels.count: expected 1 to 2048, got 0"),
        ("(count: 2000, between: [])", "bijector: layers: expected 1 to 2048, got 4000"),
        ("(count: 3, between: [Squeeze()])", "bijector: frame: expected less than half of the height 2, got 1"),
        ("(count: 2, between: [Squeeze(factor: 3)])", "bijector.between.0.0: height 8 is not divisible by factor 3"),
    ] {
        let spec: Spec<dyn ModelSpec> = from_ron(&text(levels)).unwrap();
        assert_eq!(f64::model(&spec, event, &BuildScope::new(1)).unwrap_err().to_string(), expected);
    }
}

#[test]
fn an_image_of_many_rows_is_spread_over_threads() {
    // 400 rows of 4 numbers a sample: three blocks, in one group and in two.
    let text = "MixerFlow(patch: 2, layers: 2, channel: [ActNorm(), LuLinear(permutation: Random)], patches: [ActNorm()], shift: None)";
    for batch in [1, 2] {
        all_ways_agree(text, (1, 40, 40), batch);
    }
}

#[test]
fn nothing_in_is_nothing_out() {
    let skeleton = one_side(Patches::new(IMAGE, 2, 0, "test").unwrap().channel_view().unwrap());
    for kernels in [Kernels::Fused, Kernels::Taped] {
        let cx = Context::new(0).with_kernels(kernels);
        let nothing = || device().tensor_from_vec(Vec::new(), (0, IMAGE.len()));
        assert!(to_host(&skeleton.forward(nothing(), &cx).unwrap().log_det.value).is_empty());
        assert!(to_host(&skeleton.inverse(nothing(), &cx).unwrap().value).is_empty());
    }
}

#[test]
fn a_pullback_refuses_what_does_not_belong_together() {
    let skeleton = one_side(Patches::new(IMAGE, 2, 0, "test").unwrap().channel_view().unwrap());
    let tensor = |batch: usize| device().tensor_from_vec(noise(batch * IMAGE.len(), 1), (batch, IMAGE.len()));
    let cotangent = |batch: usize, log_dets: usize| Cotangent { value: tensor(batch), log_det: device().zeros_like(&(log_dets,)) };
    let settings = [Kernels::Fused, Kernels::Taped].into_iter().flat_map(|kernels| {
        [Memory::Store, Memory::Recompute, Memory::Invert].map(|memory| Context::new(0).with_kernels(kernels).with_memory(memory))
    });
    for cx in settings {
        // 40 and 33 samples are cut into equally many groups.
        for (given, batch, log_dets) in [(3, 4, 4), (40, 33, 33), (3, 3, 4)] {
            let kept = skeleton.forward_keeping(tensor(given), &cx).unwrap().1;
            for point in [Point::Kept(kept), Point::Input(tensor(given)), Point::Output(tensor(given))] {
                let mut gradients = Gradients::zeros(&skeleton);
                let error = skeleton.pullback(point, cotangent(batch, log_dets), &mut gradients, &cx).unwrap_err();
                assert!(matches!(error, FlowError::Shape { .. } | FlowError::Unsupported { .. }), "{given} {batch} {log_dets}: {error}");
            }
        }
        let other = one_side(Patches::new(IMAGE, 2, 0, "test").unwrap().patch_view().unwrap());
        let error = skeleton.pullback(Point::Input(tensor(2)), cotangent(2, 2), &mut Gradients::zeros(&other), &cx).unwrap_err();
        assert!(matches!(error, FlowError::Shape { operation: "gradient", .. }), "{error}");
    }
}

#[test]
fn a_row_that_cannot_be_initialised_is_told_as_its_sample() {
    let patches = Patches::new(IMAGE, 2, 0, "test").unwrap();
    let chain = RowChain::new(8, vec![Box::new(ActNorm::<f64>::new(8))]).unwrap();
    let side = side(patches.channel_view().unwrap(), chain);
    let mut skeleton = Skeleton::new("OneSide", IMAGE.len(), vec![vec![("side".to_owned(), side)]]).unwrap();
    let mut images = noise(5 * IMAGE.len(), 2);
    images[3 * IMAGE.len() + 50] = f64::NAN;
    let x = device().tensor_from_vec(images, (5, IMAGE.len()));
    let error = skeleton.initialise(x, &Context::new(0)).unwrap_err().to_string();
    assert_eq!(error, "side.0: the initialisation batch is not finite in row 3");
}

#[test]
fn events_hold_numbers() {
    let error = Skeleton::<f64>::new("Nothing", 0, Vec::new()).unwrap_err().to_string();
    assert_eq!(error, "Nothing: build: expected shape events of at least one number, got 0");
}
