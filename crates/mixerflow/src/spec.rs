//! The spec of `MixerFlow`.

use crate::Patches;
use flow_api::rows::RowView;
use flow_api::samples::{Grid, SampleLayer, Side, Skeleton};
use flow_api::spec::{
    BaseSpec, BuildModel, BuildScope, ConditionSpec, Cost, EventShape, FlowSpec, LatentLevel, LuLinear, MAX_LAYERS, Model, ObjectiveSpec,
    Order, Preprocessing, SampleSpec, Spec, SpecError, SpecScalar, below, build_flows, build_sample_flows, grid_behind, image_grid,
    turns_of,
};
use flow_api::threads::parallel;
use flow_api::{SampleFlow, register_model};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// Which layers work on shifted patches, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shift {
    /// Every how many layers: with 4, layers 4, 8, 12, … counted from one.
    pub every: usize,
    /// Width of the frame that is set aside, in pixels; half a patch if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<usize>,
    /// Among which layers couplings take turns.
    #[serde(default, skip_serializing_if = "is_default")]
    pub turns: Turns,
}

/// Among which layers the couplings of a side take turns between the halves that they move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Turns {
    /// All: every second layer moves the other half. Where `every` is even, shifted layers then all move the same half,
    /// and with `every: 2` so do all others.
    #[default]
    Together,
    /// Shifted layers among themselves, and the others among themselves.
    Apart,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Levels of a multi-scale model: behind each but the last, maps after which the next one works on what they leave.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    /// How many levels; each has `layers` layers.
    pub count: usize,
    /// Maps of whole samples between two levels, such as a squeeze and a factor-out: of the grid that they leave the
    /// next level's patches are cut.
    pub between: Vec<SampleSpec>,
}

/// `MixerFlow` on images (arXiv:2310.16777): pixel flows, then layers of a channel flow and a patch flow, some of them
/// on shifted patches.
///
/// Hidden sizes, the order of parts within a side and the frame's width are not fixed by what could be read of the
/// paper: they are settings here, and the defaults are ours.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
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
    /// Maps of the whole mixer matrix behind both sides: its places are the patches, its channels the numbers of a
    /// patch. They have to leave the grid of patches as it is. Default none.
    #[serde(default)]
    pub whole: Vec<SampleSpec>,
    /// Flows on R^c that all pixels share, in front of the layers: by default an LU-linear map behind a random
    /// permutation, that is, an invertible 1×1 convolution.
    #[serde(default = "convolution")]
    pub pixel: Vec<FlowSpec>,
    /// Levels of a multi-scale model, which the paper names as future work; one if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub levels: Option<Levels>,
    /// Shift layers; every fourth layer if not given, `None` for none.
    #[serde(default = "every_fourth")]
    pub shift: Option<Shift>,
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
register_model!(MixerFlow);

fn convolution() -> Vec<FlowSpec> {
    vec![Spec(Box::new(LuLinear { permutation: Order::Random }))]
}

#[expect(clippy::unnecessary_wraps, reason = "serde's default has the field's type")]
fn every_fourth() -> Option<Shift> {
    Some(Shift { every: 4, frame: None, turns: Turns::Together })
}

impl MixerFlow {
    /// Layers of a level, counted over all levels.
    fn layers_of(&self, level: usize) -> Range<usize> {
        level * self.layers..(level + 1) * self.layers
    }

    /// Patches of the layers of a level that are not shifted, and of those that are, if there are any.
    fn patches(&self, grid: &Grid, level: usize, scope: &BuildScope) -> Result<[Patches; 2], SpecError> {
        let straight = Patches::of(grid, self.patch, 0, scope.path())?;
        let shift = self.shift.filter(|_| self.layers_of(level).any(|layer| self.is_shifted(layer)));
        let Some(shift) = shift else { return Ok([straight.clone(), straight]) };
        let frame = shift.frame.unwrap_or(self.patch / 2);
        if frame % self.patch == 0 {
            // Such a frame leaves every patch border where it was.
            return Err(scope.field_error("shift.frame", format!("a width that is no multiple of the patch {}", self.patch), frame));
        }
        Ok([straight, Patches::of(grid, self.patch, frame, scope.path())?])
    }

    fn level_count(&self) -> usize {
        self.levels.as_ref().map_or(1, |levels| levels.count)
    }

    /// Whether a layer is shifted: counted from 0, over all levels.
    fn is_shifted(&self, layer: usize) -> bool {
        self.shift.is_some_and(|shift| shift.every > 0 && (layer + 1).is_multiple_of(shift.every))
    }

    /// How many layers before this one its couplings take turns with.
    fn turn(&self, layer: usize) -> usize {
        match self.shift.map(|shift| shift.turns).unwrap_or_default() {
            Turns::Together => layer,
            Turns::Apart => (0..layer).filter(|before| self.is_shifted(*before) == self.is_shifted(layer)).count(),
        }
    }

