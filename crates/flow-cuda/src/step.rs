//! A training step as one graph.

use crate::driver::{Device, Graph, Numbers};
use crate::kernels::Pulling;
use crate::session::{Loaded, plan, pulling};
use crate::step_kernels::{Arenas, HEADER, KEY, Rows};
use crate::step_plan::StepPlan;
use flow_api::device::{BaseForm, DeviceError, SideForm, StepForm, StepReport, StepSamples, TrainingSession, TrainingState};
use flow_api::rows::Direction;
use std::sync::Arc;

/// A model with all that its training steps need. Nothing is allocated, and no buffer moves, once it is made.
pub(crate) struct CudaTraining {
    device: Arc<Device>,
    /// Graphs of steps, by their number of samples.
    graphs: Vec<(usize, Graph)>,
    work: Work,
    /// What goes up, made here.
    upload: Vec<u8>,
}

/// What the graphs do, and the buffers that they do it in.
struct Work {
    event: usize,
    form: StepForm,
    loaded: Loaded,
    /// Where the numbers that are in no row of a side are taken from, for the input of the next: of which side's input.
    rest: Vec<Option<usize>>,
    plan: StepPlan,
    arenas: Arenas,
    /// The inputs of all sides, and the latents behind them.
    pulling: Pulling,
    row_log_dets: Numbers<f32>,
}

impl CudaTraining {
    pub(crate) fn load(device: Arc<Device>, event: usize, sides: &[SideForm<'_, f32>], form: &StepForm) -> Result<Self, DeviceError> {
        let refuse = |reason: String| DeviceError::NoStep { device: device.info().device.clone(), reason };
        if form.base != BaseForm::StandardNormal {
            return Err(refuse(format!("the base density {:?}", form.base)));
        }
        let loaded = Loaded::new(&device, plan(&device, event, sides, Direction::Forward)?)?;
        let plan = StepPlan::new(&loaded.plan, sides).map_err(refuse)?;
        let rest = rest(event, sides);
        let upload = HEADER + if form.levels.is_some() { form.samples * (KEY + event) } else { 0 };
        let arenas = Arenas::new(&device, &plan, form.samples, upload, form.adam.ema.is_some())?;
        let pulling = pulling(&device, &loaded.plan, event, form.samples, sides.len() + 1)?;
        let row_log_dets = device.zeros("the log-dets of a training step", form.samples * loaded.rows_of_a_sample())?;
        let work = Work { event, form: *form, loaded, rest, plan, arenas, pulling, row_log_dets };
        let mut session = Self { device, graphs: Vec::new(), work, upload: vec![0; upload] };
        // What is amiss with graphs is known before the first step.
        session.graph(form.samples)?;
        Ok(session)
    }

    /// Where the graph for so many samples stands.
    fn graph(&mut self, samples: usize) -> Result<usize, DeviceError> {
        if let Some(at) = self.graphs.iter().position(|(own, _)| *own == samples) {
            return Ok(at);
        }
        // Kernels are compiled and loaded before, which no capture can have.
        self.device.kernels(self.work.form.precision)?;
        self.device.pull_kernels(self.work.form.precision)?;
        self.device.step_kernels()?;
        let Self { device, work, graphs, .. } = self;
        let graph = device.capture(|| work.enqueue(device, samples))?;
        graphs.push((samples, graph));
        Ok(graphs.len() - 1)
    }
}

/// For every side, whose input the numbers that it leaves alone are copied from; none where there are no such numbers,
/// or the next side leaves the same ones alone: then that one has them from here.
fn rest(event: usize, sides: &[SideForm<'_, f32>]) -> Vec<Option<usize>> {
    let places = |side: &SideForm<'_, f32>| {
        let mut places: Vec<usize> = side.view.places().collect();
        places.sort_unstable();
        places
    };
    let places: Vec<_> = sides.iter().map(places).collect();
    let mut first = 0;
    let of_side = |side: usize| {
        if side > 0 && places[side] != places[side - 1] {
            first = side;
        }
        let goes_on = places.get(side + 1) == Some(&places[side]);
        (places[side].len() < event && !goes_on).then_some(first)
    };
    (0..sides.len()).map(of_side).collect()
}

impl Work {
    /// Sends all of a step to the device.
    fn enqueue(&mut self, device: &Device, samples: usize) -> Result<(), DeviceError> {
        let Self { event, form, loaded, rest, plan, arenas, pulling, row_log_dets } = self;
        let (event, precision) = (*event, form.precision);
        let capacity = form.samples;
        if let Some(levels) = form.levels {
            device.dequantise(arenas, levels, &mut pulling.inputs, (samples, event))?;
        }
        if plan.len() > 0 {
            device.prepare(plan, arenas, &mut loaded.weights.floats, &mut pulling.sums)?;
        }
        let mut before = 0;
        let input = |side: usize| side * capacity * event;
        for ((number, side), rest) in loaded.plan.sides.iter().enumerate().zip(rest) {
            let places = (input(number), input(number + 1));
            if let Some(first) = *rest {
                device.copy_within(&mut pulling.inputs, (input(first), places.1), samples * event)?;
            }
            let rows = (before * capacity, samples * side.rows);
            device.run_side(side, (&loaded.weights, precision), &mut pulling.inputs, places, row_log_dets, rows)?;
            before += side.rows;
        }
        let count = loaded.plan.sides.len();
        let rows = Rows { sides: &loaded.rows, count, log_dets: row_log_dets, capacity };
        let Pulling { inputs, cotangent, for_log_det, .. } = pulling;
        let latents = (&*inputs, count * capacity * event);
        device.likelihood(plan, arenas, &rows, latents, (cotangent, for_log_det), (samples, event))?;
        loaded.pull(device, pulling, (capacity, samples), precision)?;
        if plan.len() > 0 {
            device.finish(plan, arenas, &pulling.sums)?;
        }
        device.optimise(plan, arenas, &form.adam, samples)
    }
}

impl TrainingSession for CudaTraining {
    fn step(&mut self, samples: StepSamples<'_>, rate: f64, number: u64) -> Result<StepReport, DeviceError> {
        let StepForm { samples: most, levels, adam, .. } = self.work.form;
        let event = self.work.event;
        let (count, numbers) = match samples {
            StepSamples::Levels { values, items } if levels.is_some() => (items.len(), values.len()),
            StepSamples::Numbers(values) if levels.is_none() => (values.len() / event.max(1), values.len()),
            _ => return Err(self.device.no_step("samples of the other kind, levels or numbers")),
        };
        self.device.check_size(count * event, numbers)?;
        if count == 0 || count > most {
            self.device.check_size(most, count)?;
            return Err(self.device.no_step("a step without samples"));
        }
        let at = self.graph(count)?;
        let t = number as f64;
        #[expect(clippy::cast_possible_truncation, reason = "factors are rounded to f32, as the host's are")]
        let rates = [rate / (1.0 - adam.betas.0.powf(t)), 1.0 - rate * adam.weight_decay, 1.0 / (1.0 - adam.betas.1.powf(t))]
            .map(|factor| factor as f32);
        let header = rates.into_iter().flat_map(f32::to_le_bytes);
        self.upload.iter_mut().zip(header).for_each(|(to, from)| *to = from);
        let Arenas { upload, report, .. } = &mut self.work.arenas;
        let length = match samples {
            StepSamples::Levels { values, items } => {
                let (keys, rest) = self.upload[HEADER..].split_at_mut(count * KEY);
                let words = items.as_flattened().iter().flat_map(|word| word.to_le_bytes());
                keys.iter_mut().zip(words).for_each(|(to, from)| *to = from);
                rest[..numbers].copy_from_slice(values);
                HEADER + count * KEY + numbers
            }
            StepSamples::Numbers(values) => {
                self.device.upload(values, &mut self.work.pulling.inputs)?;
                HEADER
            }
        };
        self.device.upload(&self.upload[..length], upload)?;
        // SAFETY: the graph's buffers are those of `work`, and its kernels the device's: both live as long as the graph
        // and are borrowed by nobody here.
        unsafe { self.graphs[at].1.launch() }.map_err(self.device.error("a training step"))?;
        let mut found = [0.0; 3];
        self.device.download(report, &mut found)?;
        let [nll, norm, finite] = found;
        Ok(StepReport { nll, norm, finite: finite > 0.0 })
    }

