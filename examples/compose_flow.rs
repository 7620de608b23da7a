//! Composes a flow of layers in Rust, trains it on points of the plane, scores and samples: first step by step, then
//! with a `Trainer`. No spec takes part.
//!
//! The points are two moons, whose entropy is 1.008 nats: no density can have a lower loss. It takes a few seconds and
//! prints losses that fall from 2.06 to about 1.04:
//!
//! ```sh
//! cargo run --release --example compose_flow
//! ```

use mixerflow_toolkit::coupling::{Activation, Conditioner, Coupling, RationalQuadratic, Split};
use mixerflow_toolkit::prelude::*;
use mixerflow_toolkit::train::data::{DataSource, Dataset, Draw, SourceKind, Values};
use mixerflow_toolkit::train::{Adam, AdamConfig, EvaluateOptions, Settings, Silent, Trainer, evaluate};
use std::error::Error;
use std::sync::atomic::AtomicBool;

const STEPS: u64 = 400;
const BATCH: usize = 256;

/// Rounds of `ActNorm`, an invertible linear map and a spline coupling on R², as one flow on rows.
fn chain(rounds: u64) -> Result<RowChain<f32>, FlowError> {
    let mut flows: Vec<Box<dyn RowFlow<f32>>> = Vec::new();
    for round in 0..rounds {
        let net = Conditioner { hidden: 32, blocks: 1, activation: Activation::Relu, condition: 0 };
        let spline = RationalQuadratic::new(8, 4.0)?;
        flows.push(Box::new(layers::ActNorm::new(2)));
        flows.push(Box::new(layers::LuLinear::new(2)));
        // Every other coupling is flipped: it moves the number that the one before it kept.
        flows.push(Box::new(Coupling::new(2, Split::Halves, round % 2 == 1, spline, net, round)?));
    }
    RowChain::new(2, flows)
}

/// Points of a data set as a tensor of shape (points, 2).
fn points(data: &dyn Dataset, items: std::ops::Range<usize>) -> Result<Tensor<(usize, usize), f32>, Box<dyn Error>> {
    let draws: Vec<Draw> = items.map(|item| Draw { epoch: 0, index: item % data.len() }).collect();
    let Values::Real(values) = data.batch(&draws)?.values else { return Err("points are real numbers".into()) };
    #[expect(clippy::cast_possible_truncation, reason = "the flow computes in f32")]
    let values = values.into_iter().map(|x| x as f32).collect();
    Ok(f32::tensor(values, (draws.len(), 2)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let source: DataSource = "toy:two-moons?n=20000".parse()?;
    let split = source.open(0)?;

    println!("Step by step");
    let mut flow = Flow::new(Rows(chain(6)?), StandardNormal::new(2));
    // ActNorm starts from data.
    flow.initialise(points(split.train.as_ref(), 0..1024)?, &Context::new(0))?;
    let mut adam = Adam::new(&flow, AdamConfig::default());
    let mut gradients = Gradients::zeros(&flow);
    for step in 0..STEPS {
        let first = usize::try_from(step)? * BATCH;
        let batch = points(split.train.as_ref(), first..first + BATCH)?;
        gradients.clear();
        let loss = flow.nll(batch, &mut gradients, &Context::new(0).at_step(step).in_mode(Mode::Train))?;
        // A learning rate that falls to 0.
        adam.step(&mut flow, &gradients, 4e-3 * (1.0 - step as f64 / STEPS as f64))?;
        if step % 100 == 0 {
            println!("  step {step:3}: {:.3} nats a point", loss.nll);
        }
    }
    let cx = Context::new(1);
    let scores = flow.log_prob(points(split.test.as_ref(), 0..4096)?, &cx)?.value;
    println!("  test: {:.3} nats a point", -scores.iter().sum::<f32>() / scores.len() as f32);
    let samples: Tensor<(usize, usize), f32> = flow.sample((3, 2), 1.0, &cx)?;
    println!("  three samples: {:.2?}", samples.as_vec().chunks(2).collect::<Vec<_>>());

    println!("With a trainer");
    // A model is a flow on events of a known shape, here of two numbers.
    let event = EventShape::Vector(2);
    let model = Model::new(Box::new(Rows(chain(6)?)), Box::new(StandardNormal::new(2)), event)?;
    let settings = Settings { steps: STEPS, batch: BATCH, learning_rate: 4e-3, report_every: 100, ..Settings::default() };
    let mut trainer = Trainer::new(model, split.train, settings)?;
    trainer.run(&mut Silent, &AtomicBool::new(false))?;
    for report in trainer.history() {
        println!("  to step {:3}: {:.3} nats a point", report.step, report.train);
    }
    let events = trainer.events().clone();
    let model = trainer.finish()?;
    let test = evaluate(&model, split.test.as_ref(), &events, &EvaluateOptions::default())?;
    println!("  test: {:.3} ± {:.3} nats a point", test.loss, test.standard_error);
    // Equal contexts give equal samples: other steps give others.
    for step in 0..2 {
        let samples = model.sample(3, 1.0, &cx.clone().at_step(step))?;
        println!("  three samples: {:.2?}", samples.chunks(2).collect::<Vec<_>>());
    }
    if let SourceKind::Toy(toy) = source.kind
        && let Some(entropy) = toy.entropy()
    {
        println!("Entropy of the data: {entropy:.3} nats a point");
    }
    Ok(())
}
