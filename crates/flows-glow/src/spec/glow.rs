//! Glow as one model.

use super::{ConvCoupling, FactorOut, Network};
use flow_api::register_model;
use flow_api::samples::{Grid, Skeleton};
use flow_api::spec::{
    ActNorm, BaseSpec, BuildModel, BuildSampleFlow, BuildScope, ConditionSpec, Cost, EventShape, LatentLevel, LuLinear, MAX_LAYERS, Model,
    ObjectiveSpec, Order, PixelWise, Preprocessing, Spec, SpecError, SpecScalar, Squeeze, below, image_grid,
};
use flow_nets::{AffineSpec, SplineSpec, Split, TransformerSpec};
use serde::{Deserialize, Serialize};

/// The coupling of Glow's steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepCoupling {
    /// y = x e^s + t with a bounded log-scale s.
    Affine(AffineStep),
    /// Monotone rational-quadratic splines.
    Spline(SplineStep),
}

/// An affine coupling of Glow's steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AffineStep {
    /// Channels between the network's convolutions. Default 128.
    pub hidden: usize,
    /// The network. Default `ThreeLayers`.
    pub network: Network,
    /// Bound of the log-scale. Default 2.
    pub bound: f64,
    /// Width of the condition that the network sees at every place. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}

/// A spline coupling of Glow's steps.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplineStep {
    /// Channels between the network's convolutions. Default 128.
    pub hidden: usize,
    /// The network. Default `ThreeLayers`.
    pub network: Network,
    /// Bins. Default 8.
    pub bins: usize,
    /// Half the width of the interval that is moved. Default 3.
    pub tail_bound: f64,
    /// Width of the condition that the network sees at every place. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}

impl Default for AffineStep {
    fn default() -> Self {
        let AffineSpec { bound } = AffineSpec::default();
        Self { hidden: ConvCoupling::default().hidden, network: Network::default(), bound, condition: None }
    }
}

impl Default for SplineStep {
    fn default() -> Self {
        let SplineSpec { bins, tail_bound } = SplineSpec::default();
        Self { hidden: ConvCoupling::default().hidden, network: Network::default(), bins, tail_bound, condition: None }
    }
}

impl Default for StepCoupling {
    fn default() -> Self {
        Self::Affine(AffineStep::default())
    }
}

impl StepCoupling {
    fn spec(&self) -> ConvCoupling {
        let (hidden, network, condition, transformer) = match *self {
            Self::Affine(AffineStep { hidden, network, bound, condition }) => {
                (hidden, network, condition, TransformerSpec::Affine(AffineSpec { bound }))
            }
            Self::Spline(SplineStep { hidden, network, bins, tail_bound, condition }) => {
                (hidden, network, condition, TransformerSpec::Spline(SplineSpec { bins, tail_bound }))
            }
        };
        ConvCoupling { hidden, network, transformer, split: Split::Halves, condition }
    }
}

/// Glow on images (Kingma & Dhariwal, arXiv:1807.03039): on every level a squeeze, then steps of `ActNorm`, an
/// invertible 1×1 convolution and a convolutional coupling; between levels half of the channels leaves, with a prior
/// that the other half gives.
///
/// Coupling and prior have a log-scale that is bounded by ±`bound`, where the paper's has a logistic function. The
/// paths are `levels.{i}.steps.{k}.pixel.…`, `levels.{i}.steps.{k}.coupling.…` and `levels.{i}.prior.…`.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// use flows_glow as _;
/// let spec: Spec<dyn ModelSpec> = from_ron("Glow(levels: 2, steps: 1, coupling: Spline(hidden: 16, bins: 4))")?;
/// let model = spec.build::<f32>(EventShape::Image { channels: 1, height: 8, width: 8 }, 7)?;
/// let table = model.describe()?;
/// let shapes: Vec<_> = table.iter().map(|layer| (layer.path.as_str(), layer.input.as_slice())).collect();
/// assert_eq!(shapes[0], ("bijector.levels.0.steps.0.pixel.0", &[16, 4][..])); // 4 × 4 places of 4 channels
/// assert_eq!(shapes[2], ("bijector.levels.0.steps.0.coupling", &[4, 4, 4][..]));
/// assert_eq!(shapes[3], ("bijector.levels.0.prior", &[4, 4, 4][..]));
/// assert_eq!(shapes[6], ("bijector.levels.1.steps.0.coupling", &[8, 2, 2][..])); // of the half that went on
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Glow {
    /// The image's shape as (channels, height, width), if the spec is to fix it; else it is the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<(usize, usize, usize)>,
    /// Levels, each of half the height and width of the one before.
    pub levels: usize,
    /// Steps of a level.
    pub steps: usize,
    /// The coupling of every step.
    #[serde(default)]
    pub coupling: StepCoupling,
    /// The prior of the halves that leave, as of [`FactorOut`].
    #[serde(default = "learned")]
    pub prior: Option<TransformerSpec>,
    /// The base density.
    #[serde(default)]
    pub base: BaseSpec,
    /// What happens to images before the flow sees them.
    #[serde(default)]
    pub preprocessing: Preprocessing,
    /// What the model is trained for.
    #[serde(default, skip_serializing_if = "ObjectiveSpec::is_likelihood")]
    pub objective: ObjectiveSpec,
    /// What it is conditioned on, if it is on anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<ConditionSpec>,
}
register_model!(Glow);

