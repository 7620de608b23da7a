//! The kernels of a training step besides those of its sides, launched with arguments that are checked.

use crate::driver::{Device, Numbers};
use crate::kernels::{THREADS, Target, config, int, load};
use crate::step_plan::{NUMBERS, StepPlan};
use cudarc::driver::{CudaFunction, PushKernelArg};
use flow_api::device::{AdamForm, DeviceError, LevelsForm};

const STEP: &str = include_str!("../kernels/step.cu");
/// Bytes of an f64 for every thread.
const PARTS: usize = THREADS as usize * 8;
const WHAT: &str = "a training step";

/// Bytes at the beginning of what goes up, with the three rates of the optimiser; then 16 bytes an item.
pub(crate) const HEADER: usize = 16;
pub(crate) const KEY: usize = 16;

/// Compiled when the first training step is prepared.
#[derive(Debug)]
pub(crate) struct StepKernels {
    dequantise: CudaFunction,
    prepare: CudaFunction,
    likelihood: CudaFunction,
    pull_maps: CudaFunction,
    finish: CudaFunction,
    squares: CudaFunction,
    conclude: CudaFunction,
    adam: CudaFunction,
}

impl StepKernels {
    pub(crate) fn new(target: &Target<'_>) -> Result<Self, DeviceError> {
        let names = ["dequantise", "prepare", "likelihood", "pull_maps", "finish", "squares", "conclude", "adam"];
        let [dequantise, prepare, likelihood, pull_maps, finish, squares, conclude, adam] = load(target, STEP, names, 0)?;
        Ok(Self { dequantise, prepare, likelihood, pull_maps, finish, squares, conclude, adam })
    }
}

/// What a step has on the device besides its sides: numbers of all parameters, in their order, and what lies between.
pub(crate) struct Arenas {
    pub(crate) parameters: Numbers<f32>,
    pub(crate) gradients: Numbers<f32>,
    pub(crate) first: Numbers<f32>,
    pub(crate) second: Numbers<f32>,
    /// One number where there is no average.
    pub(crate) average: Numbers<f32>,
    pub(crate) items: Numbers<i32>,
    pub(crate) lists: Numbers<i32>,
    pub(crate) constants: Numbers<f32>,
    pub(crate) scratch: Numbers<f32>,
    /// Of every map.
    pub(crate) map_log_dets: Numbers<f64>,
    /// Of every sample.
    pub(crate) log_probs: Numbers<f64>,
    /// Sums of squares of gradients.
    pub(crate) squares: Numbers<f64>,
    /// What comes back.
    pub(crate) report: Numbers<f64>,
    pub(crate) update: Numbers<f32>,
    /// What goes up.
    pub(crate) upload: Numbers<u8>,
}

impl Arenas {
    /// Zeros for a plan and `samples` samples of `event` numbers.
    pub(crate) fn new(device: &Device, plan: &StepPlan, samples: usize, upload: usize, average: bool) -> Result<Self, DeviceError> {
        let zeros = |len| device.zeros("the parameters of a training step", len);
        let doubles = |len| device.zeros("the sums of a training step", len);
        let mut items = device.zeros("the description of a training step", plan.items.len())?;
        device.upload(&plan.items, &mut items)?;
        let mut lists = device.zeros("the description of a training step", plan.lists.len())?;
        device.upload(&plan.lists, &mut lists)?;
        let mut constants = zeros(plan.constants.len())?;
        device.upload(&plan.constants, &mut constants)?;
        Ok(Self {
            parameters: zeros(plan.parameters)?,
            gradients: zeros(plan.parameters)?,
            first: zeros(plan.parameters)?,
            second: zeros(plan.parameters)?,
            average: zeros(if average { plan.parameters } else { 1 })?,
            items,
            lists,
            constants,
            scratch: zeros(plan.scratch)?,
            map_log_dets: doubles(plan.maps)?,
            log_probs: doubles(samples)?,
            squares: doubles(plan.parameters.div_ceil(NUMBERS))?,
            report: doubles(3)?,
            update: zeros(2)?,
            upload: device.zeros("the samples of a training step", upload)?,
        })
    }
}

/// Where the rows of a batch and their log-dets lie.
pub(crate) struct Rows<'a> {
    /// As for `sum_log_dets`.
    pub(crate) sides: &'a Numbers<i32>,
    pub(crate) count: usize,
    pub(crate) log_dets: &'a Numbers<f32>,
    pub(crate) capacity: usize,
}

