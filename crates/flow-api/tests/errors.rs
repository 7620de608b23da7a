//! Bad input gets an error that says what was expected: their texts are part of the interface.

use dfdx::prelude::*;
use flow_api::bases::StandardNormal;
use flow_api::compose::{InverseOf, Then};
use flow_api::context::Kernels;
use flow_api::layers::{ActNorm, LuLinear, Permutation};
use flow_api::module::{EntryMut, load, save, update};
use flow_api::rows::{RowChain, RowView, Rows, Taped, TapedMap, TapedRows};
use flow_api::spec::{BuildScope, EventShape, FlowSpec, ModelSpec, Spec, SpecScalar, from_ron, to_ron};
use flow_api::{
    Bijector, Context, Facts, Flow, FlowError, Gradients, InverseKind, Memory, Module, Parameter, RowFlow, Scalar, Tensor, module_fields,
    to_host,
};

fn device() -> Cpu {
    Cpu::seed_from_u64(1)
}

fn batch(rows: usize, columns: usize, values: impl Fn(usize) -> f64) -> Tensor<(usize, usize), f64> {
    device().tensor_from_vec((0..rows * columns).map(values).collect(), (rows, columns))
}

#[test]
fn act_norm_initialisation() {
    let mut norm = Rows(ActNorm::<f64>::new(2));
    let cx = Context::new(0).child("layers.3.channel.0");
    let varied = |i: usize| (i as f64).sin() * 3.0 + 5.0;
    let uninitialised = norm.forward(batch(4, 2, varied), &cx).unwrap_err().to_string();
    assert_eq!(
        uninitialised,
        "layers.3.channel.0: used before its data-dependent initialisation; call `initialise` with a batch of data first"
    );
    let one = norm.initialise(batch(1, 2, varied), &cx).unwrap_err().to_string();
    assert_eq!(one, "layers.3.channel.0: data-dependent initialisation needs at least 2 rows, got 1");
    let constant = norm.initialise(batch(4, 2, |i| if i % 2 == 1 { 7.0 } else { i as f64 }), &cx).unwrap_err().to_string();
    assert_eq!(
        constant,
        "layers.3.channel.0: feature 1 is constant over the initialisation batch, so it cannot be scaled to unit variance"
    );
    let broken = norm.initialise(batch(4, 2, |i| if i == 5 { f64::NAN } else { i as f64 }), &cx).unwrap_err().to_string();
    assert_eq!(broken, "layers.3.channel.0: the initialisation batch is not finite in row 2");

    let y = norm.initialise(batch(500, 2, varied), &cx).unwrap().as_vec();
    for j in 0..2 {
        let feature: Vec<f64> = y.iter().skip(j).step_by(2).copied().collect();
        let mean = feature.iter().sum::<f64>() / 500.0;
        let std = (feature.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 500.0).sqrt();
        assert!(mean.abs() < 1e-12 && (std - 1.0).abs() < 1e-12, "{mean} {std}");
    }
    // What is initialised, and may be trained, stays as it is.
    let before = save(&norm);
    norm.initialise(batch(500, 2, |i| 7.0 * varied(i)), &cx).unwrap();
    assert_eq!(save(&norm), before);
}

#[test]
fn compositions_name_both_layers() {
    let flows = |dims: [usize; 2]| dims.map(|d| Box::new(LuLinear::<f64>::new(d)) as Box<dyn flow_api::RowFlow<f64>>).into();
    assert_eq!(
        RowChain::new(3, flows([3, 4])).unwrap_err().to_string(),
        "1 (LuLinear) takes shape (batch, 4), but 0 (LuLinear) before it gives (batch, 3)"
    );
    let linear = |d: usize| Rows(LuLinear::<f64>::new(d));
    let error = Then::new(linear(3), linear(5), &(1_usize, 3_usize)).unwrap_err().to_string();
    assert_eq!(error, "LuLinear takes shape (batch, 5), but LuLinear before it gives (batch, 3)");
    assert_eq!(Permutation::new(vec![0, 2, 2]).unwrap_err().to_string(), "Permutation: indices: expected each of 0..3 once, got [0, 2, 2]");
}

