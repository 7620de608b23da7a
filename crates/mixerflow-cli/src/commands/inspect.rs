//! `mixerflow inspect`.

use super::sources::{default_settings, model as opened, settings, spec};
use super::step_memory::{Bench, StepMemory};
use super::unmoved::{never_moved, warning};
use crate::arguments::Inspect;
use crate::{MEMORY, Result, output};
use flow_api::Memory;
use flow_api::bijector::LayerInfo;
use flow_api::module::parameter_count;
use flow_api::spec::{BuildScope, EventShape, Given, LayerTable, Model, ModelSpec, Preprocessing, Spec, SpecScalar, Table};
use flow_train::{DataRecord, EventKind, Events, Report, RunFolder, Trainer};
use serde_json::json;
use std::time::{Duration, Instant};

const MIB: f64 = 1024.0 * 1024.0;

/// The time within which there is an answer, if not everything is to be measured.
const PATIENCE: Duration = Duration::from_millis(700);

pub(crate) fn run(arguments: &Inspect) -> Result<()> {
    let began = Instant::now();
    let mut last = None;
    let (spec, own, given) = if arguments.spec.is_dir() {
        let opened = opened(&arguments.spec)?;
        if let Some(set) = arguments.set.first() {
            return Err(format!("--set {set}: the spec of a run cannot be changed").into());
        }
        // A checkpoint alone has no reports.
        last = RunFolder::history(&arguments.spec).ok().and_then(|mut history| history.pop());
        (opened.spec, Some(opened.model.event()), opened.events.record().given())
    } else {
        let spec = spec(&arguments.spec, &arguments.set)?;
        let own = spec.event();
        (spec, own, Given::default())
    };
    let (event, given) = event(arguments, own, given)?;
    settings(&arguments.set, default_settings())?.check()?;
    preprocessing(&spec.preprocessing(), event)?;
    let program = memory_stats::memory_stats().map_or(0.0, |stats| stats.physical_mem as f64);
    let before = MEMORY.current_usage();
    let model = build(&spec, event, given).map_err(|e| format!("{}: {e}", arguments.spec.display()))?;
    Trainer::check_model(&model)?;
    let table = model.describe()?;
    let parameters = parameter_count(&model);
    let deadline = (!arguments.measure).then(|| began + PATIENCE);
    let mut bench = Bench::new(model, event, program, before, deadline)?;
    let settings = [Memory::Store, Memory::Recompute, Memory::Invert];
    let steps = settings.map(|memory| Ok((memory, bench.measure(memory)?)));
    let steps = steps.into_iter().collect::<Result<Vec<_>>>()?;
    let mut left_out: Vec<_> = steps.iter().filter(|(_, step)| step.is_none()).map(|(memory, _)| name(*memory)).collect();
    // Its forward passes cost about as much as those steps.
    let unmoved = left_out.is_empty().then(|| never_moved(&spec, event, given));
    match &unmoved {
        Some(Ok(numbers)) if numbers.is_empty() => {}
        Some(Ok(numbers)) => tracing::warn!("{}", warning(numbers, event.len())),
        // What random weights are no flow of is another matter than what was asked for.
        Some(Err(error)) => tracing::warn!("numbers that no nonlinear flow moves were not found: {error}"),
        None => left_out.push("numbers that no nonlinear flow moves".to_owned()),
    }
    let multiply_adds: u64 = table.iter().map(|layer| layer.multiply_adds).sum();
    if arguments.json {
        let layers: Vec<_> = table.iter().map(layer_json).collect();
        let memory: serde_json::Map<_, _> =
            steps.iter().map(|(memory, step)| (format!("{memory:?}"), step_json(step.as_ref(), arguments.batch))).collect();
        let all = json!({
            "event": event.to_string(), "layers": layers, "parameters": parameters, "multiply_adds": multiply_adds,
            "batch": arguments.batch, "memory": memory, "never_moved": unmoved.and_then(Result::ok), "bounds_used": last.map(bounds_json),
        });
        return Ok(output::line(serde_json::to_string_pretty(&all)?)?);
    }
    output::line(LayerTable(&table))?;
    output::line(format_args!("events of shape {event}: {parameters} parameters, {multiply_adds} multiply-adds an event forward\n"))?;
    let heads = ["training step", "MiB an image", "MiB besides", &format!("MiB at batch {}", arguments.batch)].map(str::to_owned);
    let mib = |bytes: Option<f64>| bytes.map_or("–".to_owned(), |bytes| format!("{:.3}", bytes / MIB));
    let rows: Vec<_> = steps
        .iter()
        .map(|(memory, step)| {
            let step = step.as_ref();
            let cells = [step.map(|step| step.an_image), step.map(|step| step.besides), step.map(|step| step.at(arguments.batch))];
            std::iter::once(name(*memory)).chain(cells.map(mib)).collect()
        })
        .collect();
    output::print(Table { heads: &heads, rows: &rows, words: 1 })?;
    if let Some(last) = last.filter(|last| !last.bounds_used.is_empty()) {
        bounds(&last)?;
    }
    if !left_out.is_empty() {
        output::line(format_args!(
            "\n{}: not measured, since that takes longer than a moment; --measure waits for it",
            left_out.join(", ")
        ))?;
    }
    Ok(())
}

