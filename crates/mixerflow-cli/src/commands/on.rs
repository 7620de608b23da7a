//! Models of runs on the device that the command line asks for.

use super::sources::model;
use crate::arguments::Device;
use crate::{Error, Result, output};
use flow_api::device::{DeviceError, Engine, missing_forms};
use flow_api::spec::Model;
use flow_train::checkpoint::Opened;
use std::path::Path;

/// Opens the model of a run or of a checkpoint, and puts it on a device.
pub(super) fn model_on(run: &Path, device: Device) -> Result<Opened<f32>> {
    let opened = model(run)?;
    let engine = match device {
        Device::Cpu => return Ok(opened),
        Device::Cuda(number) => engine(number)?,
        Device::Auto => match fitting(&opened.model)? {
            Ok(engine) => engine,
            Err(reason) => {
                output::say(format_args!("device: cpu ({reason})"));
                return Ok(opened);
            }
        },
    };
    let info = engine.info();
    output::say(format_args!("device: {} ({info})", info.device));
    let cure = |error| -> Error { format!("{error}; --device cpu runs every model").into() };
    Ok(Opened { model: opened.model.on(engine.as_ref()).map_err(cure)?, ..opened })
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