#[test]
fn numbers_that_are_none_and_maps_that_are_singular() {
    let mut flow = Flow::new(Rows(LuLinear::<f64>::new(2)), StandardNormal::new(2));
    let nan = batch(3, 2, |i| if i == 4 { f64::INFINITY } else { 0.0 });
    assert_eq!(flow.log_prob(nan, &Context::new(0)).unwrap_err().to_string(), "flow: the input is not finite in row 2");
    update(&mut flow, |path, entry| {
        if let (true, flow_api::module::EntryMut::Parameter { values, .. }) = (path.ends_with("log_diagonal"), entry) {
            values[1] = -1e9;
        }
    })
    .unwrap();
    let error = flow.log_prob(batch(1, 2, |_| 0.0), &Context::new(0)).unwrap_err().to_string();
    assert_eq!(error, "bijector: the linear map is singular: u[1][1] = exp(-1000000000)");
    let error = flow.sample::<(usize, usize), f64>((1, 2), f64::NAN, &Context::new(0)).unwrap_err().to_string();
    assert_eq!(error, "sample: temperature: expected a finite number that is not negative, got NaN");
}

#[test]
fn a_state_of_another_model_names_every_difference() {
    let mut small = Rows(LuLinear::<f64>::new(2));
    let large = save(&Rows(LuLinear::<f64>::new(3).with_random_permutation(1)));
    let before = save(&small);
    assert_eq!(
        load(&mut small, &large).unwrap_err().to_string(),
        "the saved state does not fit this model: 1 unexpected (`permutation`); `bias` is a parameter of shape [2] in the model and a parameter of shape [3] in the \
         file; `log_diagonal` is a parameter of shape [2] in the model and a parameter of shape [3] in the file; `lower` is a parameter of shape [1] in the model and \
         a parameter of shape [3] in the file; `upper` is a parameter of shape [1] in the model and a parameter of shape [3] in the file"
    );
    assert_eq!(save(&small), before);
}

#[test]
fn specs_say_where_and_what() {
    let cases = [
        (
            "VectorFlow(flows: [ActNorm(), LuLinaer()])",
            "1:31-1:39: unknown variant `LuLinaer`, expected one of `ActNorm`, `LeakyRelu`, `Logit`, `LuLinear`, `Permutation`, \
             `SinhArcsinh`, `Softsign`",
        ),
        (
            "VectorFlow(\n  flows: [LuLinear(permutatoin: Reverse)])",
            "2:20-2:31: Unexpected field named `permutatoin`, expected `permutation` instead",
        ),
        (
            "VectorFlow(flows: [LuLinear(permutation: Backwards)])",
            "1:42-1:51: Unexpected enum variant named `Backwards`, expected one of `Identity`, `Reverse`, or `Random` instead",
        ),
        ("VectorFlow(repeat: -1, flows: [ActNorm()])", "1:21-1:22: Integer is out of bounds"),
        ("VectorFlow(repeat: \"two\", flows: [ActNorm()])", "1:19-1:20: Expected integer"),
        ("VectorFlow(repeat: 2)", "1:21: Unexpected missing field named `flows`"),
        ("MixerFlwo(patch: 2)", "1:1-1:10: unknown variant `MixerFlwo`, expected `ImageFlow` or `VectorFlow`"),
    ];
    for (text, expected) in cases {
        let error = from_ron::<Spec<dyn ModelSpec>>(text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text}\n  expected {expected}\n  got      {error}");
    }
    // Editors of some systems begin a text with a byte-order mark.
    let empty: Spec<dyn ModelSpec> = from_ron("\u{feff}VectorFlow(flows: [])").unwrap();
    let error = f32::model(&empty, EventShape::Vector(2), &BuildScope::new(1)).unwrap_err();
    assert_eq!(error.to_string(), "bijector: flows: expected 1 to 16384, got 0");
}

#[test]
fn a_spec_and_its_text_are_the_same() {
    let text =
        "VectorFlow(flows: [ActNorm(), LuLinear(permutation: Random), Permutation(order: Reverse)], repeat: 3, base: DiagonalNormal)";
    let spec: Spec<dyn ModelSpec> = from_ron(text).unwrap();
    let once = to_ron(&spec).unwrap();
    assert_eq!(to_ron(&from_ron::<Spec<dyn ModelSpec>>(&once).unwrap()).unwrap(), once);
    let flow: FlowSpec = from_ron("LuLinear(permutation: Reverse)").unwrap();
    assert_eq!(to_ron(&flow).unwrap().split_whitespace().collect::<String>(), "LuLinear(permutation:Reverse,)");
}