fn learned() -> Option<TransformerSpec> {
    FactorOut::default().prior
}

impl Glow {
    fn pixel() -> PixelWise {
        PixelWise { flows: vec![Spec(Box::new(ActNorm {})), Spec(Box::new(LuLinear { permutation: Order::Random }))] }
    }

    fn factor_out(&self) -> FactorOut {
        FactorOut { prior: self.prior, condition: None }
    }

    /// The grid of a level's steps, given that of the level before.
    fn squeezed(grid: &Grid, level: usize, scope: &BuildScope) -> Result<Grid, SpecError> {
        Squeeze::default().output(grid, &scope.child(format_args!("levels.{level}")))
    }
}

impl BuildModel for Glow {
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError> {
        let (base, scope) = (scope.child("base"), scope.child("bijector"));
        let mut grid = image_grid(event, self.event(), &scope)?;
        scope.layers("levels", self.levels)?;
        scope.layers("steps", self.steps)?;
        let (mut layers, mut latents) = (Vec::new(), Vec::new());
        for level in 0..self.levels {
            grid = Self::squeezed(&grid, level, &scope)?;
            for step in 0..self.steps {
                let path = format!("levels.{level}.steps.{step}");
                let part = |name: &str| (format!("{path}.{name}"), scope.child(format_args!("{path}.{name}")).at(step));
                let ((pixel, in_pixel), (coupling, in_coupling)) = (part("pixel"), part("coupling"));
                let pixel = below(pixel, E::sample_flow(&Spec(Box::new(Self::pixel())), &grid, &in_pixel)?);
                let coupling = below(coupling, E::sample_flow(&Spec(Box::new(self.coupling.spec())), &grid, &in_coupling)?);
                layers.push(pixel.into_iter().chain(coupling).flatten().collect());
            }
            if level + 1 < self.levels {
                let path = format!("levels.{level}.prior");
                let (factor_out, own) = (self.factor_out(), scope.child(&path));
                layers.extend(below(path, E::sample_flow(&Spec(Box::new(factor_out)), &grid, &own)?));
                let behind = factor_out.output(&grid, &own)?;
                latents.extend(LatentLevel::left(format!("levels.{level}"), &grid, &behind)?);
                grid = behind;
            }
        }
        let latents = LatentLevel::with_rest(latents, &grid)?;
        let skeleton = Skeleton::new("Glow", event.len(), layers)?;
        Ok(Model::new(Box::new(skeleton), self.base.build::<E>(event.len(), &base)?, event)?.with_levels(latents))
    }

    fn condition(&self) -> Option<&ConditionSpec> {
        self.condition.as_ref()
    }

    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing.clone()
    }

    fn objective(&self) -> ObjectiveSpec {
        self.objective.clone()
    }

    fn event(&self) -> Option<EventShape> {
        self.image.map(|(channels, height, width)| EventShape::Image { channels, height, width })
    }

    fn cost(&self, event: EventShape) -> Cost {
        let scope = BuildScope::new(0);
        let mut cost = Cost { numbers: self.base.numbers(event.len()), ..Cost::default() };
        // What is no image, or has a side that cannot be halved, is refused when it is built.
        let (Ok(mut grid), true) = (image_grid(event, None, &scope), self.steps <= MAX_LAYERS) else { return cost };
        for level in 0..self.levels {
            let Ok(squeezed) = Self::squeezed(&grid, level, &scope) else { break };
            cost = cost.and(Self::pixel().cost(&squeezed).and(self.coupling.spec().cost(&squeezed)).times(self.steps));
            if level + 1 < self.levels {
                cost = cost.and(self.factor_out().cost(&squeezed));
            }
            grid = squeezed.select(0..squeezed.channels() / 2);
        }
        cost
    }
}
