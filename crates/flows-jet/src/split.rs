//! Which half of a grid passes.

use flow_api::rows::RowView;
use flow_api::samples::Grid;
use flow_api::{FlowError, Result};
use flow_nets::{Partition, Split, TokenLayout};
use serde::{Deserialize, Serialize};

/// Which numbers of a grid a [`token_coupling`](crate::token_coupling) lets pass; flipped, it moves these and lets the
/// others pass.
///
/// Stripes and halves are of rows or columns of places; those of an odd number are one wider or more numerous on the
/// side that says so here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum TokenSplit {
    /// Some channels of every place, as a coupling of rows does with features; [`Split`] says what its flipped form is.
    Channels(Split),
    /// Places whose row and column add up to an even number.
    Checkerboard,
    /// Every other row of places, from the first on.
    Rows,
    /// Every other column of places, from the first on.
    Columns,
    /// The upper ⌊h/2⌋ rows of places.
    Upper,
    /// The left ⌊w/2⌋ columns of places.
    Left,
}

/// Half of the channels.
impl Default for TokenSplit {
    fn default() -> Self {
        Self::Channels(Split::default())
    }
}

/// A grid in two: rows of a view, the features of them that pass, and what of it is a token.
pub(crate) struct Cut {
    pub(crate) view: RowView,
    pub(crate) partition: Partition,
    pub(crate) layout: TokenLayout,
}

impl TokenSplit {
    /// Whether the flipped form is another one, so that couplings take turns.
    pub fn takes_turns(self) -> bool {
        if let Self::Channels(split) = self { split.takes_turns() } else { true }
    }

    /// What is a token, without a look at where numbers lie.
    pub(crate) fn layout(self, grid: &Grid, flipped: bool) -> Result<TokenLayout> {
        if let Self::Channels(split) = self {
            let Partition { identity, transformed } = partition(grid, split, flipped)?;
            return Ok(TokenLayout::Lanes { tokens: grid.places(), passing: identity.len(), moved: transformed.len() });
        }
        let passing = (0..grid.places()).filter(|at| self.passes(grid, *at) != flipped).count();
        let moved = grid.places() - passing;
        if passing > 0 && moved > 0 {
            return Ok(TokenLayout::Features { channels: grid.channels(), passing, moved });
        }
        let (expected, got) = (format!("places on both sides of {self:?}"), format!("{} × {} places", grid.height(), grid.width()));
        Err(FlowError::Setting { layer: "TokenCoupling".to_owned(), field: "split", expected, got })
    }

    /// The grid in two.
    pub(crate) fn cut(self, grid: &Grid, flipped: bool) -> Result<Cut> {
        let (layout, places) = (self.layout(grid, flipped)?, grid.pixels()?);
        if let Self::Channels(split) = self {
            return Ok(Cut { view: places, partition: partition(grid, split, flipped)?, layout });
        }
        // Places that pass before those that are moved, as the features of rows that are channels.
        let all = places.row_offsets().iter().copied().enumerate();
        let (mut features, moved): (Vec<_>, Vec<_>) = all.partition(|(at, _)| self.passes(grid, *at) != flipped);
        let partition = Split::First(features.len()).partition(features.len() + moved.len(), false)?;
        features.extend(moved);
        let features = features.into_iter().map(|(_, offset)| offset).collect();
        Ok(Cut { view: RowView::new(grid.sample_len(), places.column_offsets().to_vec(), features)?, partition, layout })
    }

    /// Whether the place, counted row by row, is of those that the split names; of no meaning for channels.
    fn passes(self, grid: &Grid, place: usize) -> bool {
        let (y, x) = (place / grid.width(), place % grid.width());
        match self {
            Self::Channels(_) => false,
            Self::Checkerboard => (y + x).is_multiple_of(2),
            Self::Rows => y.is_multiple_of(2),
            Self::Columns => x.is_multiple_of(2),
            Self::Upper => y < grid.height() / 2,
            Self::Left => x < grid.width() / 2,
        }
    }
}

/// The channels of a grid in two.
fn partition(grid: &Grid, split: Split, flipped: bool) -> Result<Partition> {
    split.partition(grid.channels(), flipped).map_err(|error| match error {
        // A row has features; here they are channels.
        FlowError::Setting { field: "dim", expected, got, .. } => {
            FlowError::Setting { layer: "TokenCoupling".to_owned(), field: "channels", expected, got }
        }
        other => other,
    })
}
