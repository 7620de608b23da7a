//! A comparison: its table, its files, its failures, and its end on request.

use crate::{StopAfter, never};
use flow_api::spec::{ModelSpec, Spec, from_ron};
use flow_train::compare::{Comparison, Plan, compare};
use flow_train::data::{self, Split};
use flow_train::{EvaluateOptions, Observer, Settings, Silent};
use std::sync::atomic::AtomicBool;

const SMALL: &str =
    "MixerFlow(patch: 4, layers: 1, shift: None, channel: [ActNorm(), AdditiveCoupling(hidden: 4)], patches: [ActNorm(), LuLinear()])";

fn specs(texts: &[(&str, &str)]) -> Vec<(String, Spec<dyn ModelSpec>)> {
    texts.iter().map(|(name, text)| ((*name).to_owned(), from_ron(text).unwrap())).collect()
}

fn plan<'a>(specs: &'a [(String, Spec<dyn ModelSpec>)], split: &'a Split, settings: &'a Settings, folder: &'a std::path::Path) -> Plan<'a> {
    Plan { specs, data: "a <set>", split, settings, evaluation: EvaluateOptions::default(), folder }
}

#[test]
fn every_spec_gets_a_row_or_a_reason_and_all_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let specs = specs(&[("same name", SMALL), ("same/name", SMALL), ("vectors", "VectorFlow(flows: [LuLinear()])")]);
    let settings = Settings { steps: 6, batch: 16, report_every: 3, ..Settings::default() };
    let split = data::digits().unwrap();
    let comparison = compare::<f32>(&plan(&specs, &split, &settings, folder.path()), &mut |_| Box::new(Silent), &never()).unwrap();

    let [first, second] = comparison.rows.as_slice() else { panic!("{comparison}") };
    assert_eq!((first.parameters, first.flows.as_str(), first.steps), (second.parameters, "AdditiveCoupling", 6));
    assert_eq!(first.test.loss.to_bits(), second.test.loss.to_bits(), "the same seed gives the same model");
    assert_eq!(first.history.len(), 2);
    let [failure] = comparison.failed.as_slice() else { panic!("{comparison}") };
    assert!(failure.spec == "vectors" && failure.reason.contains("expected vectors"), "{failure:?}");

    let json: Comparison = serde_json::from_slice(&std::fs::read(folder.path().join("comparison.json")).unwrap()).unwrap();
    assert_eq!((json.rows.len(), &json.settings), (2, &settings));
    let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
    let pictures = ["items.png", "samples-same-name-1.png", "samples-same-name-2.png"];
    for file in pictures {
        assert!(page.contains(file), "{file} is not on the page");
        let picture = image::open(folder.path().join(file)).unwrap();
        assert!(picture.width() > 400 && picture.to_rgb8().pixels().any(|p| p != picture.to_rgb8().get_pixel(0, 0)), "{file}");
    }
    assert!(page.contains("a &lt;set&gt;") && !page.contains("<set>"));
    assert!(page.contains("<svg") && page.contains("optimiser steps"), "the curves are on the page, with texts that are texts");

    let table = comparison.to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("spec ") && lines[0].contains("test bits/dim"), "{table}");
    let width = lines[0].chars().count();
    assert!(lines[1..4].iter().all(|line| line.chars().count() == width), "{table}");
    assert!(lines[4].starts_with("vectors: failed: "), "{table}");
}

static STOP: AtomicBool = AtomicBool::new(false);

/// The spec in training is not tested any more: what is asked to end does so at once.
#[test]
fn a_stopped_comparison_keeps_what_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let linear = "VectorFlow(flows: [LuLinear()])";
    let specs = specs(&[("one", "VectorFlow(flows: [ActNorm(), LuLinear()])"), ("two", linear), ("three", linear)]);
    let settings = Settings { steps: 1000, batch: 16, report_every: 100, ..Settings::default() };
    let split = "toy:two-moons?n=200".parse::<data::DataSource>().unwrap().open(1).unwrap();
    let mut observe =
        |name: &str| -> Box<dyn Observer<f64> + Send> { if name == "two" { Box::new(StopAfter(203, &STOP)) } else { Box::new(Silent) } };
    let comparison = compare(&plan(&specs, &split, &settings, folder.path()), &mut observe, &STOP).unwrap();
    assert!(comparison.stopped && comparison.failed.is_empty());
    assert_eq!(comparison.rows.iter().map(|row| (row.spec.as_str(), row.steps)).collect::<Vec<_>>(), [("one", 1000)]);
    assert_eq!(comparison.unfinished.as_ref().map(|two| (two.spec.as_str(), two.history.len())), Some(("two", 2)));
    assert!(comparison.to_string().contains("two: stopped after 203 of 1000 steps, and not tested\n"), "{comparison}");
    // Points of the plane are pictured as such.
    assert_eq!(comparison.rows[0].samples.as_deref(), Some("samples-one.png"));
    assert!(folder.path().join("index.html").is_file() && folder.path().join("items.png").is_file());
}
