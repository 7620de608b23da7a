//! Reading and writing sources as text.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::{Arrays, DataSource, SourceKind};
use crate::data::table::{LabelColumn, Missing, Separator, TableOptions};
use crate::data::{ArrayOptions, Crop, DataError, Depth, ImageFolder, Layout, Result, SplitOption, Toy, ToyKind};

const CROPS: &[(&str, Crop)] = &[("random", Crop::Random), ("center", Crop::Center), ("none", Crop::None)];
const LAYOUTS: &[(&str, Layout)] = &[("chw", Layout::Chw), ("hwc", Layout::Hwc)];
const DEPTHS: &[(&str, Depth)] = &[("8", Depth::Eight), ("16", Depth::Sixteen)];
const MISSING: &[(&str, Missing)] = &[("refuse", Missing::Refuse), ("drop", Missing::Drop), ("unlabelled", Missing::Unlabelled)];

/// The endings that tell a kind.
const ENDINGS: [(&str, &str); 13] = [
    (".csv", "csv"),
    (".csv.gz", "csv"),
    (".tsv", "csv"),
    (".tsv.gz", "csv"),
    (".txt", "csv"),
    (".dat", "csv"),
    (".data", "csv"),
    (".parquet", "parquet"),
    (".npy", "npy"),
    (".npz", "npz"),
    (".safetensors", "safetensors"),
    ("-ubyte", "idx"),
    ("-ubyte.gz", "idx"),
];

/// Kind and the rest, where the text has no kind but says by itself what it is.
fn bare(text: &str) -> Option<(&'static str, &str)> {
    let text = text.strip_prefix("file://").or_else(|| text.strip_prefix("file:")).unwrap_or(text);
    let path = text.split_once('?').map_or(text, |(path, _)| path);
    // The first of the two files of an IDX set.
    let path = path.split_once(',').map_or(path, |(images, _)| images);
    let lower = path.to_ascii_lowercase();
    if let Some((_, kind)) = ENDINGS.iter().find(|(ending, _)| lower.ends_with(ending)) {
        return Some((kind, text));
    }
    (path.len() > 1 && home(Path::new(&decode(path))).is_dir()).then_some(("images", text))
}

/// Whether the text before a colon is a drive of Windows, and the text a path there.
fn is_drive(kind: &str, rest: &str) -> bool {
    kind.len() == 1 && kind.chars().all(|c| c.is_ascii_alphabetic()) && rest.starts_with(['/', '\\'])
}

/// The same path with the home folder for `~`.
fn home(path: &Path) -> PathBuf {
    match (path.strip_prefix("~"), std::env::home_dir()) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

/// `%3F` as `?`, and so on; what is no such code stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        // A sign is no digit, though Rust reads it.
        let code = code.filter(|_| byte == b'%' && bytes[at + 1] != b'+');
        decoded.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    // Codes that are no text stand as they were written.
    String::from_utf8(decoded).unwrap_or_else(|_| text.to_owned())
}

/// What [`decode`] reads back, with `special` characters and every `%` as codes.
fn encode(text: &str, special: &str) -> String {
    use std::fmt::Write;
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if c == '%' || special.contains(c) {
            let _ = write!(out, "%{:02X}", u32::from(c));
        } else {
            out.push(c);
        }
        out
    })
}

fn names(text: Option<&str>) -> Vec<String> {
    text.map_or_else(Vec::new, |names| names.split(',').filter(|name| !name.is_empty()).map(decode).collect())
}

/// The known kind that a mistyped one is nearest to, if it is near at all.
fn nearest(kind: &str) -> Option<&'static str> {
    const NEAR: f64 = 0.7;
    let kind = kind.to_ascii_lowercase();
    let alias = [
        ("image", "images"),
        ("folder", "images"),
        ("pictures", "images"),
        ("dir", "images"),
        ("mnist", "idx"),
        ("cifar", "cifar10"),
        ("tsv", "csv"),
    ];
    if let Some((_, known)) = alias.iter().find(|(name, _)| *name == kind) {
        return Some(known);
    }
    let near = |known: &&'static str| strsim::damerau_levenshtein(&kind, known) <= 1 || strsim::jaro_winkler(&kind, known) >= NEAR;
    let score = |known: &&'static str| strsim::jaro_winkler(&kind, known);
    DataSource::KINDS.into_iter().filter(near).max_by(|a, b| score(a).total_cmp(&score(b)))
}

