//! Reference items: what usual items score, to compare others with.

use super::aggregate::{Aggregate, Groups};
use super::measure::{Kind, Measure, Measures};
use super::ranks::{Ranks, Side};
use crate::checkpoint::read_text;
use crate::error::broken;
use crate::file::replace_file;
use crate::{Result, TrainError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What reference items measure: those that a run has held out to choose its best model with, which the weights have
/// not been fitted to.
///
/// ```
/// use flow_train::scores::{Aggregate, Groups, Kind, Measure, Measures, Reference};
/// let measures = |values: Vec<f64>| Measures([(Measure::LogLikelihood, values)].into());
/// let usual: Vec<f64> = (0..99).map(f64::from).collect();
/// let reference = Reference::new(Kind::Row, measures(usual), (0..99).collect(), "model".to_owned());
/// let judged = reference.judge(&measures(vec![50.0, -30.0]), &Groups::single(2), Aggregate::None);
/// assert_eq!(judged.p["p_likelihood"], [0.52, 0.01]);
/// assert!(judged.unusual[0] < 0.6 && judged.unusual[1] > 0.99);
/// assert_eq!(judged.flagged(0.01), [false, true]);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// What kind of items they are.
    kind: Kind,
    /// What tells the model that they were scored with from others.
    model: String,
    /// The source of each item.
    sources: Vec<usize>,
    /// Their measures. JSON has no number for what is not finite: it is null there.
    measures: BTreeMap<Measure, Vec<Option<f64>>>,
}

/// Items compared with reference items: a number an item, or a source, each.
#[derive(Clone, Debug, PartialEq)]
pub struct Judged {
    /// The items that the numbers are of: of a source the most unusual one, or where its measures are averaged the
    /// first.
    pub items: Vec<usize>,
    /// The measures.
    pub measures: Measures,
    /// p-values of the measures, by their columns.
    pub p: BTreeMap<&'static str, Vec<f64>>,
    /// The same, continued beyond the reference items: for order alone.
    continued: BTreeMap<&'static str, Vec<f64>>,
    /// 0 for what is as usual as can be, towards 1 for what is unusual.
    pub unusual: Vec<f64>,
    /// Reference items, or sources of them.
    pub references: usize,
}

impl Reference {
    /// Of measures of items, their sources, and what tells the model.
    pub fn new(kind: Kind, measures: Measures, sources: Vec<usize>, model: String) -> Self {
        let finite = |values: Vec<f64>| values.into_iter().map(|value| value.is_finite().then_some(value)).collect();
        let measures = measures.0.into_iter().map(|(measure, values)| (measure, finite(values))).collect();
        Self { kind, model, sources, measures }
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.sources.len()
    }

    /// No item.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// What tells the model.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Their measures, NaN where there is none.
    pub fn measures(&self) -> Measures {
        let number = |values: &Vec<Option<f64>>| values.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        Measures(self.measures.iter().map(|(measure, values)| (*measure, number(values))).collect())
    }

