//! `mixerflow embed`.

use super::sources::model;
use crate::Result;
use crate::arguments::Embed;
use flow_train::data::npy::Writer;
use flow_train::embed;
use std::fs::File;
use std::io::BufWriter;

pub(crate) fn run(arguments: &Embed) -> Result<()> {
    let opened = model(&arguments.run)?;
    let parts = arguments.data.parts(arguments.part)?;
    let layer = arguments.layer.as_deref().unwrap_or("bijector");
    if layer != "bijector" && !opened.model.describe()?.iter().any(|line| flow_api::leads_to(layer, &line.path)) {
        return Err(format!("--layer {layer}: the model has no such layer; `mixerflow inspect` shows them").into());
    }
    let out = &arguments.out;
    let file = File::create(out).map_err(|e| format!("{}: {e}", out.display()))?;
    let items: usize = parts.iter().map(|(_, data)| data.len()).sum();
    let mut array = Writer::new(BufWriter::new(file), out, &[items, opened.model.event().len()])?;
    for (_, data) in parts {
        embed(&opened.model, data.as_ref(), &opened.events, layer, arguments.batch, |rows| Ok(array.write(rows)?))?;
    }
    Ok(array.finish()?)
}
