//! What samples are given: a class by name, or a file with a row of conditions for each.

use crate::Result;
use crate::arguments::Given;
use flow_api::Conditions;
use flow_api::noise::Stream;
use flow_api::spec::{Model, SpecScalar};
use flow_train::checkpoint::Opened;
use flow_train::data::table::{self, TableOptions};
use flow_train::data::{DataError, Dataset, Draw};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The rows of conditions that the command line asks for.
pub(super) struct Rows {
    /// Row after row.
    pub(super) conditions: Conditions,
    pub(super) count: usize,
}

impl Given {
    /// What was asked for; none if nothing was.
    pub(super) fn rows(&self, opened: &Opened<f32>) -> Result<Option<Rows>> {
        let Self { class, given } = self;
        let option = if class.is_some() { "--class" } else { "--given" };
        if class.is_none() && given.is_none() {
            return Ok(None);
        }
        let Some(conditioner) = opened.model.conditioner() else {
            return Err(format!("{option}: the model is not conditioned on anything").into());
        };
        let classes = conditioner.classes().map(|_| opened.events.record().classes.as_slice());
        let columns: Vec<String> = opened.events.record().conditions.iter().map(|column| column.name.clone()).collect();
        match (class, given, classes) {
            (Some(name), _, Some(classes)) => {
                let class = number(name, classes).map_err(|expected| format!("--class {name}: expected {expected}"))?;
                Ok(Some(Rows { conditions: Conditions::class(class, 1), count: 1 }))
            }
            (Some(_), _, None) => {
                let columns = columns.join(", ");
                Err(format!("--class: the model is conditioned on numbers ({columns}); --given FILE says them").into())
            }
            (None, Some(path), Some(classes)) => of_classes(path, classes).map(Some),
            (None, Some(path), None) => of_numbers(path, &columns).map(Some),
            (None, None, _) => Ok(None),
        }
    }
}

/// Conditions of so many samples for a model that is looked at before there are data: every class in turn, or noise.
pub(super) fn made_up<E: SpecScalar>(model: &mut Model<E>, samples: usize) -> Result<Conditions> {
    let Some(conditioner) = model.conditioner_mut() else { return Ok(Conditions::Nothing) };
    if let Some(classes) = conditioner.classes() {
        return Ok(Conditions::Classes((0..samples).map(|sample| Some(sample % classes)).collect()));
    }
    let mut numbers = vec![0.0; samples * conditioner.numbers().unwrap_or(0)];
    Stream::new(1, 0, "conditions").row(0).gaussian(&mut numbers);
    if conditioner.wants_fit() {
        conditioner.fit(&numbers)?;
    }
    Ok(Conditions::Numbers(numbers))
}

/// The number of a class, or what there is.
fn number(name: &str, classes: &[String]) -> Result<usize, String> {
    classes.iter().position(|class| class == name).ok_or_else(|| format!("one of the classes {}", table_list(classes)))
}

fn table_list(names: &[String]) -> String {
    const SHOWN: usize = 24;
    let more = if names.len() > SHOWN { format!(", … {} in all", names.len()) } else { String::new() };
    format!("{}{more}", names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", "))
}

/// The name of a class a line; a first line `class` or `label` names the column.
fn of_classes(path: &Path, classes: &[String]) -> Result<Rows> {
    let error = |e: std::io::Error| format!("--given {}: {e}", path.display());
    let mut found = Vec::new();
    for (line, text) in BufReader::new(File::open(path).map_err(error)?).lines().enumerate() {
        let text = text.map_err(error)?;
        let name = text.trim().trim_matches('"');
        let is_head = line == 0 && ["class", "label"].contains(&name) && !classes.iter().any(|class| class == name);
        if name.is_empty() || is_head {
            continue;
        }
        let class = number(name, classes)
            .map_err(|expected| format!("--given {}: line {}: expected {expected}, got `{name}`", path.display(), line + 1))?;
        found.push(Some(class));
    }
    if found.is_empty() {
        return Err(format!("--given {}: expected the name of a class a line, got none", path.display()).into());
    }
    Ok(Rows { count: found.len(), conditions: Conditions::Classes(found) })
}

/// A table with the columns that the model is conditioned on.
fn of_numbers(path: &Path, columns: &[String]) -> Result<Rows> {
    let file = File::open(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
    let options = TableOptions { columns: columns.to_vec(), ..TableOptions::default() };
    let rows = table::read(path, BufReader::new(file), &options).map_err(|e| format!("--given: {e}"))?.rows;
    let draws: Vec<Draw> = (0..rows.len()).map(|index| Draw { epoch: 0, index }).collect();
    let flow_train::data::Values::Real(values) = rows.batch(&draws)?.values else {
        return Err(format!("--given {}: expected numbers", path.display()).into());
    };
    Ok(Rows { count: rows.len(), conditions: Conditions::Numbers(values) })
}

impl Rows {
    /// Some of the rows.
    pub(super) fn part(&self, rows: std::ops::Range<usize>) -> Conditions {
        match &self.conditions {
            Conditions::Classes(classes) => Conditions::Classes(classes[rows].to_vec()),
            Conditions::Numbers(numbers) => {
                let width = numbers.len() / self.count.max(1);
                Conditions::Numbers(numbers[rows.start * width..rows.end * width].to_vec())
            }
            Conditions::Nothing => Conditions::Nothing,
        }
    }

    /// Every row so many times, each row's samples together.
    pub(super) fn each(&self, times: usize) -> Conditions {
        match &self.conditions {
            Conditions::Classes(classes) => Conditions::Classes(classes.iter().flat_map(|&class| vec![class; times]).collect()),
            Conditions::Numbers(numbers) => {
                let width = numbers.len() / self.count.max(1);
                Conditions::Numbers(numbers.chunks_exact(width.max(1)).flat_map(|row| row.repeat(times)).collect())
            }
            Conditions::Nothing => Conditions::Nothing,
        }
    }
}
