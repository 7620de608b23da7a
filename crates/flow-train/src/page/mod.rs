//! Pages: one HTML file each, light and dark by one style sheet, readable on a phone, with plots whose text is text.

mod study;

pub(crate) use study::html as study;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write as _;

const STYLE: &str = include_str!("style.css");
/// Tables are sorted by the head that is clicked, and pictures shown large.
const SCRIPT: &str = include_str!("page.js");

/// A page in the making.
#[derive(Debug)]
pub(crate) struct Page(String);

/// A table to show: words are set left, numbers right.
#[derive(Debug)]
pub(crate) struct Table<'a> {
    pub(crate) heads: &'a [String],
    pub(crate) rows: &'a [Vec<String>],
    /// Columns of words.
    pub(crate) words: usize,
    /// The column that the best row is best in, and that row.
    pub(crate) best: Option<(usize, usize)>,
}

impl Page {
    /// Begins a page: its title is `title` and behind it the name of what it is about.
    pub(crate) fn new(title: &str, about: &str, lead: &str) -> Self {
        let (title, about, lead) = (escape(title), escape(about), escape(lead));
        Self(format!(
            "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title} {about}</title>\n<style>{STYLE}</style>\n<main>\n<header>\n\
             <h1>{title} <span>{about}</span></h1>\n<p>{lead}</p>\n</header>\n"
        ))
    }

    pub(crate) fn heading(&mut self, text: &str) {
        let _ = writeln!(self.0, "<h2>{}</h2>", escape(text));
    }

    /// A paragraph in small print.
    pub(crate) fn legend(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p class=\"legend\">{}</p>", escape(text));
    }

    /// What must not be overlooked.
    pub(crate) fn note(&mut self, text: &str) {
        let _ = writeln!(self.0, "<p class=\"note\">{}</p>", escape(text));
    }

    pub(crate) fn table(&mut self, table: &Table<'_>) {
        let class = |column: usize| {
            let main = column == 0 || table.best.is_some_and(|(_, best)| best == column);
            match (column < table.words, main) {
                (true, true) => " class=\"words main\"",
                (true, false) => " class=\"words\"",
                (false, true) => " class=\"main\"",
                (false, false) => "",
            }
        };
        self.0.push_str("<div class=\"wide\"><table>\n<thead><tr>");
        for (column, head) in table.heads.iter().enumerate() {
            let _ = write!(self.0, "<th{}>{}</th>", class(column), escape(head));
        }
        self.0.push_str("</tr></thead>\n<tbody>\n");
        for (number, row) in table.rows.iter().enumerate() {
            self.0.push_str(if table.best.is_some_and(|(best, _)| best == number) { "<tr class=\"best\">" } else { "<tr>" });
            for (column, cell) in row.iter().enumerate() {
                let _ = write!(self.0, "<td{}>{}</td>", class(column), escape(cell));
            }
            self.0.push_str("</tr>\n");
        }
        self.0.push_str("</tbody></table></div>\n");
    }

    /// A plot as SVG; its colours are those of the light theme, which the style sheet exchanges in the dark.
    pub(crate) fn plot(&mut self, svg: &str, label: &str) {
        let _ = writeln!(self.0, "<div class=\"plot\" role=\"img\" aria-label=\"{}\">{svg}</div>", escape(label));
    }

    /// A plot that is no wider than it has to be.
    pub(crate) fn small_plot(&mut self, svg: &str, label: &str) {
        let _ = writeln!(self.0, "<div class=\"plot small\" role=\"img\" aria-label=\"{}\">{svg}</div>", escape(label));
    }

    /// Pictures side by side, each with a caption; a click shows one as large as the window.
    pub(crate) fn pictures<'a>(&mut self, class: &str, pictures: impl IntoIterator<Item = (&'a str, String)>) {
        let _ = writeln!(self.0, "<div class=\"{class}\">");
        for (caption, source) in pictures {
            let (caption, source) = (escape(caption), escape(&source));
            let lines = caption.replace('\n', "<br>");
            let name = caption.replace('\n', ", ");
            let _ = writeln!(
                self.0,
                "<figure><img src=\"{source}\" alt=\"{name}\" loading=\"lazy\" tabindex=\"0\" role=\"button\"><figcaption>{lines}</figcaption></figure>"
            );
        }
        self.0.push_str("</div>\n");
    }

    /// A text that opens on demand.
    pub(crate) fn details(&mut self, summary: &str, text: &str) {
        let _ = writeln!(self.0, "<details><summary>{}</summary><pre>{}</pre></details>", escape(summary), escape(text));
    }

    pub(crate) fn finish(self) -> String {
        format!("{}</main>\n<script>{SCRIPT}</script>\n</html>\n", self.0)
    }
}

/// A PNG as the address of itself.
pub(crate) fn png_address(png: &[u8]) -> String {
    format!("data:image/png;base64,{}", STANDARD.encode(png))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
