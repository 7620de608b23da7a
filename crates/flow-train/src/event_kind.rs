//! What kind of items a model is for.

use crate::data::{Dataset, ItemShape};
use flow_api::spec::EventShape;
use serde::{Deserialize, Serialize};

/// What kind of items a model is for: all that is needed besides the model to score others of the kind, or to show
/// samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventKind {
    /// Shape of an item.
    pub shape: EventShape,
    /// Levels of a value in the data, if it is discrete.
    pub levels: Option<u32>,
}

impl EventKind {
    /// That of a data set.
    pub fn of(data: &dyn Dataset) -> Self {
        let shape = match data.shape() {
            ItemShape::Image { channels, height, width } => EventShape::Image { channels, height, width },
            ItemShape::Vector { dims } => EventShape::Vector(dims),
        };
        Self { shape, levels: data.levels() }
    }

    /// The shape as data sets have it.
    pub fn item(self) -> ItemShape {
        match self.shape {
            EventShape::Image { channels, height, width } => ItemShape::Image { channels, height, width },
            EventShape::Vector(dims) => ItemShape::Vector { dims },
        }
    }
}
