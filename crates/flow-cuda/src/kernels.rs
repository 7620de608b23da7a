//! The kernels: compiled for the device, and launched with arguments that are checked.

use crate::driver::{Device, Numbers};
use crate::plan::{SidePlan, Tile};
use cudarc::driver::{CudaContext, CudaFunction, DriverError, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::sys as nvrtc;
use flow_api::device::DeviceError;
use std::ffi::{CString, c_char};
use std::sync::Arc;

const SIDE: &str = include_str!("../kernels/side.cu");
const DEVICE: &str = include_str!("../kernels/device.cuh");

/// Threads of a block, as in the kernels.
const THREADS: u32 = 256;

/// A program of the compiler, which is given back however its use ends.
struct Program(nvrtc::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was made by `nvrtcCreateProgram`, and nobody has it any more.
        let _ = unsafe { nvrtc::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// Machine code for devices of this compute capability.
pub(crate) fn compile(device: &str, (major, minor): (i32, i32)) -> Result<Vec<u8>, DeviceError> {
    let wrong = |log: String| DeviceError::Compiler { device: device.to_owned(), log };
    let text = |text: &str| CString::new(text).map_err(|error| wrong(error.to_string()));
    let (source, header) = (text(SIDE)?, text(DEVICE)?);
    let options = [text(&format!("--gpu-architecture=sm_{major}{minor}"))?, text("--std=c++17")?];
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    let (headers, names) = ([header.as_ptr()], [c"device.cuh".as_ptr()]);
    let mut program = Program(std::ptr::null_mut());
    // SAFETY: the texts end with a zero and live as long as the program, and there is one header with one name.
    unsafe { nvrtc::nvrtcCreateProgram(&raw mut program.0, source.as_ptr(), c"side.cu".as_ptr(), 1, headers.as_ptr(), names.as_ptr()) }
        .result()
        .map_err(|error| wrong(format!("{error:?}")))?;
    // SAFETY: the program is one, and there are as many options as is said.
    let compiled = unsafe { nvrtc::nvrtcCompileProgram(program.0, i32::try_from(options.len()).unwrap_or(0), options.as_ptr()) }.result();
    if let Err(error) = compiled {
        // SAFETY: the program is one.
        let log = read(
            |size| unsafe { nvrtc::nvrtcGetProgramLogSize(program.0, size) },
            |to| unsafe {
                // SAFETY: `to` has the size that the compiler asked for.
                nvrtc::nvrtcGetProgramLog(program.0, to)
            },
        );
        let log = log.map(|log| String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()).unwrap_or_default();
        return Err(wrong(format!("{error:?} for sm_{major}{minor}: {log}")));
    }
    // SAFETY: the program is one and compiled.
    read(
        |size| unsafe { nvrtc::nvrtcGetCUBINSize(program.0, size) },
        |to| unsafe {
            // SAFETY: `to` has the size that the compiler asked for.
            nvrtc::nvrtcGetCUBIN(program.0, to)
        },
    )
    .map_err(|error| wrong(format!("{error:?}")))
}

/// What the compiler has to give: first its size, then itself.
fn read(
    size: impl FnOnce(*mut usize) -> nvrtc::nvrtcResult,
    get: impl FnOnce(*mut c_char) -> nvrtc::nvrtcResult,
) -> Result<Vec<u8>, cudarc::nvrtc::result::NvrtcError> {
    let mut len = 0;
    size(&raw mut len).result()?;
    let mut bytes = vec![0_u8; len];
    get(bytes.as_mut_ptr().cast()).result()?;
    Ok(bytes)
}

#[derive(Debug)]
pub(crate) struct Kernels {
    side_of_32: CudaFunction,
    side_of_16: CudaFunction,
    sum_log_dets: CudaFunction,
}

impl Kernels {
    pub(crate) fn load(context: &Arc<CudaContext>, code: Vec<u8>, shared_memory: i32) -> Result<Self, DriverError> {
        use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED_MEMORY;
        let module = context.load_module(cudarc::nvrtc::Ptx::from_binary(code))?;
        let kernels = Self {
            side_of_32: module.load_function("side_of_32")?,
            side_of_16: module.load_function("side_of_16")?,
            sum_log_dets: module.load_function("sum_log_dets")?,
        };
        for kernel in [&kernels.side_of_32, &kernels.side_of_16] {
            kernel.set_attribute(SHARED_MEMORY, shared_memory)?;
        }
        Ok(kernels)
    }
}

/// A number as the kernels have it.
fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

impl Device {
    /// Runs a side over `rows` rows of whole samples in `values`; the log-dets of its rows go to `log_dets` from `at` on.
    pub(crate) fn run_side(
        &self,
        side: &SidePlan,
        ints: &Numbers<i32>,
        floats: &Numbers<f32>,
        values: &mut Numbers<f32>,
        log_dets: &mut Numbers<f32>,
        (at, rows): (usize, usize),
    ) -> Result<(), DeviceError> {
        let kernel = match side.tile {
            Tile::Rows32 => &self.kernels().side_of_32,
            Tile::Rows16 => &self.kernels().side_of_16,
        };
        let part = (ints.try_slice(side.at..), log_dets.try_slice_mut(at..at + rows));
        let (Some(description), Some(mut log_dets)) = part else { return self.check_size(ints.len(), side.at) };
        self.check_size(values.len(), values.len().max(rows / side.rows.max(1) * side.event))?;
        let count = int(rows);
        let mut launch = self.stream().launch_builder(kernel);
        launch.arg(&description).arg(floats).arg(values).arg(&mut log_dets).arg(&count);
        let config = LaunchConfig {
            grid_dim: (u32::try_from(rows.div_ceil(side.tile.rows())).unwrap_or(u32::MAX), 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: u32::try_from(side.shared_memory).unwrap_or(u32::MAX),
        };
        // SAFETY: the arguments are those of the kernel in number, order and type. The description is a plan's, whose lists lie in `ints` and
        // whose weights in `floats`; `values` has all samples of the rows and `log_dets` a place a row, which was looked at above.
        unsafe { launch.launch(config) }.map(drop).map_err(self.error("a side"))
    }

    /// The log-dets of `batch` samples, given those of the rows of all sides.
    pub(crate) fn sum_log_dets(
        &self,
        sides: &Numbers<i32>,
        rows: &Numbers<f32>,
        constant: f64,
        log_dets: &mut Numbers<f32>,
        (count, capacity, batch): (usize, usize, usize),
    ) -> Result<(), DeviceError> {
        self.check_size(sides.len(), sides.len().max(2 * count))?;
        self.check_size(log_dets.len(), log_dets.len().max(batch))?;
        let (count, capacity) = (int(count), int(capacity));
        let mut launch = self.stream().launch_builder(&self.kernels().sum_log_dets);
        launch.arg(sides).arg(&count).arg(rows).arg(&capacity).arg(&constant).arg(log_dets);
        let config = LaunchConfig {
            grid_dim: (u32::try_from(batch).unwrap_or(u32::MAX), 1, 1),
            block_dim: (THREADS, 1, 1),
            shared_mem_bytes: THREADS * 8,
        };
        // SAFETY: the arguments are those of the kernel in number, order and type. `sides` has two numbers a side and `log_dets` one a sample, which
        // was looked at above; a session makes `rows` with `capacity` places for every row of a sample.
        unsafe { launch.launch(config) }.map(drop).map_err(self.error("the sum of log-dets"))
    }
}
