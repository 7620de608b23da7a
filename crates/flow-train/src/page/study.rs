//! The page that shows a study, with all pictures in it.

use super::{Page, Table, png_address};
use crate::Result;
use crate::study::{Budget, Results};
use crate::study::{Figure, Shown};
use crate::text::count;

fn budget(budget: Budget) -> String {
    match budget {
        Budget::Steps(steps) => count(steps, "step"),
        Budget::Epochs(epochs) => count(epochs, "epoch"),
        Budget::Seconds(seconds) => format!("{seconds} seconds of training steps"),
        Budget::MultiplyAdds(all) => format!("{all:e} multiply-adds of training steps"),
    }
}

/// The whole page; pictures have captions.
pub(crate) fn html(results: &Results, figures: &[Figure], pictures: &[(String, Vec<u8>)]) -> Result<String> {
    let study = &results.study;
    let items: Vec<String> = results.data.iter().map(|data| format!("{} of {}", count(data.test, "test item"), data.name)).collect();
    let seeds: Vec<String> = study.seeds.iter().map(u64::to_string).collect();
    let lead = format!(
        "{}{}Each trained for {} of {} with seed{} {}. A lower test loss is better; ± beside it is its standard error over items: {}.",
        study.question,
        if study.question.is_empty() { "" } else { " " },
        budget(study.budget),
        count(study.settings.batch, "item"),
        if seeds.len() > 1 { "s" } else { "" },
        seeds.join(", "),
        items.join(", "),
    );
    let mut page = Page::new("Study:", &study.title, &lead);
    let table = results.table();
    let has = |head: &str| table.heads.iter().any(|known| known == head);
    show(&mut page, &results.table().ranked());
    page.legend(&legend(&has));
    if !study.remarks.is_empty() {
        page.note(&study.remarks);
    }
    results.notes().iter().for_each(|note| page.note(note));
    for (heading, table) in [("Probes", results.probes()), ("Published figures", results.published())] {
        if !table.rows.is_empty() {
            page.heading(heading);
            show(&mut page, &table);
        }
    }
    for figure in figures {
        page.heading(&figure.title);
        page.plot(&figure.svg, &figure.title);
    }
    if pictures.len() > 1 {
        page.heading("Samples");
        page.pictures("grids", pictures.iter().map(|(caption, png)| (caption.as_str(), png_address(png))));
    }
    page.heading("Specs");
    let mut told: Vec<(&str, &str)> = Vec::new();
    for run in &results.runs {
        if !told.contains(&(run.data.as_str(), run.variant.as_str())) {
            told.push((&run.data, &run.variant));
            let name = if study.data.len() > 1 { format!("{}: {}", run.data, run.variant) } else { run.variant.clone() };
            page.details(&name, &run.spec);
        }
    }
    page.details("the study", &results.study_text()?);
    let versions = &results.versions;
    let hashes: Vec<String> = results.data.iter().map(|data| format!("{} {}", data.name, data.hash)).collect();
    page.legend(&format!(
        "{}Toolkit {}, {}, {}, {}. CRC-32 of the data: {}.",
        if versions.date.is_empty() { String::new() } else { format!("Begun on {}. ", versions.date) },
        versions.toolkit,
        count(versions.threads, "thread"),
        versions.instruction_set,
        versions.system,
        hashes.join(", ")
    ));
    Ok(page.finish())
}

fn show(page: &mut Page, Shown { heads, rows, words, best }: &Shown) {
    page.table(&Table { heads, rows, words: *words, best: *best });
}

/// What the columns are.
fn legend(has: &dyn Fn(&str) -> bool) -> String {
    let mut legend =
        "s/step: seconds a training step. multiply-adds: of matrix products for an item forward, of adaptive ODE solves at the \
                      least. scored/s, sampled/s: items a second. inverse error: largest |f⁻¹(f(x)) − x|."
            .to_owned();
    for (head, text) in [
        ("over seeds", " over seeds: the standard deviation of the test loss, and how many seeds there are."),
        ("peak MiB", " peak MiB: the most memory in training and test, besides the data."),
        ("accuracy", " accuracy: of the classifier on test items, ± its standard error."),
        ("probe of latents", " probe of latents: test accuracy of a linear classifier of the frozen latents."),
        (
            "borders of samples",
            " borders: mean |difference| of neighbouring pixels across the borders of patches over that within patches.",
        ),
        ("evaluations", " evaluations: of the networks of iterative flows in one pass, forward / inverse."),
    ] {
        if has(head) {
            legend.push_str(text);
        }
    }
    legend
}