    /// The maps between a level and the next.
    fn between(&self) -> &[SampleSpec] {
        self.levels.as_ref().map_or(&[], |levels| levels.between.as_slice())
    }

    /// The maps of the whole matrix of a layer.
    fn whole<E: SpecScalar>(&self, patches: &Patches, layer: usize, scope: &BuildScope) -> Result<SampleLayer<E>, SpecError> {
        if self.whole.is_empty() {
            return Ok(Vec::new());
        }
        let path = format!("layers.{layer}.whole");
        let (grid, own) = (patches.grid(), scope.child(&path).at(self.turn(layer).saturating_mul(turns_of(&self.whole))));
        let (maps, behind) = build_sample_flows::<E>(&self.whole, grid, &own)?;
        if behind != *grid {
            return Err(scope.field_error("whole", format!("maps that leave the grid {grid} as it is"), behind));
        }
        Ok(below(path, maps).into_iter().flatten().collect())
    }
}

impl BuildModel for MixerFlow {
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError> {
        let (base, scope) = (scope.child("base"), scope.child("bijector"));
        let mut grid = image_grid(event, self.event(), &scope)?;
        scope.layers("layers", self.layers)?;
        scope.layers("levels.count", self.level_count())?;
        scope.layers("layers", self.layers.saturating_mul(self.level_count()))?;
        if let Some(shift) = self.shift {
            scope.size("shift.every", shift.every, 1)?;
        }

        let side = |path: String, flows: &[FlowSpec], view: RowView, round: usize| {
            let chain = build_flows::<E>(flows, view.dim(), round, &scope.child(&path))?;
            Ok::<_, SpecError>((path, Box::new(Side::new(view, chain)?) as Box<dyn SampleFlow<E>>))
        };
        let (mut layers, mut latents) = (Vec::new(), Vec::new());
        if !self.pixel.is_empty() {
            layers.push(vec![side("pixel".to_owned(), &self.pixel, grid.pixels()?, 0)?]);
        }
        for level in 0..self.level_count() {
            let [straight, shifted] = self.patches(&grid, level, &scope)?;
            let first = self.layers_of(level).start;
            let layer = |k: usize| {
                let i = first + k;
                let patches = if self.is_shifted(i) { &shifted } else { &straight };
                let sides = [("channel", &self.channel, patches.channel_view()?), ("patch", &self.patches, patches.patch_view()?)];
                let sides = sides.into_iter().filter(|(_, flows, _)| !flows.is_empty());
                let sides = sides.map(|(name, flows, view)| side(format!("layers.{i}.{name}"), flows, view, self.turn(i)));
                let mut layer = sides.collect::<Result<Vec<_>, SpecError>>()?;
                layer.extend(self.whole::<E>(patches, i, &scope)?);
                Ok::<_, SpecError>(layer)
            };
            layers.extend(parallel(self.layers, layer).into_iter().collect::<Result<Vec<_>, _>>()?);
            if level + 1 < self.level_count() {
                let path = format!("between.{level}");
                let own = scope.child(&path).at(level.saturating_mul(turns_of(self.between())));
                let (maps, behind) = build_sample_flows::<E>(self.between(), &grid, &own)?;
                latents.extend(LatentLevel::left(path.as_str(), &grid, &behind)?);
                layers.extend(below(path, maps));
                grid = behind;
            }
        }
        let (skeleton, latents) = (Skeleton::new("MixerFlow", event.len(), layers)?, LatentLevel::with_rest(latents, &grid)?);
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
        let (scope, base) = (BuildScope::new(0), Cost { numbers: self.base.numbers(event.len()), ..Cost::default() });
        let count = self.layers.saturating_mul(self.level_count());
        // What is no image, or cannot be cut into patches, is refused when it is built.
        let (Ok(mut grid), true) = (image_grid(event, None, &scope), count <= MAX_LAYERS) else { return base };
        let mut cost = base.and(Cost::of_flows(&self.pixel, grid.channels()));
        for level in 0..self.level_count() {
            let Ok(patches) = self.patches(&grid, level, &scope) else { break };
            let shifted = self.layers_of(level).filter(|layer| self.is_shifted(*layer)).count();
            for (patches, layers) in patches.iter().zip([self.layers - shifted, shifted]) {
                let sides = Cost::of_flows(&self.channel, patches.len()).and(Cost::of_flows(&self.patches, patches.count()));
                cost = cost.and(sides.and(Cost::of_sample_flows(&self.whole, patches.grid())).times(layers));
            }
            if level + 1 < self.level_count() {
                cost = cost.and(Cost::of_sample_flows(self.between(), &grid));
                let Ok(behind) = grid_behind(self.between(), &grid, &scope) else { break };
                grid = behind;
            }
        }
        cost
    }
}
