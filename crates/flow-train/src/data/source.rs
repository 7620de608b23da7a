//! Sources of data as one line of text.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::limits::{Bounded, read_file};
use super::{
    Crop, DataError, ImageFolder, LabelColumn, Layout, Result, Split, SplitRule, Toy, ToyKind, cifar, digits, idx, npy, npz, read_limit,
    table, tensors,
};

/// A source of data: what `--data` takes and what a checkpoint remembers.
///
/// | text | read as |
/// |---|---|
/// | `digits` | the bundled digits, [`digits`](super::digits()) |
/// | `idx:IMAGES[,LABELS]` | [`idx::open`] |
/// | `cifar10:DIR` | [`cifar::open`] |
/// | `images:DIR[?size=S&crop=random\|center\|none&crops=K&resize=1&grey=1&test=GLOB,…&skip-bad=1&cache=MIB]` | [`ImageFolder`]; `crop` is `center` where a size is given |
/// | `npy:FILE[?layout=chw\|hwc]` | [`npy::read`], [`Array::into_split`](super::Array::into_split) |
/// | `npz:FILE[?x=KEY&y=KEY&layout=chw\|hwc]` | the arrays `x` (items; its key is `x` unless said) and `y` (labels, if said) of [`npz::read`] |
/// | `safetensors:FILE[?x=KEY&y=KEY&layout=chw\|hwc]` | the same of [`tensors::read`] |
/// | `csv:FILE[?label=first\|last&header=1]` | [`table::read`]; every tenth line is a test line |
/// | `toy:two-moons\|eight-gaussians\|checkerboard\|circles\|rings[?n=N&noise=S]` | [`Toy`] |
///
/// What follows the first `?` is options. So a path has no `?`, and the paths of `idx` no comma. Printing gives the text back, with the options in the
/// order above and without those that say the default; parsing what is printed gives an equal source.
///
/// ```
/// use flow_train::data::DataSource;
///
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// assert_eq!(source.to_string(), "toy:two-moons?n=500");
/// assert_eq!(source.open(1)?.train.len(), 500);
///
/// let error = "toys:two-moons".parse::<DataSource>().unwrap_err();
/// assert_eq!(error.to_string(), "no kind of data `toys`; there are: digits, idx, cifar10, images, npy, npz, safetensors, csv, toy");
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum DataSource {
    /// The bundled digits.
    Digits,
    /// IDX files.
    Idx {
        /// The pictures to train on.
        images: PathBuf,
        /// Their labels.
        labels: Option<PathBuf>,
    },
    /// CIFAR-10.
    Cifar10 {
        /// The folder with its files.
        dir: PathBuf,
    },
    /// A folder of pictures.
    Images(ImageFolder),
    /// One array.
    Npy {
        /// The file.
        file: PathBuf,
        /// Order of a picture's axes.
        layout: Layout,
    },
    /// Arrays of an archive.
    Npz(Arrays),
    /// Tensors of a file.
    Safetensors(Arrays),
    /// A table of numbers.
    Csv {
        /// The file.
        file: PathBuf,
        /// Where the class stands.
        label: LabelColumn,
        /// Whether the first line names the columns.
        header: bool,
    },
    /// A generated set.
    Toy(Toy),
}

/// Items and labels among the named arrays of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrays {
    /// The file.
    pub file: PathBuf,
    /// Name of the array of items.
    pub x: String,
    /// Name of the array of labels, if any.
    pub y: Option<String>,
    /// Order of a picture's axes.
    pub layout: Layout,
}

