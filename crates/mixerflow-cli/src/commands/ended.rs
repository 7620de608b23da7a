//! What is told at the end of a run: what was reached, how long it took, and what to do next.

use super::sources::model;
use crate::{Result, output};
use flow_train::data::{Split, Subset};
use flow_train::text;
use flow_train::{Ending, EvaluateOptions, Look, Report, evaluate};
use std::path::Path;

/// Where a run stands when it ends.
pub(super) struct Ended {
    /// Steps that were made before.
    pub(super) begun: u64,
    pub(super) made: u64,
    pub(super) steps: u64,
    pub(super) history: Vec<Report>,
    /// Value and step of the best validation.
    pub(super) best: Option<(f64, u64)>,
    /// Of losses.
    pub(super) unit: &'static str,
    /// Of likelihoods, which baselines and the test have.
    pub(super) scale: &'static str,
    /// Whether the model has a classifier.
    pub(super) is_hybrid: bool,
    /// Samples have to be told the numbers that they are given.
    pub(super) needs_numbers: bool,
}

impl Ended {
    pub(super) fn tell(&self, path: &Path, ending: Ending, split: &Split, look: &Look) -> Result<()> {
        let Self { begun, made, steps, .. } = self;
        let run = path.display();
        match ending {
            Ending::Stopped => {
                output::say(format_args!(
                    "stopped after {made} of {}: `mixerflow train --resume --out {run}` goes on",
                    text::count(*steps, "step")
                ));
                return Ok(());
            }
            Ending::Finished if begun == made => {
                output::say(format_args!(
                    "nothing was done: all {} {} made; --steps with a larger number goes on",
                    text::count(*steps, "step"),
                    text::agreeing(*steps, "is", "are")
                ));
                return Ok(());
            }
            Ending::Early if begun == made => {
                output::say(
                    "nothing was done: validation no longer improved when the run ended; a larger --set settings.patience=N goes on",
                );
                return Ok(());
            }
            Ending::Finished | Ending::Early => {}
        }
        let early = if ending == Ending::Early { ", where validation no longer improved" } else { "" };
        let seconds = self.history.last().map_or(0.0, |report| report.seconds);
        let train = self.history.last().map_or(String::new(), |report| format!(": train {:.4}", report.train));
        let best = self.best.map_or(String::new(), |(value, step)| format!(", best validation {value:.4} at step {step}"));
        let ((test, accuracy), scale) = (test(path, split)?, self.scale);
        // Where the loss is the likelihood, all figures have one unit.
        let unit = if self.unit == scale { String::new() } else { format!(" {}", self.unit) };
        output::say(format_args!(
            "{made} of {}{early} in {}{train}{best}{unit}{test} {scale}{accuracy}",
            text::count(*steps, "step"),
            duration(seconds)
        ));
        if !look.baselines.is_empty() {
            let shown: Vec<String> = look.baselines.iter().map(|b| format!("{} {:.4}", b.name, b.loss)).collect();
            output::say(format_args!("for scale: {} {scale}", shown.join(", ")));
        }
        if let Some(warning) = self.rising() {
            output::say(format_args!("warning: {warning}"));
        }
        let predict = if self.is_hybrid { format!(", mixerflow predict {run}") } else { String::new() };
        let given = if self.needs_numbers { " --given FILE" } else { "" };
        output::say(format_args!(
            "next: mixerflow eval {run}, mixerflow sample {run}{given} --out samples.png, mixerflow score {run}{predict}"
        ));
        Ok(())
    }

    /// Whether validation has risen at every one of the last reports, of a run of twice as many.
    fn rising(&self) -> Option<String> {
        const REPORTS: usize = 4;
        let (best, step) = self.best?;
        let losses: Vec<f64> = self.history.iter().filter_map(|report| report.validation).collect();
        let last = losses.get(losses.len().checked_sub(REPORTS)?..).filter(|_| losses.len() >= 2 * REPORTS)?;
        let worst = *last.last()?;
        (last.is_sorted() && last[0] > best && worst > best).then(|| {
            format!(
                "validation has been rising ({best:.4} at step {step}, {worst:.4} at the end): the model of step {step} is kept; fewer steps, more \
                 data or a smaller model may be what is needed"
            )
        })
    }
}

/// The loss on test items, at most so many that nobody waits for them, and the accuracy of a classifier.
fn test(path: &Path, split: &Split) -> Result<(String, String)> {
    const MOST: usize = 2048;
    let count = split.test.len().min(MOST);
    if count == 0 {
        return Ok((String::new(), String::new()));
    }
    let opened = model(path)?;
    let items = Subset::new(split.test.clone(), (0..count).collect())?;
    let options = EvaluateOptions { likelihood_alone: true, ..EvaluateOptions::default() };
    let found = evaluate(&opened.model, &items, &opened.events, &options)?;
    let of = if count < split.test.len() {
        format!(" of {count} of {}", text::count(split.test.len(), "item"))
    } else {
        format!(" of {}", text::count(count, "item"))
    };
    let accuracy =
        found.classification.as_ref().map_or(String::new(), |c| format!(", accuracy {:.4} ± {:.4}", c.accuracy, c.accuracy_error));
    Ok((format!(", test {}{of}", found.loss_text(4)), accuracy))
}

/// `3 h 20 min`, `4 min 5 s`, `12 s`.
pub(super) fn duration(seconds: f64) -> String {
    let (minutes, rest) = ((seconds / 60.0).floor(), seconds % 60.0);
    match minutes {
        m if m >= 60.0 => format!("{:.0} h {:.0} min", (m / 60.0).floor(), m % 60.0),
        m if m >= 1.0 => format!("{m:.0} min {rest:.0} s"),
        _ if rest < 10.0 => format!("{rest:.1} s"),
        _ => format!("{rest:.0} s"),
    }
}
