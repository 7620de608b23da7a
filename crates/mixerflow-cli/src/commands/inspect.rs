//! `mixerflow inspect`.

use super::sources::{default_settings, settings, spec};
use crate::arguments::Inspect;
use crate::{MEMORY, Result, output};
use flow_api::spec::{BuildScope, EventShape, Model, ModelSpec, Preprocessing, Spec, SpecScalar};
use flow_api::{Context, Gradients, LayerInfo, Memory, Mode, parameter_count};
use flow_kernels::{noise::Stream, workspace};
use flow_train::text::Table;
use flow_train::{Adam, EventKind, Events, Settings, Trainer};
use serde_json::json;

const MIB: f64 = 1024.0 * 1024.0;

pub(crate) fn run(arguments: &Inspect) -> Result<()> {
    let spec = spec(&arguments.spec, &arguments.set)?;
    let event = event(arguments, spec.0.event())?;
    settings(&arguments.set, default_settings())?.check()?;
    preprocessing(spec.0.preprocessing(), event)?;
    let model = build(&spec, event).map_err(|e| format!("{}: {e}", arguments.spec.display()))?;
    Trainer::check_model(&model)?;
    let table = model.describe()?;
    let parameters = parameter_count(&model);
    drop(model);
    let program = memory_stats::memory_stats().map_or(0.0, |stats| stats.physical_mem as f64);
    let settings = [Memory::Store, Memory::Recompute, Memory::Invert];
    let steps = settings.into_iter().map(|memory| Ok((memory, StepMemory::measure(&spec, event, memory, program)?)));
    let steps = steps.collect::<Result<Vec<_>>>()?;
    let multiply_adds: u64 = table.iter().map(|layer| layer.multiply_adds).sum();
    if arguments.json {
        let layers: Vec<_> = table.iter().map(layer_json).collect();
        let memory: serde_json::Map<_, _> =
            steps.iter().map(|(memory, step)| (format!("{memory:?}"), step.json(arguments.batch))).collect();
        let all = json!({
            "event": event.to_string(), "layers": layers, "parameters": parameters, "multiply_adds": multiply_adds,
            "batch": arguments.batch, "memory": memory,
        });
        return Ok(output::line(serde_json::to_string_pretty(&all)?)?);
    }
    let heads = ["layer", "kind", "in → out", "log-det", "inverse", "parameters", "multiply-adds"].map(str::to_owned);
    let rows: Vec<_> = table.iter().map(layer_cells).collect();
    output::line(Table { heads: &heads, rows: &rows, words: 5 })?;
    output::line(format_args!("events of shape {event}: {parameters} parameters, {multiply_adds} multiply-adds an event forward\n"))?;
    let heads = ["training step", "MiB an image", "MiB besides", &format!("MiB at batch {}", arguments.batch)].map(str::to_owned);
    let mib = |bytes: f64| format!("{:.3}", bytes / MIB);
    let rows: Vec<_> = steps
        .iter()
        .map(|(memory, step)| {
            let name = format!("{memory:?}").to_lowercase();
            vec![name, mib(step.an_image), mib(step.besides), mib(step.at(arguments.batch))]
        })
        .collect();
    Ok(output::print(Table { heads: &heads, rows: &rows, words: 1 })?)
}

/// The shape on the command line, or the spec's own.
fn event(arguments: &Inspect, own: Option<EventShape>) -> Result<EventShape> {
    match (arguments.shape.as_slice(), own) {
        (&[channels, height, width], _) => Ok(EventShape::Image { channels, height, width }),
        (&[dim], _) => Ok(EventShape::Vector(dim)),
        ([], Some(own)) => Ok(own),
        ([], None) => Err("--shape: the spec states no shape; give C,H,W of the images or D of the vectors".into()),
        (other, _) => Err(format!("--shape: expected C,H,W or D, got {} numbers", other.len()).into()),
    }
}

/// Checks what `train` checks, for data with as many levels as the spec states; where it states none, data have what suits it best.
fn preprocessing(preprocessing: Preprocessing, shape: EventShape) -> Result<()> {
    if preprocessing != Preprocessing::default() {
        let kind = EventKind { shape, levels: preprocessing.levels.or(Some(256)) };
        Events::of_kind(kind, preprocessing, 0)?;
    }
    Ok(())
}

fn build(spec: &Spec<dyn ModelSpec>, event: EventShape) -> Result<Model<f32>> {
    Ok(f32::model(spec.0.as_ref(), event, &BuildScope::new(<f32 as SpecScalar>::Device::default(), 0))?)
}

