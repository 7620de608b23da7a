//! A model on a device.

use crate::driver::{Device, Numbers};
use crate::kernels::{CHUNK, Pulling, Weights};
use crate::plan::{Plan, Refusal};
use flow_api::device::{DeviceError, Precision, PulledSums, Session, SideForm};
use flow_api::rows::Direction;
use std::sync::Arc;

/// The most numbers of samples and of what is kept of them that are on the device at a time: larger batches go in
/// parts.
const MOST_NUMBERS: usize = 1 << 29;

pub(crate) struct CudaSession {
    device: Arc<Device>,
    event: usize,
    /// Those of the samples of the next call.
    condition: Vec<f32>,
    forward: Loaded,
    /// From the first inverse on.
    inverse: Option<Loaded>,
    room: Option<Room>,
    training: Option<Training>,
    /// Passes so far that kept their inputs.
    passes: u64,
}

/// A model for passes in one direction.
pub(crate) struct Loaded {
    /// Without its numbers, which are on the device.
    pub(crate) plan: Plan,
    pub(crate) weights: Weights,
    /// Where every side's log-dets begin, in samples of one row, and its rows a sample.
    pub(crate) rows: Numbers<i32>,
}

/// Room for the samples of a call.
struct Room {
    capacity: usize,
    values: Numbers<f32>,
    row_log_dets: Numbers<f32>,
    log_dets: Numbers<f32>,
}

/// Room for a pullback.
struct Training {
    capacity: usize,
    buffers: Pulling,
    /// The pass whose inputs are there.
    pass: Option<u64>,
}

impl Loaded {
    pub(crate) fn new(device: &Device, mut plan: Plan) -> Result<Self, DeviceError> {
        let mut ints = device.zeros("the model's description", plan.ints.len())?;
        device.upload(&plan.ints, &mut ints)?;
        let mut floats = device.zeros("the model's parameters", plan.floats.len())?;
        device.upload(&std::mem::take(&mut plan.floats), &mut floats)?;
        let mut before = 0;
        let table = plan.sides.iter().flat_map(|side| {
            let entry = [before, side.rows];
            before += side.rows;
            entry.map(|n| i32::try_from(n).unwrap_or(i32::MAX))
        });
        let table: Vec<i32> = table.collect();
        let mut rows = device.zeros("the model's sides", table.len())?;
        device.upload(&table, &mut rows)?;
        let conditions = device.zeros("the conditions", 0)?;
        let kernels = device.kernels_with(&plan.snippets)?;
        Ok(Self { plan, weights: Weights { ints, floats, conditions, kernels }, rows })
    }

    /// Other numbers of the same model.
    fn write(&mut self, device: &Device, mut plan: Plan) -> Result<(), DeviceError> {
        device.check_size(self.plan.ints.len(), plan.ints.len())?;
        device.check_size(self.weights.floats.len(), plan.floats.len().max(1))?;
        device.upload(&std::mem::take(&mut plan.floats), &mut self.weights.floats)?;
        device.upload(&plan.ints, &mut self.weights.ints)?;
        self.plan = plan;
        Ok(())
    }

    /// Width of the condition, 0 without one.
    fn condition(&self) -> usize {
        self.plan.sides.iter().map(|side| side.condition).max().unwrap_or(0)
    }

    /// Brings the conditions of `samples` samples from number `first` on.
    fn bring(&mut self, device: &Device, condition: &[f32], (first, samples): (usize, usize)) -> Result<(), DeviceError> {
        let width = self.condition();
        let own = condition.get(first * width..(first + samples) * width);
        let Some(own) = own else { return device.check_size((first + samples) * width, condition.len()) };
        if own.is_empty() {
            return Ok(());
        }
        if self.weights.conditions.len() < own.len() {
            self.weights.conditions = device.zeros("the conditions", own.len())?;
        }
        device.upload(own, &mut self.weights.conditions)
    }

    /// Rows of a sample in all sides together.
    pub(crate) fn rows_of_a_sample(&self) -> usize {
        self.plan.sides.iter().map(|side| side.rows).sum()
    }

    /// Runs the samples of `room`; with `keep`, every side's input is kept there.
    fn run(&self, device: &Device, room: &mut Room, samples: usize, mut keep: Option<&mut Training>) -> Result<(), DeviceError> {
        let mut before = 0;
        for (number, side) in self.plan.sides.iter().enumerate() {
            if let Some(Training { capacity, buffers, .. }) = keep.as_deref_mut() {
                device.copy(&room.values, samples * side.event, &mut buffers.inputs, number * *capacity * side.event)?;
            }
            let place = (before * room.capacity, samples * side.rows);
            device.run_side(side, (&self.weights, Precision::F32), &mut room.values, (0, 0), &mut room.row_log_dets, place)?;
            before += side.rows;
        }
        let sizes = (self.plan.sides.len(), room.capacity, samples);
        device.sum_log_dets(&self.rows, &room.row_log_dets, self.plan.log_det, &mut room.log_dets, sizes)
    }
}

