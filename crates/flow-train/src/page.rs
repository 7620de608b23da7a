//! The page that shows a comparison.

use crate::compare::{Comparison, LOSS, WORDS};
use std::fmt::Write as _;

/// The whole page; its pictures stand beside it.
pub(crate) fn html(comparison: &Comparison, curves: bool) -> String {
    let settings = &comparison.settings;
    let data = escape(&comparison.data);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Flows compared on {data}</title>\n<style>{STYLE}</style>\n<main>\n<header>\n\
         <h1>Flows compared on <span>{data}</span></h1>\n<p>Each trained for {} steps of {} items with seed {}. A lower test loss is better; ± is its standard error over {} test items.</p>\n</header>\n",
        settings.steps,
        settings.batch,
        settings.seed,
        comparison.rows.first().map_or(0, |row| row.test.items),
    );
    table(&mut page, comparison);
    for note in comparison.notes() {
        let _ = writeln!(page, "<p class=\"note\">{}</p>", escape(&note));
    }
    if curves {
        page.push_str(
            "<h2>Learning curves</h2>\n<picture><source srcset=\"curves-dark.png\" media=\"(prefers-color-scheme: dark)\">\
             <img class=\"plot\" src=\"curves.png\" alt=\"Loss over optimiser steps\"></picture>\n",
        );
    }
    samples(&mut page, comparison);
    page.push_str("<h2>Specs</h2>\n");
    for row in &comparison.rows {
        let _ = writeln!(page, "<details><summary>{}</summary><pre>{}</pre></details>", escape(&row.spec), escape(&row.text));
    }
    page.push_str("</main>\n</html>\n");
    page
}

fn table(page: &mut String, comparison: &Comparison) {
    let best = comparison.rows.iter().map(|row| row.test.loss).fold(f64::INFINITY, f64::min);
    let (heads, lines) = comparison.table();
    page.push_str("<div class=\"wide\"><table>\n<thead><tr>");
    for (column, head) in heads.iter().enumerate() {
        let _ = write!(page, "<th{}>{}</th>", class(column), escape(head));
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for (row, line) in comparison.rows.iter().zip(&lines) {
        page.push_str(if row.test.loss <= best { "<tr class=\"best\">" } else { "<tr>" });
        for (column, cell) in line.iter().enumerate() {
            let _ = write!(page, "<td{}>{}</td>", class(column), escape(cell));
        }
        page.push_str("</tr>\n");
    }
    page.push_str(
        "</tbody></table></div>\n<p class=\"legend\">s/step: seconds a training step. scored/s, sampled/s: items a second. inverse error: largest |f⁻¹(f(x)) − x|.",
    );
    if heads.last().is_some_and(|head| head == "evaluations") {
        page.push_str(" evaluations: of the networks of iterative flows in one pass, forward / inverse.");
    }
    page.push_str("</p>\n");
}

/// The class of a cell: words stand left, and the loss is what the best line is best in.
fn class(column: usize) -> &'static str {
    match column {
        0 => " class=\"words main\"",
        LOSS => " class=\"main\"",
        _ if column < WORDS => " class=\"words\"",
        _ => "",
    }
}

fn samples(page: &mut String, comparison: &Comparison) {
    let pictures = comparison.rows.iter().filter_map(|row| Some((row.spec.as_str(), row.samples.as_deref()?)));
    let items = comparison.items.as_deref().map(|file| ("the data: test items", file));
    let all: Vec<(&str, &str)> = items.into_iter().chain(pictures).collect();
    if all.len() < 2 {
        return;
    }
    page.push_str("<h2>Samples</h2>\n<div class=\"grids\">\n");
    for (name, file) in all {
        let (name, file) = (escape(name), escape(file));
        let _ = writeln!(page, "<figure><img src=\"{file}\" alt=\"{name}\" loading=\"lazy\"><figcaption>{name}</figcaption></figure>");
    }
    page.push_str("</div>\n");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = "
:root { color-scheme: light dark; --paper: light-dark(#fff, #14161a); --card: light-dark(#f6f7f9, #1b1e24); --ink: light-dark(#1d2024, #e4e6ea);
  --soft: light-dark(#5d636d, #a2a9b4); --line: light-dark(#e0e3e8, #333943); --best: light-dark(#e9f4ec, #1c2f23); --mark: light-dark(#2563b8, #7fb2f5); }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 2.6rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .5rem; letter-spacing: -.01em; } h1 span { color: var(--mark); overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .9rem; }
header p, .legend { color: var(--soft); margin: 0; } .legend { font-size: .86rem; margin-top: .6rem; }
.wide { overflow-x: auto; margin-top: 1.6rem; border: 1px solid var(--line); border-radius: 10px; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .55rem .7rem; text-align: right; } .words { text-align: left; }
th { font-weight: 600; color: var(--soft); background: var(--card); } tbody tr { border-top: 1px solid var(--line); }
tr.best { background: var(--best); } tr.best .main { font-weight: 650; }
.note { margin: .8rem 0 0; padding: .5rem .9rem; border-left: 3px solid light-dark(#d08a1d, #e0a850); background: var(--card); border-radius: 0 8px 8px 0; }
img { display: block; max-width: 100%; } .plot { border: 1px solid var(--line); border-radius: 10px; }
.grids { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 480px), 1fr)); gap: 1.2rem; }
figure { margin: 0; padding: .8rem; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
figure img { margin: 0 auto; image-rendering: pixelated; border-radius: 4px; } figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; text-align: center; }
details { border-top: 1px solid var(--line); padding: .5rem 0; } summary { cursor: pointer; }
pre { overflow-x: auto; padding: .8rem 1rem; background: var(--card); border-radius: 8px; font: 13px/1.5 ui-monospace, 'SF Mono', Menlo, Consolas, monospace; }
";
