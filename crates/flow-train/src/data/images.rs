//! A folder of pictures, decoded when they are drawn.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use glob::Pattern;
use rand::Rng;
use rayon::prelude::*;

use super::dataset::check_draws;
use super::picture::{Picture, Prepare};
use super::random::{Purpose, stream};
use super::{Batch, DataError, Dataset, Draw, ItemShape, MAX_ITEMS, Result, Skipped, Split, SplitRule, Values};

/// Which window of a picture is an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crop {
    /// The whole picture: all must have one size.
    None,
    /// The middle `size`×`size` pixels.
    Center,
    /// `size`×`size` pixels anywhere, drawn anew in every epoch of training; evaluation sees those of epoch 0, and the test part has no others.
    Random,
}

/// A folder of PNG, JPEG and WebP pictures, searched with its subfolders.
///
/// Subfolders that a run or a comparison wrote are left out, and listed in [`Split::skipped`].
///
/// Only names are kept, and decoded pictures as far as the cache goes: a set may be larger than memory. A batch is decoded in parallel;
/// [`Loader`](super::Loader) decodes ahead of training. Files are told by content, turned upright by their EXIF orientation,
/// and transparent ones are laid over white. If every picture lies in a subfolder, the subfolders are the classes, in alphabetical order.
///
/// # Which files are test files
/// Those that match [`test`](Self::test), otherwise every tenth in alphabetical order: whole files in either case, so that no crop of a test picture is
/// trained on.
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
    /// First scale every picture so that its shorter side is `size`. Otherwise windows have the resolution of the file, and a picture smaller than `size` is an error.
    pub resize: bool,
    /// Grey items of one channel instead of red, green, blue.
    pub grey: bool,
    /// Shell patterns, separated by commas, of the test files: against the path inside the folder, or against the name if the pattern has no `/`.
    pub test: Option<String>,
    /// Leave out files that cannot be decoded or are too small, and list them in [`Split::skipped`]; decodes every file once at opening.
    pub skip_bad: bool,
    /// Decoded pictures to keep, in MiB. Pictures are kept as they come until it is full.
    pub cache: usize,
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
            test: None,
            skip_bad: false,
            cache: 512,
        }
    }

    /// Lists the folder and checks the size of every picture; `seed` is that of the random crops.
    ///
    /// # Errors
    /// [`DataError::Setting`] for settings that contradict each other, a malformed pattern, or patterns that match no picture or
    /// all; [`DataError::Missing`] without pictures, [`DataError::Empty`] if all are left out; [`DataError::TooFew`] if a part would be empty; [`DataError::ImageSize`] for a picture that is too
    /// small or, without crops, not of the size of the first; [`DataError::Image`] for a broken one; [`DataError::Io`].
    pub fn open(&self, seed: u64) -> Result<Split> {
        self.parts(seed)?.of_two(&self.dir)
    }

    /// As [`open`](Self::open), where a part may be empty.
    pub(super) fn parts(&self, seed: u64) -> Result<Split> {
        self.check()?;
        let patterns = self.patterns()?;
        let prepare = Prepare { resize: self.size.filter(|_| self.resize), grey: self.grey };
        let Survey { kept, skipped, size: (width, height) } = self.survey(prepare)?;
        let (height, width) = match (self.crop, self.size) {
            (Crop::Center | Crop::Random, Some(size)) => (size, size),
            _ => (height as usize, width as usize),
        };
        let shape = ItemShape::Image { channels: if self.grey { 1 } else { 3 }, height, width };

        let n = kept.len();
        if n.checked_mul(self.crops).is_none_or(|items| items > MAX_ITEMS) {
            let expected = "at most 100000000 crops in an epoch";
            return Err(DataError::Setting { what: "crops", expected, got: format!("{} of {n} pictures", self.crops) });
        }
        let (labels, classes) = self.classes(&kept);
        let is_test = |i: usize, path: &Path| match &patterns {
            Some(patterns) => self.matches(patterns, path),
            None => SplitRule::EveryTenth.is_test(i, n),
        };
        let (mut train, mut test) = (Vec::new(), Vec::new());
        for (i, path) in kept.into_iter().enumerate() {
            let part = if is_test(i, &path) { &mut test } else { &mut train };
            part.push(File { label: labels.as_ref().map(|l| l[i]), path, picture: OnceLock::new() });
        }
        if let Some(patterns) = self.test.as_ref().filter(|_| train.is_empty() || test.is_empty()) {
            let expected = "patterns that match some of the pictures and not all";
            return Err(DataError::Setting { what: "test", expected, got: patterns.clone() });
        }
        let cache = Arc::new(Cache { used: AtomicUsize::new(0), limit: self.cache.saturating_mul(1 << 20) });
        let part = |files, same_every_epoch| {
            let (crop, crops, cache, classes) = (self.crop, self.crops, cache.clone(), classes.clone());
            Arc::new(Pictures { files, shape, crop, crops, prepare, classes, seed, same_every_epoch, cache })
        };
        let rule = self.test.clone().map_or(SplitRule::EveryTenth, SplitRule::Matching);
        Ok(Split { skipped, ..Split::new(part(train, false), part(test, true), rule)? })
    }

    /// Lists the folder and sorts out what cannot be used.
    fn survey(&self, prepare: Prepare) -> Result<Survey> {
        let (mut paths, mut skipped) = (Vec::new(), Vec::new());
        list(&self.dir, 0, &mut paths, &mut skipped)?;
        paths.sort();
        skipped.sort_by(|a, b| a.path.cmp(&b.path));
        let sizes: Vec<_> = paths.par_iter().map(|path| self.inspect(path, prepare)).collect();
        let (mut kept, mut first) = (Vec::new(), None);
        for (path, size) in paths.into_iter().zip(sizes) {
            let size = match size {
                Ok(size) => size,
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
            kept.push(path);
        }
        match first {
            Some(size) => Ok(Survey { kept, skipped, size }),
            None if skipped.iter().all(|skipped| skipped.path.is_dir()) => {
                Err(DataError::Missing { path: self.dir.clone(), expected: "pictures: .png, .jpg, .jpeg or .webp files" })
            }
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
        let inside = path.strip_prefix(&self.dir).unwrap_or(path);
        let name = path.file_name().map_or(Path::new(""), Path::new);
        patterns.iter().any(|p| p.matches_path(if p.as_str().contains('/') { inside } else { name }))
    }

    /// The size that a picture has once prepared, or what is wrong with it.
    fn inspect(&self, path: &Path, prepare: Prepare) -> Result<(u32, u32)> {
        let (width, height) = if self.skip_bad { prepare.read(path)?.size() } else { prepare.read_size(path)? };
        if let (Crop::Center | Crop::Random, Some(size)) = (self.crop, self.size)
            && (width.min(height) as usize) < size
        {
            let expected = format!("at least {size}×{size}; resize=1 scales pictures first");
            return Err(DataError::ImageSize { path: path.to_owned(), expected, got: (width, height) });
        }
        Ok((width, height))
    }

    /// Labels and class names, if every file lies in a subfolder.
    fn classes(&self, files: &[PathBuf]) -> (Option<Vec<u32>>, Arc<[String]>) {
        let folder = |path: &PathBuf| {
            let mut inside = path.strip_prefix(&self.dir).ok()?.components();
            let first = inside.next()?;
            inside.next().map(|_| first.as_os_str().to_string_lossy().into_owned())
        };
        let Some(folders) = files.iter().map(folder).collect::<Option<Vec<_>>>() else {
            return (None, Arc::default());
        };
        let mut classes = folders.clone();
        classes.sort();
        classes.dedup();
        let label = |name: &String| classes.partition_point(|c| c < name);
        let labels = folders.iter().map(|name| u32::try_from(label(name)).ok()).collect();
        (labels, classes.into())
    }
}

/// What a folder holds.
struct Survey {
    kept: Vec<PathBuf>,
    skipped: Vec<Skipped>,
    /// Width and height of the first picture.
    size: (u32, u32),
}

/// Pictures in `dir` and its subfolders; hidden files, links to folders, and subfolders that a run or a comparison
/// wrote are left out.
fn list(dir: &Path, depth: usize, files: &mut Vec<PathBuf>, skipped: &mut Vec<Skipped>) -> Result<()> {
    const DEEPEST: usize = 64;
    let io = |source| DataError::Io { path: dir.to_owned(), source };
    for entry in fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if hidden {
            continue;
        }
        if entry.file_type().map_err(io)?.is_dir() {
            if let Some(reason) = results(&path) {
                skipped.push(Skipped { path, reason: reason.to_owned() });
            } else if depth < DEEPEST {
                list(&path, depth + 1, files, skipped)?;
            }
            continue;
        }
        let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
        if matches!(extension.as_deref(), Some("png" | "jpg" | "jpeg" | "webp")) && path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}

/// What a folder is that holds pictures of results, which are no data: a run's folder may lie below that of its own
/// data.
fn results(folder: &Path) -> Option<&'static str> {
    if crate::RunFolder::exists(folder) {
        Some("the folder of a run: its pictures are no data")
    } else if folder.join(crate::compare::RESULTS).is_file() {
        Some("the folder of a comparison: its pictures are no data")
    } else {
        None
    }
}

