//! Arrays from a `.safetensors` file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use super::array::{Array, Element};
use super::limits::read_file;
use super::{DataError, Result};

/// Names of the tensors, in alphabetical order; `path` only names the source in errors.
///
/// # Errors
/// [`DataError::Header`] for a malformed file.
pub fn keys(path: &Path, bytes: &[u8]) -> Result<Vec<String>> {
    let mut known: Vec<String> = parse(path, bytes)?.names().into_iter().map(str::to_owned).collect();
    known.sort();
    Ok(known)
}

/// The whole file, once its beginning says that it may be one: what never ends is not read.
pub(super) fn read_whole(path: &Path) -> Result<Vec<u8>> {
    /// The longest header of the format.
    const MAX_HEADER: u64 = 100_000_000;
    let mut length = [0; 8];
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let got = File::open(path).and_then(|file| file.take(8).read(&mut length)).map_err(io)?;
    let length = u64::from_le_bytes(length);
    if got < 8 || !(2..=MAX_HEADER).contains(&length) {
        let expected = format!("a length from 2 to {MAX_HEADER}");
        let got = if got < 8 { format!("{got} bytes") } else { length.to_string() };
        return Err(DataError::Header { path: path.to_owned(), field: "safetensors header", expected, got });
    }
    read_file(path)
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<SafeTensors<'a>> {
    SafeTensors::deserialize(bytes).map_err(|e| DataError::Header {
        path: path.to_owned(),
        field: "safetensors header",
        expected: "a valid one".to_owned(),
        got: e.to_string(),
    })
}

/// Reads the tensor called `key` from the bytes of a file; `path` only names it in errors.
///
/// # Errors
/// [`DataError::Header`] for a malformed file or a tensor of another type; [`DataError::MissingKey`] with the names
/// that there are; [`DataError::TooLarge`].
pub fn read(path: &Path, bytes: &[u8], key: &str) -> Result<Array> {
    let header =
        |field, expected: &str, got: String| DataError::Header { path: path.to_owned(), field, expected: expected.to_owned(), got };
    let file = parse(path, bytes)?;
    let missing = |known| DataError::MissingKey { path: path.to_owned(), key: key.to_owned(), known };
    let Ok(tensor) = file.tensor(key) else { return Err(missing(keys(path, bytes)?)) };
    let element = match tensor.dtype() {
        Dtype::U8 => Element::U8,
        Dtype::I8 => Element::I8,
        Dtype::U16 => Element::U16,
        Dtype::I16 => Element::I16,
        Dtype::U32 => Element::U32,
        Dtype::I32 => Element::I32,
        Dtype::U64 => Element::U64,
        Dtype::I64 => Element::I64,
        Dtype::BOOL => Element::Bool,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::Bf16,
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        other => {
            return Err(header("element type", "BOOL, an integer type, F16, BF16, F32 or F64", format!("{other:?}")));
        }
    };
    let sizes: Vec<u64> = tensor.shape().iter().map(|&s| s as u64).collect();
    let expected = Array::size(path, &sizes, element)?;
    let raw = tensor.data().to_vec();
    if raw.len() as u64 != expected {
        return Err(DataError::Truncated { path: path.to_owned(), expected, got: raw.len() as u64 });
    }
    Ok(Array::decode(tensor.shape().to_vec(), element, false, raw))
}

#[cfg(test)]
mod tests {
    use super::super::array::Numbers;
    use super::*;
    use proptest::prelude::*;
    use safetensors::tensor::TensorView;

    fn file() -> Vec<u8> {
        let floats: Vec<u8> = [0.5f32, 1.5].iter().flat_map(|f| f.to_le_bytes()).collect();
        let x = TensorView::new(Dtype::F32, vec![1, 2], &floats).expect("fits");
        let h = TensorView::new(Dtype::F16, vec![1], &[0, 0x3e]).expect("fits");
        let b = TensorView::new(Dtype::BF16, vec![1], &[0xc0, 0x3f]).expect("fits");
        let e = TensorView::new(Dtype::F8_E5M2, vec![1], &[0]).expect("fits");
        safetensors::serialize([("x", x), ("h", h), ("b", b), ("e", e)], None).expect("valid")
    }

    fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
        [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
    }

    #[test]
    fn tensors_are_read_by_name() -> Result<()> {
        let array = read("a".as_ref(), &file(), "x")?;
        assert_eq!(array, Array { shape: vec![1, 2], numbers: Numbers::Floats(vec![0.5, 1.5]) });
        for key in ["h", "b"] {
            assert_eq!(read("a".as_ref(), &file(), key)?.numbers, Numbers::Floats(vec![1.5]), "{key}");
        }
        Ok(())
    }

    #[test]
    fn malformed_files_are_typed_errors() {
        let lying = r#"{"x":{"dtype":"U8","shape":[1000000000,1000],"data_offsets":[0,1000000000000]}}"#;
        let overflow = r#"{"x":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#;
        let cases = [
            ("nothing", vec![], "x", "a: safetensors header: expected a valid one, got "),
            ("huge header", u64::MAX.to_le_bytes().to_vec(), "x", "a: safetensors header: "),
            ("not json", with_header("nonsense", &[]), "x", "a: safetensors header: "),
            ("deep json", with_header(&"[".repeat(100_000), &[]), "x", "a: safetensors header: "),
            ("lying", with_header(lying, &[1, 2]), "x", "a: safetensors header: "),
            ("overflow", with_header(overflow, &[]), "x", "a: safetensors header: "),
            ("tiny floats", file(), "e", "a: element type: expected BOOL, an integer type, F16, BF16, F32 or F64, got F8_E5M2"),
            ("no such tensor", file(), "y", "a: no array `y`; there are: b, e, h, x"),
        ];
        for (case, bytes, key, message) in cases {
            let error = read("a".as_ref(), &bytes, key).expect_err(case).to_string();
            assert!(error.starts_with(message), "{case}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(junk in proptest::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>()) {
            let _ = read("a".as_ref(), &junk, "x");
            let _ = read("a".as_ref(), &with_header(&String::from_utf8_lossy(&junk), &junk), "x");
            let mut bytes = file();
            let at = at.index(bytes.len());
            bytes[at] ^= junk.first().copied().unwrap_or(1);
            let _ = read("a".as_ref(), &bytes, "x");
        }
    }
}
