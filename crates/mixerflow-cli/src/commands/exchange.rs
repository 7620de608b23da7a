//! `mixerflow export` and `mixerflow import`.

use crate::Result;
use crate::arguments::{Export, Import};
use flow_train::checkpoint;

pub(crate) fn export(arguments: &Export) -> Result<()> {
    Ok(checkpoint::export::<f32>(&arguments.run, &arguments.out)?)
}

pub(crate) fn import(arguments: &Import) -> Result<()> {
    Ok(checkpoint::import::<f32>(&arguments.file, &arguments.out)?)
}
