//! Every bijector of this crate through the conformance suite, and the suite through bijectors that are wrong on purpose.

use dfdx::prelude::*;
use flow_api::layers::{ActNorm, LuLinear, Permutation};
use flow_api::testkit::{Mutant, Mutation, Subject, assert_conforms, check, check_precision};
use flow_api::{
    BlockedRows, Chain, Context, FlowDevice, InverseOf, Mapped, Module, Parameter, Recorded, Result, RowChain, RowFlow, Rows, Scalar,
    Taped, TapedBijector, Then, module_fields,
};
use proptest::prelude::*;

fn linear<E: Scalar>(dim: usize, seed: u64, device: &Cpu) -> LuLinear<E, Cpu>
where
    Cpu: FlowDevice<E>,
{
    LuLinear::new(dim, device).with_random_permutation(seed)
}

fn chain<E: Scalar>(dim: usize, seed: u64, device: &Cpu) -> Result<RowChain<E, Cpu>>
where
    Cpu: FlowDevice<E>,
{
    let flows: Vec<Box<dyn RowFlow<E, Cpu>>> = vec![
        Box::new(ActNorm::new(dim, device)),
        Box::new(linear(dim, seed, device)),
        Box::new(Permutation::reverse(dim, device.clone())),
        Box::new(ActNorm::new(dim, device)),
    ];
    RowChain::new(dim, flows)
}

/// y = x e^{tanh(w·c)}, with a condition c of two numbers: a conditional flow in dfdx operations.
struct ConditionalScale<E: Scalar, D: FlowDevice<E>> {
    weight: Parameter<E, D>,
}

impl<E: Scalar, D: FlowDevice<E>> Module<E> for ConditionalScale<E, D> {
    module_fields!(E; parameter weight);
}

impl<E: Scalar, D: FlowDevice<E>> ConditionalScale<E, D> {
    fn log_scale<T: Tape<E, D> + Merge<NoneTape>>(&self, cx: &Context<E, D>, shape: (usize, usize)) -> Tensor<(usize, usize), E, D, T> {
        let condition = cx.condition().cloned().unwrap_or_else(|| self.weight.device().zeros_like(&(shape.0, 2)));
        let weight = self.weight.tensor().retaped::<T>().broadcast_like::<_, Axis<0>>(&(shape.0, 2));
        (weight * condition).sum::<(usize,), Axis<1>>().tanh().broadcast_like::<_, Axis<1>>(&shape)
    }
}

impl<E: Scalar, D: FlowDevice<E>> TapedBijector<(usize, usize), E, D> for ConditionalScale<E, D> {
    type Out = (usize, usize);

    fn kind(&self) -> &'static str {
        "ConditionalScale"
    }

    fn output_shape(&self, input: &(usize, usize)) -> Result<(usize, usize)> {
        if input.1 == 3 { Ok(*input) } else { Err(flow_api::shape_error("ConditionalScale", "build", ("batch", 3), input)) }
    }

    fn forward_taped(
        &self,
        x: Taped<(usize, usize), E, D>,
        cx: &Context<E, D>,
    ) -> Result<(Taped<(usize, usize), E, D>, Taped<(usize,), E, D>)> {
        let s: Taped<(usize, usize), E, D> = self.log_scale(cx, *x.shape());
        let log_det = s.with_empty_tape().sum::<(usize,), Axis<1>>();
        Ok((x * s.exp(), log_det))
    }

    fn inverse(&self, y: Tensor<(usize, usize), E, D>, cx: &Context<E, D>) -> Result<Mapped<(usize, usize), E, D>> {
        let s: Tensor<(usize, usize), E, D> = self.log_scale(cx, *y.shape());
        Ok(Mapped::exact(y * s.clone().negate().exp(), s.negate().sum::<(usize,), Axis<1>>()))
    }

    fn condition_width(&self) -> Option<usize> {
        Some(2)
    }
}

fn conditional(device: &Cpu) -> Recorded<ConditionalScale<f64, Cpu>> {
    Recorded(ConditionalScale { weight: Parameter::new(device.clone(), &[2], vec![0.4, -0.7]) })
}

#[test]
fn act_norm() {
    let subject = Subject { identity_start: true, ..Subject::new("ActNorm", 5) };
    assert_conforms(&subject, |_, device| Ok(Rows(ActNorm::new(5, device))));
    check_precision(&subject, |_, device| Ok(Rows(ActNorm::new(5, device))), |_, device| Ok(Rows(ActNorm::new(5, device)))).unwrap();
}

#[test]
fn lu_linear() {
    for dim in [1, 2, 3, 9] {
        let subject = Subject { identity_start: true, ..Subject::new(format!("LuLinear({dim})"), dim) };
        assert_conforms(&subject, |_, device| Ok(Rows(LuLinear::new(dim, device))));
        let subject = Subject::new(format!("LuLinear({dim}) behind a permutation"), dim);
        assert_conforms(&subject, |seed, device| Ok(Rows(linear(dim, seed, device))));
        check_precision(&subject, |seed, device| Ok(Rows(linear(dim, seed, device))), |seed, device| Ok(Rows(linear(dim, seed, device))))
            .unwrap();
    }
}