impl DataSource {
    /// Every kind, as it stands before the colon.
    pub const KINDS: [&'static str; 9] = ["digits", "idx", "cifar10", "images", "npy", "npz", "safetensors", "csv", "toy"];

    /// Opens the source. `seed` is that of random crops and of generated points.
    ///
    /// # Errors
    /// Those of the reader that the table above names.
    pub fn open(&self, seed: u64) -> Result<Split> {
        let split = self.open_any(seed)?;
        match self {
            Self::Digits | Self::Cifar10 { .. } | Self::Toy(_) => Ok(split),
            Self::Images(ImageFolder { dir: path, .. })
            | Self::Idx { images: path, .. }
            | Self::Npy { file: path, .. }
            | Self::Csv { file: path, .. }
            | Self::Npz(Arrays { file: path, .. })
            | Self::Safetensors(Arrays { file: path, .. }) => split.of_two(path),
        }
    }

    /// As [`open`](Self::open) for what trains nothing: a single item will do. It is the test part, and the training part is empty.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`DataError::TooFew`].
    pub fn open_any(&self, seed: u64) -> Result<Split> {
        let every_tenth = SplitRule::EveryTenth;
        match self {
            Self::Digits => digits(),
            Self::Idx { images, labels } => idx::parts(images, labels.as_deref()),
            Self::Cifar10 { dir } => cifar::open(dir),
            Self::Images(folder) => folder.parts(seed),
            Self::Npy { file, layout } => npy::read(file, open(file)?)?.into_dataset(file, *layout, None)?.parts(&every_tenth),
            Self::Npz(arrays) => {
                let Arrays { file, x, y, layout } = arrays;
                let labels = y.as_deref().map(|y| npz::read(file, open(file)?, y)).transpose()?;
                npz::read(file, open(file)?, x)?.into_dataset(file, *layout, labels)?.parts(&every_tenth)
            }
            Self::Safetensors(arrays) => {
                let Arrays { file, x, y, layout } = arrays;
                let bytes = read_file(file)?;
                let labels = y.as_deref().map(|y| tensors::read(file, &bytes, y)).transpose()?;
                tensors::read(file, &bytes, x)?.into_dataset(file, *layout, labels)?.parts(&every_tenth)
            }
            Self::Csv { file, label, header } => table::read(file, open_table(file)?, *label, *header)?.parts(&every_tenth),
            Self::Toy(toy) => toy.open(seed),
        }
    }
}

/// A text of numbers is shorter than the numbers.
const TABLE_SHARE: u64 = 4;

fn open_table(path: &Path) -> Result<Bounded<BufReader<File>>> {
    Ok(Bounded::new(open(path)?, read_limit() / TABLE_SHARE))
}

fn open(path: &Path) -> Result<BufReader<File>> {
    match File::open(path) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(source) => Err(DataError::Io { path: path.to_owned(), source }),
    }
}

const CROPS: &[(&str, Crop)] = &[("random", Crop::Random), ("center", Crop::Center), ("none", Crop::None)];
const LAYOUTS: &[(&str, Layout)] = &[("chw", Layout::Chw), ("hwc", Layout::Hwc)];
const COLUMNS: &[(&str, LabelColumn)] = &[("first", LabelColumn::First), ("last", LabelColumn::Last)];

impl FromStr for DataSource {
    type Err = DataError;

