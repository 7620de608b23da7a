//! `mixerflow score`.

use super::on::model_on;
use super::reference::{background, measured, reference};
use super::rows::{self, Row, rows};
use super::sources::{first, has_classes};
use super::write::write_table;
use crate::arguments::Score;
use crate::{Result, UNUSUAL, output};
use flow_train::checkpoint::Opened;
use flow_train::data::{Dataset, Draw, Items, Values, column_key};
use flow_train::scores::{Aggregate, Block, Groups, Judged, Kind, Measure, Measures, Reference, save_sheet};
use flow_train::text::{agreeing, count};
use flow_train::{ByColumn, EvaluateOptions, Events, EveryClass, Scores, score_by_column, score_every_class, shades};
use std::process::ExitCode;

/// A column of numbers.
struct Column {
    head: String,
    values: Vec<f64>,
    /// Whether what is unusual is high.
    high: bool,
}

/// What is computed of items.
struct Found {
    scores: Scores,
    measures: Measures,
    every: Option<EveryClass>,
    by_column: Option<ByColumn>,
}

/// How items are scored, and put together.
struct Scorer<'a> {
    arguments: &'a Score,
    opened: &'a Opened<f32>,
    background: Option<&'a Opened<f32>>,
    aggregate: Aggregate,
}

impl Scorer<'_> {
    fn find(&self, items: &dyn Dataset) -> Result<Found> {
        let Self { arguments, opened, background, .. } = *self;
        let options = EvaluateOptions { estimates: arguments.estimates, ..arguments.scoring.options() };
        let (scores, measures) = measured(opened, background, items, &options)?;
        let every = arguments.every_class.then(|| score_every_class(&opened.model, items, &opened.events, &options)).transpose()?;
        let by_column = arguments.by_column.then(|| score_by_column(&opened.model, items, &opened.events, &options)).transpose();
        Ok(Found { scores, measures, every, by_column: by_column.map_err(|error| format!("--by-column: {error}"))? })
    }

    fn groups(&self, items: &dyn Dataset) -> Groups {
        if self.aggregate == Aggregate::None { Groups::single(items.len()) } else { Groups::of(items) }
    }

    /// The items with what they are compared with, and whether each is unusual where that is asked for.
    fn judge(&self, found: &Found, groups: &Groups, reference: Option<&Reference>) -> Result<(Judged, Option<Vec<bool>>)> {
        let rate = self.arguments.false_alarm;
        let judged = match reference {
            Some(reference) => reference.judge(&found.measures, groups, self.aggregate),
            None if self.aggregate == Aggregate::None && rate.is_none() => Judged::alone(found.measures.clone()),
            None => return Err("--aggregate and --false-alarm compare with reference items, of which there are none".into()),
        };
        let flagged = rate.map(|rate| flagged(&judged, rate)).transpose()?;
        Ok((judged, flagged))
    }

    fn columns(&self, found: &Found, groups: &Groups, judged: &Judged, items: &dyn Dataset, is_compared: bool) -> Vec<Column> {
        let events = &self.opened.events;
        let errors = standard_errors(&found.scores, groups, judged, self.aggregate);
        let mut columns = columns(events, judged, errors.as_deref(), is_compared);
        columns.extend(found.every.iter().flat_map(|every| of_classes(every, events, judged)));
        columns.extend(found.by_column.iter().flat_map(|by_column| of_columns(by_column, items)));
        columns
    }

    /// Tries on the first item what cannot be done for any, before all of them are scored. Gives the reference items,
    /// which may have to be scored too.
    fn rehearse(&self, items: &Items) -> Result<Option<Reference>> {
        let Self { arguments, opened, background, .. } = *self;
        for (option, given) in [("--every-class", arguments.every_class), ("--by-column", arguments.by_column)] {
            if given && self.aggregate != Aggregate::None {
                return Err(format!("{option}: expected a row an item, without --aggregate").into());
            }
        }
        if let (Some(path), Kind::Row) = (&arguments.sheet, Kind::of(items)) {
            return Err(format!("{}: a sheet shows pictures, and vectors are none", path.display()).into());
        }
        let first = first(items)?;
        let (found, groups) = (self.find(&first)?, self.groups(&first));
        let sort = |judged: &Judged, is_compared| {
            // Of an item that cannot be scored not all columns are known.
            if found.scores.non_finite > 0 {
                return Ok(());
            }
            order(&self.columns(&found, &groups, judged, &first, is_compared), arguments.sort.as_deref()).map(drop)
        };
        let stand_in = Reference::new(Kind::of(&first), found.measures.clone(), vec![0], String::new());
        sort(&stand_in.judge(&found.measures, &groups, self.aggregate), true)?;
        let reference = reference(&arguments.run, opened, background)?;
        sort(&self.judge(&found, &groups, reference.as_ref())?.0, reference.is_some())?;
        Ok(reference)
    }
}

