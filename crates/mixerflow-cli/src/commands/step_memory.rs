//! What a training step holds, for `mixerflow inspect`.

use super::given::made_up;
use crate::{MEMORY, Result};
use flow_api::spec::{EventShape, Model, Preprocessing};
use flow_api::{Gradients, Memory};
use flow_kernels::{noise::Stream, workspace};
use flow_train::{Adam, EventBatch, EventKind, Events, Purpose, Settings, differentiate, objective_of, on_one_thread};
use std::time::{Duration, Instant};

/// Memory of a training step in bytes: it grows with the batch in a straight line.
pub(super) struct StepMemory {
    pub(super) an_image: f64,
    /// The program itself, weights, gradients, moments of the optimiser, and the work space of all threads.
    pub(super) besides: f64,
}

impl StepMemory {
    pub(super) fn at(&self, batch: usize) -> f64 {
        self.besides + batch as f64 * self.an_image
    }
}

/// A model that steps are made with.
pub(super) struct Bench {
    model: Model<f32>,
    adam: Adam<f32>,
    gradients: Gradients<f32>,
    event: EventShape,
    /// What the process held before the model was built.
    program: f64,
    /// What model, optimiser and gradients hold.
    held: f64,
    /// When to have answered, if that matters.
    deadline: Option<Instant>,
}

/// What a training step held besides the model, in bytes, and the time that it took.
#[derive(Clone, Copy)]
struct Step {
    /// The most at one time.
    most: f64,
    /// Work space that a thread keeps for the next step.
    work_space: f64,
    time: Duration,
}

impl Bench {
    /// For a model that was just built, when the process held `program` bytes, `before` of them as the allocator
    /// counts.
    pub(super) fn new(mut model: Model<f32>, event: EventShape, program: f64, before: usize, deadline: Option<Instant>) -> Result<Self> {
        /// Events that data-dependent initialisation sees.
        const FIRST: usize = 8;
        let adam = Adam::new(&model, Settings::default().adam(event.len()));
        let gradients = Gradients::zeros(&model);
        let given = made_up(&mut model, FIRST)?;
        let first = EventBatch::of_values(noise(FIRST * event.len()), FIRST).given(&given);
        let cx = first.context(&model, 0, Purpose::Map)?;
        model.initialise(first.values, &cx)?;
        workspace::release::<f32>();
        let held = MEMORY.current_usage().saturating_sub(before) as f64;
        Ok(Self { model, adam, gradients, event, program, held, deadline })
    }

    /// From steps with two batches of noise, small enough to take a moment and large enough for work space to have its
    /// full size; none where that would take too long.
    pub(super) fn measure(&mut self, memory: Memory) -> Result<Option<StepMemory>> {
        // Numbers in the smaller batch: so many that it outweighs work space.
        let numbers = if memory == Memory::Store { 4 * 3072 } else { 32 * 3072 };
        let few = (numbers / self.event.len().max(1)).clamp(2, 4096);
        let Some(less) = self.grown_to(memory, few)? else { return Ok(None) };
        // Twice as many, and with Store, where the work space holds the whole batch's activations too, once more as
        // many by another setting.
        let further = if memory == Memory::Store { 4 } else { 2 };
        if !self.is_time_for(less.time * further) {
            return Ok(None);
        }
        let more = self.step(memory, 2 * few)?;
        let an_image = (more.most - less.most).max(0.0) / few as f64;
        let one_thread = if memory == Memory::Store { self.step(Memory::Recompute, few)?.work_space } else { more.work_space };
        let others = (rayon::current_num_threads() - 1) as f64 * one_thread;
        Ok(Some(StepMemory { an_image, besides: self.program + self.held + less.most - few as f64 * an_image + others }))
    }

    /// A step of so many events behind smaller ones, none of which is begun that may end behind the deadline: four
    /// times as many events take at most four times as long.
    fn grown_to(&mut self, memory: Memory, events: usize) -> Result<Option<Step>> {
        const GROWTH: usize = 4;
        let mut batch = events.min(2);
        loop {
            let step = self.step(memory, batch)?;
            if batch == events {
                return Ok(Some(step));
            }
            let next = events.min(GROWTH * batch);
            if !self.is_time_for(step.time * u32::try_from(next.div_ceil(batch))?) {
                return Ok(None);
            }
            batch = next;
        }
    }

    fn is_time_for(&self, time: Duration) -> bool {
        self.deadline.is_none_or(|deadline| Instant::now() + time <= deadline)
    }

    /// A step with a batch of noise, which changes no weight. On one thread: how often two threads need work space at
    /// the same moment is chance. In a run they all do at some time.
    fn step(&mut self, memory: Memory, batch: usize) -> Result<Step> {
        let Self { model, adam, gradients, event, .. } = self;
        let given = made_up(model, batch)?;
        let events = EventBatch::of_values(noise(batch * event.len()), batch).given(&given);
        // A classifier learns from labels, whichever they are.
        let labels = events.labels.iter().map(|label| label.or(Some(0))).collect();
        let events = EventBatch { labels, ..events };
        let unit = Events::of_kind(EventKind { shape: *event, levels: None }, &Preprocessing::default(), 0)?;
        on_one_thread(|| {
            let mut work = || -> Result<Step> {
                MEMORY.reset_peak_usage();
                let (before, began) = (MEMORY.current_usage(), Instant::now());
                gradients.clear();
                let cx = events.context(model, 0, Purpose::Train { step: 0, memory })?;
                differentiate(model, objective_of(model).as_ref(), &unit, &events, gradients, &cx)?;
                adam.step(model, gradients, 0.0)?;
                let held = |bytes: usize| bytes.saturating_sub(before) as f64;
                Ok(Step { most: held(MEMORY.peak_usage()), work_space: held(MEMORY.current_usage()), time: began.elapsed() })
            };
            let step = work();
            // The thread ends at some time during the next measurement: with nothing to give back then.
            workspace::release::<f32>();
            step
        })?
    }
}

fn noise(count: usize) -> Vec<f32> {
    let mut noise = vec![0.0; count];
    Stream::new(0, 0, "inspect").row(0).gaussian(&mut noise);
    noise
}

#[cfg(test)]
mod tests {
    use super::*;
    use flow_api::spec::{ModelSpec, Spec, from_ron};

    fn measured(deadline: Option<Instant>) -> Option<StepMemory> {
        let spec: Spec<dyn ModelSpec> = from_ron("VectorFlow(flows: [ActNorm(), AffineCoupling(hidden: 16)])").unwrap();
        let event = EventShape::Vector(6);
        let before = MEMORY.current_usage();
        let mut bench = Bench::new(spec.build(event, 1).unwrap(), event, 0.0, before, deadline).unwrap();
        bench.measure(Memory::Store).unwrap()
    }

    #[test]
    fn what_there_is_no_time_for_is_not_measured() {
        assert!(measured(Some(Instant::now())).is_none());
        assert!(measured(None).is_some_and(|step| step.an_image > 0.0 && step.besides > 0.0));
    }
}