    /// Compares items with the reference items.
    ///
    /// # The rule
    /// With t the least of an item's p-values, two-sided but of the likelihood of table rows and of likelihood ratios,
    /// which are one-sided, `unusual` is 1 − (1 + k)/(n + 1), where k of the n reference items have a t as small or
    /// smaller (each compared with the others). So of usual items a share α has an `unusual` of 1 − α or more, whatever
    /// the measures are and however they depend on each other (Tippett's combination of p-values, calibrated by ranks).
    /// Beyond the outermost reference item p-values go on falling with the distance, p/(1 + distance/spread) with the
    /// spread of the quartiles, and so does what is made of them: that keeps the order of items that are all more
    /// unusual than any reference item.
    ///
    /// Only measures that both have count. With [`Aggregate::Max`] the t of a source is the least of its items', with
    /// [`Aggregate::Mean`] measures are averaged first; reference items are put together by their sources alike.
    pub fn judge(&self, measures: &Measures, groups: &Groups, aggregate: Aggregate) -> Judged {
        let own_groups = Groups::of_sources(self.sources.iter().copied());
        let (own, found) = match aggregate {
            Aggregate::Mean => (own_groups.means(&self.measures()), groups.means(measures)),
            Aggregate::None | Aggregate::Max => (self.measures(), measures.clone()),
        };
        let (mut p, mut continued) = (BTreeMap::new(), BTreeMap::new());
        let (mut least, mut own_least) = (vec![1.0_f64; found.len()], vec![1.0_f64; own.len()]);
        for (measure, values) in &found.0 {
            let Some(reference) = own.get(*measure) else { continue };
            let ranks = Ranks::of(reference.iter().copied());
            for (column, side) in measure.sides() {
                p.insert(*column, values.iter().map(|value| ranks.p(*value, *side)).collect::<Vec<f64>>());
                let further: Vec<f64> = values.iter().map(|value| ranks.continued(*value, *side, false)).collect();
                if *column == measure.counts(self.kind) {
                    least.iter_mut().zip(&further).for_each(|(least, p)| *least = least.min(*p));
                    let others = reference.iter().map(|value| ranks.continued(*value, *side, !value.is_nan()));
                    own_least.iter_mut().zip(others).for_each(|(least, p)| *least = least.min(p));
                }
                continued.insert(*column, further);
            }
        }
        let mut items: Vec<usize> = (0..found.len()).collect();
        let mut measures = found;
        match aggregate {
            Aggregate::None => {}
            Aggregate::Mean => items = groups.0.iter().filter_map(|group| group.first().copied()).collect(),
            Aggregate::Max => {
                (items, least) = groups.least(&least).into_iter().unzip();
                own_least = own_groups.least(&own_least).into_iter().map(|(_, least)| least).collect();
                let of = |values: &Vec<f64>| items.iter().map(|&i| values[i]).collect::<Vec<f64>>();
                measures.0.values_mut().for_each(|values| *values = of(values));
                p.values_mut().for_each(|values| *values = of(values));
                continued.values_mut().for_each(|values| *values = of(values));
            }
        }
        let ranks = Ranks::of(own_least.iter().copied());
        let floor = own_least.iter().copied().fold(f64::INFINITY, f64::min);
        let unusual = |least: &f64| {
            // Below the least t of a reference item in proportion.
            let beyond = if *least < floor { least / floor } else { 1.0 };
            1.0 - ranks.p(*least, Side::Low) * beyond
        };
        Judged { items, measures, p, continued, unusual: least.iter().map(unusual).collect(), references: own_least.len() }
    }

    /// Reads what [`Reference::write`] wrote; none if there is no such file, or if it is of another model.
    ///
    /// # Errors
    /// [`TrainError::Io`]; [`TrainError::Checkpoint`] for a malformed file.
    pub fn read(path: &Path, model: &str) -> Result<Option<Self>> {
        if !path.is_file() {
            return Ok(None);
        }
        let found: Self = serde_json::from_str(&read_text(path)?).map_err(|e| broken(path, e))?;
        if found.measures.values().any(|values| values.len() != found.sources.len()) {
            return Err(broken(path, "measures of another number of items than it has"));
        }
        Ok((found.model == model).then_some(found))
    }

    /// Writes them, in place of what may be there.
    ///
    /// # Errors
    /// [`TrainError::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).map_err(|e| TrainError::Io { path: path.to_owned(), source: e.into() })?;
        replace_file(path, &text)
    }
}

impl Judged {
    /// Measures that are compared with nothing.
    pub fn alone(measures: Measures) -> Self {
        let items = (0..measures.len()).collect();
        Self { items, measures, p: BTreeMap::new(), continued: BTreeMap::new(), unusual: Vec::new(), references: 0 }
    }