pub(crate) fn run(arguments: &Score) -> Result<ExitCode> {
    let opened = model_on(&arguments.run, arguments.on.device)?;
    has_classes(&opened, arguments.every_class)?;
    let background = background(arguments.minus.as_deref(), &opened, arguments.on.device)?;
    let chosen = arguments.data.choose(&arguments.run, &opened, |_| arguments.part.into())?;
    let items = &chosen.items;
    let aggregate = Aggregate::from(arguments.aggregate);
    let scorer = Scorer { arguments, opened: &opened, background: background.as_ref(), aggregate };
    let reference = scorer.rehearse(items)?;
    let (found, groups) = (scorer.find(items)?, scorer.groups(items));
    let (judged, flagged) = scorer.judge(&found, &groups, reference.as_ref())?;
    let columns = scorer.columns(&found, &groups, &judged, items, reference.is_some());
    let Found { scores, by_column, .. } = &found;
    by_column.iter().for_each(|by_column| tell_order(by_column, items));
    tell_without_likelihood(scores);
    let order = order(&columns, arguments.sort.as_deref())?;
    let known = rows(items, &scores.labels);
    let corners = if aggregate == Aggregate::Mean { Vec::new() } else { corners(items, &judged.items)? };
    let places = (!corners.is_empty()).then_some(["x", "y"]).into_iter().flatten();
    let heads = rows::HEADS.into_iter().chain(places).map(str::to_owned);
    let heads: Vec<String> = heads.chain(columns.iter().map(|c| c.head.clone())).collect();
    let heads: Vec<String> = heads.into_iter().chain(flagged.as_ref().map(|_| "is_unusual".to_owned())).collect();
    let line = |at: &usize| -> Vec<String> {
        let row: &Row = &known[judged.items[*at]];
        let numbers = columns.iter().map(|column| column.values[*at].to_string());
        let flag = flagged.as_ref().map(|flagged| if flagged[*at] { "yes" } else { "no" }.to_owned());
        let corner = corners.get(*at).map(|corner| corner.map(|side| side.to_string()));
        row.cells().into_iter().chain(corner.into_iter().flatten()).chain(numbers).chain(flag).collect()
    };
    if let Some(path) = &arguments.out {
        write_table(path, &heads, order.iter().map(line))?;
        output::say(format_args!("{}: {}", path.display(), count(order.len(), "item")));
    } else {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(&heads)?;
        order.iter().try_for_each(|at| table.write_record(line(at)))?;
        output::print(String::from_utf8(table.into_inner()?)?)?;
    }
    told(reference.as_ref(), &judged, aggregate);
    if let Some(path) = &arguments.sheet {
        let ranked = self::order(&columns, Some(if reference.is_some() { "unusual" } else { "log_likelihood" }))?;
        let blocks = blocks(items, &opened.events, &judged, &columns, &ranked, arguments.top)?;
        let levels = opened.events.kind().levels.unwrap_or(256);
        save_sheet(path, &blocks, items.shape(), levels)?;
        output::say(format_args!("{}: the {} most and the least unusual", path.display(), blocks[0].pictures.len()));
    }
    let (Some(flagged), Some(rate)) = (flagged, arguments.false_alarm) else { return Ok(ExitCode::SUCCESS) };
    let unusual = flagged.iter().filter(|flagged| **flagged).count();
    let expected = rate * flagged.len() as f64;
    output::say(format_args!(
        "{unusual} of {} {} unusual at a rate of false alarms of {rate}; of as many usual ones it would be about {expected:.1}",
        flagged.len(),
        agreeing(unusual, "is", "are")
    ));
    Ok(if unusual > 0 { ExitCode::from(UNUSUAL) } else { ExitCode::SUCCESS })
}

