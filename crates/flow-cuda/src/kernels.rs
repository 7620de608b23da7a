//! The kernels: compiled for the device, and launched with arguments that are checked.

use crate::driver::{Device, Numbers, once};
use crate::plan::{LAYER, SidePlan, Tile};
use crate::snippets::prelude;
use cudarc::driver::{CudaContext, CudaFunction, DevicePtrMut, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::sys as nvrtc;
use flow_api::device::{DeviceError, Precision, Snippet};
use std::ffi::{CString, c_char};
use std::sync::{Arc, OnceLock};

const HEADER: &str = include_str!("../kernels/device.cuh");
const TRANSFORMERS: &str = include_str!("../kernels/transformers.cu");
const MAP: &str =
    concat!(include_str!("../kernels/transformers.cu"), include_str!("../kernels/side.cu"), include_str!("../kernels/map.cu"));
const PULL: &str =
    concat!(include_str!("../kernels/transformers.cu"), include_str!("../kernels/side.cu"), include_str!("../kernels/pull.cu"));

/// Threads of a block, as in the kernels.
pub(crate) const THREADS: u32 = 256;
/// Rows whose sums are one chunk: a function of nothing, so that sums depend on the batch alone.
pub(crate) const CHUNK: usize = 512;
/// Shared memory of a block of `outer`: two tiles of 32 × 40.
const OUTER_SHARED_MEMORY: u32 = 2 * 32 * 40 * 4;

/// A program of the compiler, which is given back however its use ends.
struct Program(nvrtc::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the program was made by `nvrtcCreateProgram`, and nobody has it any more.
        let _ = unsafe { nvrtc::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// What kernels are compiled for.
pub(crate) struct Target<'a> {
    pub(crate) device: &'a str,
    pub(crate) capability: (i32, i32),
    pub(crate) context: &'a Arc<CudaContext>,
    pub(crate) shared_memory: usize,
    pub(crate) precision: Precision,
    /// What stands before the kernels' own text.
    pub(crate) text: &'a str,
}

/// Machine code of a text.
fn compile(target: &Target<'_>, source: &str) -> Result<Vec<u8>, DeviceError> {
    let Target { device, capability: (major, minor), .. } = *target;
    let source = &[target.text, source].concat();
    let wrong = |log: String| DeviceError::Compiler { device: device.to_owned(), log };
    let text = |text: &str| CString::new(text).map_err(|error| wrong(error.to_string()));
    let (source, header) = (text(source)?, text(HEADER)?);
    let mut options = vec![text(&format!("--gpu-architecture=sm_{major}{minor}"))?, text("--std=c++17")?];
    if target.precision == Precision::Tf32 {
        options.push(text("-DTF32")?);
    }
    let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
    let (headers, names) = ([header.as_ptr()], [c"device.cuh".as_ptr()]);
    let mut made = std::ptr::null_mut();
    // SAFETY: the texts end with a zero and live as long as the program, and there is one header with one name.
    unsafe { nvrtc::nvrtcCreateProgram(&raw mut made, source.as_ptr(), c"kernels.cu".as_ptr(), 1, headers.as_ptr(), names.as_ptr()) }
        .result()
        .map_err(|error| wrong(format!("{error:?}")))?;
    let program = Program(made);
    // SAFETY: the program is one, and there are as many options as is said.
    let compiled = unsafe { nvrtc::nvrtcCompileProgram(program.0, i32::try_from(options.len()).unwrap_or(0), options.as_ptr()) }.result();
    if let Err(error) = compiled {
        // SAFETY: the program is one.
        let size = |size| unsafe { nvrtc::nvrtcGetProgramLogSize(program.0, size) };
        // SAFETY: the program is one, and the place has the size that was asked for.
        let log = read(size, |to| unsafe { nvrtc::nvrtcGetProgramLog(program.0, to) });
        let log = log.map(|log| String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()).unwrap_or_default();
        return Err(wrong(format!("{error:?} for sm_{major}{minor}: {log}")));
    }
    // SAFETY: the program is one and compiled.
    let size = |size| unsafe { nvrtc::nvrtcGetCUBINSize(program.0, size) };
    // SAFETY: the program is one and compiled, and the place has the size that was asked for.
    read(size, |to| unsafe { nvrtc::nvrtcGetCUBIN(program.0, to) }).map_err(|error| wrong(format!("{error:?}")))
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

/// Compiles a text and finds its kernels by name; the first `wide` of them may have all of a block's shared memory.
pub(crate) fn load<const N: usize>(
    target: &Target<'_>,
    source: &str,
    names: [&str; N],
    wide: usize,
) -> Result<[CudaFunction; N], DeviceError> {
    use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES as SHARED_MEMORY;
    let Target { device, context, shared_memory, .. } = *target;
    let failed = |error| crate::driver::driver_error(device, "to load the kernels")(error);
    let module = context.load_module(cudarc::nvrtc::Ptx::from_binary(compile(target, source)?)).map_err(failed)?;
    let mut kernels = Vec::with_capacity(N);
    for (i, name) in names.into_iter().enumerate() {
        let kernel = module.load_function(name).map_err(failed)?;
        if i < wide {
            kernel.set_attribute(SHARED_MEMORY, i32::try_from(shared_memory).unwrap_or(i32::MAX)).map_err(failed)?;
        }
        kernels.push(kernel);
    }
    kernels.try_into().map_err(|_| DeviceError::Failed {
        device: device.to_owned(),
        what: "to load the kernels",
        message: "some are missing".to_owned(),
    })
}

/// Those of a pass in either direction.
#[derive(Debug)]
pub(crate) struct Kernels {
    side_of_32: CudaFunction,
    side_of_16: CudaFunction,
    sum_log_dets: CudaFunction,
}

impl Kernels {
    pub(crate) fn new(target: &Target<'_>) -> Result<Self, DeviceError> {
        let names = ["side_of_32", "side_of_16", "sum_log_dets"];
        let [side_of_32, side_of_16, sum_log_dets] = load(target, MAP, names, 2)?;
        Ok(Self { side_of_32, side_of_16, sum_log_dets })
    }
}

/// Those of a pullback.
#[derive(Debug)]
pub(crate) struct PullKernels {
    pull_of_32: CudaFunction,
    pull_of_16: CudaFunction,
    outer: CudaFunction,
    add_chunks: CudaFunction,
    add_conditions: CudaFunction,
}

impl PullKernels {
    pub(crate) fn new(target: &Target<'_>) -> Result<Self, DeviceError> {
        let names = ["pull_of_32", "pull_of_16", "outer", "add_chunks", "add_conditions"];
        let [pull_of_32, pull_of_16, outer, add_chunks, add_conditions] = load(target, PULL, names, 2)?;
        Ok(Self { pull_of_32, pull_of_16, outer, add_chunks, add_conditions })
    }
}

/// The kernels with the text of a model's flows, or without any: of every precision, from their first use on.
#[derive(Debug, Default)]
pub(crate) struct KernelSet {
    text: String,
    map: [OnceLock<Kernels>; 2],
    pull: [OnceLock<PullKernels>; 2],
}

impl KernelSet {
    /// # Errors
    /// [`DeviceError::Snippet`] with the flow whose text does not compile.
    pub(crate) fn new(device: &Device, snippets: &[Snippet]) -> Result<Self, DeviceError> {
        let set = Self { text: prelude(snippets), ..Self::default() };
        set.map(device, Precision::F32).map_err(|error| {
            // Which of them it is shows by itself.
            let faulty = snippets.iter().find_map(|snippet| {
                let text = prelude(std::slice::from_ref(snippet));
                match compile(&device.target(Precision::F32, &text), TRANSFORMERS) {
                    Err(DeviceError::Compiler { device, log }) => Some(DeviceError::Snippet { device, kind: snippet.kind.to_owned(), log }),
                    _ => None,
                }
            });
            faulty.unwrap_or(error)
        })?;
        Ok(set)
    }

    /// They have this text; settings are data.
    pub(crate) fn are_of(&self, snippets: &[Snippet]) -> bool {
        self.text == prelude(snippets)
    }

    /// Those of passes.
    pub(crate) fn map(&self, device: &Device, precision: Precision) -> Result<&Kernels, DeviceError> {
        once(&self.map[usize::from(precision != Precision::F32)], || Kernels::new(&device.target(precision, &self.text)))
    }

    /// Those of pullbacks.
    pub(crate) fn pull(&self, device: &Device, precision: Precision) -> Result<&PullKernels, DeviceError> {
        once(&self.pull[usize::from(precision != Precision::F32)], || PullKernels::new(&device.target(precision, &self.text)))
    }
}

/// A number as the kernels have it.
pub(crate) fn int(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

pub(crate) fn config(blocks: [usize; 2], shared_mem_bytes: usize) -> LaunchConfig {
    let [x, y] = blocks.map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    LaunchConfig { grid_dim: (x, y, 1), block_dim: (THREADS, 1, 1), shared_mem_bytes: u32::try_from(shared_mem_bytes).unwrap_or(u32::MAX) }
}

/// A model's description and weights, with what else all its sides read.
pub(crate) struct Weights {
    pub(crate) ints: Numbers<i32>,
    pub(crate) floats: Numbers<f32>,
    /// The condition of every sample.
    pub(crate) conditions: Numbers<f32>,
    /// With the text that its flows bring.
    pub(crate) kernels: Arc<KernelSet>,
}

/// The buffers of a pullback.
pub(crate) struct Pulling {
    /// The inputs of all sides, one side after the other.
    pub(crate) inputs: Numbers<f32>,
    pub(crate) cotangent: Numbers<f32>,
    pub(crate) for_log_det: Numbers<f32>,
    pub(crate) notes: Numbers<f32>,
    /// Sums of chunks, of the side at hand and of the one before it by turns.
    pub(crate) partial: [Numbers<f32>; 2],
    /// Those of all sides, one side after the other.
    pub(crate) sums: Numbers<f32>,
    /// ∂L/∂condition of every sample.
    pub(crate) for_condition: Numbers<f32>,
}

/// Sums of chunks that are not added up yet.
#[derive(Clone, Copy)]
pub(crate) struct Pending {
    /// Which of the two buffers has them.
    which: usize,
    chunks: usize,
    /// Where they go among the sums, and how many they are.
    at: usize,
    size: usize,
}

impl Device {
    /// A buffer has so many numbers at the least.
    pub(crate) fn holds<T>(&self, buffer: &Numbers<T>, least: usize) -> Result<(), DeviceError> {
        if buffer.len() >= least { Ok(()) } else { self.check_size(least, buffer.len()) }
    }

    /// Runs a side over `rows` rows of whole samples, which begin at `from` among the values, and go to where `to`
    /// says; the log-dets of its rows go to `log_dets` from `at` on.
    pub(crate) fn run_side(
        &self,
        side: &SidePlan,
        (weights, precision): (&Weights, Precision),
        values: &mut Numbers<f32>,
        (from, to): (usize, usize),
        log_dets: &mut Numbers<f32>,
        (at, rows): (usize, usize),
    ) -> Result<(), DeviceError> {
        let kernels = weights.kernels.map(self, precision)?;
        let kernel = match side.tile {
            Tile::Rows32 => &kernels.side_of_32,
            Tile::Rows16 => &kernels.side_of_16,
        };
        self.holds(&weights.conditions, rows / side.rows.max(1) * side.condition)?;
        self.holds(values, from.max(to) + rows / side.rows.max(1) * side.event)?;
        self.holds(log_dets, at + rows)?;
        self.holds(&weights.ints, side.ints_at)?;
        self.holds(&weights.floats, side.floats_at)?;
        let (description, floats) = (weights.ints.slice(side.ints_at..), weights.floats.slice(side.floats_at..));
        let mut log_dets = log_dets.slice_mut(at..at + rows);
        let count = int(rows);
        // Both places may be one, which no two borrows can be.
        let (begin, _kept) = values.device_ptr_mut(self.stream());
        let [from, to] = [from, to].map(|at| begin + (at * size_of::<f32>()) as u64);
        let mut launch = self.stream().launch_builder(kernel);
        launch.arg(&description).arg(&floats).arg(&weights.conditions).arg(&from).arg(&to).arg(&mut log_dets).arg(&count);
        // SAFETY: the arguments are those of the kernel in number, order and type. The description is a plan's, whose
        // lists lie in `ints` and whose weights in `floats`; `values`, which is borrowed for as long as the launch
        // takes, has all samples of the rows behind either place, `conditions` their conditions and `log_dets` a place
        // a row, which was looked at above. A block reads its rows before it writes them, and no other rows. Text of
        // flows is the caller's.
        unsafe { launch.launch(config([rows.div_ceil(side.tile.rows()), 1], side.shared_memory)) }.map(drop).map_err(self.error("a side"))
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
        self.holds(sides, 2 * count)?;
        self.holds(log_dets, batch)?;
        let (count, capacity) = (int(count), int(capacity));
        let mut launch = self.stream().launch_builder(&self.kernels(Precision::F32)?.sum_log_dets);
        launch.arg(sides).arg(&count).arg(rows).arg(&capacity).arg(&constant).arg(log_dets);
        // SAFETY: the arguments are those of the kernel in number, order and type. `sides` has two numbers a side and
        // `log_dets` one a sample, which was looked at above; a session makes `rows` with `capacity` places for every
        // row of a sample.
        unsafe { launch.launch(config([batch, 1], THREADS as usize * 8)) }.map(drop).map_err(self.error("the sum of log-dets"))
    }

    /// Pulls a cotangent back through a side whose input begins at `input` among the inputs. The sums for its
    /// parameters, which go to those from `sums` on, are left pending, and the ones that were are added up.
    pub(crate) fn pull_side(
        &self,
        side: &SidePlan,
        (weights, precision): (&Weights, Precision),
        pulling: &mut Pulling,
        (input, sums, rows): (usize, usize, usize),
        pending: Option<Pending>,
    ) -> Result<Option<Pending>, DeviceError> {
        let kernels = weights.kernels.pull(self, precision)?;
        let kernel = match side.tile {
            Tile::Rows32 => &kernels.pull_of_32,
            Tile::Rows16 => &kernels.pull_of_16,
        };
        let Pulling { inputs, cotangent, for_log_det, notes, partial: [first, second], sums: all_sums, for_condition } = pulling;
        let which = usize::from(pending.as_ref().is_some_and(|pending| pending.which == 0));
        let (partial, earlier) = if which == 0 { (first, &*second) } else { (second, &*first) };
        let before = pending.unwrap_or(Pending { which: 0, chunks: 0, at: 0, size: 0 });
        let (samples, plan, chunks) = (rows / side.rows.max(1), &side.pull, rows.div_ceil(CHUNK));
        self.holds(inputs, input + samples * side.event)?;
        self.holds(cotangent, samples * side.event)?;
        self.holds(for_log_det, samples)?;
        self.holds(&weights.conditions, samples * side.condition)?;
        self.holds(for_condition, samples * side.condition)?;
        self.holds(notes, rows.next_multiple_of(side.tile.rows()) * plan.notes)?;
        self.holds(partial, chunks * plan.sums)?;
        self.holds(earlier, before.chunks * before.size)?;
        self.holds(all_sums, (sums + plan.sums).max(before.at + before.size))?;
        self.holds(&weights.ints, plan.layers_at + plan.layers * LAYER)?;
        self.holds(&weights.floats, side.floats_at)?;
        let (description, floats) = (weights.ints.slice(side.ints_at..), weights.floats.slice(side.floats_at..));
        let count = int(rows);
        let mut input = inputs.slice_mut(input..input + samples * side.event);
        let mut launch = self.stream().launch_builder(kernel);
        launch.arg(&description).arg(&floats).arg(&weights.conditions).arg(&mut input).arg(&mut *for_log_det).arg(&count);
        launch.arg(cotangent).arg(&mut *notes);
        // SAFETY: the arguments are those of the kernel in number, order and type. Description and weights are a
        // plan's; the input and the cotangent have all samples of the rows, there is a log-det's cotangent and a
        // condition a sample, and notes for all rows of all tiles: this was looked at above. Text of flows is the
        // caller's.
        unsafe { launch.launch(config([rows.div_ceil(side.tile.rows()), 1], side.shared_memory)) }.map_err(self.error("a pullback"))?;
        if side.condition > 0 && samples > 0 {
            let [width, at, each, condition] = [plan.notes, plan.for_condition, side.rows, side.condition].map(int);
            let mut launch = self.stream().launch_builder(&kernels.add_conditions);
            launch.arg(&*notes).arg(&width).arg(&at).arg(&each).arg(&condition).arg(for_condition);
            // SAFETY: the arguments are those of the kernel in number, order and type. There are notes of all rows,
            // whose cotangents of the condition lie at the plan's place, and a vector a sample, which was looked at
            // above.
            unsafe { launch.launch(config([samples, 1], 0)) }.map(drop).map_err(self.error("the sums of a pullback"))?;
        }
        if plan.sums == 0 || rows == 0 {
            return Ok((before.size > 0).then_some(before));
        }
        let layers = weights.ints.slice(plan.layers_at..);
        let [layer_count, width, size, chunk, tiles] = [plan.layers, plan.notes, plan.sums, CHUNK, plan.tiles].map(int);
        let [earlier_chunks, earlier_size] = [before.chunks, before.size].map(int);
        let mut earlier_sums = all_sums.slice_mut(before.at..);
        let mut launch = self.stream().launch_builder(&kernels.outer);
        launch.arg(&layers).arg(&layer_count).arg(&*notes).arg(&width).arg(partial).arg(&size).arg(&count).arg(&chunk);
        launch.arg(&tiles).arg(earlier).arg(&earlier_chunks).arg(&earlier_size).arg(&mut earlier_sums);
        let blocks = plan.tiles + before.size.div_ceil(THREADS as usize);
        // SAFETY: the arguments are those of the kernel in number, order and type. The layers are the plan's, whose
        // places lie within a row's notes and within `size` sums; there are notes of all rows, and as many sums for
        // every chunk. Of the side before, both buffers have the sums, `earlier` for every chunk.
        unsafe { launch.launch(config([blocks, chunks], OUTER_SHARED_MEMORY as usize)) }.map_err(self.error("the sums of a pullback"))?;
        Ok(Some(Pending { which, chunks, at: sums, size: plan.sums }))
    }

    /// Adds up the sums that are pending.
    pub(crate) fn add_pending(&self, pulling: &mut Pulling, pending: Option<Pending>, precision: Precision) -> Result<(), DeviceError> {
        let Some(Pending { which, chunks, at, size }) = pending else { return Ok(()) };
        let kernels = self.pull_kernels(precision)?;
        let Pulling { partial, sums, .. } = pulling;
        let partial = &partial[which];
        self.holds(partial, chunks * size)?;
        self.holds(sums, at + size)?;
        let (chunks, count) = (int(chunks), int(size));
        let mut to = sums.slice_mut(at..at + size);
        let mut launch = self.stream().launch_builder(&kernels.add_chunks);
        launch.arg(partial).arg(&chunks).arg(&count).arg(&mut to);
        // SAFETY: the arguments are those of the kernel in number, order and type, and both buffers have `size` sums,
        // `partial` for every chunk.
        unsafe { launch.launch(config([size.div_ceil(THREADS as usize), 1], 0)) }.map(drop).map_err(self.error("the sums of a pullback"))
    }
}
