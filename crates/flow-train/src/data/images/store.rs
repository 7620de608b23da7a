//! Decoded pictures on disk, so that the next command does not decode them again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::data::picture::{Picture, Prepare};
use crate::data::{DataError, PICTURES, Result};

/// The most bytes that a store grows to (16 GiB).
const MOST: u64 = 1 << 34;
/// What the names of its files end with.
const ENDING: &str = "pixels";

/// A folder of decoded pictures, each named after the content of its file and what was done to it: where pictures lie
/// and what they are called does not matter, and one that changes is another. Files are put there whole under their
/// names, with a checksum, so that several programs can share a store; what cannot be read is decoded anew. Once it has
/// 16 GiB nothing more is kept.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    used: AtomicU64,
    most: u64,
}

impl Store {
    /// Opens a store, or makes a new one.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        Self::of(dir, MOST)
    }

    fn of(dir: &Path, most: u64) -> Result<Self> {
        let io = |source| DataError::Io { path: dir.to_owned(), source };
        fs::create_dir_all(dir).map_err(io)?;
        let is_own = |path: &Path| path.extension().is_some_and(|ending| ending == ENDING);
        let sizes = fs::read_dir(dir).map_err(io)?.filter_map(|entry| {
            let entry = entry.ok()?;
            is_own(&entry.path()).then(|| entry.metadata().map_or(0, |found| found.len()))
        });
        Ok(Self { dir: dir.to_owned(), used: AtomicU64::new(sizes.sum()), most })
    }

    /// The picture of a file, decoded only if it is not kept, and kept then.
    pub(super) fn read(&self, path: &Path, prepare: Prepare) -> Result<Picture> {
        let content = fs::read(path).map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        let place = self.dir.join(name(&content, prepare));
        drop(content);
        if let Some(kept) = fs::read(&place).ok().and_then(|bytes| Picture::from_bytes(&bytes, prepare.deep)) {
            PICTURES.add();
            return Ok(kept);
        }
        let picture = prepare.read(path)?;
        if let Err(error) = self.keep(&place, &picture.to_bytes()) {
            tracing::warn!("{}: {error}: the picture is decoded anew when it is needed again", place.display());
        }
        Ok(picture)
    }

    fn keep(&self, place: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let size = bytes.len() as u64;
        if self.used.fetch_add(size, Ordering::Relaxed).saturating_add(size) > self.most {
            self.used.fetch_sub(size, Ordering::Relaxed);
            return Ok(());
        }
        let mut draft = tempfile::NamedTempFile::new_in(&self.dir)?;
        draft.write_all(bytes)?;
        draft.persist(place).map_err(|failed| failed.error)?;
        Ok(())
    }
}

/// Two hashes of the content and its length, what was done to it, and the version that did it.
fn name(content: &[u8], prepare: Prepare) -> String {
    let hash = content.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let Prepare { resize, grey, deep } = prepare;
    let side = resize.map_or_else(|| "whole".to_owned(), |side| side.to_string());
    let colour = if grey { "grey" } else { "rgb" };
    let depth = if deep { "-16" } else { "" };
    let (length, crc) = (content.len(), crc32fast::hash(content));
    format!("{hash:016x}{crc:08x}-{length}-{side}-{colour}{depth}-{}.{ENDING}", env!("CARGO_PKG_VERSION"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pixels(picture: &Picture) -> Vec<u8> {
        let (width, height) = picture.size();
        let (width, height) = (width as usize, height as usize);
        let mut out = vec![0; picture.bytes()];
        picture.copy_window((0, 0), (width, height), &mut out);
        out
    }

    /// A picture is decoded once, whatever it is called, anew when it changes or when what is kept is broken, and
    /// nothing is kept beyond the limit.
    #[test]
    fn what_is_kept_is_what_would_be_decoded() {
        let folder = tempfile::tempdir().unwrap();
        let (at, dir) = (|name: &str| folder.path().join(name), folder.path().join("store"));
        let write = |name: &str, salt: u32| {
            image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x, y, x * y + salt].map(|v| u8::try_from(v * 9 % 256).unwrap())))
                .save(at(name))
                .unwrap();
        };
        let prepare = Prepare { resize: None, grey: false, deep: false };
        let kept = || fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
        write("a.png", 0);
        let store = Store::open(&dir).unwrap();
        let first = pixels(&store.read(&at("a.png"), prepare).unwrap());
        assert_eq!(first, pixels(&prepare.read(&at("a.png")).unwrap()));
        fs::rename(at("a.png"), at("b.png")).unwrap();
        assert_eq!((pixels(&Store::open(&dir).unwrap().read(&at("b.png"), prepare).unwrap()), kept().len()), (first.clone(), 1));

        // It is what is kept that is read: a whole file of other pixels is taken, a broken one is not.
        let own = kept().remove(0);
        let other = prepare
            .read(&{
                write("c.png", 5);
                at("c.png")
            })
            .unwrap();
        fs::write(&own, other.to_bytes()).unwrap();
        assert_eq!(pixels(&store.read(&at("b.png"), prepare).unwrap()), pixels(&other));
        let mut bytes = fs::read(&own).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        for broken in [&bytes[..], &bytes[..10], b""] {
            fs::write(&own, broken).unwrap();
            assert_eq!(pixels(&store.read(&at("b.png"), prepare).unwrap()), first);
        }

        // Of sixteen bits it is another one, and comes back as it was.
        let deep = Prepare { deep: true, ..prepare };
        let reals = |picture: &Picture| {
            let mut out = vec![0.0; 9 * 7 * 3];
            picture.copy_window((0, 0), (9, 7), &mut out);
            out
        };
        let wide = reals(&store.read(&at("b.png"), deep).unwrap());
        assert!(wide.iter().zip(&first).all(|(wide, level)| (wide - 257.0 * f64::from(*level)).abs() < 1e-9));
        assert_eq!((reals(&store.read(&at("b.png"), deep).unwrap()), kept().len()), (wide, 2));

        // Other options and other content are other pictures.
        assert_ne!(pixels(&store.read(&at("b.png"), Prepare { resize: Some(14), grey: true, deep: false }).unwrap()), first);
        assert_eq!(pixels(&store.read(&at("c.png"), prepare).unwrap()), pixels(&other));
        assert_eq!(kept().len(), 4);
        fs::remove_dir_all(&dir).unwrap();
        let small = Store::of(&dir, 300).unwrap();
        for name in ["b.png", "c.png"] {
            small.read(&at(name), prepare).unwrap();
        }
        assert_eq!(kept().len(), 1);
        assert!(matches!(Store::open(&at("b.png")), Err(DataError::Io { .. })));
    }
}
