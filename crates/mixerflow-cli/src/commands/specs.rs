//! `mixerflow specs`: the specs that the program has built in.

use crate::{Result, output};
use flow_train::text::Table;

macro_rules! built_in {
    ($($name:literal),* $(,)?) => {
        /// Names and texts, in alphabetical order.
        pub(super) const BUILT_IN: &[(&str, &str)] = &[$(($name, include_str!(concat!("../../../../specs/", $name, ".ron")))),*];
    };
}

built_in![
    "digits-additive",
    "digits-affine",
    "digits-autoregressive",
    "digits-classes",
    "digits-coupling-ffjord",
    "digits-coupling-residual",
    "digits-ffjord",
    "digits-glow",
    "digits-jet",
    "digits-kan",
    "digits-learned-base",
    "digits-levels",
    "digits-no-shift",
    "digits-residual",
    "digits-spline",
    "digits-two-kinds",
    "jet-32x32",
    "mixerflow-32x32",
    "plane-affine",
    "plane-autoregressive",
    "plane-ffjord",
    "plane-given",
    "plane-residual",
    "plane-spline",
];

/// The text of the built-in spec of this name.
pub(super) fn built_in(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix(".ron").unwrap_or(name);
    BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

pub(crate) fn run() -> Result<()> {
    let heads = ["spec", "what it is"].map(str::to_owned);
    let first = |text: &str| text.lines().next().unwrap_or("").trim_start_matches("//").trim().to_owned();
    let rows: Vec<Vec<String>> = BUILT_IN.iter().map(|(name, text)| vec![(*name).to_owned(), first(text)]).collect();
    Ok(output::print(Table { heads: &heads, rows: &rows, words: 2 })?)
}

#[cfg(test)]
mod tests {
    use super::BUILT_IN;

    /// Every file of `specs/` is built in.
    #[test]
    fn the_list_is_that_of_the_folder() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../specs");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .filter_map(|entry| Some(entry.unwrap().file_name().to_string_lossy().strip_suffix(".ron")?.to_owned()))
            .collect();
        files.sort();
        assert_eq!(files, BUILT_IN.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }
}
