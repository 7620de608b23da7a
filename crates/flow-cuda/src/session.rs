//! A model on a device.

use crate::driver::{Device, Numbers};
use crate::plan::{Plan, Refusal, SidePlan};
use flow_api::device::{DeviceError, Session, SideForm};
use std::sync::Arc;

/// The most numbers of samples and of their rows' log-dets that are on the device at a time: larger batches go in parts.
const MOST_NUMBERS: usize = 1 << 28;

pub(crate) struct CudaSession {
    device: Arc<Device>,
    event: usize,
    /// Without its numbers, which are on the device.
    plan: Plan,
    ints: Numbers<i32>,
    floats: Numbers<f32>,
    /// For either direction where every side's log-dets begin, in samples of one row, and its rows a sample.
    rows: [Numbers<i32>; 2],
    batch: Option<Batch>,
}

/// Room for the samples of a call.
struct Batch {
    capacity: usize,
    values: Numbers<f32>,
    row_log_dets: Numbers<f32>,
    log_dets: Numbers<f32>,
}

#[derive(Clone, Copy)]
enum Way {
    Forward,
    Inverse,
}

impl CudaSession {
    pub(crate) fn load(device: Arc<Device>, event: usize, sides: &[SideForm<'_, f32>]) -> Result<Self, DeviceError> {
        let mut plan = plan(&device, event, sides)?;
        let mut ints = device.zeros("the model's description", plan.ints.len())?;
        device.upload(&plan.ints, &mut ints)?;
        let mut floats = device.zeros("the model's parameters", plan.floats.len())?;
        device.upload(&std::mem::take(&mut plan.floats), &mut floats)?;
        let rows = [device.zeros("the model's sides", 2 * sides.len())?, device.zeros("the model's sides", 2 * sides.len())?];
        let mut session = Self { device, event, plan, ints, floats, rows, batch: None };
        for (sides, to) in [&session.plan.forward, &session.plan.inverse].into_iter().zip(&mut session.rows) {
            let mut before = 0;
            let table = sides.iter().flat_map(|side| {
                let entry = [before, side.rows];
                before += side.rows;
                entry.map(|n| i32::try_from(n).unwrap_or(i32::MAX))
            });
            session.device.upload(&table.collect::<Vec<_>>(), to)?;
        }
        Ok(session)
    }

    /// Rows of a sample in all sides together.
    fn rows_of_a_sample(&self) -> usize {
        self.plan.forward.iter().map(|side| side.rows).sum()
    }

    /// Room for `batch` samples, or for as many as there may be at a time.
    fn reserve(&mut self, batch: usize) -> Result<Batch, DeviceError> {
        let each = self.event + self.rows_of_a_sample() + 1;
        let capacity = batch.min(MOST_NUMBERS / each).max(1);
        if let Some(batch) = self.batch.take().filter(|there| there.capacity >= capacity) {
            return Ok(batch);
        }
        let device = &self.device;
        Ok(Batch {
            capacity,
            values: device.zeros("the samples", capacity * self.event)?,
            row_log_dets: device.zeros("the log-dets", capacity * self.rows_of_a_sample())?,
            log_dets: device.zeros("the log-dets", capacity)?,
        })
    }

    fn run(&mut self, way: Way, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        self.device.check_size(log_det.len() * self.event, values.len())?;
        let mut batch = self.reserve(log_det.len())?;
        let parts = values.chunks_mut(batch.capacity * self.event).zip(log_det.chunks_mut(batch.capacity));
        for (values, log_det) in parts {
            self.run_part(way, &mut batch, values, log_det)?;
        }
        self.batch = Some(batch);
        Ok(())
    }

    fn run_part(&self, way: Way, batch: &mut Batch, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        let (device, samples) = (&self.device, log_det.len());
        let (sides, rows, constant): (&[SidePlan], _, _) = match way {
            Way::Forward => (&self.plan.forward, &self.rows[0], self.plan.log_det),
            Way::Inverse => (&self.plan.inverse, &self.rows[1], -self.plan.log_det),
        };
        device.upload(values, &mut batch.values)?;
        let mut before = 0;
        for side in sides {
            let place = (before * batch.capacity, samples * side.rows);
            device.run_side(side, &self.ints, &self.floats, &mut batch.values, &mut batch.row_log_dets, place)?;
            before += side.rows;
        }
        let sizes = (sides.len(), batch.capacity, samples);
        device.sum_log_dets(rows, &batch.row_log_dets, constant, &mut batch.log_dets, sizes)?;
        device.download(&batch.values, values)?;
        device.download(&batch.log_dets, log_det)
    }
}

fn plan(device: &Device, event: usize, sides: &[SideForm<'_, f32>]) -> Result<Plan, DeviceError> {
    let plan = Plan::new(sides, device.shared_memory()).map_err(|refusal| match refusal {
        Refusal::Missing(parts) => DeviceError::Missing { device: device.info().device.clone(), parts },
        Refusal::TooMany(numbers) => device.no_memory("the model", numbers.saturating_mul(4)),
    })?;
    plan.forward.iter().try_for_each(|side| device.check_size(event, side.event))?;
    Ok(plan)
}

impl Session for CudaSession {
    fn write(&mut self, sides: &[SideForm<'_, f32>]) -> Result<(), DeviceError> {
        let mut plan = plan(&self.device, self.event, sides)?;
        self.device.check_size(self.plan.ints.len(), plan.ints.len())?;
        self.device.check_size(self.floats.len(), plan.floats.len().max(1))?;
        self.device.upload(&std::mem::take(&mut plan.floats), &mut self.floats)?;
        // A permutation may have been loaded with the parameters.
        self.device.upload(&plan.ints, &mut self.ints)?;
        self.plan = plan;
        Ok(())
    }

    fn encode(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        self.run(Way::Forward, values, log_det)
    }

    fn decode(&mut self, values: &mut [f32], log_det: &mut [f32]) -> Result<(), DeviceError> {
        self.run(Way::Inverse, values, log_det)
    }
}