    /// A column of numbers: of a measure, a p-value, or `unusual`; none that is not there.
    pub fn column(&self, name: &str) -> Option<&[f64]> {
        let measures = self.measures.0.iter().map(|(measure, values)| (measure.column(), values));
        let p = self.p.iter().map(|(column, values)| (*column, values));
        let unusual = (!self.unusual.is_empty()).then_some(("unusual", &self.unusual));
        measures.chain(p).chain(unusual).find(|(column, _)| *column == name).map(|(_, values)| values.as_slice())
    }

    /// Every score that has a direction, by its column, turned so that it is high where an item is unusual: measures,
    /// p-values whose order goes on beyond the reference items, and `unusual`.
    pub fn unusualness(&self) -> Vec<(&'static str, Vec<f64>)> {
        let negative = |values: &[f64]| values.iter().map(|value| -value).collect::<Vec<f64>>();
        let mut scores = Vec::new();
        for (measure, values) in &self.measures.0 {
            match measure {
                Measure::ComplexityBits => {}
                _ if measure.is_unusual_high() => scores.push((measure.column(), values.clone())),
                _ => scores.push((measure.column(), negative(values))),
            }
            // A one-sided p-value has the order of its measure.
            let two_sided = measure.sides().iter().filter(|(_, side)| *side == Side::Both);
            scores.extend(two_sided.filter_map(|(column, _)| Some((*column, negative(self.continued.get(column)?)))));
        }
        if !self.unusual.is_empty() {
            scores.push(("unusual", self.unusual.clone()));
        }
        scores
    }

    /// Which items are unusual at a rate of false alarms: of usual items a share of at most `rate` is, on average over
    /// reference items ([`Judged::takes`] says of how many at the least).
    pub fn flagged(&self, rate: f64) -> Vec<bool> {
        // Sums of shares are rounded.
        self.unusual.iter().map(|unusual| 1.0 - unusual <= rate * (1.0 + 1e-9)).collect()
    }

