//! Where a model runs.

use clap::Args;

/// Where a model runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Device {
    /// On the processor.
    Cpu,
    /// On the GPU of this number.
    Cuda(usize),
    /// On a GPU, where there is one and the whole model can run there; else on the processor.
    Auto,
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected cpu, cuda, cuda:N or auto".to_owned()),
        }
    }
}

/// The device of a command that uses a model.
#[derive(Args)]
pub(crate) struct On {
    /// Where the model runs: `cpu`; `cuda` or `cuda:N`, a GPU (`mixerflow devices` lists them); `auto`, a GPU where
    /// there is one that can run the whole model, else the processor
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    pub(crate) device: Device,
}
