//! Sources of data as one line of text.

mod text;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::table::TableOptions;
use super::{
    Array, ArrayOptions, Crop, DataError, Dataset, Found, ImageFolder, InMemory, Labels, Permuted, Result, Split, SplitOption, SplitRule,
    Subset, Toy, cifar, column_names, digits, idx, npy, npz, table, tensors,
};

/// A source of data: what `--data` takes and what a checkpoint remembers.
///
/// | text | read as |
/// |---|---|
/// | `digits` | the bundled digits, [`digits`](super::digits()) |
/// | `idx:IMAGES[,LABELS][?test=IMAGES[,LABELS]]` | [`idx::open`] |
/// | `cifar10:DIR` | [`cifar::open`] |
/// | `images:DIR[?size=S&crop=random\|center\|none&crops=K&resize=1&grey=1&depth=8\|16&test=GLOB,…&skip-bad=1&cache=MIB\|DIR]` | [`ImageFolder`]; `crop` is `center` where a size is given, and `cache` a number of mebibytes in memory or a folder to keep decoded pictures in |
/// | `npy:FILE[?layout=chw\|hwc&levels=L&test=FILE]` | [`npy::read`], [`Array::into_dataset`] |
/// | `npz:FILE[?x=KEY&y=KEY&c=KEY&test=KEY[,KEY[,KEY]]&layout=chw\|hwc&levels=L]` | the arrays `x` (items; its key is `x` unless said), `y` (labels, if said, −1 for none) and `c` (numbers that items are conditioned on, if said) of [`npz::read`]; `x_train`, `y_train`, `x_test` and `y_test` are found by themselves |
/// | `safetensors:FILE[?x=KEY&y=KEY&c=KEY&test=KEY[,KEY[,KEY]]&layout=chw\|hwc&levels=L]` | the same of [`tensors::read`] |
/// | `csv:FILE[?label=first\|last\|NAME&condition=NAME,…&id=NAME&columns=NAME,…&drop=NAME,…&sep=comma\|semicolon\|tab\|bar\|blank&header=1\|0&missing=drop\|unlabelled&test=FILE]` | [`table::read`] |
/// | `parquet:FILE[?…]`, with the options of `csv` but for `sep` and `header` | [`table::read_parquet`]; it takes the feature `parquet` |
/// | `toy:two-moons\|eight-gaussians\|checkerboard\|circles\|rings[?n=N&noise=S]` | [`Toy`] |
///
/// Items that have no test part of their own are split by [`SplitRule::EveryTenth`], those of one IDX file by
/// [`SplitRule::LastTenth`], unless the option
/// `split=every-tenth|last-tenth|hash:SHARE|none` says otherwise.
///
/// Every kind also takes `take=N[,M]`, N training items (and M test items), spread over those that there are, and
/// `permute=SIDE`, pictures whose squares of SIDE×SIDE pixels stand in one fixed random order
/// ([`Permuted`](super::Permuted)).
///
/// What follows the first `?` is options. A character that means something in this text is written `%` and its two
/// hexadecimal digits, as in addresses: `%3F` for `?`, `%26` for
/// `&`, `%2C` for a comma in a name among several, `%25` for `%`. `~/` is the home folder. A path without a kind is
/// understood where its ending, or a folder there, says what it is:
/// `wine.csv`, `file:wine.csv`. Printing gives the text back, with the options in the order above and without those
/// that say the default; parsing what is printed
/// gives an equal source.
///
/// ```
/// use flow_train::data::DataSource;
///
/// let source: DataSource = "toy:two-moons?n=500".parse()?;
/// assert_eq!(source.to_string(), "toy:two-moons?n=500");
/// assert_eq!(source.open(1)?.train.len(), 500);
///
/// let error = "toys:two-moons".parse::<DataSource>().unwrap_err();
/// assert!(error.to_string().starts_with("no kind of data `toys`; did you mean toy:two-moons? A source is KIND:PATH"));
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub struct DataSource {
    /// What is read, and how.
    pub kind: SourceKind,
    /// How items that have no parts of their own are split; none for the kind's own rule.
    pub split: Option<SplitOption>,
    /// The test part: a file, or the keys of arrays; of pictures it is [`ImageFolder::test`].
    pub test: Option<String>,
    /// How many training items, and test items, are taken of those that there are; none for all.
    pub take: Option<(usize, Option<usize>)>,
    /// The side of the squares of pictures that stand in another order, if they do.
    pub permute: Option<usize>,
}

/// The kinds of sources.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SourceKind {
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
        /// How it becomes items.
        options: ArrayOptions,
    },
    /// Arrays of an archive.
    Npz(Arrays),
    /// Tensors of a file.
    Safetensors(Arrays),
    /// A table of numbers.
    Csv {
        /// The file.
        file: PathBuf,
        /// How it is read.
        options: TableOptions,
    },
    /// A table in Parquet.
    Parquet {
        /// The file.
        file: PathBuf,
        /// How it is read.
        options: TableOptions,
    },
    /// A generated set.
    Toy(Toy),
}

