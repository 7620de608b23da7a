//! The device that the command line asks for, and models of runs on it.

use super::sources::model;
use crate::arguments::Device;
use crate::{Error, Result, output};
use flow_api::device::{DeviceError, Engine, missing_forms};
use flow_api::spec::Model;
use flow_api::{Context, FlowError, Scalar};
use flow_train::TrainError;
use flow_train::checkpoint::Opened;
use std::path::Path;

/// Opens the model of a run or of a checkpoint, and puts it on a device.
pub(super) fn model_on(run: &Path, device: Device) -> Result<Opened<f32>> {
    let opened = model(run)?;
    let Some(engine) = engine_for(&opened.model, device)? else { return Ok(opened) };
    let model = opened.model.on(engine.as_ref()).map_err(|error| with_cure(&TrainError::from(error)))?;
    Ok(Opened { model, ..opened })
}

/// The device of a model, if it is not the processor; which one it is and why is said.
fn engine_for(model: &Model<f32>, device: Device) -> Result<Option<Box<dyn Engine>>> {
    let engine = match device {
        Device::Cpu => return Ok(None),
        Device::Cuda(number) => engine(number)?,
        Device::Auto => match fitting(model)? {
            Ok(engine) => engine,
            Err(reason) => {
                output::say(format_args!("device: cpu ({reason})"));
                return Ok(None);
            }
        },
    };
    let info = engine.info();
    output::say(format_args!("device: {} ({info})", info.device));
    Ok(Some(engine))
}

/// The device of a run, given its model as the spec builds it. Whether it can run there is seen when noise has
/// initialised it.
pub(super) fn engine_of_new(mut model: Model<f32>, device: Device) -> Result<Option<Box<dyn Engine>>> {
    const ROWS: usize = 8;
    if device == Device::Cpu {
        return Ok(None);
    }
    let (mut noise, mut cx) = (vec![0.0; ROWS * model.event().len()], Context::new(0));
    if let Some(width) = model.condition() {
        cx = cx.with_condition(f32::tensor(vec![0.0; ROWS * width], (ROWS, width)));
    }
    cx.noise().row(0).gaussian(&mut noise);
    let batch = model.batch(noise)?;
    model.flow_mut().initialise(batch, &cx)?;
    let engine = engine_for(&model, device)?;
    if let Some(engine) = &engine {
        model.on(engine.as_ref()).map_err(|error| with_cure(&error.into()))?;
    }
    Ok(engine)
}

/// A device's error, with what helps.
fn with_cure(error: &TrainError) -> Error {
    let missing = matches!(error, TrainError::Flow(FlowError::Engine(DeviceError::Missing { .. })));
    format!("{error}{}", if missing { "; --device cpu runs every model" } else { "" }).into()
}

/// A GPU that the whole model can run on, or why there is none.
fn fitting(model: &Model<f32>) -> Result<Result<Box<dyn Engine>, DeviceError>> {
    let sides = model.device_form()?;
    let parts = missing_forms(&sides);
    if !parts.is_empty() {
        return Ok(Err(DeviceError::Missing { device: "cuda".to_owned(), parts }));
    }
    // Whether it fits is known when it is loaded.
    Ok(engine(0).and_then(|engine| engine.load(model.event().len(), &sides).map(|_| engine)))
}

#[cfg(feature = "cuda")]
fn engine(number: usize) -> Result<Box<dyn Engine>, DeviceError> {
    Ok(Box::new(flow_cuda::Cuda::open(number)?))
}

#[cfg(not(feature = "cuda"))]
fn engine(number: usize) -> Result<Box<dyn Engine>, DeviceError> {
    Err(DeviceError::NoDevice { device: format!("cuda:{number}"), found: "this program was built without the feature `cuda`".to_owned() })
}
