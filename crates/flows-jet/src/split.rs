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

    /// The grid in two.
    pub(crate) fn cut(self, grid: &Grid, flipped: bool) -> Result<Cut> {
        let (height, width) = (grid.height(), grid.width());
        let passes: &dyn Fn(usize, usize) -> bool = match self {
            Self::Channels(split) => return Self::channels(grid, split, flipped),
            Self::Checkerboard => &|y, x| (y + x).is_multiple_of(2),
            Self::Rows => &|y, _| y.is_multiple_of(2),
            Self::Columns => &|_, x| x.is_multiple_of(2),
            Self::Upper => &|y, _| y < height / 2,
            Self::Left => &|_, x| x < width / 2,
        };
        let places = grid.pixels()?;
        // Places that pass before those that are moved, as the features of rows that are channels.
        let (mut first, mut last) = (Vec::new(), Vec::new());
        for (at, &offset) in places.row_offsets().iter().enumerate() {
            let part = if passes(at / width, at % width) == flipped { &mut last } else { &mut first };
            part.push(offset);
        }
        let (passing, moved) = (first.len(), last.len());
        if passing == 0 || moved == 0 {
            let (expected, got) = (format!("places on both sides of {self:?}"), format!("{height} × {width} places"));
            return Err(FlowError::Setting { layer: "TokenCoupling".to_owned(), field: "split", expected, got });
        }
        first.extend(last);
        let view = RowView::new(grid.sample_len(), places.column_offsets().to_vec(), first)?;
        let layout = TokenLayout::Features { channels: grid.channels(), passing, moved };
        Ok(Cut { view, partition: Split::First(passing).partition(passing + moved, false)?, layout })
    }

    fn channels(grid: &Grid, split: Split, flipped: bool) -> Result<Cut> {
        let partition = split.partition(grid.channels(), flipped).map_err(|error| match error {
            // A row has features; here they are channels.
            FlowError::Setting { field: "dim", expected, got, .. } => {
                FlowError::Setting { layer: "TokenCoupling".to_owned(), field: "channels", expected, got }
            }
            other => other,
        })?;
        let (passing, moved) = (partition.identity.len(), partition.transformed.len());
        Ok(Cut { view: grid.pixels()?, partition, layout: TokenLayout::Lanes { tokens: grid.places(), passing, moved } })
    }
}