/// Corners of windows that are cut at random out of pictures, of data that are such.
fn corners(items: &Items, chosen: &[usize]) -> Result<Vec<[usize; 2]>> {
    let corner = |&index: &usize| Ok(items.corner(Draw { epoch: 0, index })?.map(|(left, top)| [left, top]));
    let found = chosen.iter().map(corner).collect::<Result<Option<Vec<_>>>>()?;
    Ok(found.unwrap_or_default())
}

fn flagged(judged: &Judged, rate: f64) -> Result<Vec<bool>> {
    let takes = Judged::takes(rate);
    if judged.references < takes {
        return Err(format!(
            "--false-alarm {rate}: so rare an alarm takes at least {}, got {} (`train --validation` holds more out)",
            count(takes, "reference item"),
            judged.references
        )
        .into());
    }
    Ok(judged.flagged(rate))
}

/// What the numbers rest on.
fn told(reference: Option<&Reference>, judged: &Judged, aggregate: Aggregate) {
    /// With fewer, no p-value is below 5 %.
    const FEW: usize = 39;
    let Some(reference) = reference else { return };
    let of = if aggregate == Aggregate::None { String::new() } else { format!(" of {}", count(judged.references, "source")) };
    let few = if judged.references < FEW { ": so few that p-values are coarse" } else { "" };
    output::say(format_args!("compared with {} of the run{of}{few}", count(reference.len(), "validation item")));
}

/// Standard errors of estimated log-likelihoods, where there are any.
fn standard_errors(scores: &Scores, groups: &Groups, judged: &Judged, aggregate: Aggregate) -> Option<Vec<f64>> {
    let variance = scores.log_det_variance.as_ref()?;
    Some(if aggregate == Aggregate::Mean {
        let of = |group: &Vec<usize>| group.iter().map(|&i| variance[i]).sum::<f64>().sqrt() / group.len() as f64;
        groups.0.iter().map(of).collect()
    } else {
        judged.items.iter().map(|&i| variance[i].sqrt()).collect()
    })
}

fn columns(events: &Events, judged: &Judged, errors: Option<&[f64]>, is_compared: bool) -> Vec<Column> {
    let mut columns = Vec::new();
    let mut add = |head: &str, values: Vec<f64>, high: bool| columns.push(Column { head: head.to_owned(), values, high });
    let unit_of_nats = events.report(0.0) - events.report(1.0);
    let unit = if events.levels().is_some() { "bits_per_dim" } else { "negative_log_likelihood" };
    for (measure, values) in &judged.measures.0 {
        add(measure.column(), values.clone(), measure.is_unusual_high());
        if *measure == Measure::LogLikelihood {
            add(unit, values.iter().map(|density| -density * unit_of_nats).collect(), true);
            errors.iter().for_each(|errors| add("standard_error", errors.to_vec(), true));
        }
        for head in measure.p_columns() {
            judged.p.get(head).iter().for_each(|p| add(head, (*p).clone(), false));
        }
    }
    if is_compared {
        add("unusual", judged.unusual.clone(), true);
    }
    columns
}

/// The part of −ln p that each column explains.
fn of_columns(found: &ByColumn, items: &dyn Dataset) -> Vec<Column> {
    let width = found.order.len();
    let column = |at: usize| Column {
        head: format!("nats_{}", column_key(items.columns(), at)),
        values: found.nats.iter().skip(at).step_by(width).copied().collect(),
        high: true,
    };
    (0..width).map(column).collect()
}

/// Given which others every column is.
fn tell_order(found: &ByColumn, items: &dyn Dataset) {
    let order: Vec<String> = found.order.iter().map(|&column| column_key(items.columns(), column)).collect();
    output::say(format_args!("each column is given those before it: {}", order.join(", ")));
}

