//! Every bijector of this crate through the conformance suite, and the suite through bijectors that are wrong on
//! purpose.

use dfdx::prelude::*;
use flow_api::compose::{InverseOf, Then};
use flow_api::layers::{ActNorm, LuLinear, Permutation};
use flow_api::rows::{MappedRows, RowChain, Rows, Taped, TapedMap, TapedRows};
use flow_api::testkit::{Mutant, Mutation, Subject, assert_conforms, check, check_precision};
use flow_api::{Context, Facts, Module, Parameter, Result, RowFlow, Scalar, Tensor, module_fields};
use proptest::prelude::*;

fn linear<E: Scalar>(dim: usize, seed: u64) -> LuLinear<E> {
    LuLinear::new(dim).with_random_permutation(seed)
}

fn chain<E: Scalar>(dim: usize, seed: u64) -> Result<RowChain<E>> {
    let flows: Vec<Box<dyn RowFlow<E>>> =
        vec![Box::new(ActNorm::new(dim)), Box::new(linear(dim, seed)), Box::new(Permutation::reverse(dim)), Box::new(ActNorm::new(dim))];
    RowChain::new(dim, flows)
}

/// y = x e^{tanh(w·c)}, with a condition c of two numbers: a conditional flow in dfdx operations.
struct ConditionalScale<E: Scalar> {
    weight: Parameter<E>,
}

impl<E: Scalar> Module<E> for ConditionalScale<E> {
    module_fields!(E; parameter weight);
}

impl<E: Scalar> ConditionalScale<E> {
    fn log_scale<T: Tape<E, E::Device> + Merge<NoneTape>>(&self, cx: &Context<E>, shape: (usize, usize)) -> Tensor<(usize, usize), E, T> {
        let condition = cx.condition().cloned().unwrap_or_else(|| E::zeros((shape.0, 2)));
        let weight = self.weight.tensor().retaped::<T>().broadcast_like::<_, Axis<0>>(&(shape.0, 2));
        (weight * condition).sum::<(usize,), Axis<1>>().tanh().broadcast_like::<_, Axis<1>>(&shape)
    }
}

impl<E: Scalar> TapedRows<E> for ConditionalScale<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, cx: &Context<E>) -> Result<TapedMap<E>> {
        let s: Taped<(usize, usize), E> = self.log_scale(cx, *x.shape());
        let log_det = s.with_empty_tape().sum::<(usize,), Axis<1>>();
        Ok((x * s.exp(), log_det))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>> {
        let s: Tensor<(usize, usize), E> = self.log_scale(cx, *y.shape());
        Ok((y * s.clone().negate().exp(), s.negate().sum::<(usize,), Axis<1>>()))
    }
}

impl<E: Scalar> RowFlow<E> for ConditionalScale<E> {
    fn facts(&self) -> Facts {
        Facts::new("ConditionalScale").with_condition(2)
    }

    fn dim(&self) -> usize {
        3
    }

    fn taped(&self) -> Option<&dyn TapedRows<E>> {
        Some(self)
    }
}

#[test]
fn act_norm() {
    let subject = Subject { identity_start: true, ..Subject::new("ActNorm", 5) };
    assert_conforms(&subject, |_| Ok(Rows(ActNorm::new(5))));
    check_precision(&subject, |_| Ok(Rows(ActNorm::new(5))), |_| Ok(Rows(ActNorm::new(5)))).unwrap();
}

#[test]
fn lu_linear() {
    for dim in [1, 2, 3, 9] {
        let subject = Subject { identity_start: true, ..Subject::new(format!("LuLinear({dim})"), dim) };
        assert_conforms(&subject, |_| Ok(Rows(LuLinear::new(dim))));
        let subject = Subject::new(format!("LuLinear({dim}) behind a permutation"), dim);
        assert_conforms(&subject, |seed| Ok(Rows(linear(dim, seed))));
        check_precision(&subject, |seed| Ok(Rows(linear(dim, seed))), |seed| Ok(Rows(linear(dim, seed)))).unwrap();
    }
}

