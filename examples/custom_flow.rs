//! A flow of one's own, defined outside the toolkit's crates, named in a RON spec and trained inside `MixerFlow`.
//!
//! A crate with such a flow depends on `mixerflow-toolkit`, `serde` (with its `derive`) and `typetag`; dfdx comes with
//! the toolkit.
//!
//! It should print that the flow conforms, the layer table with `Householder` lines, and a negative log-likelihood that
//! falls over 60 steps from about 83 to 72 nats an image:
//!
//! ```sh
//! cargo run --release --example custom_flow
//! ```

use mixerflow_toolkit::api::module::{EntryMut, update};
use mixerflow_toolkit::api::testkit::{Subject, check_model};
use mixerflow_toolkit::api::{Gradients, Module, Tensor};
use mixerflow_toolkit::dfdx::prelude::*;
use mixerflow_toolkit::noise::Stream;
use mixerflow_toolkit::prelude::*;
use serde::{Deserialize, Serialize};

/// A Householder reflection y = x − 2v(vᵀx)/‖v‖²: orthogonal, its own inverse, log|det J| = 0.
struct Reflection<E: Scalar>(Parameter<E>);

impl<E: Scalar> Module<E> for Reflection<E> {
    module_fields!(E; parameter 0 as "direction");
}

impl<E: Scalar> TapedRows<E> for Reflection<E> {
    fn forward_taped(&self, x: Taped<(usize, usize), E>, _: &Context<E>) -> Result<TapedMap<E>, FlowError> {
        let shape = *x.shape();
        let v = self.0.tensor().retaped::<OwnedTape<E, E::Device>>().broadcast_like::<_, Axis<0>>(&shape);
        let square = v.with_empty_tape().square().sum::<(usize,), Axis<1>>();
        let along = (x.with_empty_tape() * v.with_empty_tape()).sum::<(usize,), Axis<1>>() / square;
        Ok((x - along.broadcast_like::<_, Axis<1>>(&shape) * v * E::of(2.0), E::zeros((shape.0,)).retaped()))
    }

    fn inverse_taped(&self, y: Tensor<(usize, usize), E>, cx: &Context<E>) -> Result<MappedRows<E>, FlowError> {
        self.forward_taped(y.retaped(), cx).map(|(x, log_det)| (x.split_tape().0, log_det.split_tape().0))
    }
}

/// Its spec. Registering it is all that the toolkit needs to read `Householder()` in a RON file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Householder {}
register_row_flow!(Householder);

impl BuildRowFlow for Householder {
    fn build<E: SpecScalar>(&self, dim: usize, scope: &BuildScope) -> Result<Box<dyn RowFlow<E>>, SpecError> {
        let mut direction = vec![E::zero(); dim];
        Stream::new(scope.seed(), 0, "direction").row(0).gaussian(&mut direction);
        Ok(Box::new(TapedFlow::new(Facts::new("Householder"), dim, Reflection(Parameter::new(&[dim], direction)))))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // One call: log-dets against a Jacobian, gradients against differences, round trips, state, threads.
    let alone: Spec<dyn ModelSpec> = "VectorFlow(flows: [Householder()])".parse()?;
    check_model(&Subject::new("Householder", 4), &alone, EventShape::Vector(4))?;
    println!("Householder conforms");

    let spec: Spec<dyn ModelSpec> = "MixerFlow(
        patch: 2,
        layers: 2,
        shift: None,
        channel: [ActNorm(), Householder(), AffineCoupling(hidden: 16)],
        patches: [ActNorm(), Householder(), AffineCoupling(hidden: 16)],
    )"
    .parse()?;
    let digits = EventShape::Image { channels: 1, height: 8, width: 8 };
    let mut model: Model<f32> = spec.build(digits, 7)?;
    println!("{model}");

    // Correlated data: neighbouring numbers of an image differ little.
    let mut images = vec![0.0_f32; 128 * 64];
    Stream::new(1, 0, "images").row(0).gaussian(&mut images);
    for image in images.chunks_exact_mut(64) {
        for at in 1..64 {
            image[at] = 0.8 * image[at - 1] + 0.6 * image[at];
        }
    }
    let batch = model.batch(images)?;
    model.flow_mut().initialise(batch.clone(), &Context::new(1))?;
    let mut gradients = Gradients::zeros(&model);
    for step in 0..60 {
        gradients.clear();
        let loss = model.flow().nll(batch.clone(), &mut gradients, &Context::new(1).at_step(step).in_mode(Mode::Train))?;
        if step % 10 == 0 {
            println!("step {step:2}: {:.2} nats an image", loss.nll);
        }
        update(&mut model, |path, entry| {
            if let (EntryMut::Parameter { values, .. }, Ok(gradient)) = (entry, gradients.get(path)) {
                values.iter_mut().zip(gradient).for_each(|(value, gradient)| *value -= 2e-3 * gradient);
            }
        })?;
    }
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
