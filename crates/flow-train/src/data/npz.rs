//! `.npz`: a zip archive of [`npy`] arrays, stored or deflated.

use std::fmt;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use zip::result::ZipError;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::array::Array;
use super::{DataError, Result, npy};

/// Names of the arrays, in alphabetical order; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::Compressed`] for a broken archive.
pub fn keys(path: &Path, reader: impl Read + Seek) -> Result<Vec<String>> {
    let archive = ZipArchive::new(reader).map_err(|error| broken(path, error))?;
    let mut known: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned())).collect();
    known.sort();
    Ok(known)
}

fn broken(path: &Path, error: ZipError) -> DataError {
    DataError::Compressed { path: path.to_owned(), source: error.into() }
}

/// Reads the array called `key`; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::MissingKey`] with the names that there are, [`DataError::Compressed`] for a broken archive, and those
/// of [`npy::read`].
pub fn read(path: &Path, mut reader: impl Read + Seek, key: &str) -> Result<Array> {
    let known = keys(path, &mut reader)?;
    let mut archive = ZipArchive::new(reader).map_err(|error| broken(path, error))?;
    let entry = match archive.by_name(&format!("{key}.npy")) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Err(DataError::MissingKey { path: path.to_owned(), key: key.to_owned(), known }),
        Err(error) => return Err(broken(path, error)),
    };
    npy::read(path, entry).map_err(|error| match error {
        // The reader is the decompressor.
        DataError::Io { path, source } => DataError::Compressed { path, source },
        other => other,
    })
}

/// Writes an archive array by array, each under a name of its own.
///
/// ```
/// use flow_train::data::npz::{self, Writer};
/// use std::{io::Cursor, path::Path};
/// let (path, mut bytes) = (Path::new("a.npz"), Cursor::new(Vec::new()));
/// let mut archive = Writer::new(&mut bytes, path);
/// archive.floats("z", &[2, 1], |array| array.write(&[0.5, 1.5]))?;
/// archive.integers("row", [0, 7])?;
/// archive.strings("name", &["a".to_owned(), "".to_owned()])?;
/// archive.finish()?;
/// assert_eq!(npz::keys(path, &mut bytes)?, ["name", "row", "z"]);
/// # Ok::<(), flow_train::data::DataError>(())
/// ```
pub struct Writer<W: Write + Seek> {
    zip: ZipWriter<W>,
    path: PathBuf,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins an archive; `path` only names the destination in errors.
    pub fn new(to: W, path: &Path) -> Self {
        Self { zip: ZipWriter::new(to), path: path.to_owned() }
    }

    fn start(&mut self, name: &str) -> Result<()> {
        // An array may be larger than what the first zip files could hold.
        let options = SimpleFileOptions::default().large_file(true);
        self.zip.start_file(format!("{name}.npy"), options).map_err(|error| self.io(error.into()))
    }

    fn io(&self, source: io::Error) -> DataError {
        DataError::Io { path: self.path.clone(), source }
    }

    /// An array of f32 of this shape, which `write` writes.
    ///
    /// # Errors
    /// Those of `write`, of [`npy::Writer`], and [`DataError::Io`].
    pub fn floats<E: From<DataError>>(
        &mut self,
        name: &str,
        shape: &[usize],
        write: impl FnOnce(&mut npy::Writer<&mut ZipWriter<W>>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.start(name)?;
        let mut array = npy::Writer::new(&mut self.zip, &self.path, shape)?;
        write(&mut array)?;
        Ok(array.finish()?)
    }

    /// An array of 64-bit integers along one axis.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn integers(&mut self, name: &str, values: impl IntoIterator<Item = i64>) -> Result<()> {
        let bytes: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
        self.raw(name, "<i8", bytes.len() / size_of::<i64>(), &bytes)
    }

    /// An array of text along one axis, which numpy reads as `<U`.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn strings(&mut self, name: &str, values: &[String]) -> Result<()> {
        let width = values.iter().map(|text| text.chars().count()).max().unwrap_or(0).max(1);
        let padded = values.iter().flat_map(|text| text.chars().map(u32::from).chain(std::iter::repeat(0)).take(width));
        let bytes: Vec<u8> = padded.flat_map(u32::to_le_bytes).collect();
        self.raw(name, &format!("<U{width}"), values.len(), &bytes)
    }

    fn raw(&mut self, name: &str, descr: &str, len: usize, bytes: &[u8]) -> Result<()> {
        self.start(name)?;
        let written = self.zip.write_all(&npy::start(descr, &[len])).and_then(|()| self.zip.write_all(bytes));
        written.map_err(|source| self.io(source))
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn finish(self) -> Result<()> {
        let Self { zip, path } = self;
        match zip.finish() {
            Ok(mut to) => to.flush().map_err(|source| DataError::Io { path, source }),
            Err(error) => Err(DataError::Io { path, source: error.into() }),
        }
    }
}

/// Leaves out the zip writer, which shows nothing.
impl<W: Write + Seek> fmt::Debug for Writer<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::array::Numbers;
    use super::*;
    use proptest::prelude::*;
    use std::io::Cursor;
    use zip::CompressionMethod;

    const NPY: &[u8] = b"\x93NUMPY\x01\x00\x3c\x00{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }  \n\x01\x02\x03";

    fn npz(method: CompressionMethod) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for name in ["x.npy", "b.npy"] {
            let options = SimpleFileOptions::default().compression_method(method);
            zip.start_file(name, options).expect("memory");
            zip.write_all(NPY).expect("memory");
        }
        zip.finish().expect("memory").into_inner()
    }

    fn parse(bytes: &[u8], key: &str) -> Result<Array> {
        read("a.npz".as_ref(), Cursor::new(bytes), key)
    }

    #[test]
    fn stored_and_deflated_arrays_are_read_by_name() -> Result<()> {
        for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
            let array = parse(&npz(method), "x")?;
            assert_eq!(array, Array { shape: vec![3], numbers: Numbers::Bytes(vec![1, 2, 3]) });
            let error = parse(&npz(method), "y").expect_err("no such array").to_string();
            assert_eq!(error, "a.npz: no array `y`; there are: b, x");
        }
        Ok(())
    }

    #[test]
    fn broken_archives_are_typed_errors() {
        let good = npz(CompressionMethod::Deflated);
        let mut flipped = good.clone();
        // Inside the deflated bytes of the first entry.
        flipped[60] ^= 0xff;
        for (case, bytes) in [("nothing", &[][..]), ("not zip", NPY), ("cut off", &good[..good.len() / 2]), ("flipped", &flipped)] {
            assert!(parse(bytes, "x").is_err(), "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
            let mut bytes = npz(CompressionMethod::Deflated);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let _ = parse(&bytes, "x");
            let _ = parse(&bytes[..at], "x");
        }
    }
}
