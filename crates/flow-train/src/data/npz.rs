//! `.npz`: a zip archive of [`npy`] arrays, stored or deflated.

use std::io::{Read, Seek};
use std::path::Path;

use zip::ZipArchive;
use zip::result::ZipError;

use super::array::Array;
use super::{DataError, Result, npy};

/// Reads the array called `key`; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::MissingKey`] with the names that there are, [`DataError::Compressed`] for a broken archive, and those of [`npy::read`].
pub fn read(path: &Path, reader: impl Read + Seek, key: &str) -> Result<Array> {
    let broken = |error: ZipError| DataError::Compressed { path: path.to_owned(), source: error.into() };
    let mut archive = ZipArchive::new(reader).map_err(broken)?;
    let mut known: Vec<String> = archive.file_names().filter_map(|name| Some(name.ok()?.strip_suffix(".npy")?.to_owned())).collect();
    known.sort();
    let missing = DataError::MissingKey { path: path.to_owned(), key: key.to_owned(), known };
    let entry = match archive.by_name(&format!("{key}.npy")) {
        Ok(entry) => entry,
        Err(ZipError::FileNotFound) => return Err(missing),
        Err(error) => return Err(broken(error)),
    };
    npy::read(path, entry).map_err(|error| match error {
        // The reader is the decompressor.
        DataError::Io { path, source } => DataError::Compressed { path, source },
        other => other,
    })
}

#[cfg(test)]
mod tests {
    use super::super::array::Numbers;
    use super::*;
    use proptest::prelude::*;
    use std::io::{Cursor, Write};
    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

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
