//! What every call gets besides its data: mode, randomness, memory setting, condition and the layer's path.

use crate::bounds_used::{BoundUse, BoundsUsed};
use crate::{Conditions, InverseKind, Scalar, Tensor};
use flow_kernels::noise::Stream;
use std::fmt::Display;
use std::sync::Arc;

/// Whether a call belongs to training or to evaluation.
///
/// Estimators read it: a residual flow may train with a roulette estimate and report exact log-dets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// A training step.
    Train,
    /// Scoring, sampling, reporting.
    #[default]
    Evaluate,
}

/// What is kept between the forward and the backward sweep of a training step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Memory {
    /// Every layer may keep its activations: fastest.
    #[default]
    Store,
    /// Only each layer's input is kept, and its forward pass is run again: exact gradients at about one event a layer.
    Recompute,
    /// Nothing is kept: layers are inverted on the way back, so memory does not grow with depth. Layers whose inverse
    /// is not in closed form keep their input.
    Invert,
}

/// What a layer keeps of its forward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Its activations.
    Tape,
    /// Its input: its forward pass is run again.
    Input,
    /// Nothing: its output, which the layers behind recover, is inverted.
    Nothing,
}

impl Memory {
    /// What a layer whose inverse is of this kind keeps: the one rule that all passes obey.
    pub fn keep(self, inverse: InverseKind) -> Keep {
        match self {
            Self::Store => Keep::Tape,
            Self::Invert if inverse == InverseKind::ClosedForm => Keep::Nothing,
            Self::Recompute | Self::Invert => Keep::Input,
        }
    }
}

/// Which implementation of a row flow runs, where it has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kernels {
    /// The fused kernel on blocks of rows.
    #[default]
    Fused,
    /// The kernel that is made of the flow's form in dfdx operations, [`RowFlow::taped`](crate::RowFlow::taped): an
    /// oracle for the fused one.
    Taped,
}

/// The context of a call.
///
/// Randomness is a pure function of seed, step, the layer's path and the row, so a layer that is computed again draws
/// the same noise, and a run is reproduced by its seed at any number of threads, on one instruction set.
///
/// ```
/// use flow_api::{Context, Memory, Mode};
/// let cx = Context::<f32>::new(7).at_step(3).in_mode(Mode::Train).with_memory(Memory::Invert);
/// assert_eq!(cx.child("layers").child(2).path(), "layers.2");
/// ```
#[derive(Clone, Debug)]
pub struct Context<E: Scalar> {
    seed: u64,
    step: u64,
    mode: Mode,
    memory: Memory,
    kernels: Kernels,
    log_det: bool,
    condition: Option<Tensor<(usize, usize), E>>,
    conditions: Option<Arc<Conditions>>,
    bounds: Option<BoundsUsed>,
    path: String,
}

impl<E: Scalar> Context<E> {
    /// An evaluation context without a condition.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            step: 0,
            mode: Mode::default(),
            memory: Memory::default(),
            kernels: Kernels::default(),
            log_det: true,
            condition: None,
            conditions: None,
            bounds: None,
            path: String::new(),
        }
    }

    /// The same at another step: noise is drawn anew each step.
    #[must_use]
    pub fn at_step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }

    /// The same in another mode.
    #[must_use]
    pub fn in_mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// The same with another memory setting.
    #[must_use]
    pub fn with_memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// The same with the implementation chosen.
    #[must_use]
    pub fn with_kernels(mut self, kernels: Kernels) -> Self {
        self.kernels = kernels;
        self
    }

    /// The same for a call whose log-dets nobody reads, such as sampling: a layer whose log-det costs extra may leave
    /// it out.
    #[must_use]
    pub fn without_log_det(mut self) -> Self {
        self.log_det = false;
        self
    }

    /// The same with a condition: one vector a sample, shape (batch, width).
    #[must_use]
    pub fn with_condition(mut self, condition: Tensor<(usize, usize), E>) -> Self {
        self.condition = Some(condition);
        self
    }

    /// The same for samples that are conditioned on these: a [`Model`](crate::spec::Model) makes of them the vectors
    /// that layers see.
    #[must_use]
    pub fn given(mut self, conditions: Conditions) -> Self {
        self.conditions = Some(Arc::new(conditions));
        self
    }

    /// The same for layers that are asked which share of their scales' bounds they use.
    #[must_use]
    pub fn asking_for(mut self, bounds: &BoundsUsed) -> Self {
        self.bounds = Some(bounds.clone());
        self
    }

    /// The context of a child layer: its path is this one's with `.name` behind.
    #[must_use]
    pub fn child(&self, name: impl Display) -> Self {
        let mut child = self.clone();
        if !child.path.is_empty() {
            child.path.push('.');
        }
        child.path.push_str(&name.to_string());
        child
    }

    /// This layer as a root of its own, for block `block` of its rows: an empty path, and noise that still depends on
    /// seed, step, path and block.
    #[must_use]
    pub fn rooted(&self, block: u64) -> Self {
        Self { seed: self.noise().row(block).next_u64(), path: String::new(), ..self.clone() }
    }

    /// Dotted path of the layer that is called, empty at the root.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// What errors call the layer: its path, or at the root its kind.
    pub fn layer<'a>(&'a self, kind: &'a str) -> &'a str {
        if self.path.is_empty() { kind } else { &self.path }
    }

    /// Training or evaluation.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// What a training pass keeps.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Whether log-dets are wanted; without, they are unspecified.
    pub fn wants_log_det(&self) -> bool {
        self.log_det
    }

    /// The condition that layers see, if there is one.
    pub fn condition(&self) -> Option<&Tensor<(usize, usize), E>> {
        self.condition.as_ref()
    }

    /// What samples are conditioned on, as data have it, if it was said.
    pub fn conditions(&self) -> Option<&Conditions> {
        self.conditions.as_deref()
    }

    /// Where this layer is to tell which share of its scales' bounds it uses, if somebody asks.
    pub fn bound_use(&self) -> Option<Arc<BoundUse>> {
        self.bounds.as_ref().map(|bounds| bounds.layer(&self.path))
    }

    /// Which kernels are to run, where a row flow has two.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// This layer's random stream.
    pub fn noise(&self) -> Stream {
        Stream::new(self.seed, self.step, &self.path)
    }
}
