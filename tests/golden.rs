//! Agreement with numbers that independent implementations computed (`PyTorch`, nflows, torchdiffeq).
//!
//! The cases are in `tests/golden/`, or in the folder that `MIXERFLOW_GOLDEN_DIR` names, whose sizes may differ: they
//! are read from each file's `meta`.

#[path = "golden/autoregressive.rs"]
mod autoregressive;
#[path = "golden/mixerflow.rs"]
mod mixerflow;
#[path = "golden/models.rs"]
mod models;
#[path = "golden/residual.rs"]
mod residual;
#[path = "golden/spline.rs"]
mod spline;

use safetensors::{Dtype, SafeTensors};
use std::path::PathBuf;

/// One file: its tensors and its metadata.
struct Golden {
    bytes: Vec<u8>,
    meta: serde_json::Value,
}

impl Golden {
    /// Reads the case with this file name.
    fn open(name: &str) -> Self {
        let bundled = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let folder = std::env::var_os("MIXERFLOW_GOLDEN_DIR").map_or_else(bundled, PathBuf::from);
        let path = folder.join(name).with_extension("safetensors");
        let bytes = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let meta = &metadata.metadata().as_ref().unwrap()["meta"];
        let meta = serde_json::from_str(meta).unwrap();
        Self { bytes, meta }
    }

    /// A whole number of the metadata.
    fn size(&self, key: &str) -> usize {
        usize::try_from(self.meta[key].as_u64().unwrap_or_else(|| panic!("meta.{key}"))).unwrap()
    }

    /// A number of the metadata.
    fn number(&self, key: &str) -> f64 {
        self.meta[key].as_f64().unwrap_or_else(|| panic!("meta.{key}"))
    }

    /// Names of all tensors.
    fn names(&self) -> Vec<String> {
        self.tensors().names().into_iter().map(str::to_owned).collect()
    }

    fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// Shape and values of a tensor.
    fn tensor(&self, name: &str) -> (Vec<usize>, Vec<f64>) {
        let tensors = self.tensors();
        let view = tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
        let values = match view.dtype() {
            Dtype::F32 => view.data().chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
            Dtype::F64 => view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
            Dtype::I64 => view.data().chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().unwrap()) as f64).collect(),
            other => panic!("{name}: {other:?}"),
        };
        (view.shape().to_vec(), values)
    }

    /// Values of a tensor.
    fn values(&self, name: &str) -> Vec<f64> {
        self.tensor(name).1
    }
}

/// Every value within `relative` of the expected one, relative to the largest expected value of the tensor.
fn assert_close(what: &str, got: &[f64], expected: &[f64], relative: f64) {
    assert_eq!(got.len(), expected.len(), "{what}: length");
    let scale = expected.iter().fold(0.0_f64, |m, v| m.max(v.abs())).max(1e-3);
    for (i, (g, e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= relative * scale, "{what}[{i}]: got {g}, expected {e} (scale {scale})");
    }
}