    fn from_str(text: &str) -> Result<Self> {
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        let Some(kind) = Self::KINDS.into_iter().find(|&k| k == kind) else {
            return Err(DataError::UnknownKind { got: kind.to_owned(), known: &Self::KINDS });
        };
        let options = |known| Options::parse(kind, rest, known);
        let arrays = || -> Result<Arrays> {
            let options = options(&["x", "y", "layout"])?;
            Ok(Arrays {
                file: options.path()?,
                x: options.get("x").unwrap_or("x").to_owned(),
                y: options.get("y").map(str::to_owned),
                layout: options.choice("layout", LAYOUTS)?.unwrap_or_default(),
            })
        };
        Ok(match kind {
            "idx" => {
                let options = options(&[])?;
                match options.path.split_once(',') {
                    Some((images, labels)) if !images.is_empty() && !labels.is_empty() => {
                        Self::Idx { images: images.into(), labels: Some(labels.into()) }
                    }
                    Some(_) => {
                        return Err(options.bad("path", "IMAGES or IMAGES,LABELS", options.path));
                    }
                    None => Self::Idx { images: options.path()?, labels: None },
                }
            }
            "cifar10" => Self::Cifar10 { dir: options(&[])?.path()? },
            "images" => {
                let options = options(&["size", "crop", "crops", "resize", "grey", "test", "skip-bad", "cache"])?;
                let default = ImageFolder::new(options.path()?);
                let size = options.number("size")?;
                let implied = if size.is_some() { Crop::Center } else { Crop::None };
                Self::Images(ImageFolder {
                    size,
                    crop: options.choice("crop", CROPS)?.unwrap_or(implied),
                    crops: options.number("crops")?.unwrap_or(default.crops),
                    resize: options.flag("resize")?,
                    grey: options.flag("grey")?,
                    test: options.get("test").map(str::to_owned),
                    skip_bad: options.flag("skip-bad")?,
                    cache: options.number("cache")?.unwrap_or(default.cache),
                    ..default
                })
            }
            "npy" => {
                let options = options(&["layout"])?;
                let layout = options.choice("layout", LAYOUTS)?.unwrap_or_default();
                Self::Npy { file: options.path()?, layout }
            }
            "npz" => Self::Npz(arrays()?),
            "safetensors" => Self::Safetensors(arrays()?),
            "csv" => {
                let options = options(&["label", "header"])?;
                Self::Csv {
                    file: options.path()?,
                    label: options.choice("label", COLUMNS)?.unwrap_or_default(),
                    header: options.flag("header")?,
                }
            }
            "toy" => {
                let options = options(&["n", "noise"])?;
                let kinds = ToyKind::ALL.map(|k| (k.name(), k));
                let default = Toy::new(options.one_of("name", options.path, &kinds)?);
                Self::Toy(Toy {
                    n: options.number("n")?.unwrap_or(default.n),
                    noise: options.number("noise")?.unwrap_or(default.noise),
                    ..default
                })
            }
            _ => {
                let options = options(&[])?;
                if !options.path.is_empty() {
                    return Err(options.bad("path", "nothing", options.path));
                }
                Self::Digits
            }
        })
    }
}

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
            if !known.contains(&key) {
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
        Ok(self.path.into())
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn number<T: FromStr>(&self, key: &str) -> Result<Option<T>> {
        let parse = |text: &str| text.parse().map_err(|_| self.bad(key, "a number", text));
        self.get(key).map(parse).transpose()
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
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn name<T: PartialEq>(choices: &[(&str, T)], choice: &T) -> Option<String> {
            choices.iter().find(|(_, c)| c == choice).map(|(name, _)| (*name).to_owned())
        }
        let flag = |set: bool| set.then(|| "1".to_owned());
        let arrays = |a: &Arrays| {
            let x = (a.x != "x").then(|| a.x.clone());
            (a.file.display().to_string(), vec![("x", x), ("y", a.y.clone()), ("layout", name(LAYOUTS, &a.layout))])
        };
        let (kind, (path, options)) = match self {
            Self::Digits => return f.write_str("digits"),
            Self::Idx { images, labels } => {
                let labels = labels.as_ref().map(|l| format!(",{}", l.display())).unwrap_or_default();
                ("idx", (format!("{}{labels}", images.display()), vec![]))
            }
            Self::Cifar10 { dir } => ("cifar10", (dir.display().to_string(), vec![])),
            Self::Images(folder) => {
                let default = ImageFolder::new("");
                let implied = if folder.size.is_some() { Crop::Center } else { Crop::None };
                let options = vec![
                    ("size", folder.size.map(|s| s.to_string())),
                    ("crop", name(CROPS, &folder.crop).filter(|_| folder.crop != implied)),
                    ("crops", Some(folder.crops.to_string()).filter(|_| folder.crops != default.crops)),
                    ("resize", flag(folder.resize)),
                    ("grey", flag(folder.grey)),
                    ("test", folder.test.clone()),
                    ("skip-bad", flag(folder.skip_bad)),
                    ("cache", Some(folder.cache.to_string()).filter(|_| folder.cache != default.cache)),
                ];
                ("images", (folder.dir.display().to_string(), options))
            }
            Self::Npy { file, layout } => ("npy", (file.display().to_string(), vec![("layout", name(LAYOUTS, layout))])),
            Self::Npz(a) => ("npz", arrays(a)),
            Self::Safetensors(a) => ("safetensors", arrays(a)),
            Self::Csv { file, label, header } => {
                let options = vec![("label", name(COLUMNS, label)), ("header", flag(*header))];
                ("csv", (file.display().to_string(), options))
            }
            Self::Toy(toy) => {
                let default = Toy::new(toy.kind);
                let noise = toy.noise.to_bits() != default.noise.to_bits();
                let options = vec![("n", (toy.n != default.n).then(|| toy.n.to_string())), ("noise", noise.then(|| toy.noise.to_string()))];
                ("toy", (toy.kind.name().to_owned(), options))
            }
        };
        write!(f, "{kind}:{path}")?;
        let said = options.into_iter().filter_map(|(key, value)| Some((key, value?)));
        for (i, (key, value)) in said.enumerate() {
            write!(f, "{}{key}={value}", if i == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl TryFrom<String> for DataSource {
    type Error = DataError;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DataSource> for String {
    fn from(source: DataSource) -> Self {
        source.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn one_item_can_be_scored_but_not_split() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("one.csv"), "1,2,3")?;
        let mut array = npy::Writer::new(File::create(at("one.npy"))?, &at("one.npy"), &[1, 3])?;
        array.write(&[1.0, 2.0, 3.0])?;
        array.finish()?;
        image::GrayImage::new(4, 4).save(at("one.png"))?;
        for source in [
            format!("csv:{}", at("one.csv").display()),
            format!("npy:{}", at("one.npy").display()),
            format!("images:{}", folder.path().display()),
        ] {
            let source: DataSource = source.parse()?;
            assert!(matches!(source.open(0), Err(DataError::TooFew { got: 1, .. })), "{source}");
            let split = source.open_any(0)?;
            assert_eq!((split.train.len(), split.test.len()), (0, 1), "{source}");
        }
        Ok(())
    }

    #[test]
    fn a_source_prints_as_it_was_written() -> Result<()> {
        for text in [
            "digits",
            "idx:a/train-images.gz",
            "idx:a/train-images,b/train-labels",
            "cifar10:data/cifar",
            "images:photos",
            "images:photos?size=64",
            "images:photos?size=32&crop=random&crops=100&resize=1&grey=1&test=W*.jpg,?.png&skip-bad=1&cache=64",
            "images:C:\\photos?grey=1",
            "npy:x.npy",
            "npy:x.npy?layout=hwc",
            "npz:m.npz?x=x_train&y=y_train&layout=chw",
            "safetensors:m.st?y=labels",
            "csv:magic.dat?label=last",
            "csv:t.csv?label=first&header=1",
            "toy:two-moons",
            "toy:rings?n=64&noise=0.125",
        ] {
            let source: DataSource = text.parse()?;
            assert_eq!(source.to_string(), text);
            let json = serde_json::to_string(&source).expect("a string");
            assert_eq!(serde_json::from_str::<DataSource>(&json).expect("the same"), source);
        }
        for (text, canonical) in [("toy:circles?n=10000&", "toy:circles"), ("images:p?crop=center&size=8&grey=0", "images:p?size=8")] {
            assert_eq!(text.parse::<DataSource>()?.to_string(), canonical);
        }
        Ok(())
    }

    #[test]
    fn errors_list_what_is_known() {
        let cases = [
            ("", "no kind of data ``; there are: digits, idx, cifar10, images, npy, npz, safetensors, csv, toy"),
            ("mnist:x", "no kind of data `mnist`; there are: digits, idx, cifar10, images, npy, npz, safetensors, csv, toy"),
            ("digits:8", "digits: path: expected nothing, got 8"),
            ("digits?n=1", "no kind of data `digits?n=1`; there are: digits, idx, cifar10, images, npy, npz, safetensors, csv, toy"),
            ("idx:", "idx: path: expected a file or folder, got nothing"),
            ("idx:a,", "idx: path: expected IMAGES or IMAGES,LABELS, got a,"),
            ("cifar10:d?size=3", "cifar10: no option `size`; there are none"),
            ("csv:f?labels=last", "csv: no option `labels`; there are: label, header"),
            ("csv:f?label=middle", "csv: label: expected first or last, got middle"),
            ("csv:f?label", "csv: label: expected a value, got nothing"),
            ("images:d?size=8&size=9", "images: size: expected one value, got two"),
            ("images:d?size=-8", "images: size: expected a number, got -8"),
            ("images:d?grey=yes", "images: grey: expected 1 or 0, got yes"),
            ("toy:moons", "toy: name: expected two-moons or eight-gaussians or checkerboard or circles or rings, got moons"),
        ];
        for (text, message) in cases {
            assert_eq!(text.parse::<DataSource>().expect_err(text).to_string(), message);
        }
    }
}
