//! Named parts of a loss.

use serde::{Deserialize, Serialize};

/// Name of the term that is the likelihood.
pub(crate) const LIKELIHOOD: &str = "likelihood";

/// A named part of a loss, a mean over some of the items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Term {
    /// What it is.
    pub name: String,
    /// Its unit; empty for a share.
    pub unit: String,
    /// The mean.
    pub value: f64,
    /// Over how many items.
    pub items: f64,
}

impl Term {
    pub(crate) fn new(name: &str, unit: &str, value: f64, items: usize) -> Self {
        Self { name: name.to_owned(), unit: unit.to_owned(), value, items: items as f64 }
    }

    /// Adds means over further items to those of the same names.
    pub(crate) fn add_up(sums: &mut Vec<Self>, further: Vec<Self>) {
        for term in further {
            match sums.iter_mut().find(|sum| sum.name == term.name) {
                Some(sum) => {
                    let items = sum.items + term.items;
                    sum.value += (term.value - sum.value) * (term.items / items);
                    sum.items = items;
                }
                None => sums.push(term),
            }
        }
    }
}

/// A named part of the loss, as reports have it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportedTerm {
    /// What it is.
    pub name: String,
    /// Its unit; empty for a share.
    pub unit: String,
    /// Mean over the training items since the last report that it is defined for, if there were any.
    pub train: Option<f64>,
    /// Mean over the validation items that it is defined for, if there are any.
    pub validation: Option<f64>,
}

impl ReportedTerm {
    /// None where the likelihood is the only one: it is the loss then.
    pub(crate) fn of(train: &[Term], validation: &[Term]) -> Vec<Self> {
        let value = |terms: &[Term], name: &str| terms.iter().find(|term| term.name == name).map(|term| term.value);
        let own = train.iter().map(|term| Self {
            name: term.name.clone(),
            unit: term.unit.clone(),
            train: Some(term.value),
            validation: value(validation, &term.name),
        });
        let further = validation.iter().filter(|term| value(train, &term.name).is_none()).map(|term| Self {
            name: term.name.clone(),
            unit: term.unit.clone(),
            train: None,
            validation: Some(term.value),
        });
        let all: Vec<Self> = own.chain(further).collect();
        if all.iter().all(|term| term.name == LIKELIHOOD) { Vec::new() } else { all }
    }
}

/// `label 0.2013, validation 0.3001 bits`.
impl std::fmt::Display for ReportedTerm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, unit, train, validation } = self;
        let values = [("", train), ("validation ", validation)];
        let values: Vec<String> = values.iter().filter_map(|(part, value)| Some(format!("{part}{:.4}", (**value)?))).collect();
        let space = if unit.is_empty() { "" } else { " " };
        write!(f, "{name} {}{space}{unit}", values.join(", "))
    }
}
