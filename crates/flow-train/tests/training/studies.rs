//! Studies: their table, their files, their failures, and their end on request.

use crate::{StopAfter, never};
use flow_api::spec::from_ron;
use flow_train::data::DataSource;
use flow_train::study::{self, Audience, Budget, Results, Study, StudyData, Variant};
use flow_train::{Observer, Settings, Silent, Trainer};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

const SMALL: &str =
    "MixerFlow(patch: 4, layers: 1, shift: None, channel: [ActNorm(), AdditiveCoupling(hidden: 4)], patches: [ActNorm(), LuLinear()])";

fn study(source: &str, specs: &[(&str, &str)], settings: Settings) -> Study {
    let source: DataSource = source.parse().unwrap();
    let variants =
        specs.iter().map(|(name, text)| Variant { name: (*name).to_owned(), spec: Some(from_ron(text).unwrap()), ..Variant::default() });
    let budget = Budget::Steps(settings.steps);
    Study { budget, settings, ..Study::new(vec![StudyData { name: "a <set>".to_owned(), source }], variants.collect()) }
}

#[test]
fn every_run_has_a_row_or_a_reason_and_all_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings { steps: 6, batch: 16, learning_rate: 0.1, report_every: 3, ..Settings::default() };
    let specs = [("one", SMALL), ("two", SMALL), ("vectors", "VectorFlow(flows: [LuLinear()])")];
    let study = Study { seeds: vec![1, 2], ..study("digits", &specs, settings) };
    let results = study::run::<f32>(&study, folder.path(), &mut Silent, &never()).unwrap();

    let losses: Vec<u64> = results.runs.iter().map(|run| run.test.loss.to_bits()).collect();
    let [a1, b1, a2, b2] = losses[..] else { panic!("{results}") };
    assert!(a1 == b1 && a2 == b2 && a1 != a2, "a seed gives a model: {results}");
    let first = &results.runs[0];
    assert_eq!(
        (first.flows.as_str(), first.steps, first.history.len(), first.parameters),
        ("AdditiveCoupling", 6, 2, results.runs[1].parameters)
    );
    assert_eq!(results.failed.len(), 2);
    assert!(results.failed.iter().all(|failed| failed.variant == "vectors" && failed.reason.contains("expected vectors")), "{results}");

    let json: Results = serde_json::from_slice(&std::fs::read(folder.path().join("results.json")).unwrap()).unwrap();
    assert_eq!(json.runs, results.runs);
    let page = std::fs::read_to_string(folder.path().join("index.html")).unwrap();
    for file in ["items.png", "samples-one.png", "samples-two.png"] {
        let picture = image::open(folder.path().join(file)).unwrap();
        assert!(picture.width() > 400 && picture.to_rgb8().pixels().any(|p| p != picture.to_rgb8().get_pixel(0, 0)), "{file}");
    }
    assert_eq!(page.matches("<img src=\"data:image/png").count(), 3, "all pictures are on the page itself");
    assert!(page.contains("a &lt;set&gt;") && !page.contains("<set>"));
    for (file, axis) in [("steps.svg", "optimiser steps"), ("seconds.svg", "seconds of training"), ("parameters.svg", "parameters")] {
        let svg = std::fs::read_to_string(folder.path().join(file)).unwrap();
        assert!(svg.contains(axis) && page.contains(&svg), "{file} is on the page, with texts that are texts");
    }

    // The page ranks specs and baselines by loss.
    let cells = |row: &str, tag: &str| -> Vec<String> {
        row.split(tag).skip(1).map(|cell| cell.split_once('>').unwrap().1.split('<').next().unwrap().to_owned()).collect()
    };
    let (head, body) = page.split_once("<tbody>").unwrap();
    let at = cells(head.split_once("<thead>").unwrap().1, "<th").iter().position(|head| head.starts_with("test ")).unwrap();
    let rows: Vec<Vec<String>> = body.split("</tbody>").next().unwrap().split("<tr").skip(1).map(|row| cells(row, "<td")).collect();
    let ranks: Vec<f64> = rows.iter().map(|row| row[at].split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(ranks.is_sorted() && rows.len() == 6 && rows.iter().any(|row| row[0] == "one"), "{rows:?}");
    assert!(page.contains("Begun on 20"));

    // The mean over two seeds, and their standard deviation.
    let table = results.to_string();
    let [a, b] = [f64::from_bits(a1), f64::from_bits(a2)];
    assert!((a - b).abs() > 0.01, "far enough apart for three digits to tell of it: {a} and {b}");
    let (mean, spread) = (format!(" {:.3} ± ", 0.5 * (a + b)), format!("± {:.3} (2)", (a - b).abs() / 2f64.sqrt()));
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("spec ") && lines[0].contains("test bits/dim"), "{table}");
    let line = lines.iter().find(|line| line.starts_with("one ")).unwrap();
    assert!(line.contains(&mean) && line.contains(&spread), "{mean}{spread}: {table}");
    let width = lines[0].chars().count();
    assert!(lines[1..6].iter().all(|line| line.chars().count() == width), "{table}");
    assert!(lines.iter().any(|line| line.starts_with("vectors, seed 2: failed: ")), "{table}");
    for baseline in ["uniform", "a histogram of each value", "one normal density", "one PNG of all pictures"] {
        assert!(lines.iter().any(|line| line.starts_with(&format!("baseline: {baseline} "))), "{baseline}: {table}");
    }
}