impl Device {
    /// Levels that were sent up become the numbers of the first `samples` samples of `values`.
    pub(crate) fn dequantise(
        &self,
        arenas: &Arenas,
        form: LevelsForm,
        values: &mut Numbers<f32>,
        (samples, event): (usize, usize),
    ) -> Result<(), DeviceError> {
        let levels = HEADER + samples * KEY;
        self.holds(&arenas.upload, levels + samples * event)?;
        self.holds(values, samples * event)?;
        let (items, levels) = (arenas.upload.slice(HEADER..), arenas.upload.slice(levels..));
        let [numbers, row, dropped] = [event, form.row.max(1), form.dropped as usize].map(int);
        let (count, mirror) = (f64::from(form.levels), i32::from(form.mirror));
        let mut launch = self.stream().launch_builder(&self.step_kernels()?.dequantise);
        launch.arg(&items).arg(&levels).arg(&form.seed).arg(&form.purpose).arg(&numbers).arg(&row).arg(&count).arg(&dropped);
        launch.arg(&mirror).arg(values);
        let blocks = (event + usize::from(form.mirror)).div_ceil(32).div_ceil(THREADS as usize);
        // SAFETY: the arguments are those of the kernel in number, order and type. Behind the header there are two
        // numbers of 64 bits a sample, at a multiple of 8 bytes, then the levels; `values` has as many numbers.
        unsafe { launch.launch(config([samples, blocks], 0)) }.map(drop).map_err(self.error(WHAT))
    }

    /// The weights of all parameters, the log-dets of their maps, and zeros for their sums.
    pub(crate) fn prepare(
        &self,
        plan: &StepPlan,
        arenas: &mut Arenas,
        weights: &mut Numbers<f32>,
        sums: &mut Numbers<f32>,
    ) -> Result<(), DeviceError> {
        self.holds(sums, plan.sums())?;
        let Arenas { items, lists, constants, parameters, scratch, map_log_dets, .. } = arenas;
        let mut launch = self.stream().launch_builder(&self.step_kernels()?.prepare);
        launch.arg(&*items).arg(&*lists).arg(&*constants).arg(&*parameters).arg(weights).arg(scratch).arg(map_log_dets).arg(sums);
        // SAFETY: the arguments are those of the kernel in number, order and type. A plan's items have their places
        // among as many lists, constants, parameters, weights, sums and numbers of scratch as the buffers were made
        // for.
        unsafe { launch.launch(config([plan.len(), plan.chunks[0]], 0)) }.map(drop).map_err(self.error(WHAT))
    }

    /// log p of `samples` samples whose latents begin at `at` among the values, and the cotangents of their mean.
    pub(crate) fn likelihood(
        &self,
        plan: &StepPlan,
        arenas: &mut Arenas,
        rows: &Rows<'_>,
        (values, at): (&Numbers<f32>, usize),
        (cotangent, for_log_det): (&mut Numbers<f32>, &mut Numbers<f32>),
        (samples, event): (usize, usize),
    ) -> Result<(), DeviceError> {
        self.holds(values, at + samples * event)?;
        self.holds(cotangent, samples * event)?;
        self.holds(for_log_det, samples)?;
        self.holds(&arenas.log_probs, samples)?;
        self.holds(rows.sides, 2 * rows.count)?;
        let latents = values.slice(at..);
        let constant = plan.log_det - 0.5 * event as f64 * (2.0 * std::f64::consts::PI).ln();
        let [sides, capacity, maps, numbers, count] = [rows.count, rows.capacity, plan.maps, event, samples].map(int);
        let mut launch = self.stream().launch_builder(&self.step_kernels()?.likelihood);
        launch.arg(rows.sides).arg(&sides).arg(rows.log_dets).arg(&capacity).arg(&arenas.map_log_dets).arg(&maps).arg(&constant);
        launch.arg(&latents).arg(&numbers).arg(&count).arg(cotangent).arg(for_log_det).arg(&mut arenas.log_probs);
        // SAFETY: the arguments are those of the kernel in number, order and type. The latents and cotangents of all
        // samples are there, which was looked at above; the log-dets of rows are those that the sides wrote, and of
        // maps there are as many as the plan has.
        unsafe { launch.launch(config([samples, 1], PARTS)) }.map(drop).map_err(self.error(WHAT))
    }

