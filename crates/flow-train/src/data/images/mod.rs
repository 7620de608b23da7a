//! A folder of pictures, decoded when they are drawn.

mod list;
mod parts;
mod pictures;
mod store;

use crate::text::{agreeing, count};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use glob::Pattern;
use rayon::prelude::*;

use super::picture::{Header, Prepare};
use super::{DataError, Found, ItemShape, MAX_ITEMS, PICTURES, Result, Skipped, Split, SplitOption, SplitRule};
use list::list;
use parts::{Parts, Place};
use pictures::{Cache, File, Pictures};
use store::Store;

/// Which window of a picture is an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// The whole picture: all must have one size.
    None,
    /// The middle `size`×`size` pixels.
    Center,
    /// `size`×`size` pixels anywhere, drawn anew in every epoch of training; evaluation sees those of epoch 0, and the
    /// test part has no others.
    Random,
}

/// How many bits of a value are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Depth {
    /// 8, to which others are scaled: levels from 0 to 255.
    #[default]
    Eight,
    /// 16, to which others are scaled: real numbers that are whole, from 0 to 65,535, and dequantised.
    Sixteen,
}

/// A folder of pictures (PNG, JPEG, WebP, GIF, BMP, TIFF and PNM), searched with its subfolders, links followed.
///
/// Only names are kept, and decoded pictures as far as the cache goes: a set may be larger than memory. A batch is
/// decoded in parallel;
/// [`Loader`](super::Loader) decodes ahead of training. Files are told by content, turned upright by their EXIF
/// orientation,
/// and transparent ones are laid over white; of an animation the first picture is taken. If pictures lie in subfolders,
/// those are the classes, in
/// alphabetical order; a few pictures beside them are left out, and so are subfolders that a run or a comparison wrote.
/// [`Split::found`] counts what is left out, by reason.
///
/// # Which files are test files
/// Those that match [`test`](Self::test). Without it, if there are folders `train` and `test` (or `val`, `validation`
/// and the like), those are the
/// parts: validation pictures are held out of the training part. Otherwise every tenth in alphabetical order. Whole
/// files in each case, so that no
/// crop of a test picture is trained on.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageFolder {
    /// The folder.
    pub dir: PathBuf,
    /// Side of the square items; needed with every crop but `None`.
    pub size: Option<usize>,
    /// Which window of a picture is an item.
    pub crop: Crop,
    /// Windows a picture gives in an epoch; more than 1 only with random crops.
    pub crops: usize,
    /// First scale every picture so that its shorter side is `size`. Otherwise windows have the resolution of the file,
    /// and a picture smaller than `size` is an error.
    pub resize: bool,
    /// Grey items of one channel instead of red, green, blue.
    pub grey: bool,
    /// Bits of a value that are kept.
    pub depth: Depth,
    /// Shell patterns, separated by commas, of the test files: against the path inside the folder, or against the name
    /// if the pattern has no `/`.
    pub test: Option<String>,
    /// Leave out files that cannot be decoded or are too small, and list them in [`Split::skipped`]; decodes every file
    /// once at opening.
    pub skip_bad: bool,
    /// Decoded pictures to keep, in MiB. Pictures are kept as they come until it is full.
    pub cache: usize,
    /// A folder to keep decoded pictures in, at most 16 GiB, so that the next command does not decode them again: by
    /// content and options, so that it can be shared. Nothing in it is ever removed, and all of it can be.
    pub store: Option<PathBuf>,
}

