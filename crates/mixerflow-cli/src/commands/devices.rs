//! `mixerflow devices`: what a model can run on.

use crate::{Result, output};
use flow_train::text::count;

pub(crate) fn run(threads: usize) -> Result<()> {
    let set = flow_kernels::simd::instruction_set()?;
    output::line(format_args!("cpu      {}, instruction set {set}", count(threads, "thread")))?;
    cuda()
}

/// All GPUs, or the reason why there are none.
#[cfg(feature = "cuda")]
fn cuda() -> Result<()> {
    use flow_cuda::Cuda;
    let devices = match Cuda::list() {
        Ok(devices) if devices.is_empty() => return Ok(output::line("cuda     the driver sees no GPU")?),
        Ok(devices) => devices,
        Err(error) => return Ok(output::line(format_args!("cuda     not available: {error}"))?),
    };
    for info in devices {
        output::line(format_args!("{:<8} {info}", info.device))?;
    }
    match Cuda::compiler() {
        Ok((major, minor)) => output::line(format_args!("         compiler NVRTC {major}.{minor}"))?,
        Err(error) => output::line(format_args!("         not usable: {error}"))?,
    }
    Ok(())
}

#[cfg(not(feature = "cuda"))]
fn cuda() -> Result<()> {
    Ok(output::line("cuda     not available: this program was built without the feature `cuda`")?)
}
