//! The spec of `MixerFlow`.

use crate::{ImageShape, Patches};
use flow_api::spec::{
    BaseSpec, BuildModel, BuildScope, Cost, EventShape, FlowSpec, LuLinear, MAX_LAYERS, Model, Order, Preprocessing, Spec, SpecError,
    SpecScalar, build_flows,
};
use flow_api::{RowView, SampleFlow, Side, Skeleton, parallel, register_model};
use serde::{Deserialize, Serialize};

/// Which layers work on shifted patches, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Every how many layers: with 4, layers 4, 8, 12, … counted from one.
    pub every: usize,
    /// Width of the frame that is set aside, in pixels; half a patch if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
}

/// `MixerFlow` on images (arXiv:2310.16777): pixel flows, then layers of a channel flow and a patch flow, some of them on shifted patches.
///
/// Hidden sizes, the order of parts within a side and the frame's width are not fixed by what could be read of the paper: they are settings here, and the defaults are ours.
///
/// ```
/// use flow_api::spec::{from_ron, EventShape, ModelSpec, Spec};
/// use mixerflow as _;
/// let spec: Spec<dyn ModelSpec> = from_ron(
///     "MixerFlow(patch: 2, layers: 4, channel: [ActNorm(), LuLinear()], patches: [ActNorm(), LuLinear()])",
/// )?;
/// let digits = EventShape::Image { channels: 1, height: 8, width: 8 };
/// let model = spec.build::<f32>(digits, 7)?;
/// let table = model.describe()?;
/// assert_eq!(table[1].input, [16, 4]); // 16 patches of 4 numbers
/// assert_eq!(table.last().map(|layer| layer.input.clone()), Some(vec![4, 9])); // the fourth layer has 9 shifted patches
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MixerFlow {
    /// The image's shape as (channels, height, width), if the spec is to fix it; else it is the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<(usize, usize, usize)>,
    /// Side of a patch in pixels, P.
    pub patch: usize,
    /// Number of mixing layers, L.
    pub layers: usize,
    /// Flows of the channel side, on R^C with C = cP², shared by all patches.
    pub channel: Vec<FlowSpec>,
    /// Flows of the patch side, on R^N for N patches, shared by all numbers of a patch.
    pub patches: Vec<FlowSpec>,
    /// Flows on R^c that all pixels share, in front of the layers: by default an LU-linear map behind a random permutation, that is, an invertible 1×1 convolution.
    #[serde(default = "convolution")]
    pub pixel: Vec<FlowSpec>,
    /// Shift layers; every fourth layer if not given, `None` for none.
    #[serde(default = "every_fourth")]
    pub shift: Option<Shift>,
    /// The base density.
    #[serde(default)]
    pub base: BaseSpec,
    /// What happens to images before the flow sees them.
    #[serde(default)]
    pub preprocessing: Preprocessing,
}
register_model!(MixerFlow);

fn convolution() -> Vec<FlowSpec> {
    vec![Spec(Box::new(LuLinear { permutation: Order::Random }))]
}

#[expect(clippy::unnecessary_wraps, reason = "serde's default has the field's type")]
fn every_fourth() -> Option<Shift> {
    Some(Shift { every: 4, frame: None })
}

impl MixerFlow {
    /// Patches of the layers that are not shifted, and of those that are.
    fn patches(&self, image: ImageShape, scope: &BuildScope) -> Result<(Patches, Option<Patches>), SpecError> {
        let straight = Patches::new(image, self.patch, 0, scope.path())?;
        let Some(shift) = self.shift.filter(|shift| shift.every <= self.layers) else { return Ok((straight, None)) };
        let frame = shift.frame.unwrap_or(self.patch / 2);
        if frame % self.patch == 0 {
            // Such a frame leaves every patch border where it was.
            return Err(scope.field_error("shift.frame", format!("a width that is no multiple of the patch {}", self.patch), frame));
        }
        Ok((straight, Some(Patches::new(image, self.patch, frame, scope.path())?)))
    }
}

impl BuildModel for MixerFlow {
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError> {
        let (base, scope) = (scope.child("base"), scope.child("bijector"));
        if let Some(stated) = self.event().filter(|stated| *stated != event) {
            return Err(scope.field_error("image", format!("the data's shape {event}"), stated));
        }
        let image = ImageShape::of(event, scope.path())?;
        scope.layers("layers", self.layers)?;
        if let Some(shift) = self.shift {
            scope.size("shift.every", shift.every, 1)?;
        }
        let (straight, shifted) = self.patches(image, &scope)?;

        let side = |path: String, flows: &[FlowSpec], view: RowView, round: usize| {
            let chain = build_flows::<E>(flows, view.dim(), round, &scope.child(&path))?;
            Ok::<_, SpecError>((path, Box::new(Side::new(view, chain)?) as Box<dyn SampleFlow<E>>))
        };
        let pixel = if self.pixel.is_empty() { None } else { Some(vec![side("pixel".to_owned(), &self.pixel, image.pixels()?, 0)?]) };
        let layer = |i: usize| {
            let is_shifted = self.shift.is_some_and(|shift| (i + 1).is_multiple_of(shift.every));
            let patches = shifted.filter(|_| is_shifted).unwrap_or(straight);
            let sides = [("channel", &self.channel, patches.channel_view()?), ("patch", &self.patches, patches.patch_view()?)];
            let sides = sides.into_iter().filter(|(_, flows, _)| !flows.is_empty());
            sides.map(|(name, flows, view)| side(format!("layers.{i}.{name}"), flows, view, i)).collect::<Result<Vec<_>, SpecError>>()
        };
        let layers = parallel(self.layers, layer).into_iter().collect::<Result<Vec<_>, _>>()?;
        let layers = pixel.into_iter().chain(layers).collect();
        let skeleton = Skeleton::new("MixerFlow", image.len(), layers)?;
        Ok(Model::new(Box::new(skeleton), self.base.build::<E>(image.len(), &base)?, event)?)
    }

    fn preprocessing(&self) -> Preprocessing {
        self.preprocessing
    }

    fn event(&self) -> Option<EventShape> {
        self.image.map(|(channels, height, width)| EventShape::Image { channels, height, width })
    }

    fn cost(&self, event: EventShape) -> Cost {
        // What cannot be cut into patches is refused when it is built.
        let EventShape::Image { channels, height, width } = event else { return Cost::default() };
        if self.layers > MAX_LAYERS {
            return Cost::default();
        }
        let patch = self.patch.max(1);
        let channel = channels.saturating_mul(patch.saturating_mul(patch)).min(event.len());
        let layers =
            |patches: usize, count: usize| Cost::of_flows(&self.channel, channel).and(Cost::of_flows(&self.patches, patches)).times(count);
        let shifted = self.shift.map_or(0, |shift| self.layers / shift.every.max(1));
        // A frame takes one patch off each side.
        let (down, across) = (height / patch, width / patch);
        let inner = down.saturating_sub(1).max(1) * across.saturating_sub(1).max(1);
        let base = Cost { numbers: self.base.numbers(event.len()), ..Cost::default() };
        let pixel = Cost::of_flows(&self.pixel, channels);
        layers(down * across, self.layers - shifted).and(layers(inner, shifted)).and(pixel).and(base)
    }
}
