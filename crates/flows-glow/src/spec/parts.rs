//! The parts of Glow as maps of whole samples.

use flow_api::samples::{Grid, SampleLayer, Side};
use flow_api::spec::{BuildSampleFlow, BuildScope, Cost, MAX_SIZE, Receiver, SpecError, SpecScalar, one_flow};
use flow_api::{FlowError, layers, register_sample_flow};
use flow_nets::{ConvLayers, ConvNetConfig, Split, TransformerSpec};
use serde::{Deserialize, Serialize};

/// An invertible 1×1 convolution: [`layers::LuLinear`] behind a random permutation, which all places share. It starts
/// as that permutation.
///
/// Source: Kingma & Dhariwal, "Glow", section 3.2 (arXiv:1807.03039), in the LU form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv1x1 {}
register_sample_flow!(Conv1x1);

impl BuildSampleFlow for Conv1x1 {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let channels = scope.child("Conv1x1").size("channels", grid.channels(), 1)?;
        Ok(one_flow(Side::new(grid.pixels()?, layers::LuLinear::<E>::new(channels).with_random_permutation(scope.seed()))?))
    }

    fn cost(&self, grid: &Grid) -> Cost {
        // Larger ones are refused for themselves.
        Cost::of_numbers(if grid.channels() > MAX_SIZE { 0 } else { grid.channels().pow(2) })
    }
}

/// The network of a convolutional coupling, a [`ConvNet`](flow_nets::ConvNet).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// 3×3, 1×1 and 3×3 convolutions: Glow's.
    #[default]
    ThreeLayers,
    /// A residual network with two 3×3 convolutions a block, between 1×1 convolutions: that of RQ-NSF (C).
    Residual {
        /// Blocks.
        blocks: usize,
    },
}

impl Network {
    fn layers(self, hidden: usize) -> ConvLayers {
        match self {
            Self::ThreeLayers => ConvLayers::Three { hidden },
            Self::Residual { blocks } => ConvLayers::Residual { hidden, blocks },
        }
    }
}

/// [`conv_coupling`](crate::conv_coupling): some channels pass, a convolutional network of them moves the others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ConvCoupling {
    /// Channels between the network's convolutions. Default 128.
    pub hidden: usize,
    /// The network. Default `ThreeLayers`.
    pub network: Network,
    /// What moves a value. Default `Affine(bound: 2.0)`.
    pub transformer: TransformerSpec,
    /// Which channels pass; couplings of a list take turns between this form and the flipped one. Default `Halves`.
    pub split: Split,
    /// Width of the condition that the network sees at every pixel. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}
register_sample_flow!(ConvCoupling);

impl Default for ConvCoupling {
    fn default() -> Self {
        let (network, transformer, split) = (Network::default(), TransformerSpec::default(), Split::default());
        Self { hidden: 128, network, transformer, split, condition: None }
    }
}

impl BuildSampleFlow for ConvCoupling {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let parts = Parts { layers: self.network.layers(self.hidden), transformer: self.transformer, condition: self.condition };
        parts.build(grid, self.split, "ConvCoupling", scope)
    }

    fn cost(&self, grid: &Grid) -> Cost {
        let parts = Parts { layers: self.network.layers(self.hidden), transformer: self.transformer, condition: None };
        parts.cost(grid, self.split)
    }

    fn turns(&self) -> usize {
        usize::from(self.split.takes_turns())
    }
}

/// Half of the channels, the last ones, go to the latents: the maps behind work on the first half alone.
///
/// With a learned prior, the half that leaves is first moved by a coupling, whose parameters one 3×3 convolution of the
/// half that goes on gives. That is the density that it has in the paper, N(μ, σ) with μ and σ from the other half,
/// with its normalisation z = (x − μ)/σ made a part of the flow: so the base density is one for all latents. It starts
/// as N(0, 1), since the convolution starts as zero.
///
/// Source: Kingma & Dhariwal, "Glow" (arXiv:1807.03039), whose code has the learned prior; Dinh et al., "Density
/// estimation using Real NVP", section 3.6 (arXiv:1605.08803).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FactorOut {
    /// What a value that leaves is moved with, given the half that goes on; `None` leaves it as it is. Default
    /// `Affine(bound: 2.0)`.
    pub prior: Option<TransformerSpec>,
    /// Width of the condition that the prior sees too. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}
register_sample_flow!(FactorOut);

impl Default for FactorOut {
    fn default() -> Self {
        Self { prior: Some(TransformerSpec::default()), condition: None }
    }
}

impl FactorOut {
    fn parts(&self) -> Option<Parts> {
        self.prior.map(|transformer| Parts { layers: ConvLayers::One, transformer, condition: self.condition })
    }
}

impl BuildSampleFlow for FactorOut {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        // The first half of the channels passes.
        self.parts().map_or_else(|| Ok(Vec::new()), |parts| parts.build(grid, Split::First(grid.channels() / 2), "FactorOut", scope))
    }

    fn output(&self, grid: &Grid, scope: &BuildScope) -> Result<Grid, SpecError> {
        match grid.channels() {
            0 | 1 => Err(scope.child("FactorOut").field_error("channels", "at least 2", grid.channels())),
            channels => Ok(grid.select(0..channels / 2)),
        }
    }

    fn cost(&self, grid: &Grid) -> Cost {
        self.parts().map_or(Cost::default(), |parts| parts.cost(grid, Split::First(grid.channels() / 2)))
    }
}

/// What couplings and priors are made of.
struct Parts {
    layers: ConvLayers,
    transformer: TransformerSpec,
    condition: Option<usize>,
}

impl Parts {
    fn build<E: SpecScalar>(
        &self,
        grid: &Grid,
        split: Split,
        kind: &'static str,
        scope: &BuildScope,
    ) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let named = scope.child(kind);
        let condition = self.condition.or_else(|| scope.condition(Receiver::Couplings));
        let condition = condition.map_or(Ok(0), |width| named.size("condition", width, 1))?;
        let coupling = split.partition(grid.channels(), scope.index() % 2 == 1).and_then(|partition| {
            crate::conv_coupling::<E>(grid, partition, self.transformer.build()?, self.layers, condition, scope.seed())
        });
        match coupling {
            Ok(coupling) => Ok(one_flow(coupling)),
            // A row has features; here they are channels.
            Err(FlowError::Setting { field, expected, got, .. }) => {
                Err(named.field_error(if field == "dim" { "channels" } else { field }, expected, got))
            }
            Err(other) => Err(other.into()),
        }
    }

    fn cost(&self, grid: &Grid, split: Split) -> Cost {
        // What cannot be built is refused for itself.
        let (Ok(partition), Ok(transformer)) = (split.partition(grid.channels(), false), self.transformer.build::<f64>()) else {
            return Cost::of_numbers(0);
        };
        // Flipped, the parts may be of the other sizes.
        let least = partition.identity.len().min(partition.transformed.len());
        let (height, width, layers) = (grid.height(), grid.width(), self.layers);
        let outputs = transformer.parameters() * least;
        Cost::of_numbers(ConvNetConfig { inputs: least, condition: 0, outputs, height, width, layers }.weights())
    }
}