    /// The gradients of all parameters, of the sums of a pullback.
    pub(crate) fn finish(&self, plan: &StepPlan, arenas: &mut Arenas, sums: &Numbers<f32>) -> Result<(), DeviceError> {
        let kernels = self.step_kernels()?;
        self.holds(sums, plan.sums())?;
        let Arenas { items, lists, constants, parameters, scratch, gradients, .. } = arenas;
        let mut launch = self.stream().launch_builder(&kernels.pull_maps);
        launch.arg(&*items).arg(&*lists).arg(&*parameters).arg(sums).arg(&mut *scratch);
        // SAFETY: the arguments are those of the kernel in number, order and type. Places are a plan's, as in
        // `prepare`, and there are as many sums as it says.
        unsafe { launch.launch(config([plan.len(), plan.chunks[1]], 0)) }.map_err(self.error(WHAT))?;
        let mut launch = self.stream().launch_builder(&kernels.finish);
        launch.arg(&*items).arg(&*lists).arg(&*constants).arg(&*parameters).arg(sums).arg(&*scratch).arg(gradients);
        // SAFETY: as above; there is a gradient for every parameter.
        unsafe { launch.launch(config([plan.len(), plan.chunks[2]], 0)) }.map(drop).map_err(self.error(WHAT))
    }

    /// The loss and the norm of the gradient, and the step down it if both are finite.
    pub(crate) fn optimise(&self, plan: &StepPlan, arenas: &mut Arenas, form: &AdamForm, samples: usize) -> Result<(), DeviceError> {
        let kernels = self.step_kernels()?;
        let Arenas { parameters, gradients, first, second, average, log_probs, squares, report, update, upload, .. } = arenas;
        let chunks = plan.parameters.div_ceil(NUMBERS);
        self.holds(log_probs, samples)?;
        let [count, chunk_count, sample_count] = [plan.parameters, chunks, samples].map(int);
        if chunks > 0 {
            let mut launch = self.stream().launch_builder(&kernels.squares);
            launch.arg(&*gradients).arg(&count).arg(&mut *squares);
            // SAFETY: the arguments are those of the kernel in number, order and type; there is a gradient for every
            // parameter, and a sum for every chunk of them.
            unsafe { launch.launch(config([chunks, 1], PARTS)) }.map_err(self.error(WHAT))?;
        }
        let clip = form.clip.unwrap_or(f64::INFINITY);
        let mut launch = self.stream().launch_builder(&kernels.conclude);
        launch.arg(&*log_probs).arg(&sample_count).arg(&*squares).arg(&chunk_count).arg(&form.gradient_scale).arg(&clip);
        launch.arg(report).arg(&mut *update);
        // SAFETY: the arguments are those of the kernel in number, order and type; there is a log p for every sample,
        // a sum for every chunk, three numbers to report and two for the update.
        unsafe { launch.launch(config([1, 1], 2 * PARTS)) }.map_err(self.error(WHAT))?;
        if chunks == 0 {
            return Ok(());
        }
        #[expect(clippy::cast_possible_truncation, reason = "factors are rounded to f32, as the host's are")]
        let [toward_first, toward_second, epsilon, toward_average] =
            [1.0 - form.betas.0, 1.0 - form.betas.1, form.epsilon, 1.0 - form.ema.unwrap_or(1.0)].map(|factor| factor as f32);
        if toward_average > 0.0 {
            self.holds(average, plan.parameters)?;
        }
        let rates = upload.slice(..HEADER);
        let mut launch = self.stream().launch_builder(&kernels.adam);
        launch.arg(&rates).arg(&*update).arg(&count).arg(&*gradients).arg(parameters).arg(first).arg(second).arg(average);
        launch.arg(&toward_first).arg(&toward_second).arg(&epsilon).arg(&toward_average);
        // SAFETY: the arguments are those of the kernel in number, order and type; gradients, both moments and, where
        // the factor towards it is not 0, the average have a number for every parameter, and the header three rates.
        unsafe { launch.launch(config([plan.parameters.div_ceil(THREADS as usize), 1], 0)) }.map(drop).map_err(self.error(WHAT))
    }
}