/// Every pair of structures that a product of neighbours can have; at the larger size L and U multiply as triangles.
#[test]
fn affine_neighbours_become_one_product() {
    fn part<E: Scalar>(kind: char, dim: usize, seed: u64, device: &Cpu) -> Box<dyn RowFlow<E, Cpu>>
    where
        Cpu: FlowDevice<E>,
    {
        match kind {
            'a' => Box::new(ActNorm::new(dim, device)),
            'p' => Box::new(Permutation::random(dim, seed, device.clone())),
            _ => Box::new(linear(dim, seed, device)),
        }
    }
    fn whole<E: Scalar>(kinds: &str, dim: usize, seed: u64, device: &Cpu) -> Result<Rows<RowChain<E, Cpu>>>
    where
        Cpu: FlowDevice<E>,
    {
        Ok(Rows(RowChain::new(dim, kinds.chars().map(|kind| part(kind, dim, seed, device)).collect())?))
    }
    for kinds in ["l", "al", "la", "pl", "lp", "pa", "ap", "ll", "palpa"] {
        for dim in [5, 130] {
            let subject = Subject::new(format!("{kinds}({dim})"), dim);
            if dim < 100 {
                assert_conforms(&subject, |seed, device| whole(kinds, dim, seed, device));
            }
            check_precision(&subject, |seed, device| whole(kinds, dim, seed, device), |seed, device| whole(kinds, dim, seed, device))
                .unwrap();
        }
    }
}

#[test]
fn permutations() {
    // Feature j of the output is feature 3 - j of the input: it depends on no other.
    let independent = (0..4).flat_map(|j| (0..4).filter(move |i| *i != 3 - j && *i != j).map(move |i| (j, i))).collect();
    let subject = Subject { independent, ..Subject::new("Permutation", 4) };
    assert_conforms(&subject, |_, device| Ok(Rows(Permutation::reverse(4, device.clone()))));
    let subject = Subject::new("Permutation, random", 7);
    assert_conforms(&subject, |seed, device| Ok(Rows(Permutation::random(7, seed, device.clone()))));
}

#[test]
fn compositions() {
    let subject = Subject::new("RowChain", 4);
    assert_conforms(&subject, |seed, device| Ok(Rows(chain(4, seed, device)?)));
    check_precision(&subject, |seed, device| Ok(Rows(chain(4, seed, device)?)), |seed, device| Ok(Rows(chain(4, seed, device)?))).unwrap();
    assert_conforms(&Subject::new("Chain", 3), |seed, device| {
        Chain::new(
            vec![Box::new(Rows(linear(3, seed, device))), Box::new(Rows(ActNorm::new(3, device))), Box::new(Rows(chain(3, seed, device)?))],
            &(1, 3),
        )
    });
    assert_conforms(&Subject::new("Then", 3), |seed, device| {
        Then::new(Rows(linear(3, seed, device)), Rows(ActNorm::<f64, Cpu>::new(3, device)), &(1_usize, 3_usize))
    });
    assert_conforms(&Subject::new("InverseOf", 3), |seed, device| Ok(InverseOf::new(Rows(linear(3, seed, device)))));
}

#[test]
fn flows_in_dfdx_operations() {
    let subject = Subject { condition: Some(2), ..Subject::new("Recorded", 3) };
    assert_conforms(&subject, |_, device| Ok(conditional(device)));
    let subject = Subject { condition: Some(2), ..Subject::new("BlockedRows", 3) };
    assert_conforms(&subject, |_, device| Ok(Rows(BlockedRows::new(conditional(device), 3, device.clone())?)));
}

#[test]
fn wrong_log_dets_fail_the_suite() {
    for mutation in [Mutation::Flipped, Mutation::Halved, Mutation::Dropped] {
        let subject = Subject::new(format!("{mutation:?}"), 3);
        let failure = check(&subject, |seed, device| Ok(Mutant::new(Rows(chain(3, seed, device)?), mutation))).unwrap_err();
        assert_eq!(failure.item, "log-det", "{failure}");
    }
}

#[test]
fn the_log_det_of_a_chain_is_the_sum_and_the_inverse_of_the_inverse_the_map() {
    use flow_api::Bijector;
    let device = Cpu::seed_from_u64(4);
    let mut parts = [Rows(linear::<f64>(3, 1, &device)), Rows(linear(3, 2, &device))];
    for part in &mut parts {
        flow_api::update(part, |path, entry| {
            if let flow_api::EntryMut::Parameter { values, .. } = entry {
                values.iter_mut().enumerate().for_each(|(i, v)| *v = 0.1 * (path.len() + i) as f64);
            }
        })
        .unwrap();
    }
    let x: Tensor<(usize, usize), f64, Cpu> = device.sample_normal_like(&(5, 3));
    let cx = Context::new(0);
    let first = parts[0].forward(x.clone(), &cx).unwrap();
    let second = parts[1].forward(first.value, &cx).unwrap();
    let [a, b] = parts;
    let both = Then::new(a.clone(), b, &(1_usize, 3_usize)).unwrap().forward(x.clone(), &cx).unwrap();
    let sum: Vec<f64> = first.log_det.value.as_vec().iter().zip(second.log_det.value.as_vec()).map(|(a, b)| a + b).collect();
    assert_eq!(both.log_det.value.as_vec(), sum);
    let twice = InverseOf::new(InverseOf::new(a.clone())).forward(x.clone(), &cx).unwrap();
    assert_eq!(twice.value.as_vec(), a.forward(x, &cx).unwrap().value.as_vec());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Compositions of any dimension and depth.
    #[test]
    fn random_chains_conform(dim in 1_usize..9, depth in 1_usize..4, seed in 0_u64..1000) {
        let subject = Subject { shake: 0.1, ..Subject::new(format!("{depth} × chain({dim}), seed {seed}"), dim) };
        let result = check(&subject, |s, device| {
            let flows = (0..depth).map(|i| Ok(Box::new(chain(dim, seed + s + i as u64, device)?) as Box<dyn RowFlow<f64, Cpu>>)).collect::<Result<_>>()?;
            Ok(Rows(RowChain::new(dim, flows)?))
        });
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}