/// Items, labels and conditions among the named arrays of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrays {
    /// The file.
    pub file: PathBuf,
    /// Name of the array of items.
    pub x: String,
    /// Name of the array of labels, if any.
    pub y: Option<String>,
    /// Name of the array of numbers that items are conditioned on, if any.
    pub c: Option<String>,
    /// How they become items.
    pub options: ArrayOptions,
}

impl From<SourceKind> for DataSource {
    fn from(kind: SourceKind) -> Self {
        Self { kind, split: None, test: None, take: None, permute: None }
    }
}

impl DataSource {
    /// Every kind, as it stands before the colon.
    pub const KINDS: [&'static str; 10] = ["digits", "idx", "cifar10", "images", "npy", "npz", "safetensors", "csv", "parquet", "toy"];

    /// The file or folder, for kinds that have one.
    pub fn path(&self) -> Option<&Path> {
        match &self.kind {
            SourceKind::Digits | SourceKind::Toy(_) => None,
            SourceKind::Images(ImageFolder { dir: path, .. })
            | SourceKind::Cifar10 { dir: path }
            | SourceKind::Idx { images: path, .. }
            | SourceKind::Npy { file: path, .. }
            | SourceKind::Csv { file: path, .. }
            | SourceKind::Parquet { file: path, .. }
            | SourceKind::Npz(Arrays { file: path, .. })
            | SourceKind::Safetensors(Arrays { file: path, .. }) => Some(path),
        }
    }

    /// Opens the source. `seed` is that of random crops and of generated points.
    ///
    /// # Errors
    /// Those of the reader that the table above names, and [`DataError::TooFew`] where a part would be empty.
    pub fn open(&self, seed: u64) -> Result<Split> {
        let split = self.open_any(seed)?;
        match self.path() {
            Some(path) => split.of_two(path),
            None => Ok(split),
        }
    }

    /// As [`open`](Self::open) for what trains nothing: a single item will do. It is the test part, and the training
    /// part is empty.
    ///
    /// # Errors
    /// As [`open`](Self::open), but for [`DataError::TooFew`].
    pub fn open_any(&self, seed: u64) -> Result<Split> {
        let mut split = self.open_whole(seed)?;
        if let Some((train, test)) = self.take {
            split.train = taken(split.train, Some(train))?;
            split.test = taken(split.test, test)?;
        }
        if let Some(side) = self.permute {
            split.train = Arc::new(Permuted::new(split.train, side)?);
            split.test = Arc::new(Permuted::new(split.test, side)?);
        }
        Ok(split)
    }

    /// Whether items depend on the seed that the source is opened with.
    pub const fn is_random(&self) -> bool {
        matches!(self.kind, SourceKind::Toy(_) | SourceKind::Images(ImageFolder { crop: Crop::Random, .. }))
    }

    /// All items, as they are.
    fn open_whole(&self, seed: u64) -> Result<Split> {
        match &self.kind {
            SourceKind::Digits => match self.split {
                None => digits(),
                Some(option) => super::digits::whole()?.parts(&option.into()),
            },
            SourceKind::Idx { images, labels } => idx::parts(images, labels.as_deref(), self.test.as_deref(), self.split),
            SourceKind::Cifar10 { dir } => cifar::open(dir),
            SourceKind::Images(folder) => folder.parts(seed, self.split),
            SourceKind::Npy { file, options } => {
                let read = |file: &Path| npy::read(file, open(file)?)?.into_dataset(file, *options, None);
                self.parts(read(file)?, Found::default(), |test| Ok((read(Path::new(test))?, Found::default())))
            }
            SourceKind::Npz(arrays) => {
                let keys = npz::keys(&arrays.file, open(&arrays.file)?)?;
                self.arrays(arrays, &keys, |key| npz::read(&arrays.file, open(&arrays.file)?, key))
            }
            SourceKind::Safetensors(arrays) => {
                let bytes = tensors::read_whole(&arrays.file)?;
                let keys = tensors::keys(&arrays.file, &bytes)?;
                self.arrays(arrays, &keys, |key| tensors::read(&arrays.file, &bytes, key))
            }
            SourceKind::Csv { file, options } => self.tables(file, options, |file, options| table::read(file, open(file)?, options)),
            SourceKind::Parquet { file, options } => self.tables(file, options, table::read_parquet),
            SourceKind::Toy(toy) => toy.open(seed),
        }
    }

    /// The source with the rule of its parts written out, so that it splits as it did whatever comes to lie beside its
    /// files.
    #[must_use]
    pub fn with_rule(&self, rule: &SplitRule) -> Self {
        let mut source = self.clone();
        match rule {
            SplitRule::Files(test) => source.test = Some(test.clone()),
            SplitRule::Fixed | SplitRule::Generated | SplitRule::Matching(_) => {}
            rule => source.split = SplitOption::of(rule),
        }
        source
    }

    /// Items split by the rule, or with the test part that `test` says, which `read` reads.
    fn parts(&self, whole: InMemory, mut found: Found, read: impl FnOnce(&str) -> Result<(InMemory, Found)>) -> Result<Split> {
        let Some(test) = &self.test else {
            let rule = self.split.map_or(SplitRule::EveryTenth, Into::into);
            return Ok(Split { found, ..whole.parts(&rule)? });
        };
        let (part, told) = read(test)?;
        found.merge(told);
        let (train, test_part) = Labels::joined(whole, part);
        Ok(Split { found, ..Split::new(Arc::new(train), Arc::new(test_part), SplitRule::Files(test.clone()))? })
    }

    /// As [`parts`](Self::parts) of tables. The columns of the test file are those of the training file, in whatever
    /// order they stand there.
    fn tables(&self, file: &Path, options: &TableOptions, read: impl Fn(&Path, &TableOptions) -> Result<table::Table>) -> Result<Split> {
        let table::Table { rows, found } = read(file, options)?;
        let names = column_names(Dataset::columns(&rows)).map(|names| names.into_iter().map(str::to_owned).collect());
        let options = TableOptions { columns: names.unwrap_or_default(), ..options.clone() };
        self.parts(rows, found, |test| {
            let table::Table { rows, found } = read(Path::new(test), &options)?;
            Ok((rows, found))
        })
    }

    /// As [`parts`](Self::parts) of the arrays of one file.
    fn arrays(&self, arrays: &Arrays, keys: &[String], read: impl Fn(&str) -> Result<Array>) -> Result<Split> {
        let has = |key: &str| keys.iter().any(|known| known == key);
        let mut source = self.clone();
        let (mut x, mut y) = (arrays.x.clone(), arrays.y.clone());
        let mut found = Found::default();
        // As Keras and many others name them.
        if x == "x" && !has("x") && has("x_train") {
            "x_train".clone_into(&mut x);
            y = y.or_else(|| has("y_train").then(|| "y_train".to_owned()));
            if source.test.is_none() && source.split.is_none() && has("x_test") {
                let labels = if y.is_some() && has("y_test") { ",y_test" } else { "" };
                let c_test = arrays.c.as_ref().filter(|c| *c == "c_train" && has("c_test"));
                let conditions = c_test.map_or("", |_| if labels.is_empty() { ",,c_test" } else { ",c_test" });
                source.test = Some(format!("x_test{labels}{conditions}"));
            }
            let labels = y.as_ref().map_or(String::new(), |y| format!(", their labels {y}"));
            found.notes.push(format!("{}: the items are the array {x}{labels}", arrays.file.display()));
        } else if x == "x" && !has("x") && keys.len() == 1 {
            x.clone_from(&keys[0]);
            found.notes.push(format!("{}: the items are its only array, {x}", arrays.file.display()));
        }
        let set = |x: &str, y: Option<&str>, c: Option<&str>| {
            let labels = y.map(&read).transpose()?;
            let set = read(x)?.into_dataset(&arrays.file, arrays.options, labels)?;
            let Some(c) = c else { return Ok(set) };
            let (values, width) = read(c)?.into_conditions(&arrays.file, Dataset::len(&set))?;
            let names = if width == 1 { vec![c.to_owned()] } else { (1..=width).map(|i| format!("{c}.{i}")).collect() };
            set.with_conditions(&arrays.file, values, names)
        };
        let whole = set(&x, y.as_deref(), arrays.c.as_deref())?;
        source.parts(whole, found, |test| {
            let mut keys = test.splitn(3, ',').map(|key| Some(key).filter(|key| !key.is_empty()));
            let [x, y, c] = [0, 1, 2].map(|_| keys.next().flatten());
            Ok((set(x.unwrap_or_default(), y, c)?, Found::default()))
        })
    }
}

/// So many items at equal distances, or all.
fn taken(data: Arc<dyn Dataset>, count: Option<usize>) -> Result<Arc<dyn Dataset>> {
    let len = data.len();
    match count.filter(|count| *count < len) {
        None => Ok(data),
        Some(count) => Ok(Arc::new(Subset::new(data, (0..count).map(|item| item * len / count).collect())?)),
    }
}

fn open(path: &Path) -> Result<BufReader<File>> {
    match File::open(path) {
        Ok(file) => Ok(BufReader::new(file)),
        Err(source) => Err(DataError::Io { path: path.to_owned(), source }),
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
mod tests;
