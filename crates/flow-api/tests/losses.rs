//! A loss that is not the likelihood alone, against finite differences.

use dfdx::prelude::HasShape;
use flow_api::bases::DiagonalNormal;
use flow_api::compose::{Pinned, Then};
use flow_api::flow::LatentCotangent;
use flow_api::layers::LuLinear;
use flow_api::module::{EntryMut, update};
use flow_api::rows::Rows;
use flow_api::{Bijector, Context, Flow, FlowError, Gradients, Module, Scalar, to_host};

fn move_parameter<M: Module<f64>>(module: &mut M, at: usize, by: f64) {
    let mut seen = 0;
    update(module, |_, entry| {
        if let EntryMut::Parameter { values, .. } = entry {
            if (seen..seen + values.len()).contains(&at) {
                values[at - seen] += by;
            }
            seen += values.len();
        }
    })
    .unwrap();
}

#[test]
fn a_loss_of_one_s_own_pulls_its_cotangents_back_beside_the_likelihood_s() {
    let mut flow = Flow::new(Rows(LuLinear::<f64>::new(2).with_random_permutation(1)), DiagonalNormal::new(2));
    (0..Gradients::zeros(&flow).values().len()).for_each(|at| move_parameter(&mut flow, at, 0.3 * (at as f64).sin()));
    let (x, cx) = (f64::tensor(vec![0.3, -1.2, 0.8, 0.1, -0.4, 2.0], (3, 2)), Context::new(0));
    // L = −mean log p(x) + Σ cos(i) zᵢ.
    let slopes: Vec<f64> = (0..6).map(|i| f64::from(i).cos()).collect();
    let value = |flow: &Flow<Rows<LuLinear<f64>>, DiagonalNormal<f64>>| {
        let likelihood = flow.log_prob(x.clone(), &cx).unwrap().value.iter().sum::<f64>() / 3.0;
        let z = to_host(&flow.encode(x.clone(), &cx).unwrap().value);
        z.iter().zip(&slopes).map(|(z, slope)| z * slope).sum::<f64>() - likelihood
    };
    let mut gradients = Gradients::zeros(&flow);
    let latents = flow.forward_training(x.clone(), &cx).unwrap();
    let mut cotangent = flow.likelihood_cotangent(&latents, vec![-1.0 / 3.0; 3], &mut gradients, &cx).unwrap();
    cotangent.add_to_latents(&slopes).unwrap();
    assert!(cotangent.clone().add_to_latents(&slopes[1..]).is_err());
    assert!(flow.likelihood_cotangent(&latents, vec![1.0; 2], &mut gradients.clone(), &cx).is_err());
    let pulled = flow.pull_back(latents, cotangent, &mut gradients, &cx).unwrap();
    assert_eq!(*pulled.cotangent.shape(), (3, 2));
    let step = 1e-6;
    for at in 0..gradients.values().len() {
        let mut shifted = |by: f64| {
            move_parameter(&mut flow, at, by);
            let value = value(&flow);
            move_parameter(&mut flow, at, -by);
            value
        };
        let expected = (shifted(step) - shifted(-step)) / (2.0 * step);
        assert!((gradients.values()[at] - expected).abs() < 1e-7, "parameter {at}: {} {expected}", gradients.values()[at]);
    }
    let latents = flow.forward_training(x.clone(), &cx).unwrap();
    let short = LatentCotangent { z: vec![0.0; 5], log_det: vec![0.0; 3], condition: None };
    let error = flow.pull_back::<(usize, usize), f64>(latents, short, &mut gradients, &cx).unwrap_err();
    assert!(matches!(error, FlowError::Shape { .. }), "{error}");
}

/// A flow below a path.
struct Holder<F> {
    f: F,
}
impl<F: Module<f64>> Module<f64> for Holder<F> {
    flow_api::module_fields!(f64; child f);
}

/// A cotangent of activations reaches what is in front of them and nothing else, through every composition.
#[test]
fn cotangents_of_activations_are_pulled_back() {
    type Plane = (usize, usize);
    let linear = |seed| Rows(LuLinear::<f64>::new(2).with_random_permutation(seed));
    let mut flow = Pinned::<Plane, _>::new(Then::new(linear(1), linear(2), &(2, 2)).unwrap());
    (0..Gradients::zeros(&flow).values().len()).for_each(|at| move_parameter(&mut flow, at, 0.3 * (at as f64).sin()));
    let (x, cx) = (f64::tensor(vec![0.3, -1.2, 0.8, 0.1], (2, 2)), Context::new(0).child("f"));
    let slopes: Vec<f64> = (0..4).map(|i| f64::from(i).cos()).collect();
    let mut flow = Holder { f: flow };
    let cases = [("f", 12), ("f.inner", 12), ("f.inner.second", 12), ("f.inner.first", 6)];
    for (layer, reached) in cases {
        let value = |f: &Pinned<Plane, Then<Rows<LuLinear<f64>>, Rows<LuLinear<f64>>>>| {
            let activations = f.forward_until(x.clone(), layer, &cx).unwrap().unwrap();
            activations.iter().zip(&slopes).map(|(a, slope)| a * slope).sum::<f64>()
        };
        let mut gradients = Gradients::zeros(&flow);
        let pulled = flow.f.pullback_until(x.clone(), layer, slopes.clone(), &mut gradients, &cx).unwrap();
        assert!(pulled.is_some_and(|pulled| *pulled.cotangent.shape() == (2, 2)), "{layer}");
        let step = 1e-6;
        let moves = gradients.values().to_vec();
        for (at, got) in moves.iter().enumerate() {
            let mut shifted = |by: f64| {
                move_parameter(&mut flow, at, by);
                let value = value(&flow.f);
                move_parameter(&mut flow, at, -by);
                value
            };
            let expected = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!((got - expected).abs() < 1e-7, "{layer}, parameter {at}: {got} {expected}");
        }
        assert_eq!(moves.len() - gradients.untouched().map(|path| flow_len(&flow, path)).sum::<usize>(), reached, "{layer}");
    }
    let mut gradients = Gradients::zeros(&flow);
    assert!(flow.f.pullback_until(x.clone(), "f.inner.third", slopes.clone(), &mut gradients, &cx).unwrap().is_none());
    assert!(flow.f.pullback_until(x.clone(), "f.inner.first", vec![0.0; 3], &mut gradients, &cx).is_err());
}

/// Numbers of the parameter with this path.
fn flow_len<M: Module<f64>>(module: &M, path: &str) -> usize {
    Gradients::zeros(module).get(path).unwrap().len()
}
