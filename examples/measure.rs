//! Measures one case in a fresh process and prints one line of JSON: seconds of a training step (forward, pullback,
//! Adam), of `log_prob` and of sampling or the inverse, and the most memory held.
//!
//! `benches/beside_torch.py` runs it in turn with the same cases in `PyTorch`. Times are medians over `--steps` calls
//! after one that does not count.
//!
//! ```sh
//! cargo run --release --example measure -- mixerflow --layers 30 --batch 64 --memory recompute
//! cargo run --release --example measure -- glow --levels 3 --steps-a-level 8
//! cargo run --release --example measure -- jet --network mixer
//! cargo run --release --example measure -- residual
//! cargo run --release --example measure -- ffjord --seminorm false
//! cargo run --release --example measure -- autoregressive
//! cargo run --release --example measure -- product
//! ```

use clap::{Args, Parser, Subcommand, ValueEnum};
use faer::{Accum, MatMut, MatRef, Par};
use flow_api::bases::StandardNormal;
use flow_api::module::{EntryMut, update};
use flow_kernels::matmul::{Accumulate, Operand, matmul};
use flow_kernels::noise::Stream;
use flow_train::{Adam, Settings};
use mixerflow_toolkit::ffjord::ode::{Adaptive, Solver};
use mixerflow_toolkit::ffjord::{Adjoint, ContinuousFlow, Ffjord, Gradient, TimeInput};
use mixerflow_toolkit::lipschitz::{Estimator, Residual, ResidualFlow, Roulette};
use mixerflow_toolkit::prelude::*;
use rayon::prelude::*;
use serde_json::json;
use std::error::Error;
use std::time::Instant;

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// Measure one case.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    case: Case,
    /// Calls that are timed
    #[arg(long, global = true, default_value_t = 5)]
    steps: usize,
    /// Threads
    #[arg(long, global = true, default_value_t = 2)]
    threads: usize,
}

#[derive(Subcommand)]
enum Case {
    /// `MixerFlow` with affine couplings, or with splines
    Mixerflow(Mixer),
    /// Glow, with affine couplings and three convolutions, or with another coupling
    Glow(GlowCase),
    /// Jet: couplings of channels and, every fifth, of a checkerboard of patches, by vision transformers or mixers
    Jet(JetCase),
    /// One residual flow: a training step with the Neumann gradient, and an inverse to a residual of 1e-5
    Residual(Rows48),
    /// One FFJORD flow: a training step by the adjoint with one Rademacher probe, and a sampling solve
    Ffjord(Continuous),
    /// Five masked autoregressive flows with affine transformers, the order of the features turned round in front of
    /// each
    Autoregressive(Rows48),
    /// The matrix product 8192 × 512 × 512 in GFLOP/s
    Product,
}

#[derive(Clone, Copy, ValueEnum)]
enum Keep {
    Store,
    Recompute,
    Invert,
}

#[derive(Args)]
struct Mixer {
    #[arg(long, default_value_t = 3)]
    channels: usize,
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[arg(long, default_value_t = 4)]
    patch: usize,
    #[arg(long, default_value_t = 30)]
    layers: usize,
    #[arg(long, default_value_t = 128)]
    hidden: usize,
    #[arg(long, default_value_t = 1)]
    blocks: usize,
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[arg(long, default_value_t = 4)]
    shift_every: usize,
    #[arg(long, value_enum, default_value_t = Keep::Store)]
    memory: Keep,
    /// Couplings on both sides
    #[arg(long, default_value = "AffineCoupling")]
    coupling: String,
    /// Nothing but one log p of one image: what a cold start takes
    #[arg(long)]
    cold: bool,
}