fn shape(sizes: &[usize]) -> String {
    sizes.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
}

fn layer_cells(layer: &LayerInfo) -> Vec<String> {
    vec![
        layer.path.clone(),
        layer.kind.clone(),
        format!("{} → {}", shape(&layer.input), shape(&layer.output)),
        layer.log_det.to_string(),
        layer.inverse.to_string(),
        layer.parameters.to_string(),
        layer.multiply_adds.to_string(),
    ]
}

fn layer_json(layer: &LayerInfo) -> serde_json::Value {
    json!({
        "path": layer.path, "kind": layer.kind, "input": layer.input, "output": layer.output, "log_det": layer.log_det.to_string(),
        "inverse": layer.inverse.to_string(), "parameters": layer.parameters, "multiply_adds": layer.multiply_adds,
    })
}

/// Memory of a training step in bytes: it grows with the batch in a straight line.
struct StepMemory {
    an_image: f64,
    /// The program itself, weights, gradients, moments of the optimiser, and the work space of all threads.
    besides: f64,
}

impl StepMemory {
    /// From steps with two batches of noise, small enough to take a moment and large enough for work space to have its full size. `program` is what the process held before.
    fn measure(spec: &Spec<dyn ModelSpec>, event: EventShape, memory: Memory, program: f64) -> Result<Self> {
        // Numbers in the smaller batch: so many that it outweighs work space.
        let numbers = if memory == Memory::Store { 4 * 3072 } else { 32 * 3072 };
        let few = (numbers / event.len().max(1)).clamp(2, 4096);
        // On one thread: how often two threads need work space at the same moment is chance. In a run they all do at some time.
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build()?;
        let measured = |memory, batch| {
            alone.install(|| {
                let held = Held::in_a_step(spec, event, memory, batch);
                // The thread ends at some time during the next measurement: with nothing to give back then.
                workspace::release::<f32>();
                held
            })
        };
        measured(memory, 2)?;
        let (less, more) = (measured(memory, few)?, measured(memory, 2 * few)?);
        let an_image = (more.most - less.most).max(0.0) / few as f64;
        // With Store the work space holds the whole batch's activations too.
        let one_thread = if memory == Memory::Store { measured(Memory::Recompute, few)?.work_space } else { more.work_space };
        let others = (rayon::current_num_threads() - 1) as f64 * one_thread;
        Ok(Self { an_image, besides: program + less.most - few as f64 * an_image + others })
    }

    fn at(&self, batch: usize) -> f64 {
        self.besides + batch as f64 * self.an_image
    }

    fn json(&self, batch: usize) -> serde_json::Value {
        json!({ "bytes_an_image": self.an_image, "bytes_besides": self.besides, "bytes": self.at(batch) })
    }
}

/// What a model, its optimiser and a training step held, in bytes; initialisation left out.
struct Held {
    /// The most at one time.
    most: f64,
    /// Work space that a thread keeps for the next step.
    work_space: f64,
}

impl Held {
    fn in_a_step(spec: &Spec<dyn ModelSpec>, event: EventShape, memory: Memory, batch: usize) -> Result<Self> {
        /// Events that data-dependent initialisation sees.
        const FIRST: usize = 8;
        workspace::release::<f32>();
        let before = MEMORY.current_usage();
        let mut model = build(spec, event)?;
        let mut adam = Adam::new(&model, Settings::default().adam(event.len()));
        let mut gradients = Gradients::zeros(&model);
        let first = model.batch(noise(FIRST * event.len()))?;
        model.flow_mut().initialise(first, &Context::new(0))?;
        workspace::release::<f32>();
        MEMORY.reset_peak_usage();
        let without_work_space = MEMORY.current_usage();
        let cx = Context::new(0).in_mode(Mode::Train).with_memory(memory);
        model.flow().nll(model.batch(noise(batch * event.len()))?, &mut gradients, &cx)?;
        adam.step(&mut model, &gradients, 0.0)?;
        let work_space = MEMORY.current_usage().saturating_sub(without_work_space);
        Ok(Self { most: MEMORY.peak_usage().saturating_sub(before) as f64, work_space: work_space as f64 })
    }
}

fn noise(count: usize) -> Vec<f32> {
    let mut noise = vec![0.0; count];
    Stream::new(0, 0, "inspect").row(0).gaussian(&mut noise);
    noise
}