static STOP: AtomicBool = AtomicBool::new(false);

/// Stops the run named two.
struct Stopping;

impl Audience<f64> for Stopping {
    fn begins(&mut self, run: &str) -> Box<dyn Observer<f64> + Send> {
        if run == "two" { Box::new(StopAfter(203, &STOP)) } else { Box::new(Silent) }
    }
}

/// The steps that runs are taken up at.
#[derive(Clone, Default)]
struct Begun(Arc<Mutex<Vec<u64>>>);

impl Audience<f64> for Begun {
    fn begins(&mut self, _: &str) -> Box<dyn Observer<f64> + Send> {
        Box::new(self.clone())
    }
}

impl Observer<f64> for Begun {
    fn begin(&mut self, trainer: &Trainer<f64>) -> flow_train::Result<()> {
        self.0.lock().unwrap().push(trainer.optimiser().steps());
        Ok(())
    }
}

/// The run in training is not tested any more: what is asked to end does so at once.
#[test]
fn a_stopped_study_keeps_what_is_done_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let linear = "VectorFlow(flows: [LuLinear()])";
    let specs = [("one", "VectorFlow(flows: [ActNorm(), LuLinear()])"), ("two", linear), ("three", linear)];
    let settings = Settings { steps: 1000, batch: 16, report_every: 100, ..Settings::default() };
    let study = study("toy:two-moons?n=200", &specs, settings);
    let results = study::run(&study, folder.path(), &mut Stopping, &STOP).unwrap();
    assert!(results.stopped && results.failed.is_empty());
    assert_eq!(results.runs.iter().map(|run| (run.variant.as_str(), run.steps)).collect::<Vec<_>>(), [("one", 1000)]);
    assert_eq!(results.unfinished.as_ref().map(|two| (two.variant.as_str(), two.history.len())), Some(("two", 2)));
    assert!(results.to_string().contains("two: stopped before its end, last reported at step 200, and not tested\n"), "{results}");
    // Points of the plane are pictured as such.
    assert!(results.runs[0].pictured && folder.path().join("items.png").is_file());

    let mut begun = Begun::default();
    let results = study::run::<f64>(&study, folder.path(), &mut begun, &never()).unwrap();
    assert_eq!(*begun.0.lock().unwrap(), [203, 0], "the first is not touched, the second goes on, the third is new");
    assert_eq!(results.runs.iter().map(|run| run.steps).collect::<Vec<_>>(), [1000; 3]);
    // The same spec and seed, once in two parts and once in one.
    assert_eq!(results.runs[1].test.loss.to_bits(), results.runs[2].test.loss.to_bits());
}

/// Budgets that are no steps become as many as there is room for.
#[test]
fn budgets_become_steps() {
    let specs = [("one", SMALL)];
    let settings = Settings { batch: 16, report_every: 100, ..Settings::default() };
    let steps = |budget| {
        let folder = tempfile::tempdir().unwrap();
        let study = Study { budget, samples: false, ..study("digits:?take=40,8", &specs, settings.clone()) };
        let results = study::run::<f32>(&study, folder.path(), &mut Silent, &never()).unwrap();
        let run = &results.runs[0];
        (run.steps, run.training_multiply_adds, run.multiply_adds as f64, run.seconds)
    };
    assert_eq!(steps(Budget::Epochs(2)).0, 5);
    let (_, _, forward, _) = steps(Budget::Steps(1));
    assert!(forward > 0.0);
    let (made, all, ..) = steps(Budget::MultiplyAdds(3.0 * 16.0 * forward * 7.5));
    assert_eq!((made, all), (7, 3.0 * 16.0 * forward * 7.0));
    // As long as the steps of one batch take here, however long that is.
    assert!(steps(Budget::Seconds(1e-9)).0 == 1 && steps(Budget::Seconds(0.05)).0 > 1);
}