    fn write(&mut self, state: &TrainingState) -> Result<(), DeviceError> {
        let count = self.work.plan.parameters;
        let Arenas { parameters, first, second, average, .. } = &mut self.work.arenas;
        let TrainingState { parameters: own, first: own_first, second: own_second, average: own_average } = state;
        for (from, to) in [(own, parameters), (own_first, first), (own_second, second)] {
            self.device.check_size(count, from.len())?;
            self.device.upload(from, to)?;
        }
        if self.work.form.adam.ema.is_some() {
            let from = own_average.as_deref().unwrap_or_default();
            self.device.check_size(count, from.len())?;
            self.device.upload(from, average)?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<TrainingState, DeviceError> {
        let zeros = || vec![0.0; self.work.plan.parameters];
        let (mut state, has_average) = (TrainingState::default(), self.work.form.adam.ema.is_some());
        (state.parameters, state.first, state.second) = (zeros(), zeros(), zeros());
        state.average = has_average.then(zeros);
        let Arenas { parameters, first, second, average, .. } = &self.work.arenas;
        for (from, to) in [(parameters, &mut state.parameters), (first, &mut state.first), (second, &mut state.second)] {
            self.device.download(from, to)?;
        }
        if let Some(to) = &mut state.average {
            self.device.download(average, to)?;
        }
        Ok(state)
    }

    fn describe(&self) -> String {
        let nodes = self.graphs.first().map_or(0, |(_, graph)| graph.nodes());
        let up = if self.work.form.levels.is_some() { "levels" } else { "numbers" };
        format!("one graph of {nodes} nodes in {}, {up} up, 24 bytes back", self.work.form.precision)
    }
}
