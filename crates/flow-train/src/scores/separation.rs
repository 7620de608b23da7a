//! How well a score tells unusual items from usual ones.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// A number and its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// The number.
    pub value: f64,
    /// Its standard error, by bootstrap over the sources of items.
    pub error: f64,
}

/// How well a score tells two sets apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Separation {
    /// Area under the ROC curve: the probability that an unusual item scores above a usual one, ties counted half. ½ is
    /// chance; below it the score is inverted.
    pub auroc: Figure,
    /// Average precision Σ (Rₖ − Rₖ₋₁) Pₖ over thresholds, unusual items being what is looked for. Chance is their
    /// share of all items.
    pub average_precision: Figure,
    /// Share of usual items above the threshold that finds 95 % of the unusual ones.
    pub false_positives_at_95: Figure,
}

/// Compares the scores of usual and of unusual items, larger ones being more unusual, with the source of every item:
/// items of one source are drawn together where errors are estimated.
///
/// ```
/// let found = flow_train::scores::separation((&[1.0, 2.0, 3.0], &[0, 1, 2]), (&[2.5, 9.0], &[0, 1]), 0);
/// assert!((found.auroc.value - 5.0 / 6.0).abs() < 1e-12);
/// assert!((found.average_precision.value - (0.5 + 0.5 * 2.0 / 3.0)).abs() < 1e-12);
/// assert!((found.false_positives_at_95.value - 1.0 / 3.0).abs() < 1e-12);
/// ```
pub fn separation(usual: (&[f64], &[usize]), unusual: (&[f64], &[usize]), seed: u64) -> Separation {
    const SAMPLES: usize = 200;
    let key = |score: f64| if score.is_nan() { f64::INFINITY } else { score };
    let side = |scores: &[f64], is_unusual: bool| scores.iter().enumerate().map(|(i, s)| (key(*s), is_unusual, i)).collect::<Vec<_>>();
    let mut sorted = [side(usual.0, false), side(unusual.0, true)].concat();
    // Highest first; where scores are equal the order does not matter.
    sorted.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (places_usual, count_usual) = places(usual.1);
    let (places_unusual, count_unusual) = places(unusual.1);
    let whole = figures(&sorted, |_, _| 1.0);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut samples = [const { Vec::new() }; 3];
    for _ in 0..SAMPLES {
        let (drawn_usual, drawn_unusual) = (drawn(count_usual, &mut rng), drawn(count_unusual, &mut rng));
        let weight = |is_unusual: bool, i: usize| {
            if is_unusual { drawn_unusual[places_unusual[i]] } else { drawn_usual[places_usual[i]] }
        };
        for (samples, figure) in samples.iter_mut().zip(figures(&sorted, weight)) {
            samples.push(figure);
        }
    }
    let figure = |at: usize| Figure { value: whole[at], error: deviation(&samples[at]) };
    Separation { auroc: figure(0), average_precision: figure(1), false_positives_at_95: figure(2) }
}

/// The sources of items numbered from 0, and how many there are.
fn places(sources: &[usize]) -> (Vec<usize>, usize) {
    let groups = super::Groups::of_sources(sources.iter().copied());
    let mut places = vec![0; sources.len()];
    groups.0.iter().enumerate().for_each(|(place, items)| items.iter().for_each(|&item| places[item] = place));
    (places, groups.0.len())
}

/// How often each of `count` sources is drawn in as many draws.
fn drawn(count: usize, rng: &mut ChaCha8Rng) -> Vec<f64> {
    let mut times = vec![0.0; count];
    (0..count).for_each(|_| times[rng.gen_range(0..count)] += 1.0);
    times
}

fn deviation(values: &[f64]) -> f64 {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (values.len() as f64 - 1.0)).sqrt()
}