#[test]
fn nothing_goes_through_as_nothing_and_what_is_no_number_is_told() {
    let device = Cpu::default();
    for kernels in [Kernels::Fused, Kernels::Taped] {
        let cx = Context::new(0).with_kernels(kernels);
        let rows = |values: Vec<f64>, shape: (usize, usize)| device.tensor_from_vec(values, shape);
        let empty = Rows(LuLinear::<f64>::new(0));
        let error = empty.forward(rows(Vec::new(), (2, 0)), &cx).unwrap_err();
        assert!(matches!(error, FlowError::Shape { .. }), "{error}");
        let mut flow = Rows(LuLinear::<f64>::new(2));
        assert!(to_host(&flow.forward(rows(Vec::new(), (0, 2)), &cx).unwrap().log_det.value).is_empty());
        update(&mut flow, |_, entry| {
            if let EntryMut::Parameter { values, .. } = entry {
                values.fill(f64::NAN);
            }
        })
        .unwrap();
        assert!(flow.forward(rows(vec![1.0; 4], (2, 2)), &cx).is_err() && flow.inverse(rows(vec![1.0; 4], (2, 2)), &cx).is_err());
    }
}

/// y = ln x, defined where x > 0 alone.
#[derive(Clone)]
struct Logarithm;

impl<E: Scalar> Module<E> for Logarithm {
    module_fields!(E;);
}

impl<E: Scalar> TapedRows<E> for Logarithm {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> flow_api::Result<TapedMap<E>> {
        let y = x.ln();
        Ok((y.with_empty_tape(), y.negate().sum::<(usize,), Axis<1>>()))
    }
}

impl<E: Scalar> RowFlow<E> for Logarithm {
    fn facts(&self) -> Facts {
        Facts::new("Logarithm").with_inverse(InverseKind::Missing)
    }

    fn dim(&self) -> usize {
        2
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

#[test]
fn errors_within_blocks_name_the_layer_and_the_row_of_the_whole_batch() {
    let rows = |wrong: f64| batch(500, 2, |i| if i / 2 == 300 { wrong } else { 1.0 });
    let chain = RowChain::<f64>::new(2, vec![Box::new(Logarithm)]).unwrap();
    let cx = Context::new(0).child("layers.3");
    let expected = |layer: &str| format!("{layer}: the log-det is not finite in row 300");
    assert_eq!(Rows(Logarithm).forward(rows(-1.0), &cx).unwrap_err().to_string(), expected("layers.3"));
    assert_eq!(Rows(Logarithm).forward(rows(-1.0), &Context::new(0)).unwrap_err().to_string(), expected("Logarithm"));
    assert_eq!(Rows(chain).forward(rows(-1.0), &cx).unwrap_err().to_string(), expected("layers.3.0"));
}

#[test]
fn a_flow_without_an_inverse_says_so() {
    let error = Rows(Logarithm).inverse(batch(3, 2, |_| 1.0), &Context::new(0).child("layers.3")).unwrap_err();
    assert_eq!(error, FlowError::NoInverse { layer: "layers.3".to_owned() });
    // It trains all the same: whatever the memory setting, its input is kept.
    let flow = Flow::new(Rows(Logarithm), StandardNormal::new(2));
    let losses = [Memory::Store, Memory::Recompute, Memory::Invert].map(|memory| {
        let cx = Context::new(0).with_memory(memory);
        flow.nll(batch(5, 2, |i| 1.0 + i as f64), &mut Gradients::zeros(&flow), &cx).unwrap().nll
    });
    assert!(losses.iter().all(|loss| loss.to_bits() == losses[0].to_bits()), "{losses:?}");
}

#[test]
fn what_is_turned_round_is_initialised_before() {
    let varied = batch(8, 2, |i| (i as f64).sin());
    let mut norm = Rows(ActNorm::<f64>::new(2));
    let error = InverseOf::new(norm.clone()).initialise(varied.clone(), &Context::new(0)).unwrap_err().to_string();
    assert!(error.starts_with("inner: initialise is not supported: it runs backwards"), "{error}");
    norm.initialise(varied.clone(), &Context::new(0)).unwrap();
    InverseOf::new(norm).initialise(varied, &Context::new(0)).unwrap();
}

#[test]
fn buffers_and_offsets_that_do_not_fit() {
    let error = Parameter::<f32>::try_new(&[2, 3], vec![0.0; 5]).unwrap_err().to_string();
    assert_eq!(error, "parameter: build: expected shape [2, 3], got 5");
    assert!(Parameter::<f32>::try_new(&[usize::MAX, 2], Vec::new()).is_err());
    for (rows, columns, place) in
        [(vec![0, 1], vec![0, 1], "1 twice"), (vec![4], vec![0], "4 + 0"), (vec![usize::MAX], vec![1], "18446744073709551615 + 1")]
    {
        let error = RowView::new(4, rows, columns).unwrap_err().to_string();
        assert_eq!(error, format!("RowView: offsets: expected each place of 0..4 at most once, got {place}"));
    }
}
