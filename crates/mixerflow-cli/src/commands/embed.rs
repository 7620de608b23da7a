//! `mixerflow embed`.

use super::sources::model;
use crate::Result;
use crate::arguments::Embed;
use flow_api::FlowError;
use flow_train::data::npy::Writer;
use flow_train::{TrainError, embed, write_whole};

pub(crate) fn run(arguments: &Embed) -> Result<()> {
    let opened = model(&arguments.run)?;
    let parts = arguments.data.parts(arguments.part, opened.settings.seed)?;
    let layer = arguments.layer.as_deref().unwrap_or("bijector");
    let out = &arguments.out;
    let items: usize = parts.iter().map(|(_, data)| data.len()).sum();
    write_whole(out, |file| {
        let mut array = Writer::new(file, out, &[items, opened.model.event().len()])?;
        for (_, data) in &parts {
            embed(&opened.model, data.as_ref(), &opened.events, layer, arguments.batch, |rows| Ok(array.write(rows)?)).map_err(
                |error| match error {
                    TrainError::Flow(FlowError::Unsupported { layer: path, operation: "activations", .. }) if path == layer => {
                        format!("--layer {layer}: the model has no such layer; `mixerflow inspect` shows them").into()
                    }
                    other => crate::Error::from(other),
                },
            )?;
        }
        Ok(array.finish()?)
    })
}
