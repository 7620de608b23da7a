//! Class probabilities, told on the terminal.

use crate::{Result, output};
use flow_train::classify::Classification;
use flow_train::text::Table;
use flow_train::text::count;

/// How good class probabilities are, with the bins of their calibration.
pub(super) fn tell_classes(found: &Classification) -> Result<()> {
    let Classification { items, left_out, accuracy, accuracy_error, chance, calibration, .. } = found;
    let (bits, bits_error) = (found.cross_entropy_bits, found.cross_entropy_bits_error);
    let (nats, nats_error) = (found.cross_entropy_nats, found.cross_entropy_nats_error);
    let out = if *left_out > 0 { format!(", {left_out} without probabilities left out") } else { String::new() };
    let lines = [
        (
            "accuracy",
            format!("{accuracy:.4} ± {accuracy_error:.4} of {}{out}; the commonest class has {chance:.4}", count(*items, "labelled item")),
        ),
        ("cross-entropy", format!("{bits:.4} ± {bits_error:.4} bits, {nats:.4} ± {nats_error:.4} nats")),
        (
            "calibration error",
            format!("{:.4} ± {:.4} in {}", calibration.error, calibration.standard_error, count(calibration.bins.len(), "bin")),
        ),
    ];
    for (name, value) in lines {
        output::line(format_args!("  {name:<18} {value}"))?;
    }
    let heads = ["confidence", "items", "mean confidence", "accuracy"].map(str::to_owned);
    let filled = calibration.bins.iter().filter(|bin| bin.items > 0);
    let rows: Vec<Vec<String>> = filled
        .map(|bin| {
            let interval = format!("{:.3}–{:.3}", bin.low, bin.high);
            vec![interval, bin.items.to_string(), format!("{:.4}", bin.confidence), format!("{:.4}", bin.accuracy)]
        })
        .collect();
    Ok(output::print(format_args!("{}", Table { heads: &heads, rows: &rows, words: 1 }))?)
}