/// Every pair of structures that a product of neighbours can have; at the larger size L and U multiply as triangles.
#[test]
fn affine_neighbours_become_one_product() {
    fn part<E: Scalar>(kind: char, dim: usize, seed: u64) -> Box<dyn RowFlow<E>> {
        match kind {
            'a' => Box::new(ActNorm::new(dim)),
            'p' => Box::new(Permutation::random(dim, seed)),
            _ => Box::new(linear(dim, seed)),
        }
    }
    fn whole<E: Scalar>(kinds: &str, dim: usize, seed: u64) -> Result<Rows<RowChain<E>>> {
        Ok(Rows(RowChain::new(dim, kinds.chars().map(|kind| part(kind, dim, seed)).collect())?))
    }
    for kinds in ["l", "al", "la", "pl", "lp", "pa", "ap", "ll", "palpa"] {
        for dim in [5, 130] {
            let subject = Subject::new(format!("{kinds}({dim})"), dim);
            if dim < 100 {
                assert_conforms(&subject, |seed| whole(kinds, dim, seed));
            }
            check_precision(&subject, |seed| whole(kinds, dim, seed), |seed| whole(kinds, dim, seed)).unwrap();
        }
    }
}

#[test]
fn permutations() {
    // Feature j of the output is feature 3 - j of the input: it depends on no other.
    let independent = (0..4).flat_map(|j| (0..4).filter(move |i| *i != 3 - j && *i != j).map(move |i| (j, i))).collect();
    let subject = Subject { independent, ..Subject::new("Permutation", 4) };
    assert_conforms(&subject, |_| Ok(Rows(Permutation::reverse(4))));
    let subject = Subject::new("Permutation, random", 7);
    assert_conforms(&subject, |seed| Ok(Rows(Permutation::random(7, seed))));
}

#[test]
fn compositions() {
    let subject = Subject::new("RowChain", 4);
    assert_conforms(&subject, |seed| Ok(Rows(chain(4, seed)?)));
    check_precision(&subject, |seed| Ok(Rows(chain(4, seed)?)), |seed| Ok(Rows(chain(4, seed)?))).unwrap();
    assert_conforms(&Subject::new("Then", 3), |seed| Then::new(Rows(linear(3, seed)), Rows(ActNorm::<f64>::new(3)), &(1_usize, 3_usize)));
    assert_conforms(&Subject::new("InverseOf", 3), |seed| Ok(InverseOf::new(Rows(linear(3, seed)))));
}

#[test]
fn flows_in_dfdx_operations() {
    let subject = Subject { condition: Some(2), ..Subject::new("ConditionalScale", 3) };
    let build = |_| Ok(Rows(ConditionalScale { weight: Parameter::new(&[2], vec![0.4, -0.7]) }));
    assert_conforms(&subject, build);
    let among = |seed| Ok(Rows(RowChain::new(3, vec![Box::new(linear(3, seed)), Box::new(build(seed)?.0), Box::new(ActNorm::new(3))])?));
    assert_conforms(&Subject { condition: Some(2), ..Subject::new("a conditional flow among others", 3) }, among);
}

#[test]
fn wrong_log_dets_fail_the_suite() {
    for mutation in [Mutation::Flipped, Mutation::Halved, Mutation::Dropped] {
        let subject = Subject::new(format!("{mutation:?}"), 3);
        let failure = check(&subject, |seed| Ok(Mutant::new(Rows(chain(3, seed)?), mutation))).unwrap_err();
        assert_eq!(failure.item, "log-det", "{failure}");
    }
}

#[test]
fn the_log_det_of_a_chain_is_the_sum_and_the_inverse_of_the_inverse_the_map() {
    use flow_api::Bijector;
    let device = Cpu::seed_from_u64(4);
    let mut parts = [Rows(linear::<f64>(3, 1)), Rows(linear(3, 2))];
    for part in &mut parts {
        flow_api::module::update(part, |path, entry| {
            if let flow_api::module::EntryMut::Parameter { values, .. } = entry {
                values.iter_mut().enumerate().for_each(|(i, v)| *v = 0.1 * (path.len() + i) as f64);
            }
        })
        .unwrap();
    }
    let x: Tensor<(usize, usize), f64> = device.sample_normal_like(&(5, 3));
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
        let result = check(&subject, |s| {
            let flows = (0..depth).map(|i| Ok(Box::new(chain(dim, seed + s + i as u64)?) as Box<dyn RowFlow<f64>>)).collect::<Result<_>>()?;
            Ok(Rows(RowChain::new(dim, flows)?))
        });
        prop_assert!(result.is_ok(), "{}", result.unwrap_err());
    }
}