/// The three figures of items in the order of their scores, highest first, each with a weight: one sweep over
/// thresholds.
fn figures(sorted: &[(f64, bool, usize)], weight: impl Fn(bool, usize) -> f64) -> [f64; 3] {
    const RECALL: f64 = 0.95;
    let total = |wanted: bool| sorted.iter().filter(|(_, is, _)| *is == wanted).map(|(_, is, i)| weight(*is, *i)).sum::<f64>();
    let (all_usual, all_unusual) = (total(false), total(true));
    let (mut usual, mut unusual, mut area, mut precision, mut at_recall) = (0.0, 0.0, 0.0, 0.0, None);
    for equal in sorted.chunk_by(|a, b| a.0.total_cmp(&b.0).is_eq()) {
        let (mut more_usual, mut more_unusual) = (0.0, 0.0);
        for (_, is_unusual, i) in equal {
            *(if *is_unusual { &mut more_unusual } else { &mut more_usual }) += weight(*is_unusual, *i);
        }
        area += more_unusual * (all_usual - usual - 0.5 * more_usual);
        (usual, unusual) = (usual + more_usual, unusual + more_unusual);
        if more_unusual > 0.0 {
            precision += more_unusual * unusual / (usual + unusual);
        }
        if at_recall.is_none() && unusual >= RECALL * all_unusual - 1e-9 {
            at_recall = Some(usual / all_usual);
        }
    }
    [area / (all_usual * all_unusual), precision / all_unusual, at_recall.unwrap_or(f64::NAN)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auroc;

    fn normal(seed: u64, items: usize, shift: f64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        (0..items).map(|_| (rng.sample::<f64, _>(rand_distr::StandardNormal) + shift).max(-0.5)).collect()
    }

    fn own(items: usize) -> Vec<usize> {
        (0..items).collect()
    }

    /// Against counting pairs, and against thresholds one by one; with ties.
    #[test]
    fn one_sweep_gives_what_counting_gives() {
        let (usual, unusual) = (normal(1, 300, 0.0), normal(2, 120, 1.0));
        let found = separation((&usual, &own(300)), (&unusual, &own(120)), 0);
        let negative = |values: &[f64]| values.iter().map(|v| -v).collect::<Vec<f64>>();
        assert!((found.auroc.value - auroc(&negative(&usual), &negative(&unusual))).abs() < 1e-12);
        let above = |values: &[f64], t: f64| values.iter().filter(|v| **v >= t).count() as f64;
        let mut thresholds = [usual.clone(), unusual.clone()].concat();
        thresholds.sort_by(|a, b| b.total_cmp(a));
        thresholds.dedup();
        let (mut precision, mut recall) = (0.0, 0.0);
        for &t in &thresholds {
            let (found, wrong) = (above(&unusual, t), above(&usual, t));
            precision += (found / 120.0 - recall) * found / (found + wrong);
            recall = found / 120.0;
        }
        assert!((found.average_precision.value - precision).abs() < 1e-12);
        let t = thresholds.iter().find(|t| above(&unusual, **t) >= 0.95 * 120.0).unwrap();
        assert!((found.false_positives_at_95.value - above(&usual, *t) / 300.0).abs() < 1e-12);
        assert_eq!(separation((&usual, &own(300)), (&unusual, &own(120)), 0), found, "the same seed");
    }

    /// The bootstrap's errors are the spread of the figures over data sets, and grow where items come in equal sets.
    #[test]
    fn errors_are_those_of_other_data() {
        let runs: Vec<Separation> = (0..60)
            .map(|run| separation((&normal(100 + run, 200, 0.0), &own(200)), (&normal(500 + run, 100, 1.0), &own(100)), 0))
            .collect();
        for figure in [|s: &Separation| s.auroc, |s: &Separation| s.average_precision, |s: &Separation| s.false_positives_at_95] {
            let spread = deviation(&runs.iter().map(|run| figure(run).value).collect::<Vec<_>>());
            let told = runs.iter().map(|run| figure(run).error).sum::<f64>() / 60.0;
            assert!((0.7..1.4).contains(&(told / spread)), "{told} where {spread} was seen");
        }
        let (usual, unusual) = (normal(1, 50, 0.0).repeat(4), normal(2, 25, 1.0).repeat(4));
        let cut = |items: usize, each: usize| (0..items).map(|i| i % each).collect::<Vec<_>>();
        let apart = separation((&usual, &own(200)), (&unusual, &own(100)), 0).auroc.error;
        let together = separation((&usual, &cut(200, 50)), (&unusual, &cut(100, 25)), 0).auroc.error;
        assert!((1.6..2.5).contains(&(together / apart)), "{together} and {apart}");
    }
}
