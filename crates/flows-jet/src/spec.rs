//! Couplings of tokens in RON.
//!
//! A Jet on patches of 2 × 2 pixels: a cycle of couplings of channels and of places.
//!
//! ```
//! use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
//! use flows_jet as _; // registers the kind
//! let spec: Spec<dyn ModelSpec> = from_ron(
//!     "ImageFlow(flows: [
//!         Squeeze(factor: 2),
//!         Repeat(times: 2, flows: [
//!             TokenCoupling(network: VisionTransformer(width: 16, heads: 2), transformer: SigmoidAffine()),
//!             TokenCoupling(split: Checkerboard, network: Mixer(width: 16), transformer: SigmoidAffine()),
//!         ]),
//!     ])",
//! )?;
//! let model = spec.build::<f32>(EventShape::Image { channels: 1, height: 8, width: 8 }, 7)?;
//! assert_eq!(model.describe()?[0].input, [4, 4, 4]); // 4 channels at 4 × 4 places
//! # Ok::<(), flow_api::spec::SpecError>(())
//! ```

use crate::{TokenConditioner, TokenSplit, token_coupling};
use flow_api::samples::{Grid, SampleLayer};
use flow_api::spec::{BuildSampleFlow, BuildScope, Cost, Receiver, SpecError, SpecScalar, one_flow};
use flow_api::{FlowError, register_sample_flow};
use flow_nets::{TokenMixing, TransformerSpec};
use serde::{Deserialize, Serialize};

/// [`token_coupling`]: half of a grid passes, a network in which all tokens of it see each other moves the other half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenCoupling {
    /// What passes. Default `Channels(Halves)`.
    pub split: TokenSplit,
    /// Whether what the split names is moved, and the rest passes. Default: couplings of a list take turns, if the
    /// split is one that has two forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flipped: Option<bool>,
    /// The network. Default `VisionTransformer()`.
    pub network: Network,
    /// What moves a value. Default `Affine(bound: 2.0)`.
    pub transformer: TransformerSpec,
    /// Width of the condition that the network sees with every token. Default that of the model, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<usize>,
}
register_sample_flow!(TokenCoupling);

/// The network of a coupling of tokens, a [`TokenNet`](flow_nets::TokenNet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// Tokens attend to each other.
    VisionTransformer(VisionTransformer),
    /// An MLP over the tokens.
    Mixer(Mixer),
}

/// A vision transformer: blocks of multi-head self-attention and an MLP, with learned positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VisionTransformer {
    /// Features of a token. Default 64.
    pub width: usize,
    /// Blocks. Default 2.
    pub blocks: usize,
    /// Heads, which divide the width. Default 4.
    pub heads: usize,
    /// Width of the MLP's hidden layer. Default four times the width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
}

/// An MLP-Mixer: blocks of an MLP over the tokens and one over their features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mixer {
    /// Features of a token. Default 64.
    pub width: usize,
    /// Blocks. Default 2.
    pub blocks: usize,
    /// Width of the hidden layer of the MLP over tokens. Default half the width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_hidden: Option<usize>,
    /// Width of the hidden layer of the MLP over features. Default four times the width.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden: Option<usize>,
}

impl Default for VisionTransformer {
    fn default() -> Self {
        Self { width: 64, blocks: 2, heads: 4, hidden: None }
    }
}

impl Default for Mixer {
    fn default() -> Self {
        Self { width: 64, blocks: 2, token_hidden: None, hidden: None }
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::VisionTransformer(VisionTransformer::default())
    }
}

impl Network {
    fn conditioner(self, condition: usize) -> TokenConditioner {
        let by_default = |hidden: Option<usize>, width: usize| hidden.unwrap_or_else(|| width.saturating_mul(4));
        match self {
            Self::VisionTransformer(VisionTransformer { width, blocks, heads, hidden }) => {
                let (hidden, mixing) = (by_default(hidden, width), TokenMixing::Attention { heads });
                TokenConditioner { width, blocks, hidden, mixing, condition }
            }
            Self::Mixer(Mixer { width, blocks, token_hidden, hidden }) => {
                let mixing = TokenMixing::Mlp { hidden: token_hidden.unwrap_or_else(|| width.div_ceil(2)) };
                TokenConditioner { width, blocks, hidden: by_default(hidden, width), mixing, condition }
            }
        }
    }
}

impl BuildSampleFlow for TokenCoupling {
    fn build<E: SpecScalar>(&self, grid: &Grid, scope: &BuildScope) -> Result<Vec<SampleLayer<E>>, SpecError> {
        let named = scope.child("TokenCoupling");
        let condition = self.condition.or_else(|| scope.condition(Receiver::Couplings));
        let condition = condition.map_or(Ok(0), |width| named.size("condition", width, 1))?;
        let flipped = self.flipped.unwrap_or(scope.index() % 2 == 1);
        let conditioner = self.network.conditioner(condition);
        let coupling = self
            .transformer
            .build()
            .and_then(|transformer| token_coupling::<E>(grid, self.split, flipped, transformer, &conditioner, scope.seed()));
        match coupling {
            Ok(coupling) => Ok(one_flow(coupling)),
            Err(FlowError::Setting { field, expected, got, .. }) => Err(named.field_error(field, expected, got)),
            Err(other) => Err(other.into()),
        }
    }

    fn cost(&self, grid: &Grid) -> Cost {
        // What cannot be built is refused for itself. Flipped, the parts may be of other sizes.
        let weights = |flipped: bool| {
            self.split
                .layout(grid, flipped)
                .map_or(0, |layout| self.network.conditioner(0).config(layout, self.transformer.parameters()).weights())
        };
        Cost::of_numbers(weights(false).min(weights(true)))
    }

    fn turns(&self) -> usize {
        usize::from(self.flipped.is_none() && self.split.takes_turns())
    }
}