impl ImageFolder {
    /// Whole colour pictures, with a cache of 512 MiB.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            size: None,
            crop: Crop::None,
            crops: 1,
            resize: false,
            grey: false,
            depth: Depth::default(),
            test: None,
            skip_bad: false,
            cache: 512,
            store: None,
        }
    }

    /// Lists the folder and checks the size of every picture; `seed` is that of the random crops.
    ///
    /// # Errors
    /// [`DataError::Setting`] for settings that contradict each other, a malformed pattern, or patterns that match no
    /// picture or
    /// all; [`DataError::Missing`] without pictures, [`DataError::Empty`] if all are left out; [`DataError::TooFew`] if
    /// a part would be empty; [`DataError::ImageSize`] for a picture that is too
    /// small or, without crops, not of the size of the first; [`DataError::Image`] for a broken one; [`DataError::Io`].
    pub fn open(&self, seed: u64) -> Result<Split> {
        self.parts(seed, None)?.of_two(&self.dir)
    }

    /// As [`open`](Self::open), where a part may be empty and the rule of the parts may be said.
    pub(super) fn parts(&self, seed: u64, split: Option<SplitOption>) -> Result<Split> {
        self.check()?;
        let patterns = self.patterns()?;
        let prepare = Prepare { resize: self.size.filter(|_| self.resize), grey: self.grey, deep: self.depth == Depth::Sixteen };
        let mut found = Found::default();
        let by_folder = match split {
            Some(SplitOption::Folders) => Some(true),
            None if patterns.is_none() => None,
            _ => Some(false),
        };
        let store = self.store.as_deref().map(Store::open).transpose()?.map(Arc::new);
        let survey = self.survey(prepare, store.as_deref(), by_folder, &mut found)?;
        let (height, width) = match (self.crop, self.size) {
            (Crop::Center | Crop::Random, Some(size)) => (size, size),
            _ => (survey.size.1 as usize, survey.size.0 as usize),
        };
        let shape = ItemShape::Image { channels: if self.grey { 1 } else { 3 }, height, width };

        let n = survey.kept.len();
        if n.checked_mul(self.crops).is_none_or(|items| items > MAX_ITEMS) {
            let expected = "at most 100000000 crops in an epoch";
            return Err(DataError::Setting { what: "crops", expected, got: format!("{} of {n} pictures", self.crops) });
        }
        let by_folder = survey.kept.iter().any(|kept| kept.place.part.is_some());
        let rule = match (&self.test, split) {
            (Some(test), _) => SplitRule::Matching(test.clone()),
            (None, _) if by_folder => SplitRule::Folders,
            (None, Some(split)) => split.into(),
            (None, None) => SplitRule::EveryTenth,
        };
        let is_test = |i: usize, kept: &Kept| match &rule {
            SplitRule::Matching(_) => patterns.as_ref().is_some_and(|patterns| self.matches(patterns, &kept.path)),
            SplitRule::Folders => kept.place.part == Some(super::Part::Test),
            SplitRule::Share(share) => SplitRule::is_test_key(*share, self.inside(&kept.path).to_string_lossy().as_bytes()),
            rule => rule.is_test(i, n),
        };
        let (mut train, mut test, mut held_out) = (Vec::new(), Vec::new(), Vec::new());
        for (i, kept) in survey.kept.into_iter().enumerate() {
            let part = if is_test(i, &kept) { &mut test } else { &mut train };
            if kept.place.part == Some(super::Part::Validation) {
                held_out.extend((part.len() * self.crops..).take(self.crops));
            }
            let key = self.inside(&kept.path).to_string_lossy().into_owned();
            part.push(File { label: kept.place.label, row: kept.row, path: kept.path, key, picture: OnceLock::new() });
        }
        if let Some(patterns) = self.test.as_ref().filter(|_| train.is_empty() || test.is_empty()) {
            let expected = "patterns that match some of the pictures and not all";
            return Err(DataError::Setting { what: "test", expected, got: patterns.clone() });
        }
        let cache = Arc::new(Cache { used: AtomicUsize::new(0), limit: self.cache.saturating_mul(1 << 20) });
        let part = |files, held_out, same_every_epoch| {
            let (crop, crops, cache, classes) = (self.crop, self.crops, cache.clone(), survey.classes.clone());
            let store = store.clone();
            Arc::new(Pictures { files, shape, crop, crops, prepare, classes, held_out, seed, same_every_epoch, cache, store })
        };
        let split = Split::new(part(train, held_out, false), part(test, Vec::new(), true), rule)?;
        Ok(Split { skipped: survey.skipped, found, ..split })
    }

    /// Lists the folder and sorts out what cannot be used.
    fn survey(&self, prepare: Prepare, store: Option<&Store>, by_folder: Option<bool>, found: &mut Found) -> Result<Survey> {
        let mut skipped = Vec::new();
        let paths = list(&self.dir, found, &mut skipped)?;
        let Parts { places, classes } = Parts::of(&self.dir, &paths, by_folder, found)?;
        let used: Vec<(usize, PathBuf, Place)> =
            paths.into_iter().zip(places).enumerate().filter_map(|(row, (path, place))| Some((row, path, place?))).collect();
        PICTURES.expect(used.len());
        let headers: Vec<_> = used.par_iter().map(|(_, path, _)| self.inspect(path, prepare, store)).collect();
        let (mut kept, mut first, mut deep) = (Vec::new(), None, 0);
        for ((row, path, place), header) in used.into_iter().zip(headers) {
            let Header { size, deep: is_deep } = match header {
                Ok(header) => header,
                Err(error) if self.skip_bad => {
                    skipped.push(Skipped { path, reason: error.to_string() });
                    continue;
                }
                Err(error) => return Err(error),
            };
            let (w, h) = *first.get_or_insert(size);
            if self.crop == Crop::None && size != (w, h) {
                let expected = format!("{w}×{h} like the first picture; size= and crop= take pictures of several sizes");
                return Err(DataError::ImageSize { path, expected, got: size });
            }
            deep += usize::from(is_deep);
            kept.push(Kept { row, path, place });
        }
        let (dir, shallow) = (self.dir.display(), kept.len() - deep);
        if self.depth == Depth::Sixteen && shallow > 0 {
            found.warnings.push(format!(
                "{dir}: {shallow} of {} {} 8 bits a value, scaled to 16: every 257th level",
                count(kept.len(), "picture"),
                agreeing(shallow, "has", "have")
            ));
        } else if self.depth == Depth::Eight && deep > 0 {
            found.warnings.push(format!(
                "{dir}: {} {} more than 8 bits a value and {} scaled to 8, 256 levels of 65,536: depth=16 keeps {}",
                count(deep, "picture"),
                agreeing(deep, "has", "have"),
                agreeing(deep, "is", "are"),
                agreeing(deep, "it", "them")
            ));
        }
        match first {
            Some(size) => Ok(Survey { kept, classes, skipped, size }),
            None if skipped.iter().all(|skipped| skipped.path.is_dir()) => Err(DataError::Missing {
                path: self.dir.clone(),
                expected: "pictures: .png, .jpg, .jpeg, .webp, .gif, .bmp, .tif or .pnm files",
            }),
            None => Err(DataError::Empty { path: self.dir.clone() }),
        }
    }

    fn check(&self) -> Result<()> {
        let bad = |what, expected, got: String| Err(DataError::Setting { what, expected, got });
        match (self.size, self.crop) {
            (Some(0), _) => return bad("size", "at least 1", "0".to_owned()),
            (None, Crop::Center | Crop::Random) => {
                return bad("size", "the side of the crops", "none".to_owned());
            }
            (Some(size), Crop::None) => {
                return bad("size", "none without a crop", size.to_string());
            }
            _ => {}
        }
        if self.crops == 0 || self.crops > 1 && self.crop != Crop::Random {
            return bad("crops", "at least 1, and 1 unless crop=random", self.crops.to_string());
        }
        if self.resize && self.size.is_none() {
            return bad("resize", "a size to scale to", "none".to_owned());
        }
        Ok(())
    }

    fn patterns(&self) -> Result<Option<Vec<Pattern>>> {
        let parse = |text: &str| {
            let got = |e: glob::PatternError| format!("{text}: {e}");
            Pattern::new(text).map_err(|e| DataError::Setting { what: "test", expected: "shell patterns", got: got(e) })
        };
        self.test.as_deref().map(|patterns| patterns.split(',').map(parse).collect()).transpose()
    }

    fn matches(&self, patterns: &[Pattern], path: &Path) -> bool {
        let inside = self.inside(path);
        let name = path.file_name().map_or(Path::new(""), Path::new);
        patterns.iter().any(|p| p.matches_path(if p.as_str().contains('/') { inside } else { name }))
    }

    fn inside<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.dir).unwrap_or(path)
    }

    /// What a picture is once prepared, or what is wrong with it.
    fn inspect(&self, path: &Path, prepare: Prepare, store: Option<&Store>) -> Result<Header> {
        let header = prepare.read_header(path)?;
        if self.skip_bad {
            store.map_or_else(|| prepare.read(path), |store| store.read(path, prepare))?;
        } else {
            PICTURES.add();
        }
        let (width, height) = header.size;
        if let (Crop::Center | Crop::Random, Some(size)) = (self.crop, self.size)
            && (width.min(height) as usize) < size
        {
            let expected = format!("at least {size}×{size}; resize=1 scales pictures first");
            return Err(DataError::ImageSize { path: path.to_owned(), expected, got: (width, height) });
        }
        Ok(header)
    }
}

/// What a folder holds.
struct Survey {
    kept: Vec<Kept>,
    classes: Arc<[String]>,
    skipped: Vec<Skipped>,
    /// Width and height of the first picture.
    size: (u32, u32),
}

/// A picture that is used.
struct Kept {
    /// Its number among all pictures of the folder.
    row: usize,
    path: PathBuf,
    place: Place,
}