impl FromStr for DataSource {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        // Kinds without a path may have options all the same.
        let options = || text.find('?').map(|at| text.split_at(at));
        let (kind, rest) = text.split_once(':').or_else(options).unwrap_or((text, ""));
        let known = Self::KINDS.into_iter().find(|&k| k == kind);
        let is_path = !text.contains(':') || kind == "file" || is_drive(kind, rest) || kind.contains(['/', '\\', '.', '?']);
        let unknown = || DataError::UnknownKind { got: kind.to_owned(), hint: hint(kind, rest), known: &Self::KINDS };
        let known = known.map(|kind| (kind, rest));
        let (kind, rest) = known.or_else(|| bare(text).filter(|_| is_path)).ok_or_else(unknown)?;
        let options = |known| Options::parse(kind, rest, known);
        let arrays = || -> Result<(Options, Arrays)> {
            let options = options(&["x", "y", "c", "test", "layout", "levels", "split"])?;
            let arrays = Arrays {
                file: options.path()?,
                x: options.get("x").map_or_else(|| "x".to_owned(), decode),
                y: options.get("y").map(decode),
                c: options.get("c").map(decode),
                options: options.array()?,
            };
            Ok((options, arrays))
        };
        let (options, kind) = match kind {
            "idx" => {
                let options = options(&["test", "split"])?;
                let kind = match options.path.split_once(',') {
                    Some((images, labels)) if !images.is_empty() && !labels.is_empty() => {
                        SourceKind::Idx { images: home(Path::new(&decode(images))), labels: Some(home(Path::new(&decode(labels)))) }
                    }
                    Some(_) => {
                        return Err(options.bad("path", "IMAGES or IMAGES,LABELS", options.path));
                    }
                    None => SourceKind::Idx { images: options.path()?, labels: None },
                };
                (options, kind)
            }
            "cifar10" => {
                let options = options(&[])?;
                let dir = options.path()?;
                (options, SourceKind::Cifar10 { dir })
            }
            "images" => {
                let options = options(&["size", "crop", "crops", "resize", "grey", "depth", "test", "skip-bad", "cache", "split"])?;
                let folder = options.images()?;
                (options, SourceKind::Images(folder))
            }
            "npy" => {
                let options = options(&["layout", "levels", "test", "split"])?;
                let kind = SourceKind::Npy { file: options.path()?, options: options.array()? };
                (options, kind)
            }
            "npz" => arrays().map(|(options, arrays)| (options, SourceKind::Npz(arrays)))?,
            "safetensors" => arrays().map(|(options, arrays)| (options, SourceKind::Safetensors(arrays)))?,
            "csv" => {
                let options = options(&["label", "condition", "id", "columns", "drop", "sep", "header", "missing", "test", "split"])?;
                let kind = SourceKind::Csv { file: options.path()?, options: options.table()? };
                (options, kind)
            }
            "parquet" => {
                let options = options(&["label", "condition", "id", "columns", "drop", "missing", "test", "split"])?;
                let kind = SourceKind::Parquet { file: options.path()?, options: options.table()? };
                (options, kind)
            }
            "toy" => {
                let options = options(&["n", "noise"])?;
                let kinds = ToyKind::ALL.map(|k| (k.name(), k));
                let default = Toy::new(options.one_of("name", options.path, &kinds)?);
                let toy = Toy {
                    n: options.number("n")?.unwrap_or(default.n),
                    noise: options.number("noise")?.unwrap_or(default.noise),
                    ..default
                };
                (options, SourceKind::Toy(toy))
            }
            _ => {
                let options = options(&["split"])?;
                if !options.path.is_empty() {
                    return Err(options.bad("path", "nothing", options.path));
                }
                (options, SourceKind::Digits)
            }
        };
        let split = options.get("split").map(|text| text.parse().map_err(|()| options.bad("split", SplitOption::EXPECTED, text)));
        let split = split.transpose()?;
        if split == Some(SplitOption::Folders) && !matches!(kind, SourceKind::Images(_)) {
            return Err(options.bad("split", "a rule other than folders, which pictures alone have", "folders"));
        }
        // Of pictures it is part of the folder.
        let test = options.get("test").filter(|_| !matches!(kind, SourceKind::Images(_))).map(decode);
        let both = split.is_some() && options.get("test").is_some();
        if both {
            return Err(options.bad("split", "none beside test=, which says what the test part is", options.get("split").unwrap_or("")));
        }
        Ok(Self { kind, split, test, take: options.take()?, permute: options.at_least_one("permute")? })
    }
}