/// How many bytes of decoded pictures are kept; shared by both parts.
struct Cache {
    used: AtomicUsize,
    limit: usize,
}

struct File {
    path: PathBuf,
    label: Option<u32>,
    /// The decoded picture, once there was room to keep it. Nothing is ever evicted: when each picture is drawn once an epoch in an order of its own, a cache
    /// of the last ones used would hardly ever hit, and one that stays hits in proportion to its size.
    picture: OnceLock<Arc<Picture>>,
}

/// One part of an [`ImageFolder`].
struct Pictures {
    files: Vec<File>,
    shape: ItemShape,
    crop: Crop,
    crops: usize,
    prepare: Prepare,
    classes: Arc<[String]>,
    seed: u64,
    same_every_epoch: bool,
    cache: Arc<Cache>,
}

impl Pictures {
    fn picture(&self, file: &File) -> Result<Arc<Picture>> {
        if let Some(picture) = file.picture.get() {
            return Ok(picture.clone());
        }
        let picture = Arc::new(self.prepare.read(&file.path)?);
        let bytes = picture.bytes();
        if self.cache.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.cache.limit
            || file.picture.set(picture.clone()).is_err()
        {
            self.cache.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(picture)
    }

    /// Writes the window of one draw, channel by channel.
    fn draw(&self, draw: Draw, item: &mut [u8]) -> Result<()> {
        let ItemShape::Image { height, width, .. } = self.shape else {
            return Ok(());
        };
        let file = &self.files[draw.index / self.crops];
        let picture = self.picture(file)?;
        let (w, h) = picture.size();
        let (Some(right), Some(down)) = ((w as usize).checked_sub(width), (h as usize).checked_sub(height)) else {
            // Only if the file was changed after opening.
            let expected = format!("at least {width}×{height}, as it had when the set was opened");
            return Err(DataError::ImageSize { path: file.path.clone(), expected, got: (w, h) });
        };
        let (left, top) = match self.crop {
            Crop::None => (0, 0),
            Crop::Center => (right / 2, down / 2),
            Crop::Random => {
                let epoch = if self.same_every_epoch { 0 } else { draw.epoch };
                let mut rng = stream(self.seed, Purpose::Crop, Draw { epoch, ..draw });
                (rng.gen_range(0..=right), rng.gen_range(0..=down))
            }
        };
        picture.copy_window(left, top, width, height, item);
        Ok(())
    }
}

impl Dataset for Pictures {
    fn len(&self) -> usize {
        self.files.len() * self.crops
    }