    /// How many reference items a rate of false alarms takes: with fewer no rank is as rare.
    pub fn takes(rate: f64) -> usize {
        num_traits::cast((1.0 / rate - 1e-9).ceil() - 1.0).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "quotients of small numbers, and what is as far out as can be")]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use rand_distr::StandardNormal;

    /// Three measures that depend on each other.
    fn measures(rng: &mut ChaCha8Rng, items: usize, shift: f64) -> Measures {
        let values: Vec<[f64; 2]> =
            (0..items).map(|_| [rng.sample::<f64, _>(StandardNormal) + shift, rng.sample(StandardNormal)]).collect();
        let column = |f: fn(&[f64; 2]) -> f64| values.iter().map(f).collect();
        Measures(
            [
                (Measure::LogLikelihood, column(|v| 3.0 * v[0])),
                (Measure::ComplexityBits, column(|v| v[1].exp())),
                (Measure::Corrected, column(|v| -v[0] - v[1])),
            ]
            .into(),
        )
    }

    /// Of usual items a share α is unusual to 1 − α, by whichever way they are put together.
    #[test]
    fn shares_of_usual_items_are_what_is_said() {
        for (aggregate, each) in [(Aggregate::None, 1), (Aggregate::Max, 4), (Aggregate::Mean, 4)] {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let (n, items) = (1500, 4000);
            let reference =
                Reference::new(Kind::Picture, measures(&mut rng, n * each, 0.0), (0..n * each).map(|i| i / each).collect(), String::new());
            let groups = Groups::of_sources((0..items * each).map(|i| i / each));
            let judged = reference.judge(&measures(&mut rng, items * each, 0.0), &groups, aggregate);
            assert_eq!((judged.references, judged.unusual.len(), judged.items.len()), (n, items, items));
            for rate in [0.01, 0.05, 0.3] {
                let share = judged.flagged(rate).iter().filter(|flagged| **flagged).count() as f64 / items as f64;
                // Four standard deviations of both samples.
                let error = 4.0 * (rate * (1.0 - rate) * (1.0 / n as f64 + 1.0 / items as f64)).sqrt();
                assert!((share - rate).abs() < error, "{aggregate:?}: {share} where {rate} is said, ± {error}");
            }
            // Items that are too likely are unusual, and so are those that are too unlikely.
            for shift in [-6.0, 6.0] {
                let odd = reference.judge(
                    &measures(&mut rng, 40 * each, shift),
                    &Groups::of_sources((0..40 * each).map(|i| i / each)),
                    aggregate,
                );
                assert!(odd.unusual.iter().all(|unusual| *unusual > 0.99 && *unusual < 1.0), "{aggregate:?}, {shift}: {:?}", odd.unusual);
            }
        }
    }

    #[test]
    fn what_is_no_number_is_the_most_unusual_and_order_goes_on() {
        let of = |values: &[f64]| Measures([(Measure::LogLikelihood, values.to_vec())].into());
        let reference = Reference::new(Kind::Picture, of(&[1.0, 2.0, 3.0, 4.0, 5.0]), (0..5).collect(), String::new());
        let judged = reference.judge(&of(&[3.0, 0.0, -10.0, -11.0, f64::NAN, 99.0]), &Groups::single(6), Aggregate::None);
        let unusual = &judged.unusual;
        assert!(unusual[..5].is_sorted_by(|a, b| a < b) && unusual[4] == 1.0 && unusual[5] > unusual[3], "{unusual:?}");
        // Of table rows the likeliest is usual.
        let rows = Reference::new(Kind::Row, of(&[1.0, 2.0, 3.0, 4.0, 5.0]), (0..5).collect(), String::new());
        let unusual = rows.judge(&of(&[99.0, -10.0]), &Groups::single(2), Aggregate::None).unusual;
        assert!(unusual[0] < 0.01 && unusual[1] > 0.8, "{unusual:?}");
    }

    #[test]
    fn the_most_unusual_item_stands_for_its_source() {
        let of = |values: &[f64]| Measures([(Measure::LogLikelihood, values.to_vec())].into());
        let reference =
            Reference::new(Kind::Row, of(&(0..200).map(f64::from).collect::<Vec<_>>()), (0..200).map(|i| i / 2).collect(), String::new());
        let found = of(&[100.0, -3.0, 50.0, 150.0, 160.0]);
        let judged = reference.judge(&found, &Groups::of_sources([7, 7, 7, 1, 1]), Aggregate::Max);
        assert_eq!((judged.items, judged.measures.get(Measure::LogLikelihood)), (vec![1, 3], Some(&[-3.0, 150.0][..])));
        let judged = reference.judge(&found, &Groups::of_sources([7, 7, 7, 1, 1]), Aggregate::Mean);
        assert_eq!((judged.items, judged.measures.get(Measure::LogLikelihood)), (vec![0, 3], Some(&[49.0, 155.0][..])));
    }

    #[test]
    fn references_are_kept_with_their_model() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reference.json");
        assert_eq!(Reference::read(&path, "a").unwrap(), None);
        let measures = Measures([(Measure::LogLikelihood, vec![1.5, f64::NAN])].into());
        let reference = Reference::new(Kind::Row, measures, vec![4, 4], "a".to_owned());
        reference.write(&path).unwrap();
        assert_eq!(Reference::read(&path, "a").unwrap(), Some(reference));
        assert_eq!(Reference::read(&path, "b").unwrap(), None);
        for (text, message) in [("{", "EOF"), (&std::fs::read_to_string(&path).unwrap().replace("[4,4]", "[4]"), "another number of items")]
        {
            std::fs::write(&path, text).unwrap();
            let error = Reference::read(&path, "a").unwrap_err().to_string();
            assert!(error.contains("reference.json: ") && error.contains(message), "{error}");
        }
    }

    #[test]
    fn rare_alarms_take_many_references() {
        for (rate, items) in [(0.01, 99), (0.05, 19), (0.5, 1), (0.001, 999), (0.3, 3)] {
            assert_eq!(Judged::takes(rate), items);
        }
    }
}
