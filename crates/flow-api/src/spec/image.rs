//! A flow on images: maps of whole samples one after the other.

use super::{
    BaseSpec, BuildModel, BuildScope, ConditionSpec, Cost, EventShape, LatentLevel, Model, ObjectiveSpec, Preprocessing, SampleSpec,
    SpecError, SpecScalar, build_sample_flows,
};
use crate::register_model;
use crate::samples::{Grid, Skeleton};
use serde::{Deserialize, Serialize};

/// A density of images: maps of whole samples, a plain list, and a base.
///
/// ```
/// use flow_api::spec::{EventShape, ModelSpec, Spec, from_ron};
/// let spec: Spec<dyn ModelSpec> = from_ron(
///     "ImageFlow(flows: [
///         PixelWise(flows: [LuLinear(permutation: Random)]),
///         Squeeze(),
///         Repeat(times: 2, flows: [ActNorm(), PixelWise(flows: [LuLinear()]), ChannelWise(flows: [LuLinear()])]),
///     ])",
/// )?;
/// let model = spec.build::<f32>(EventShape::Image { channels: 3, height: 8, width: 8 }, 7)?;
/// let table = model.describe()?;
/// assert_eq!(table[0].input, [64, 3]); // 64 pixels of 3 channels
/// assert_eq!((table[3].path.as_str(), table[3].input.as_slice()), ("bijector.2.0.2.0", &[12, 16][..])); // behind the squeeze
/// # Ok::<(), flow_api::spec::SpecError>(())
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageFlow {
    /// The image's shape as (channels, height, width), if the spec is to fix it; else it is the data's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<(usize, usize, usize)>,
    /// The maps, data to latent.
    pub flows: Vec<SampleSpec>,
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
register_model!(ImageFlow);

/// The pixels of image events, for a model whose spec may state their shape.
///
/// # Errors
/// [`SpecError::Event`] for vectors and for images without pixels, [`SpecError::Field`] for another shape than is
/// stated.
pub fn image_grid(event: EventShape, stated: Option<EventShape>, scope: &BuildScope) -> Result<Grid, SpecError> {
    if let Some(stated) = stated.filter(|stated| *stated != event) {
        return Err(scope.field_error("image", format!("the data's shape {event}"), stated));
    }
    match event {
        EventShape::Image { channels, height, width } if !event.is_empty() => Ok(Grid::image(channels, height, width)?),
        _ => Err(SpecError::Event { path: scope.path().to_owned(), expected: "images", got: event.to_string() }),
    }
}

impl BuildModel for ImageFlow {
    fn build<E: SpecScalar>(&self, event: EventShape, scope: &BuildScope) -> Result<Model<E>, SpecError> {
        let (base, scope) = (scope.child("base"), scope.child("bijector"));
        let grid = image_grid(event, self.event(), &scope)?;
        scope.size("flows", self.flows.len(), 1)?;
        let (layers, _) = build_sample_flows::<E>(&self.flows, &grid, &scope)?;
        let skeleton = Skeleton::new("ImageFlow", event.len(), layers)?;
        let levels = LatentLevel::of_flows(&self.flows, &grid, &scope)?;
        Ok(Model::new(Box::new(skeleton), self.base.build::<E>(event.len(), &base)?, event)?.with_levels(levels))
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
        // What is no image is refused when it is built.
        let Ok(grid) = image_grid(event, None, &BuildScope::new(0)) else { return Cost::default() };
        let base = Cost { numbers: self.base.numbers(event.len()), ..Cost::default() };
        Cost::of_sample_flows(&self.flows, &grid).and(base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ModelSpec, Spec, from_ron, set_field, to_ron};
    use crate::testkit::{Subject, check_model};

    const IMAGE: EventShape = EventShape::Image { channels: 2, height: 4, width: 4 };

    fn spec(flows: &str) -> Spec<dyn ModelSpec> {
        from_ron(&format!("ImageFlow(flows: [{flows}])")).unwrap()
    }

    fn paths(flows: &str) -> Vec<(String, Vec<usize>)> {
        let table = spec(flows).build::<f64>(IMAGE, 1).unwrap().describe().unwrap();
        table.into_iter().map(|layer| (layer.path, layer.input)).collect()
    }

    #[test]
    fn lists_of_maps_conform() {
        for flows in [
            "ActNorm(), Squeeze(), PixelWise(flows: [ActNorm(), LuLinear(permutation: Random)]), ChannelWise(flows: [LuLinear()])",
            "Squeeze(factor: 4), PixelWise(flows: [LuLinear()])",
            "Repeat(times: 2, flows: [PixelWise(flows: [LuLinear(permutation: Random)]), Squeeze(), ChannelWise(flows: [LuLinear()])])",
        ] {
            check_model(&Subject::new(flows, IMAGE.len()), &spec(flows), IMAGE).unwrap();
        }
    }

    #[test]
    fn rounds_follow_the_grid() {
        let flows = "Repeat(times: 2, flows: [Squeeze(), ActNorm()]), Repeat(times: 2, flows: [ActNorm(), PixelWise(flows: [LuLinear()])])";
        // The second squeeze leaves one place, whose row stands alone in the table.
        let one = || vec![32];
        let expected = [
            ("bijector.0.0.1", vec![4, 8]),
            ("bijector.0.1.1", one()),
            ("bijector.1.0.0", one()),
            ("bijector.1.0.1.0", one()),
            ("bijector.1.1.0", one()),
            ("bijector.1.1.1.0", one()),
        ];
        assert_eq!(paths(flows), expected.map(|(path, shape)| (path.to_owned(), shape)));
    }

    #[test]
    fn texts_survive() {
        let text = to_ron(&spec("Squeeze(), Repeat(times: 3, flows: [ActNorm(), PixelWise(flows: [LuLinear()])])")).unwrap();
        assert_eq!(to_ron(&from_ron::<Spec<dyn ModelSpec>>(&text).unwrap()).unwrap(), text);
        let read: Spec<dyn ModelSpec> = from_ron(&text).unwrap();
        let changed = set_field(&read, "flows.Repeat.flows.PixelWise.flows.LuLinear.permutation", "Reverse").unwrap();
        assert!(to_ron(&changed).unwrap().contains("permutation: Reverse"));
        let error = from_ron::<Spec<dyn ModelSpec>>("ImageFlow(flows: [Squish()])").unwrap_err().to_string();
        assert!(error.contains("`Squish`") && error.contains("`Squeeze`") && error.contains("`Repeat`"), "{error}");
    }

    #[test]
    fn what_cannot_be_built_is_told() {
        let vector = EventShape::Vector(4);
        let many = "Repeat(times: 2048, flows: [Repeat(times: 2048, flows: [PixelWise(flows: [])])])";
        for (text, event, expected) in [
            ("flows: [Squeeze()]", vector, "bijector: expected images, got data of shape (4)"),
            ("flows: [ActNorm(), Squeeze(factor: 3)]", IMAGE, "bijector.1: height 4 is not divisible by factor 3"),
            ("flows: [Squeeze(factor: 1)]", IMAGE, "bijector.0: factor: expected 2 to 16384, got 1"),
            ("flows: []", IMAGE, "bijector: flows: expected 1 to 16384, got 0"),
            ("flows: [Repeat(times: 0, flows: [ActNorm()])]", IMAGE, "bijector.0: times: expected 1 to 2048, got 0"),
            ("flows: [Repeat(times: 2, flows: [])]", IMAGE, "bijector.0: flows: expected 1 to 16384, got 0"),
            ("flows: [Repeat(times: 3, flows: [Squeeze()])]", IMAGE, "bijector.0.2.0: height 1 is not divisible by factor 2"),
            ("flows: [ActNorm()], image: (1, 4, 4)", IMAGE, "bijector: image: expected the data's shape (2, 4, 4), got (1, 4, 4)"),
            (&format!("flows: [{many}]"), IMAGE, "bijector: flows: expected at most 16384 in all, repeated ones counted, got 4194304"),
        ] {
            let spec: Spec<dyn ModelSpec> = from_ron(&format!("ImageFlow({text})")).unwrap();
            assert_eq!(spec.build::<f32>(event, 1).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
