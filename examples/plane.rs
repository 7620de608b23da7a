//! Trains a flow on densities of the plane whose entropy is known, and says how many nats per point it lies above that
//! floor.
//!
//! For each density it draws a row of panels: test points, the learned density, and samples on their way from the base
//! density to the data, stage by stage (stages that reach further than the data are drawn smaller).
//!
//! Nats above the floor that were seen, in `docs/plane.md` with pictures:
//!
//! | spec | two moons | eight gaussians | checkerboard |
//! |---|---|---|---|
//! | `specs/plane-spline.ron` | 0.002 (4,000 steps) | 0.004 (4,000) | 0.013 (4,000) |
//! | `specs/plane-affine.ron` | 0.009 (4,000 steps) | 0.059 (4,000) | 0.079 (4,000) |
//! | `specs/plane-ffjord.ron` | 0.010 (1,500 steps) | 0.003 (1,500) | 0.050 (6,000) |
//! | `specs/plane-residual.ron --lr 4e-3` | 0.001 (4,000 steps) | 0.001 (4,000) | 0.056 (24,000) |
//!
//! ```sh
//! cargo run --release --example plane -- --spec specs/plane-ffjord.ron
//! cargo run --release --example plane -- --spec specs/plane-residual.ron --data toy:rings --steps 2000
//! ```

use clap::Parser;
use flow_train::data::{DataSource, Dataset, Draw, SourceKind, Values};
use flow_train::picture::{Plane, plane_centres, save_planes};
use flow_train::text::Table;
use flow_train::{Bar, Ending, EvaluateOptions, Settings, Trainer, evaluate};
use mixerflow_toolkit::prelude::*;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Points in a panel.
const CLOUD: usize = 20_000;

/// Train a flow on densities of the plane with known entropy.
#[derive(Parser)]
struct Arguments {
    /// A spec of a flow on vectors
    #[arg(long, default_value = "specs/plane-ffjord.ron")]
    spec: PathBuf,
    /// The densities
    #[arg(long, num_args = 1.., default_values = ["toy:two-moons?n=200000", "toy:eight-gaussians?n=200000", "toy:checkerboard?n=200000"])]
    data: Vec<DataSource>,
    /// Optimiser steps
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    /// Points in a batch
    #[arg(long, default_value_t = 512)]
    batch: usize,
    /// The largest learning rate
    #[arg(long, default_value_t = 3e-3)]
    lr: f64,
    /// Seed of parameters, points and noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the pictures
    #[arg(long, default_value = "target/plane")]
    out: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let text = std::fs::read_to_string(&arguments.spec).map_err(|e| format!("{}: {e}", arguments.spec.display()))?;
    let spec: Spec<dyn ModelSpec> = from_ron(&text).map_err(|e| format!("{}:{e}", arguments.spec.display()))?;
    std::fs::create_dir_all(&arguments.out)?;
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed))?;

    let mut rows = Vec::new();
    for source in &arguments.data {
        let (row, ending) = train(&arguments, &spec, source, &stop)?;
        rows.push(row);
        if ending == Ending::Stopped {
            break;
        }
    }
    let heads = ["data", "test nats", "floor", "gap", "steps", "seconds", "evaluations"].map(str::to_owned);
    println!("{}{}", Table { heads: &heads, rows: &rows, words: 1 }, arguments.out.display());
    Ok(())
}

/// One line of the table.
fn train(
    arguments: &Arguments,
    spec: &Spec<dyn ModelSpec>,
    source: &DataSource,
    stop: &AtomicBool,
) -> Result<(Vec<String>, Ending), Box<dyn Error>> {
    let split = source.open(arguments.seed)?;
    let Arguments { steps, batch, seed, lr, .. } = *arguments;
    // Averaged weights: the last steps of a run scatter around what they average to.
    let settings =
        Settings { steps, batch, seed, learning_rate: lr, ema: Some(0.995), report_every: (steps / 20).max(1), ..Settings::default() };
    let model = spec.build::<f32>(EventShape::Vector(2), seed)?;
    // The pictures show the plane as the flow sees it.
    let as_it_is = Preprocessing { standardise: Some(false), ..model.preprocessing().clone() };
    let model = model.with_preprocessing(as_it_is);
    let mut trainer = Trainer::new(model, split.train, settings)?;
    let name = source.to_string();
    let ending = trainer.run(&mut Bar::new(&name), stop)?;
    let (progress, events) = (trainer.progress(), trainer.events().clone());
    let model = trainer.finish()?;
    let options = EvaluateOptions { batch: 1024, likelihood_alone: true, ..EvaluateOptions::default() };
    let test = evaluate(&model, split.test.as_ref(), &events, &options)?;
    let floor = if let SourceKind::Toy(toy) = &source.kind { toy.entropy() } else { None };

    let stem: String = name.chars().take_while(|c| *c != '?').map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    draw(&arguments.out.join(stem).with_extension("png"), &model, split.test.as_ref(), seed)?;
    let or_dash = |value: Option<f64>| value.map_or("–".to_owned(), |value| format!("{value:.3}"));
    let row = vec![
        name,
        test.loss_text(3),
        or_dash(floor),
        or_dash(floor.map(|floor| test.loss - floor)),
        progress.step.to_string(),
        format!("{:.0}", progress.seconds),
        test.evaluations.to_string(),
    ];
    Ok((row, ending))
}

/// Test points, density, and samples behind every stage from the base density on.
fn draw(path: &Path, model: &Model<f32>, test: &dyn Dataset, seed: u64) -> Result<(), Box<dyn Error>> {
    let draws: Vec<Draw> = (0..test.len().min(CLOUD)).map(|index| Draw { epoch: 0, index }).collect();
    let Values::Real(points) = test.batch(&draws)?.values else { return Err("points of the plane are real numbers".into()) };
    let half_side = 1.15 * points.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let cx = Context::new(seed);
    let mut density = Vec::new();
    for centres in plane_centres(half_side).chunks(2 * 4096) {
        #[expect(clippy::cast_possible_truncation, reason = "a pixel's centre needs no more than f32")]
        let centres = centres.iter().map(|&x| x as f32).collect();
        density.extend(model.log_prob(centres, &cx)?.value.iter().map(|l| f64::from(*l).exp()));
    }
    let samples = model.sample(CLOUD, 1.0, &cx)?;
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
    // From the latents back to the data, in four stages.
    let mut layers: Vec<String> = model.describe()?.into_iter().map(|layer| layer.path).collect();
    layers.reverse();
    let every = layers.len().div_ceil(4).max(1);
    let stages = layers.iter().step_by(every).map(|layer| Ok(fitted(wide(model.activations(samples.clone(), layer, &cx)?), half_side)));
    let mut stages = stages.collect::<Result<Vec<_>, Box<dyn Error>>>()?;
    stages.push(wide(samples.clone()));
    let panels: Vec<Plane<'_>> =
        [Plane::Points(&points), Plane::Density(&density)].into_iter().chain(stages.iter().map(|stage| Plane::Points(stage))).collect();
    Ok(save_planes(path, &panels, half_side)?)
}

/// Points scaled down so that all but a few lie in [−`half_side`, `half_side`]².
fn fitted(mut points: Vec<f64>, half_side: f64) -> Vec<f64> {
    let mut reach: Vec<f64> = points.iter().map(|x| x.abs()).collect();
    reach.sort_by(f64::total_cmp);
    let far = reach.get(reach.len() * 199 / 200).copied().unwrap_or(half_side);
    if far > half_side {
        points.iter_mut().for_each(|x| *x *= half_side / far);
    }
    points
}
