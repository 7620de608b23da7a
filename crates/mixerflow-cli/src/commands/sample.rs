//! `mixerflow sample`.

use super::sources::{fits, model};
use crate::Result;
use crate::arguments::Sample;
use flow_train::data::npy::Writer;
use flow_train::picture::save_image;
use flow_train::{Drawing, draw_samples, sample, write_whole};

pub(crate) fn run(arguments: &Sample) -> Result<()> {
    let Sample { count, temperature, seed, columns, out, .. } = arguments;
    if *count == 0 {
        return Err("--count: expected at least 1, got 0".into());
    }
    let is_file = |extension| out.extension().is_some_and(|e| e.eq_ignore_ascii_case(extension));
    // A folder that is not there yet has no ending, or a slash behind it.
    let folder = out.is_dir() || out.extension().is_none() || out.as_os_str().as_encoded_bytes().ends_with(b"/");
    if !folder && !is_file("png") && !is_file("npy") {
        return Err(format!(
            "--out {}: expected FILE.png, FILE.npy or a folder; of a new folder with a dot end the name in /",
            out.display()
        )
        .into());
    }
    let opened = model(&arguments.run)?;
    fits("--count", *count, opened.model.event())?;
    if !folder && is_file("png") {
        let drawing =
            Drawing { count: Some(*count), columns: *columns, temperature: f64::from(*temperature), seed: *seed, half_side: None };
        if draw_samples(out, &opened.model, &opened.events, &drawing)? {
            return Ok(());
        }
        return Err(
            format!("{}: events of shape {} make no picture; write them to a .npy file", out.display(), opened.model.event()).into()
        );
    }
    let samples = sample(&opened.model, *count, f64::from(*temperature), *seed)?;
    if !folder && is_file("npy") {
        return write_whole(out, |file| {
            let mut array = Writer::new(file, out, &[*count, opened.model.event().len()])?;
            array.write(&samples)?;
            Ok(array.finish()?)
        });
    }
    let levels = opened.events.quantise(&samples)?;
    std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
    for (i, image) in levels.chunks_exact(opened.model.event().len()).enumerate() {
        save_image(&out.join(format!("{i:06}.png")), image, opened.events.kind().item(), opened.events.levels().unwrap_or(0))?;
    }
    Ok(())
}