/// What to write instead of an unknown kind.
fn hint(kind: &str, rest: &str) -> Option<String> {
    if let Some((kind, _)) = bare(kind).filter(|_| rest.is_empty()) {
        return Some(kind.to_owned());
    }
    let near = nearest(kind)?;
    Some(if rest.is_empty() && near != "digits" {
        format!("{near}:PATH")
    } else if near == "digits" {
        near.to_owned()
    } else {
        format!("{near}:{rest}")
    })
}

/// Options of every kind.
const COMMON: [&str; 2] = ["take", "permute"];

/// The part of a source behind its kind: `PATH?key=value&key=value`.
struct Options<'a> {
    kind: &'static str,
    path: &'a str,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Options<'a> {
    fn parse(kind: &'static str, text: &'a str, known: &'static [&'static str]) -> Result<Self> {
        let (path, options) = text.split_once('?').unwrap_or((text, ""));
        let mut parsed = Self { kind, path, pairs: Vec::new() };
        for option in options.split('&').filter(|o| !o.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if !known.contains(&key) && !COMMON.contains(&key) {
                return Err(DataError::UnknownOption { kind, option: key.to_owned(), known });
            }
            if value.is_empty() {
                return Err(parsed.bad(key, "a value", "nothing"));
            }
            if parsed.get(key).is_some() {
                return Err(parsed.bad(key, "one value", "two"));
            }
            parsed.pairs.push((key, value));
        }
        Ok(parsed)
    }

    fn bad(&self, option: &str, expected: impl Into<String>, got: &str) -> DataError {
        let got = if got.is_empty() { "nothing" } else { got };
        DataError::BadOption { kind: self.kind, option: option.to_owned(), expected: expected.into(), got: got.to_owned() }
    }

    fn path(&self) -> Result<PathBuf> {
        if self.path.is_empty() {
            return Err(self.bad("path", "a file or folder", ""));
        }
        Ok(home(Path::new(&decode(self.path))))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let parse = |text: &str| text.parse().map_err(|_| self.bad(key, "a number", text));
        self.get(key).map(parse).transpose()
    }

    fn at_least_one(&self, key: &str) -> Result<Option<usize>> {
        let number = self.number(key)?;
        if number == Some(0) { Err(self.bad(key, "at least 1", "0")) } else { Ok(number) }
    }

    fn take(&self) -> Result<Option<(usize, Option<usize>)>> {
        let Some(text) = self.get("take") else { return Ok(None) };
        let count = |text: &str| text.parse().ok().filter(|count| *count > 0);
        let found = match text.split_once(',') {
            None => count(text).map(|train| (train, None)),
            Some((train, test)) => count(train).zip(count(test)).map(|(train, test)| (train, Some(test))),
        };
        found.map(Some).ok_or_else(|| self.bad("take", "N or N,M, numbers of training and test items above 0", text))
    }

    fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.choice(key, &[("1", true), ("0", false)])?.unwrap_or(false))
    }

    fn choice<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Option<T>> {
        self.get(key).map(|text| self.one_of(key, text, choices)).transpose()
    }

    fn one_of<T: Copy>(&self, key: &str, text: &str, choices: &[(&str, T)]) -> Result<T> {
        choices.iter().find(|(name, _)| *name == text).map(|&(_, choice)| choice).ok_or_else(|| {
            let names: Vec<_> = choices.iter().map(|&(name, _)| name).collect();
            self.bad(key, names.join(" or "), text)
        })
    }

    fn array(&self) -> Result<ArrayOptions> {
        Ok(ArrayOptions { layout: self.choice("layout", LAYOUTS)?.unwrap_or_default(), levels: self.number("levels")? })
    }

    fn images(&self) -> Result<ImageFolder> {
        let default = ImageFolder::new(self.path()?);
        let size = self.number("size")?;
        let implied = if size.is_some() { Crop::Center } else { Crop::None };
        Ok(ImageFolder {
            size,
            crop: self.choice("crop", CROPS)?.unwrap_or(implied),
            crops: self.number("crops")?.unwrap_or(default.crops),
            resize: self.flag("resize")?,
            grey: self.flag("grey")?,
            depth: self.choice("depth", DEPTHS)?.unwrap_or_default(),
            test: self.get("test").map(decode),
            skip_bad: self.flag("skip-bad")?,
            cache: self.get("cache").and_then(|text| text.parse().ok()).unwrap_or(default.cache),
            // A number is mebibytes of memory, all else a folder.
            store: self.get("cache").filter(|text| text.parse::<usize>().is_err()).map(|text| PathBuf::from(decode(text))),
            ..default
        })
    }

    fn table(&self) -> Result<TableOptions> {
        let separator = |text| {
            let text = decode(text);
            Separator::parse(&text).ok_or_else(|| self.bad("sep", "comma, semicolon, tab, bar, blank, or the character itself", &text))
        };
        let label = |text: &str| match text {
            "first" => LabelColumn::First,
            "last" => LabelColumn::Last,
            name => LabelColumn::Named(decode(name)),
        };
        Ok(TableOptions {
            separator: self.get("sep").map(separator).transpose()?,
            header: self.choice("header", &[("1", true), ("0", false)])?,
            columns: names(self.get("columns")),
            drop: names(self.get("drop")),
            label: self.get("label").map_or(LabelColumn::None, label),
            condition: names(self.get("condition")),
            id: self.get("id").map(decode),
            missing: self.choice("missing", MISSING)?.unwrap_or_default(),
        })
    }
}