/// What couplings used of their scales' bounds at the last report of a run.
fn bounds(last: &Report) -> Result<()> {
    output::line(format_args!("\nshare of its scale's bound that a coupling uses, mean over the last batch of step {}:", last.step))?;
    let heads = ["layer", "bound used"].map(str::to_owned);
    let rows: Vec<_> = last.bounds_used.iter().map(|(layer, share)| vec![layer.clone(), format!("{:.1} %", 100.0 * share)]).collect();
    Ok(output::print(Table { heads: &heads, rows: &rows, words: 1 })?)
}

fn bounds_json(last: Report) -> serde_json::Value {
    let layers = last.bounds_used.into_iter().map(|(path, share)| json!({ "path": path, "share": share }));
    json!({ "step": last.step, "layers": layers.collect::<Vec<_>>() })
}

fn name(memory: Memory) -> String {
    format!("{memory:?}").to_lowercase()
}

/// Null where nothing was measured.
fn step_json(step: Option<&StepMemory>, batch: usize) -> serde_json::Value {
    step.map_or(
        serde_json::Value::Null,
        |step| json!({ "bytes_an_image": step.an_image, "bytes_besides": step.besides, "bytes": step.at(batch) }),
    )
}

/// The shape on the command line, or the spec's own, and what is given with every event.
fn event(arguments: &Inspect, own: Option<EventShape>, given: Given) -> Result<(EventShape, Given)> {
    if let Some(source) = &arguments.data {
        let split = source.open_any(0)?;
        let data = if split.train.is_empty() { &*split.test } else { &*split.train };
        return Ok((EventKind::of(data).shape, DataRecord::without_items(data).given()));
    }
    let event = match (arguments.shape.as_slice(), own) {
        (&[channels, height, width], _) => EventShape::Image { channels, height, width },
        (&[dim], _) => EventShape::Vector(dim),
        ([], Some(own)) => own,
        ([], None) => return Err("--shape: the spec states no shape; give C,H,W of the images or D of the vectors, or --data".into()),
        (other, _) => return Err(format!("--shape: expected C,H,W or D, got {} numbers", other.len()).into()),
    };
    Ok((event, given))
}

/// Checks what `train` checks, for data with as many levels as the spec states; where it states none, data have what
/// suits it best.
fn preprocessing(preprocessing: &Preprocessing, shape: EventShape) -> Result<()> {
    if let Some((what, _)) = preprocessing.of_reals() {
        // Columns can be named as in the data, which are not at hand.
        return match preprocessing.of_levels() {
            None => Ok(()),
            Some((other, _)) => Err(format!("{what} is for real numbers, {other} for data that have levels").into()),
        };
    }
    if *preprocessing != Preprocessing::default() {
        let kind = EventKind { shape, levels: preprocessing.levels.or(Some(256)) };
        Events::of_kind(kind, preprocessing, 0)?;
    }
    Ok(())
}

fn build(spec: &Spec<dyn ModelSpec>, event: EventShape, given: Given) -> Result<Model<f32>> {
    Ok(f32::model(spec, event, &BuildScope::new(0).with_given(given))?)
}

fn layer_json(layer: &LayerInfo) -> serde_json::Value {
    json!({
        "path": layer.path, "kind": layer.kind, "input": layer.input, "output": layer.output, "log_det": layer.log_det.to_string(),
        "inverse": layer.inverse.to_string(), "parameters": layer.parameters, "multiply_adds": layer.multiply_adds,
    })
}