/// How many items have no finite likelihood, and why the first has none.
fn tell_without_likelihood(scores: &Scores) {
    let without = scores.log_likelihood.iter().filter(|density| !density.is_finite()).count();
    if without > 0 {
        let why = scores.failure.as_ref().map_or(String::new(), |failure| format!("; the first: {failure}"));
        let (items, verbs) =
            (count(without, "item"), agreeing(without, "has no finite likelihood and counts", "have no finite likelihood and count"));
        output::say(format_args!("warning: {items} {verbs} as the most unusual{why}"));
    }
}

/// Of every class: log p(x) by the mixture, log p(x | class) of each, and p(class | x) of each.
fn of_classes(every: &EveryClass, events: &Events, judged: &Judged) -> Vec<Column> {
    let unit_of_nats = events.report(0.0) - events.report(1.0);
    let nats = |values: &[f64]| judged.items.iter().map(|&item| -events.report(values[item]) / unit_of_nats).collect();
    let names = events.record().class_names(every.scores.len());
    let mixture = Column { head: "log_likelihood_mixture".to_owned(), values: nats(&every.log_mixture), high: false };
    let densities = names.iter().zip(&every.scores).map(|(name, scores)| Column {
        head: format!("log_likelihood_{name}"),
        values: nats(&scores.log_likelihood),
        high: false,
    });
    let prob = |item: usize, class: usize| every.log_probs.of(item).map_or(f64::NAN, |own| own[class].exp());
    let probs = names.iter().enumerate().map(|(class, name)| Column {
        head: format!("p_{name}"),
        values: judged.items.iter().map(|&item| prob(item, class)).collect(),
        high: false,
    });
    std::iter::once(mixture).chain(densities).chain(probs).collect()
}

/// The rows in the order of the data, or the most unusual first by a column.
fn order(columns: &[Column], by: Option<&str>) -> Result<Vec<usize>> {
    let mut order: Vec<usize> = (0..columns.first().map_or(0, |column| column.values.len())).collect();
    let Some(by) = by else { return Ok(order) };
    let find = |name: &str| columns.iter().find(|column| column.head == name);
    let column = match by {
        "" => find("unusual").or_else(|| find("log_likelihood")),
        name => find(name),
    };
    let Some(column) = column else {
        let known: Vec<&str> = columns.iter().map(|column| column.head.as_str()).collect();
        return Err(format!("--sort={by}: expected one of {}", known.join(", ")).into());
    };
    // What has no number is the most unusual of all.
    let key = |at: usize| {
        let value = column.values[at];
        if value.is_nan() {
            f64::INFINITY
        } else if column.high {
            value
        } else {
            -value
        }
    };
    order.sort_by(|&a, &b| key(b).total_cmp(&key(a)));
    Ok(order)
}

/// The first and the last of the ranked items as pictures.
fn blocks(items: &Items, events: &Events, judged: &Judged, columns: &[Column], ranked: &[usize], top: usize) -> Result<Vec<Block>> {
    let told = |head: &str, at: usize| columns.iter().find(|column| column.head == head).map(|column| column.values[at]);
    let block = |heading: &str, chosen: Vec<usize>| -> Result<Block> {
        let draws: Vec<Draw> = chosen.iter().map(|&at| Draw { epoch: 0, index: judged.items[at] }).collect();
        let values = match items.batch(&draws)?.values {
            Values::Levels(levels) => levels,
            Values::Real(values) => shades(&values, events)?.0,
        };
        let pictures = values.chunks_exact(items.shape().dims().max(1)).zip(&chosen).map(|(values, &at)| {
            let first = told("unusual", at).map(|unusual| format!("unusual {unusual:.4}"));
            let loss = told("bits_per_dim", at).map(|loss| format!("{loss:.2} bits/dim"));
            let loss = loss.or_else(|| told("negative_log_likelihood", at).map(|loss| format!("{loss:.1} nats")));
            let row = format!("row {}", items.row(judged.items[at]));
            (values.to_vec(), first.into_iter().chain(loss).chain([row]).collect())
        });
        Ok(Block { heading: heading.to_owned(), pictures: pictures.collect() })
    };
    let top = top.min(ranked.len());
    let least = ranked.iter().rev().take(top).copied().collect();
    Ok(vec![block("most unusual", ranked[..top].to_vec())?, block("least unusual", least)?])
}