type Written = (&'static str, Option<String>);

fn name<T: PartialEq>(choices: &[(&str, T)], choice: &T) -> Option<String> {
    choices.iter().find(|(_, c)| c == choice).map(|(name, _)| (*name).to_owned())
}

fn flag(set: bool) -> Option<String> {
    set.then(|| "1".to_owned())
}

fn value(text: &str) -> String {
    encode(text, "&")
}

fn path(path: &Path) -> String {
    encode(&path.display().to_string(), "?")
}

fn write_images(folder: &ImageFolder) -> Vec<Written> {
    let default = ImageFolder::new("");
    let implied = if folder.size.is_some() { Crop::Center } else { Crop::None };
    vec![
        ("size", folder.size.map(|s| s.to_string())),
        ("crop", name(CROPS, &folder.crop).filter(|_| folder.crop != implied)),
        ("crops", Some(folder.crops.to_string()).filter(|_| folder.crops != default.crops)),
        ("resize", flag(folder.resize)),
        ("grey", flag(folder.grey)),
        ("depth", name(DEPTHS, &folder.depth).filter(|_| folder.depth != default.depth)),
        ("test", folder.test.as_deref().map(value)),
        ("skip-bad", flag(folder.skip_bad)),
        (
            "cache",
            folder
                .store
                .as_deref()
                .map(|dir| value(&dir.display().to_string()))
                .or(Some(folder.cache.to_string()).filter(|_| folder.cache != default.cache)),
        ),
    ]
}

fn write_table(options: &TableOptions) -> Vec<Written> {
    let TableOptions { separator, header, columns, drop, label, condition, id, missing } = options;
    let list = |names: &[String]| {
        let names: Vec<String> = names.iter().map(|name| encode(name, "&,")).collect();
        (!names.is_empty()).then(|| names.join(","))
    };
    let label = match label {
        LabelColumn::None => None,
        LabelColumn::First => Some("first".to_owned()),
        LabelColumn::Last => Some("last".to_owned()),
        // These two names are words of the option.
        LabelColumn::Named(name) if name == "first" || name == "last" => Some(format!("%{:02X}{}", name.as_bytes()[0], &name[1..])),
        LabelColumn::Named(name) => Some(value(name)),
    };
    vec![
        ("label", label),
        ("condition", list(condition)),
        ("id", id.as_deref().map(value)),
        ("columns", list(columns)),
        ("drop", list(drop)),
        ("sep", separator.map(|separator| value(&separator.name()))),
        ("header", header.map(|header| u8::from(header).to_string())),
        ("missing", name(MISSING, missing).filter(|_| *missing != Missing::default())),
    ]
}

fn write_arrays(options: ArrayOptions) -> [Written; 2] {
    [("layout", name(LAYOUTS, &options.layout)), ("levels", options.levels.map(|levels| levels.to_string()))]
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let test = || ("test", self.test.as_deref().map(value));
        let arrays = |a: &Arrays| {
            let x = (a.x != "x").then(|| value(&a.x));
            let options = [("x", x), ("y", a.y.as_deref().map(value)), ("c", a.c.as_deref().map(value)), test()]
                .into_iter()
                .chain(write_arrays(a.options));
            (path(&a.file), options.collect())
        };
        let (kind, (path, mut options)): (&str, (String, Vec<Written>)) = match &self.kind {
            SourceKind::Digits => ("digits", (String::new(), vec![])),
            SourceKind::Idx { images, labels } => {
                let one = |path: &Path| encode(&path.display().to_string(), "?,");
                let labels = labels.as_ref().map(|l| format!(",{}", one(l))).unwrap_or_default();
                ("idx", (format!("{}{labels}", one(images)), vec![test()]))
            }
            SourceKind::Cifar10 { dir } => ("cifar10", (path(dir), vec![])),
            SourceKind::Images(folder) => ("images", (path(&folder.dir), write_images(folder))),
            SourceKind::Npy { file, options } => ("npy", (path(file), write_arrays(*options).into_iter().chain([test()]).collect())),
            SourceKind::Npz(a) => ("npz", arrays(a)),
            SourceKind::Safetensors(a) => ("safetensors", arrays(a)),
            SourceKind::Csv { file, options } => ("csv", (path(file), write_table(options).into_iter().chain([test()]).collect())),
            SourceKind::Parquet { file, options } => ("parquet", (path(file), write_table(options).into_iter().chain([test()]).collect())),
            SourceKind::Toy(toy) => {
                let default = Toy::new(toy.kind);
                let noise = toy.noise.to_bits() != default.noise.to_bits();
                let options = vec![("n", (toy.n != default.n).then(|| toy.n.to_string())), ("noise", noise.then(|| toy.noise.to_string()))];
                ("toy", (toy.kind.name().to_owned(), options))
            }
        };
        let count = |(train, test): (usize, Option<usize>)| test.map_or(train.to_string(), |test| format!("{train},{test}"));
        options.extend([
            ("split", self.split.map(|split| split.to_string())),
            ("take", self.take.map(count)),
            ("permute", self.permute.map(|side| side.to_string())),
        ]);
        f.write_str(kind)?;
        if !path.is_empty() || options.iter().any(|(_, value)| value.is_some()) {
            write!(f, ":{path}")?;
        }
        let said = options.into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (i, (key, value)) in said.enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}
