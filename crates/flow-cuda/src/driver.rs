//! The driver and the compiler behind safe calls: libraries, the device, memory.

use crate::kernels::{KernelSet, Kernels, PullKernels, Target};
use crate::step_kernels::StepKernels;
use cudarc::driver::{CudaContext, CudaGraph, CudaSlice, CudaStream, DeviceRepr, DriverError, ValidAsZeroBits, result, sys};
use cudarc::nvrtc;
use flow_api::device::{DeviceError, DeviceInfo, Precision, Snippet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use sys::{CUdevice_attribute_enum as Attribute, CUresult};

/// The oldest devices that have the kernels' instructions.
const LEAST_CAPABILITY: (i32, i32) = (8, 0);

/// What devices are called, as on the command line.
fn name(number: usize) -> String {
    format!("cuda:{number}")
}

/// The driver is there. Every call of it comes after this one, since the library looks for it by itself and panics
/// where it is missing.
fn check_driver() -> Result<(), DeviceError> {
    // SAFETY: opens a library and closes it again; the driver's initialisers may run at any time.
    if unsafe { sys::is_culib_present() } {
        return Ok(());
    }
    Err(DeviceError::Library {
        device: "cuda".to_owned(),
        library: if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" },
        cure: "it is a part of NVIDIA's driver, which is installed for a machine with a GPU".to_owned(),
    })
}

/// The compiler's version.
pub(crate) fn compiler() -> Result<(i32, i32), DeviceError> {
    // SAFETY: opens a library and closes it again.
    if !unsafe { nvrtc::sys::is_culib_present() } {
        return Err(DeviceError::Library {
            device: "cuda".to_owned(),
            library: if cfg!(windows) { "nvrtc64_130_0.dll" } else { "libnvrtc.so" },
            cure: "it is CUDA's run-time compiler, a part of the CUDA toolkit and of the Python package nvidia-cuda-nvrtc; \
                   its folder has to be on LD_LIBRARY_PATH"
                .to_owned(),
        });
    }
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there, and both places live as long as the call.
    unsafe { nvrtc::sys::nvrtcVersion(&raw mut major, &raw mut minor) }.result().map_err(|error| failed("cuda", "nvrtcVersion", &error))?;
    Ok((major, minor))
}

fn failed(device: &str, what: &'static str, message: &dyn std::fmt::Debug) -> DeviceError {
    DeviceError::Failed { device: device.to_owned(), what, message: format!("{message:?}") }
}

/// An error of the driver, in its own words.
pub(crate) fn driver_error(device: &str, what: &'static str) -> impl Fn(DriverError) -> DeviceError + use<> {
    let device = device.to_owned();
    move |error| {
        let words = error.error_string().ok().and_then(|words| words.to_str().ok()).unwrap_or("no further words");
        DeviceError::Failed { device: device.clone(), what, message: format!("{words} (code {})", error.0 as u32) }
    }
}

/// How many devices the driver knows.
fn count() -> Result<usize, DeviceError> {
    check_driver()?;
    match CudaContext::device_count() {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => Ok(0),
        Err(error) => Err(driver_error("cuda", "the start of the driver")(error)),
    }
}

pub(crate) fn list() -> Result<Vec<DeviceInfo>, DeviceError> {
    (0..count()?).map(|number| info(number).map(|(info, _)| info)).collect()
}

/// A device, without a context on it, and its compute capability.
fn info(number: usize) -> Result<(DeviceInfo, (i32, i32)), DeviceError> {
    let name = name(number);
    let error = driver_error(&name, "a look at the device");
    let device = result::device::get(i32::try_from(number).unwrap_or(i32::MAX)).map_err(&error)?;
    let product = result::device::get_name(device).map_err(&error)?;
    // SAFETY: the device is one that the driver has just given, in these three.
    let attribute = |attribute| unsafe { result::device::get_attribute(device, attribute) }.map_err(&error);
    // SAFETY: as above.
    let memory = unsafe { result::device::total_mem(device) }.map_err(&error)?;
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let written = format!("{}.{}", capability.0, capability.1);
    Ok((DeviceInfo::new(name, product, written, memory as u64), capability))
}

/// An opened device: one context, one stream, the kernels.
#[derive(Debug)]
pub(crate) struct Device {
    info: DeviceInfo,
    capability: (i32, i32),
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Without text of flows.
    kernels: Arc<KernelSet>,
    /// With that of models.
    kernels_with: Mutex<Vec<Arc<KernelSet>>>,
    step_kernels: OnceLock<StepKernels>,
    /// The most that a block can have, in bytes.
    shared_memory: usize,
}

/// What `make` gives, made when it is first asked for.
pub(crate) fn once<T>(cell: &OnceLock<T>, make: impl FnOnce() -> Result<T, DeviceError>) -> Result<&T, DeviceError> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// Numbers on the device.
pub(crate) type Numbers<T> = CudaSlice<T>;

impl Device {
    pub(crate) fn open(number: usize) -> Result<Self, DeviceError> {
        let devices = count()?;
        if number >= devices {
            let found = match devices {
                0 => "the driver sees none".to_owned(),
                1 => "there is one, cuda:0".to_owned(),
                _ => format!("there are {devices}, from cuda:0 on"),
            };
            return Err(DeviceError::NoDevice { device: name(number), found });
        }
        let (info, capability) = info(number)?;
        if capability < LEAST_CAPABILITY {
            let DeviceInfo { device, name, capability, .. } = info;
            return Err(DeviceError::Capability { device, name, got: capability, least: "8.0" });
        }
        compiler()?;
        let error = driver_error(&info.device, "the start of the device");
        let context = CudaContext::new(number).map_err(&error)?;
        // SAFETY: all work of this context is on the one stream that is made here, so that its order is that of the
        // calls.
        unsafe { context.disable_event_tracking() };
        let stream = context.new_stream().map_err(&error)?;
        let shared = context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN).map_err(&error)?;
        let shared_memory = usize::try_from(shared).unwrap_or(0);
        let (kernels, kernels_with, step_kernels) = Default::default();
        let device = Self { info, capability, context, stream, kernels, kernels_with, step_kernels, shared_memory };
        device.kernels(Precision::F32)?;
        Ok(device)
    }

    pub(crate) fn info(&self) -> &DeviceInfo {
        &self.info
    }

    pub(crate) fn shared_memory(&self) -> usize {
        self.shared_memory
    }

    /// The kernels with this text of flows, compiled when they are first asked for.
    pub(crate) fn kernels_with(&self, snippets: &[Snippet]) -> Result<Arc<KernelSet>, DeviceError> {
        if snippets.is_empty() {
            return Ok(self.kernels.clone());
        }
        // A panic while they were compiled leaves the list as it was.
        let mut known = self.kernels_with.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kernels) = known.iter().find(|kernels| kernels.are_of(snippets)) {
            return Ok(kernels.clone());
        }
        let kernels = Arc::new(KernelSet::new(self, snippets)?);
        known.push(kernels.clone());
        Ok(kernels)
    }

    pub(crate) fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// What is compiled for, with text before that of the kernels.
    pub(crate) fn target<'a>(&'a self, precision: Precision, text: &'a str) -> Target<'a> {
        let Self { info, capability, context, shared_memory, .. } = self;
        Target { device: &info.device, capability: *capability, context, shared_memory: *shared_memory, precision, text }
    }

    /// The kernels of passes.
    pub(crate) fn kernels(&self, precision: Precision) -> Result<&Kernels, DeviceError> {
        self.kernels.map(self, precision)
    }

    /// Those of pullbacks.
    pub(crate) fn pull_kernels(&self, precision: Precision) -> Result<&PullKernels, DeviceError> {
        self.kernels.pull(self, precision)
    }

    /// Those of training steps, besides their sides.
    pub(crate) fn step_kernels(&self) -> Result<&StepKernels, DeviceError> {
        once(&self.step_kernels, || StepKernels::new(&self.target(Precision::F32, "")))
    }

    /// An error of a call that is named in words.
    pub(crate) fn error(&self, what: &'static str) -> impl Fn(DriverError) -> DeviceError + use<> {
        driver_error(&self.info.device, what)
    }

    /// The error for a buffer of another size.
    pub(crate) fn check_size(&self, expected: usize, got: usize) -> Result<(), DeviceError> {
        if expected == got { Ok(()) } else { Err(DeviceError::Size { device: self.info.device.clone(), expected, got }) }
    }

    /// The error for what no training step here can do.
    pub(crate) fn no_step(&self, reason: &str) -> DeviceError {
        DeviceError::NoStep { device: self.info.device.clone(), reason: reason.to_owned() }
    }

    /// The error for what does not fit.
    pub(crate) fn no_memory(&self, what: &'static str, bytes: u64) -> DeviceError {
        DeviceError::Memory { device: self.info.device.clone(), what, bytes }
    }

    /// Zeros; the driver knows no buffer of length 0, so there is one number at the least.
    pub(crate) fn zeros<T: DeviceRepr + ValidAsZeroBits>(&self, what: &'static str, len: usize) -> Result<Numbers<T>, DeviceError> {
        self.stream.alloc_zeros(len.max(1)).map_err(|error| match error {
            DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY) => self.no_memory(what, (len * size_of::<T>()) as u64),
            other => self.error(what)(other),
        })
    }

    /// Back to zeros.
    pub(crate) fn clear(&self, numbers: &mut Numbers<f32>) -> Result<(), DeviceError> {
        self.stream.memset_zeros(numbers).map_err(self.error("to clear numbers"))
    }

    /// Copies `len` numbers within a buffer, from the first place to the second, which lies behind them.
    pub(crate) fn copy_within(&self, numbers: &mut Numbers<f32>, (from, to): (usize, usize), len: usize) -> Result<(), DeviceError> {
        let all = numbers.len();
        let Some((before, mut behind)) = numbers.try_split_at_mut(to) else { return self.check_size(to + len, all) };
        let (Some(from), Some(mut to)) = (before.try_slice(from..from + len), behind.try_slice_mut(..len)) else {
            return self.check_size(to + len, all);
        };
        self.stream.memcpy_dtod(&from, &mut to).map_err(self.error("a copy"))
    }

    /// Copies the beginning of a buffer to the numbers from `at` on of another.
    pub(crate) fn copy(&self, from: &Numbers<f32>, len: usize, to: &mut Numbers<f32>, at: usize) -> Result<(), DeviceError> {
        let room = to.len();
        let (Some(from), Some(mut to)) = (from.try_slice(..len), to.try_slice_mut(at..at + len)) else {
            return self.check_size(at + len, room);
        };
        self.stream.memcpy_dtod(&from, &mut to).map_err(self.error("a copy"))
    }

    /// Copies numbers to the beginning of a buffer that is long enough.
    pub(crate) fn upload<T: DeviceRepr>(&self, from: &[T], to: &mut Numbers<T>) -> Result<(), DeviceError> {
        if from.len() > to.len() {
            self.check_size(to.len(), from.len())?;
        }
        self.stream.memcpy_htod(from, to).map_err(self.error("an upload"))
    }

    /// Copies the beginning of a buffer to the host, when all work before is done.
    pub(crate) fn download<T: DeviceRepr>(&self, from: &Numbers<T>, to: &mut [T]) -> Result<(), DeviceError> {
        let part = from.try_slice(..to.len()).ok_or_else(|| DeviceError::Size {
            device: self.info.device.clone(),
            expected: from.len(),
            got: to.len(),
        })?;
        self.stream.memcpy_dtoh(&part, to).and_then(|()| self.stream.synchronize()).map_err(self.error("a download"))
    }

    /// Records what `work` sends to the device, which is not done then, as a graph.
    ///
    /// # Errors
    /// Where the driver has no graphs; those of `work`, and of the driver for what no graph can have: an allocation, a
    /// copy from the host or to it.
    pub(crate) fn capture(&self, work: impl FnOnce() -> Result<(), DeviceError>) -> Result<Graph, DeviceError> {
        const WHAT: &str = "the capture of a graph";
        let failed = |message: &str| DeviceError::Failed { device: self.info.device.clone(), what: WHAT, message: message.to_owned() };
        for name in GRAPH_FUNCTIONS {
            // SAFETY: the library is there since the device was opened. The symbol is looked for and not called.
            if unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()) }.is_err() {
                return Err(failed(&format!("the driver has no {name}")));
            }
        }
        let error = self.error(WHAT);
        self.stream.begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).map_err(&error)?;
        let worked = work();
        // The stream is left as it was also where something failed.
        let ended = self.stream.end_capture(sys::CUgraphInstantiate_flags(0));
        worked?;
        let graph = ended.map_err(&error)?.ok_or_else(|| failed("the driver gives none"))?;
        let mut nodes = 0;
        // SAFETY: the graph is one; without a place for the nodes their number alone is asked for.
        unsafe { sys::cuGraphGetNodes(graph.cu_graph(), std::ptr::null_mut(), &raw mut nodes) }.result().map_err(&error)?;
        Ok(Graph { graph, nodes })
    }
}

/// What [`Device::capture`] needs of the driver; a function that is missing would be a panic.
const GRAPH_FUNCTIONS: [&str; 7] = [
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuGraphInstantiateWithFlags",
    "cuGraphGetNodes",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
];

/// Recorded work of a device.
pub(crate) struct Graph {
    graph: CudaGraph,
    nodes: usize,
}

// SAFETY: the driver demands that calls with one graph follow each other. A graph is owned by one session, has no call
// but `launch`, which takes it mutably, and is dropped once.
unsafe impl Send for Graph {}

impl Graph {
    /// Kernels, copies and the like.
    pub(crate) fn nodes(&self) -> usize {
        self.nodes
    }

    /// Does all of the work again.
    ///
    /// # Safety
    /// Every buffer and kernel of the work has to be alive, and no buffer borrowed.
    pub(crate) unsafe fn launch(&mut self) -> Result<(), DriverError> {
        self.graph.launch()
    }
}