impl Loaded {
    /// Pulls the cotangents of `samples` samples back through all sides, whose inputs are there, and adds the sums.
    pub(crate) fn pull(
        &self,
        device: &Device,
        buffers: &mut Pulling,
        (capacity, samples): (usize, usize),
        precision: Precision,
    ) -> Result<(), DeviceError> {
        let sides = &self.plan.sides;
        let mut sums_at: usize = sides.iter().map(|side| side.pull.sums).sum();
        let mut pending = None;
        for (number, side) in sides.iter().enumerate().rev() {
            sums_at -= side.pull.sums;
            let place = (number * capacity * side.event, sums_at, samples * side.rows);
            pending = device.pull_side(side, (&self.weights, precision), buffers, place, pending)?;
        }
        device.add_pending(buffers, pending, precision)
    }
}

impl CudaSession {
    pub(crate) fn load(device: Arc<Device>, event: usize, sides: &[SideForm<'_, f32>]) -> Result<Self, DeviceError> {
        let forward = Loaded::new(&device, plan(&device, event, sides, Direction::Forward)?)?;
        Ok(Self { device, event, condition: Vec::new(), forward, inverse: None, room: None, training: None, passes: 0 })
    }

    /// Room for `samples` samples, or for as many as there may be at a time.
    fn room(&mut self, samples: usize) -> Result<Room, DeviceError> {
        let rows = self.forward.rows_of_a_sample();
        let capacity = samples.min(MOST_NUMBERS / (self.event + rows + 1)).max(1);
        if let Some(room) = self.room.take().filter(|room| room.capacity >= capacity) {
            return Ok(room);
        }
        Ok(Room {
            capacity,
            values: self.device.zeros("the samples", capacity * self.event)?,
            row_log_dets: self.device.zeros("the log-dets", capacity * rows)?,
            log_dets: self.device.zeros("the log-dets", capacity)?,
        })
    }

    /// Room for the pullback of `samples` samples, or of as many as there may be at a time.
    fn training(&mut self, samples: usize) -> Result<Training, DeviceError> {
        let sides = &self.forward.plan.sides;
        let capacity = samples.min(MOST_NUMBERS / (self.event * (sides.len() + 1) + most_notes(&self.forward.plan) + 1)).max(1);
        if let Some(training) = self.training.take().filter(|training| training.capacity >= capacity) {
            return Ok(training);
        }
        let buffers = pulling(&self.device, &self.forward.plan, self.event, capacity, sides.len())?;
        Ok(Training { capacity, buffers, pass: None })
    }

    /// Passes of all samples, in parts where there is no room for all.
    fn run(&mut self, direction: Direction, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        self.device.check_size(log_det.len() * self.event, values.len())?;
        let mut room = self.room(log_det.len())?;
        let loaded = match (direction, &mut self.inverse) {
            (Direction::Forward, _) => &mut self.forward,
            (Direction::Inverse, Some(inverse)) => inverse,
            (Direction::Inverse, None) => return self.device.check_size(1, 0),
        };
        let parts = values.chunks_mut(room.capacity * self.event).zip(log_det.chunks_mut(room.capacity)).enumerate();
        for (part, (values, log_det)) in parts {
            self.device.upload(values, &mut room.values)?;
            loaded.bring(&self.device, &self.condition, (part * room.capacity, log_det.len()))?;
            loaded.run(&self.device, &mut room, log_det.len(), None)?;
            self.device.download(&room.values, values)?;
            self.device.download(&room.log_dets, log_det)?;
        }
        self.room = Some(room);
        Ok(())
    }
}

/// The most numbers that the pullback of a side notes of a sample.
fn most_notes(plan: &Plan) -> usize {
    plan.sides.iter().map(|side| side.rows * side.pull.notes).max().unwrap_or(0)
}

/// Room for the pullback of `capacity` samples with the inputs of so many sides.
pub(crate) fn pulling(device: &Device, plan: &Plan, event: usize, capacity: usize, inputs: usize) -> Result<Pulling, DeviceError> {
    let sides = &plan.sides;
    // A tile's last rows are noted though they are none of the batch.
    let rest = sides.iter().map(|side| 32 * side.pull.notes).max().unwrap_or(0);
    let partial = sides.iter().map(|side| (capacity * side.rows).div_ceil(CHUNK) * side.pull.sums).max().unwrap_or(0);
    let zeros = |len| device.zeros("a training step", len);
    Ok(Pulling {
        inputs: zeros(capacity * event * inputs)?,
        cotangent: zeros(capacity * event)?,
        for_log_det: zeros(capacity)?,
        notes: zeros(capacity * most_notes(plan) + rest)?,
        partial: [zeros(partial)?, zeros(partial)?],
        sums: zeros(sides.iter().map(|side| side.pull.sums).sum())?,
        for_condition: zeros(capacity * sides.iter().map(|side| side.condition).max().unwrap_or(0))?,
    })
}

pub(crate) fn plan(device: &Device, event: usize, sides: &[SideForm<'_, f32>], direction: Direction) -> Result<Plan, DeviceError> {
    let plan = Plan::new(sides, direction, device.shared_memory()).map_err(|refusal| match refusal {
        Refusal::Missing(parts) => DeviceError::Missing { device: device.info().device.clone(), parts },
        Refusal::TooMany(numbers) => device.no_memory("the model", numbers.saturating_mul(4)),
    })?;
    plan.sides.iter().try_for_each(|side| device.check_size(event, side.event))?;
    Ok(plan)
}

impl Session for CudaSession {
    fn write(&mut self, sides: &[SideForm<'_, f32>], direction: Direction) -> Result<(), DeviceError> {
        let plan = plan(&self.device, self.event, sides, direction)?;
        match (direction, &mut self.inverse) {
            (Direction::Forward, _) => {
                self.training.iter_mut().for_each(|training| training.pass = None);
                self.forward.write(&self.device, plan)
            }
            (Direction::Inverse, Some(inverse)) => inverse.write(&self.device, plan),
            (Direction::Inverse, inverse) => {
                *inverse = Some(Loaded::new(&self.device, plan)?);
                Ok(())
            }
        }
    }

    fn condition(&mut self, vectors: &[f32]) -> Result<(), DeviceError> {
        vectors.clone_into(&mut self.condition);
        Ok(())
    }

    fn encode(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        self.run(Direction::Forward, values, log_det)
    }

    fn decode(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        self.run(Direction::Inverse, values, log_det)
    }

    fn encode_keeping(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<Option<u64>, DeviceError> {
        self.device.check_size(log_det.len() * self.event, values.len())?;
        let mut training = self.training(log_det.len())?;
        let mut room = self.room(log_det.len())?;
        if training.capacity.min(room.capacity) < log_det.len() {
            (self.training, self.room) = (Some(training), Some(room));
            return self.encode(values, log_det).map(|()| None);
        }
        self.device.upload(values, &mut room.values)?;
        self.forward.bring(&self.device, &self.condition, (0, log_det.len()))?;
        self.forward.run(&self.device, &mut room, log_det.len(), Some(&mut training))?;
        self.device.download(&room.values, values)?;
        self.device.download(&room.log_dets, log_det)?;
        self.passes += 1;
        training.pass = Some(self.passes);
        (self.training, self.room) = (Some(training), Some(room));
        Ok(Some(self.passes))
    }

    fn pullback(&mut self, pass: Option<u64>, x: &[f32], cotangent: &mut [f32], log_det: &[f32]) -> Result<PulledSums, DeviceError> {
        self.device.check_size(log_det.len() * self.event, cotangent.len())?;
        self.device.check_size(cotangent.len(), x.len())?;
        let mut training = self.training(log_det.len())?;
        let kept = pass.is_some() && training.pass == pass;
        training.pass = None;
        let mut room = self.room(training.capacity.min(log_det.len()))?;
        let device = &self.device;
        device.clear(&mut training.buffers.sums)?;
        let (part, width) = (training.capacity.min(room.capacity), self.forward.condition());
        let mut condition = vec![0.0; log_det.len() * width];
        let parts = x.chunks(part * self.event).zip(cotangent.chunks_mut(part * self.event)).zip(log_det.chunks(part));
        for (number, ((x, cotangent), log_det)) in parts.enumerate() {
            let (first, samples) = (number * part, log_det.len());
            self.forward.bring(device, &self.condition, (first, samples))?;
            device.clear(&mut training.buffers.for_condition)?;
            if !kept {
                device.upload(x, &mut room.values)?;
                self.forward.run(device, &mut room, samples, Some(&mut training))?;
            }
            let Training { capacity, buffers, .. } = &mut training;
            device.upload(cotangent, &mut buffers.cotangent)?;
            device.upload(log_det, &mut buffers.for_log_det)?;
            self.forward.pull(device, buffers, (*capacity, samples), Precision::F32)?;
            device.download(&buffers.cotangent, cotangent)?;
            if width > 0 {
                device.download(&buffers.for_condition, &mut condition[first * width..][..samples * width])?;
            }
        }
        let sides = &self.forward.plan.sides;
        let mut sums = vec![0.0; sides.iter().map(|side| side.pull.sums).sum()];
        device.download(&training.buffers.sums, &mut sums)?;
        (self.training, self.room) = (Some(training), Some(room));
        Ok(PulledSums { parameters: sums, condition })
    }
}