    fn shape(&self) -> ItemShape {
        self.shape
    }

    fn levels(&self) -> Option<u32> {
        Some(256)
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn item_name(&self, index: usize) -> Option<String> {
        Some(self.files.get(index / self.crops)?.path.display().to_string())
    }

    fn source(&self, index: usize) -> usize {
        index / self.crops
    }

    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        check_draws(draws, self.len())?;
        let dims = self.shape.dims();
        let mut pixels = vec![0; draws.len() * dims];
        pixels.par_chunks_exact_mut(dims).zip(draws).try_for_each(|(item, &draw)| self.draw(draw, item))?;
        let labels = draws.iter().map(|d| self.files[d.index / self.crops].label).collect();
        Ok(Batch { values: Values::Levels(pixels), labels, draws: draws.to_vec() })
    }
}

/// Leaves out the files and what is decoded of them.
impl fmt::Debug for Pictures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pictures")
            .field("files", &self.files.len())
            .field("shape", &self.shape)
            .field("crop", &self.crop)
            .field("crops", &self.crops)
            .field("classes", &self.classes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kept bytes are counted once a picture and stay within the limit, whatever is drawn.
    #[test]
    fn the_cache_keeps_to_its_limit() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        for i in 0..4 {
            image::GrayImage::new(600, 600).save(dir.path().join(format!("{i}.png")))?;
        }
        let folder = ImageFolder::new(dir.path());
        let files: Vec<_> = (0..4).map(|i| dir.path().join(format!("{i}.png"))).collect();
        for (mib, kept) in [(0, 0), (1, 0), (2, 1), (512, 4)] {
            let pictures = Pictures {
                files: files.iter().map(|path| File { path: path.clone(), label: None, picture: OnceLock::new() }).collect(),
                shape: ItemShape::Image { channels: 3, height: 600, width: 600 },
                crop: folder.crop,
                crops: 1,
                prepare: Prepare { resize: None, grey: false },
                classes: Arc::default(),
                seed: 0,
                same_every_epoch: false,
                cache: Arc::new(Cache { used: AtomicUsize::new(0), limit: mib << 20 }),
            };
            for epoch in 0..3 {
                let draws: Vec<_> = (0..8).map(|i| Draw { epoch, index: i % 4 }).collect();
                pictures.batch(&draws)?;
            }
            assert_eq!(pictures.files.iter().filter(|f| f.picture.get().is_some()).count(), kept, "{mib} MiB");
            assert_eq!(pictures.cache.used.load(Ordering::Relaxed), kept * 600 * 600 * 3);
        }
        Ok(())
    }
}