#[derive(Args)]
struct GlowCase {
    #[arg(long, default_value_t = 3)]
    channels: usize,
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[arg(long, default_value_t = 3)]
    levels: usize,
    #[arg(long, default_value_t = 8)]
    steps_a_level: usize,
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[arg(long, value_enum, default_value_t = Keep::Store)]
    memory: Keep,
    /// The coupling, as in a spec
    #[arg(long, default_value = "Affine(hidden: 128)")]
    coupling: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum TokenNetwork {
    Vit,
    Mixer,
}

#[derive(Args)]
struct JetCase {
    #[arg(long, default_value_t = 3)]
    channels: usize,
    #[arg(long, default_value_t = 32)]
    size: usize,
    #[arg(long, default_value_t = 4)]
    patch: usize,
    /// A multiple of 5
    #[arg(long, default_value_t = 10)]
    couplings: usize,
    #[arg(long, default_value_t = 128)]
    width: usize,
    #[arg(long, default_value_t = 2)]
    blocks: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[arg(long, value_enum, default_value_t = TokenNetwork::Vit)]
    network: TokenNetwork,
    #[arg(long, value_enum, default_value_t = Keep::Store)]
    memory: Keep,
}

#[derive(Args)]
struct Rows48 {
    #[arg(long, default_value_t = 48)]
    dim: usize,
    #[arg(long, default_value_t = 128)]
    hidden: usize,
    #[arg(long, default_value_t = 4096)]
    rows: usize,
}

#[derive(Args)]
struct Continuous {
    #[arg(long, default_value_t = 48)]
    dim: usize,
    #[arg(long, default_value_t = 64)]
    hidden: usize,
    #[arg(long, default_value_t = 4096)]
    rows: usize,
    #[arg(long, default_value_t = 1e-5)]
    tol: f64,
    /// The error of the adjoint's parameter part does not set its steps
    #[arg(long, action = clap::ArgAction::Set, default_value_t = true)]
    seminorm: bool,
}

fn main() -> Result<()> {
    let Arguments { case, steps, threads } = Arguments::parse();
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global()?;
    let mut found = match case {
        Case::Mixerflow(case) => mixerflow(&case, steps)?,
        Case::Glow(case) => glow(&case, steps)?,
        Case::Jet(case) => jet(&case, steps)?,
        Case::Residual(case) => residual(&case, steps)?,
        Case::Ffjord(case) => ffjord(&case, steps)?,
        Case::Autoregressive(case) => autoregressive(&case, steps)?,
        Case::Product => product(steps),
    };
    found["peak_rss_mib"] = peak_memory().into();
    println!("{found}");
    Ok(())
}

/// The median of some timings, after one call that does not count.
fn median(steps: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    f()?;
    let mut seconds = Vec::with_capacity(steps);
    for _ in 0..steps.max(1) {
        let start = Instant::now();
        f()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}

/// The most that the process had in memory so far, in MiB, where the system tells.
fn peak_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

fn gaussian(count: usize) -> Vec<f32> {
    let mut x = vec![0.0; count];
    Stream::new(0, 0, "measure").row(0).gaussian(&mut x);
    x
}

/// Adam without clipping, as the other side has it.
fn adam<M: Module<f32>>(model: &M) -> Adam<f32> {
    Adam::new(model, Settings { clip: None, ..Settings::default() }.adam(1))
}

fn mixerflow(case: &Mixer, steps: usize) -> Result<serde_json::Value> {
    let Mixer { channels, size, patch, layers, hidden, blocks, batch, shift_every, coupling, .. } = case;
    let side = format!("[ActNorm(), LuLinear(), {coupling}(hidden: {hidden}, blocks: {blocks})]");
    let spec: Spec<dyn ModelSpec> =
        from_ron(&format!("MixerFlow(patch: {patch}, layers: {layers}, shift: (every: {shift_every}), channel: {side}, patches: {side})"))?;
    images(&spec, [*channels, *size, *size], *batch, case.memory, case.cold, steps)
}

fn glow(case: &GlowCase, steps: usize) -> Result<serde_json::Value> {
    let GlowCase { channels, size, levels, steps_a_level, batch, memory, coupling } = case;
    let spec = from_ron(&format!("Glow(levels: {levels}, steps: {steps_a_level}, coupling: {coupling})"))?;
    images(&spec, [*channels, *size, *size], *batch, *memory, false, steps)
}

fn jet(case: &JetCase, steps: usize) -> Result<serde_json::Value> {
    let JetCase { channels, size, patch, couplings, width, blocks, heads, batch, network, memory } = case;
    let network = match network {
        TokenNetwork::Vit => format!("VisionTransformer(width: {width}, blocks: {blocks}, heads: {heads})"),
        TokenNetwork::Mixer => format!("Mixer(width: {width}, blocks: {blocks})"),
    };
    let coupling = |split: &str| format!("TokenCoupling(split: {split}, network: {network}, transformer: SigmoidAffine()), ");
    let cycle = coupling("Channels(Halves)").repeat(4) + &coupling("Checkerboard");
    let rounds = couplings / 5;
    let spec = from_ron(&format!("ImageFlow(flows: [Squeeze(factor: {patch}), Repeat(times: {rounds}, flows: [{cycle}])])"))?;
    images(&spec, [*channels, *size, *size], *batch, *memory, false, steps)
}

/// A model of images.
fn images(
    spec: &Spec<dyn ModelSpec>,
    [channels, height, width]: [usize; 3],
    batch: usize,
    memory: Keep,
    cold: bool,
    steps: usize,
) -> Result<serde_json::Value> {
    let event = EventShape::Image { channels, height, width };
    let mut model = spec.build::<f32>(event, 7)?;
    let cx = Context::new(1);
    let batch = if cold { 2 } else { batch };
    let images: Vec<f32> = gaussian(batch * event.len()).iter().map(|x| 0.25 * x).collect();
    let first = model.batch(images.clone())?;
    model.flow_mut().initialise(first, &cx)?;
    if cold {
        let log_prob = model.log_prob(images[..event.len()].to_vec(), &cx)?.value;
        return Ok(json!({ "log_prob": log_prob }));
    }
    let memory = match memory {
        Keep::Store => Memory::Store,
        Keep::Recompute => Memory::Recompute,
        Keep::Invert => Memory::Invert,
    };
    let (mut adam, mut gradients) = (adam(&model), Gradients::zeros(&model));
    let train = median(steps, || {
        gradients.clear();
        let cx = Context::new(1).in_mode(Mode::Train).with_memory(memory);
        model.flow().nll(model.batch(images.clone())?, &mut gradients, &cx)?;
        adam.step(&mut model, &gradients, 1e-3)?;
        Ok(())
    })?;
    let trained = peak_memory();
    let score = median(steps, || Ok(model.log_prob(images.clone(), &cx).map(drop)?))?;
    let sample = median(steps, || Ok(model.sample(batch, 1.0, &cx).map(drop)?))?;
    let parameters = flow_api::module::parameter_count(&model);
    Ok(json!({ "train_s": train, "log_prob_s": score, "sample_s": sample, "train_rss_mib": trained, "parameters": parameters }))
}

fn autoregressive(case: &Rows48, steps: usize) -> Result<serde_json::Value> {
    let Rows48 { dim, hidden, rows } = *case;
    let text = format!("VectorFlow(repeat: 5, flows: [Permutation(order: Reverse), Autoregressive(hidden: {hidden}, blocks: 1)])");
    let spec: Spec<dyn ModelSpec> = from_ron(&text)?;
    let mut model = spec.build::<f32>(EventShape::Vector(dim), 7)?;
    let x = gaussian(rows * dim);
    let (mut adam, mut gradients) = (adam(&model), Gradients::zeros(&model));
    let train = median(steps, || {
        gradients.clear();
        model.flow().nll(model.batch(x.clone())?, &mut gradients, &Context::new(1).in_mode(Mode::Train))?;
        adam.step(&mut model, &gradients, 1e-3)?;
        Ok(())
    })?;
    let cx = Context::new(1);
    let score = median(steps, || Ok(model.log_prob(x.clone(), &cx).map(drop)?))?;
    let sample = median(steps, || Ok(model.sample(rows, 1.0, &cx).map(drop)?))?;
    Ok(json!({ "train_s": train, "log_prob_s": score, "sample_s": sample, "parameters": flow_api::module::parameter_count(&model) }))
}

fn residual(case: &Rows48, steps: usize) -> Result<serde_json::Value> {
    let Rows48 { dim, hidden, rows } = *case;
    let neumann = Estimator::Neumann(Roulette { probes: 1, ..Roulette::default() });
    let spec = Residual { hidden, log_det: neumann, ..Residual::default() };
    let mut flow = Flow::new(Rows(ResidualFlow::<f32>::new(&spec, dim, 0)?), StandardNormal::new(dim));
    let x = f32::tensor(gaussian(rows * dim), (rows, dim));
    let (mut adam, mut gradients, mut step) = (adam(&flow), Gradients::zeros(&flow), 0);
    let train = median(steps, || {
        step += 1;
        gradients.clear();
        flow.nll(x.clone(), &mut gradients, &Context::new(0).in_mode(Mode::Train).at_step(step))?;
        adam.step(&mut flow, &gradients, 1e-3)?;
        Ok(())
    })?;
    let cx = Context::new(0).without_log_det();
    let y = flow.bijector().forward(x.clone(), &cx)?.value;
    let mut report = None;
    let inverse = median(steps, || {
        report = Some(flow.bijector().inverse(y.clone(), &cx)?.report);
        Ok(())
    })?;
    let exact = median(steps.min(3), || Ok(flow.log_prob(x.clone(), &Context::new(0)).map(drop)?))?;
    let report = report.unwrap_or_default();
    Ok(json!({
        "train_s": train, "inverse_s": inverse, "inverse_iterations": report.iterations, "residual": report.residual, "exact_log_prob_s": exact,
    }))
}

fn ffjord(case: &Continuous, steps: usize) -> Result<serde_json::Value> {
    let Continuous { dim, hidden, rows, tol, seminorm } = *case;
    let spec = Ffjord {
        hidden,
        time: TimeInput::Concat,
        solver: Solver::Dopri5(Adaptive { rtol: tol, atol: tol, ..Adaptive::default() }),
        gradient: Gradient::Adjoint(Adjoint { seminorm }),
        zero_init: false,
        ..Ffjord::default()
    };
    let mut flow = Flow::new(Rows(ContinuousFlow::<f32>::new(&spec, dim, 0)?), StandardNormal::new(dim));
    // The time enters the first layer alone, as on the other side.
    update(&mut flow, |path, entry| {
        if let EntryMut::Parameter { values, .. } = entry
            && path.ends_with("time_shift")
        {
            values[hidden..].fill(0.0);
        }
    })?;
    let x = f32::tensor(gaussian(rows * dim), (rows, dim));
    let (mut adam, mut gradients, mut step, mut forward) = (adam(&flow), Gradients::zeros(&flow), 0, 0);
    let train = median(steps, || {
        step += 1;
        gradients.clear();
        let cx = Context::new(0).in_mode(Mode::Train).at_step(step);
        forward = flow.nll(x.clone(), &mut gradients, &cx)?.report.evaluations;
        adam.step(&mut flow, &gradients, 1e-3)?;
        Ok(())
    })?;
    // Of the last step alone.
    flow.bijector().0.take_pullback_report();
    flow.nll(x.clone(), &mut gradients, &Context::new(0).in_mode(Mode::Train).at_step(step + 1))?;
    let backward = flow.bijector().0.take_pullback_report().evaluations;
    let mut sampling = 0;
    let cx = Context::new(0).without_log_det();
    let sample = median(steps, || {
        sampling = flow.bijector().inverse(x.clone(), &cx)?.report.evaluations;
        Ok(())
    })?;
    let exact = median(steps.min(3), || Ok(flow.log_prob(x.clone(), &Context::new(0)).map(drop)?))?;
    Ok(json!({
        "train_s": train, "train_evaluations": forward + backward, "sample_s": sample, "sample_evaluations": sampling, "exact_log_prob_s": exact,
    }))
}

/// The machine's limit: the best of the repetitions, of faer's product and of the toolkit's own.
fn product(steps: usize) -> serde_json::Value {
    const ROWS: usize = 8192;
    const SIDE: usize = 512;
    let (a, b) = (gaussian(ROWS * SIDE), gaussian(SIDE * SIDE));
    let mut c = vec![0.0_f32; ROWS * SIDE];
    let chunk = ROWS / rayon::current_num_threads() * SIDE;
    let mut best = |multiply: fn(&mut [f32], &[f32], &[f32])| {
        let seconds = (0..10 * steps.max(1)).map(|_| {
            let start = Instant::now();
            c.par_chunks_mut(chunk).zip(a.par_chunks(chunk)).for_each(|(c, a)| multiply(c, a, &b));
            start.elapsed().as_secs_f64()
        });
        2.0 * (ROWS * SIDE * SIDE) as f64 / seconds.fold(f64::INFINITY, f64::min) / 1e9
    };
    let faer = best(|c, a, b| {
        let rows = a.len() / SIDE;
        let (a, b) = (MatRef::from_row_major_slice(a, rows, SIDE), MatRef::from_row_major_slice(b, SIDE, SIDE));
        faer::linalg::matmul::matmul(MatMut::from_row_major_slice_mut(c, rows, SIDE), Accum::Replace, a, b, 1.0, Par::Seq);
    });
    let own = best(|c, a, b| matmul(c, Accumulate::Replace, Operand::new(a, a.len() / SIDE, SIDE), Operand::new(b, SIDE, SIDE)));
    json!({ "gflops": faer.max(own), "faer_gflops": faer, "own_gflops": own })
}
