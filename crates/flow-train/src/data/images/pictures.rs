//! Pictures that are decoded when they are drawn.

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rand::Rng;
use rayon::prelude::*;

use super::Crop;
use super::store::Store;
use crate::data::dataset::check_draws;
use crate::data::picture::{Picture, Prepare, Value};
use crate::data::random::{Purpose, stream};
use crate::data::{Batch, DataError, Dataset, Draw, ItemShape, Result, Values};

/// How many bytes of decoded pictures are kept; shared by both parts.
pub(super) struct Cache {
    pub(super) used: AtomicUsize,
    pub(super) limit: usize,
}

pub(super) struct File {
    pub(super) path: PathBuf,
    /// Its path inside the folder.
    pub(super) key: String,
    pub(super) label: Option<usize>,
    /// Its number among all pictures of the folder.
    pub(super) row: usize,
    /// The decoded picture, once there was room to keep it. Nothing is ever evicted: when each picture is drawn once an
    /// epoch in an order of its own, a cache
    /// of the last ones used would hardly ever hit, and one that stays hits in proportion to its size.
    pub(super) picture: OnceLock<Arc<Picture>>,
}

/// One part of an [`ImageFolder`](super::ImageFolder).
pub(super) struct Pictures {
    pub(super) files: Vec<File>,
    pub(super) shape: ItemShape,
    pub(super) crop: Crop,
    pub(super) crops: usize,
    pub(super) prepare: Prepare,
    pub(super) classes: Arc<[String]>,
    /// Items for validation.
    pub(super) held_out: Vec<usize>,
    pub(super) seed: u64,
    pub(super) same_every_epoch: bool,
    pub(super) cache: Arc<Cache>,
    /// Where decoded pictures are kept on disk.
    pub(super) store: Option<Arc<Store>>,
}

impl Pictures {
    fn picture(&self, file: &File) -> Result<Arc<Picture>> {
        if let Some(picture) = file.picture.get() {
            return Ok(picture.clone());
        }
        let read = |store: &Arc<Store>| store.read(&file.path, self.prepare);
        let picture = Arc::new(self.store.as_ref().map_or_else(|| self.prepare.read(&file.path), read)?);
        let bytes = picture.bytes();
        if self.cache.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.cache.limit
            || file.picture.set(picture.clone()).is_err()
        {
            self.cache.used.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(picture)
    }

    /// Height and width of items.
    fn sides(&self) -> [usize; 2] {
        match self.shape {
            ItemShape::Image { height, width, .. } => [height, width],
            ItemShape::Vector { .. } => [0; 2],
        }
    }

    /// The picture of a draw, and the corner of its window.
    fn window(&self, draw: Draw) -> Result<(Arc<Picture>, usize, usize)> {
        let [height, width] = self.sides();
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
        Ok((picture, left, top))
    }

    /// The windows of draws, channel by channel.
    fn draw<T: Value + Default + Send>(&self, draws: &[Draw]) -> Result<Vec<T>> {
        let ([height, width], dims) = (self.sides(), self.shape.dims());
        let mut values = vec![T::default(); draws.len() * dims];
        values.par_chunks_exact_mut(dims).zip(draws).try_for_each(|(item, &draw)| {
            let (picture, left, top) = self.window(draw)?;
            picture.copy_window((left, top), (width, height), item);
            Ok(())
        })?;
        Ok(values)
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
        (!self.prepare.deep).then_some(256)
    }

    fn are_whole(&self) -> bool {
        self.prepare.deep
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn item_name(&self, index: usize) -> Option<String> {
        Some(self.files.get(index / self.crops)?.path.display().to_string())
    }

    fn label(&self, index: usize) -> Option<usize> {
        self.files.get(index / self.crops)?.label
    }

    fn source(&self, index: usize) -> usize {
        index / self.crops
    }

    fn item_key(&self, index: usize) -> Option<String> {
        Some(self.files.get(index / self.crops)?.key.clone())
    }

    fn row(&self, index: usize) -> usize {
        self.files.get(index / self.crops).map_or(index, |file| file.row * self.crops + index % self.crops)
    }

    fn corner(&self, draw: Draw) -> Result<Option<(usize, usize)>> {
        check_draws(&[draw], self.len())?;
        if self.crop == Crop::Random { self.window(draw).map(|(_, left, top)| Some((left, top))) } else { Ok(None) }
    }

    fn held_out(&self) -> &[usize] {
        &self.held_out
    }

    fn batch(&self, draws: &[Draw]) -> Result<Batch> {
        check_draws(draws, self.len())?;
        let values = if self.prepare.deep { Values::Real(self.draw(draws)?) } else { Values::Levels(self.draw(draws)?) };
        let labels = draws.iter().map(|d| self.files[d.index / self.crops].label).collect();
        Ok(Batch { labels, ..Batch::new(values, draws) })
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
    use crate::data::ImageFolder;

    /// Every pixel of the picture says where it stands.
    #[test]
    fn corners_are_those_of_the_windows() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        for name in ["a.png", "b.png"] {
            let place = |x: u32, y: u32| image::Luma([u8::try_from(x + 16 * y).unwrap_or(0)]);
            image::GrayImage::from_fn(16, 16, place).save(dir.path().join(name))?;
        }
        let folder = ImageFolder { size: Some(4), crop: Crop::Random, crops: 9, ..ImageFolder::new(dir.path()) };
        let train = folder.open(3)?.train;
        let draws: Vec<Draw> = (0..train.len()).map(|index| Draw { epoch: 2, index }).collect();
        let Values::Levels(levels) = train.batch(&draws)?.values else { return Err("levels".into()) };
        let corners = draws.iter().map(|draw| train.corner(*draw)).collect::<Result<Vec<_>>>()?;
        let first = levels.chunks_exact(train.shape().dims()).map(|item| usize::from(item[0]));
        assert!(first.zip(&corners).all(|(level, corner)| corner.map(|(x, y)| x + 16 * y) == Some(level)), "{corners:?}");
        assert!(corners.iter().any(|corner| *corner != corners[0]));
        let centred = ImageFolder { crop: Crop::Center, crops: 1, ..folder }.open(3)?.train;
        assert_eq!(centred.corner(draws[0])?, None);
        assert!(train.corner(Draw { epoch: 0, index: 99 }).is_err());
        Ok(())
    }

    /// Kept bytes are counted once a picture and stay within the limit, whatever is drawn.
    #[test]
    fn the_cache_keeps_to_its_limit() -> std::result::Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        for i in 0..4 {
            image::GrayImage::new(600, 600).save(dir.path().join(format!("{i}.png")))?;
        }
        let files: Vec<_> = (0..4).map(|i| dir.path().join(format!("{i}.png"))).collect();
        for (mib, kept) in [(0, 0), (1, 0), (2, 1), (512, 4)] {
            let pictures = Pictures {
                files: files
                    .iter()
                    .map(|path| File { path: path.clone(), key: String::new(), label: None, row: 0, picture: OnceLock::new() })
                    .collect(),
                shape: ItemShape::Image { channels: 3, height: 600, width: 600 },
                crop: Crop::None,
                crops: 1,
                prepare: Prepare { resize: None, grey: false, deep: false },
                classes: Arc::default(),
                held_out: Vec::new(),
                seed: 0,
                same_every_epoch: false,
                cache: Arc::new(Cache { used: AtomicUsize::new(0), limit: mib << 20 }),
                store: None,
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
