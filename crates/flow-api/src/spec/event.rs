//! Events, and what works on them flattened.

use crate::Flow;
use crate::bases::BaseDensity;
use crate::bijector::BoxBijector;

/// Shape of one event: what a density is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum EventShape {
    /// A vector of d numbers.
    Vector(usize),
    /// An image.
    Image {
        /// Channels.
        channels: usize,
        /// Rows of pixels.
        height: usize,
        /// Columns of pixels.
        width: usize,
    },
}

impl EventShape {
    /// Numbers in one event.
    pub fn len(&self) -> usize {
        match *self {
            Self::Vector(dim) => dim,
            Self::Image { channels, height, width } => channels.saturating_mul(height).saturating_mul(width),
        }
    }

    /// No numbers at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Display for EventShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Vector(dim) => write!(f, "({dim})"),
            Self::Image { channels, height, width } => write!(f, "({channels}, {height}, {width})"),
        }
    }
}

/// A bijector of flattened events, (batch, d) to (batch, d).
pub type EventBijector<E> = BoxBijector<(usize, usize), (usize, usize), E>;

/// A flow on flattened events: what specs build and what training, scoring and sampling work on.
pub type EventFlow<E> = Flow<EventBijector<E>, Box<dyn BaseDensity<E>>>;
