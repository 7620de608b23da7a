//! A sample seen as channels at the places of a grid: what squeezes, factor-outs and patches change in place of values.

use crate::rows::RowView;
use crate::{FlowError, Result};

/// c channels at each of h × w places of a sample, each channel of each place at a place of its own in memory.
///
/// An image is one: its places are pixels. So is the matrix of its patches, whose places are the patches and whose
/// channels are the numbers of a patch. A squeeze makes another grid of the same values, with more channels and fewer
/// places, and a factor-out one of fewer channels: no value is ever moved for them, and a latent lies where the event's
/// numbers lie.
///
/// Channel k of place (y, x) lies at `channels[k] + y * down + x * across` of the sample.
///
/// ```
/// use flow_api::samples::Grid;
/// let image = Grid::image(1, 4, 6)?;
/// // Every 2 × 2 pixels are the 4 channels of one place.
/// let squeezed = image.squeeze(2).ok_or("sides that 2 divides")?;
/// assert_eq!((squeezed.channels(), squeezed.height(), squeezed.width()), (4, 2, 3));
/// assert_eq!(squeezed.pixels()?.places().take(4).collect::<Vec<_>>(), [0, 1, 6, 7]);
/// // Of these, the first two go on.
/// let kept = squeezed.select(0..2);
/// assert_eq!(kept.pixels()?.places().take(4).collect::<Vec<_>>(), [0, 1, 2, 3]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid {
    sample: usize,
    channels: Vec<usize>,
    height: usize,
    width: usize,
    down: usize,
    across: usize,
}

impl Grid {
    /// The pixels of an image, channels first.
    ///
    /// # Errors
    /// [`FlowError::Setting`] for a size beyond what memory can hold.
    pub fn image(channels: usize, height: usize, width: usize) -> Result<Self> {
        let plane = height.checked_mul(width).filter(|plane| plane.checked_mul(channels).is_some());
        let plane = plane.ok_or_else(|| wrong(format!("{channels} × {height} × {width}")))?;
        Ok(Self {
            sample: channels * plane,
            channels: (0..channels).map(|channel| channel * plane).collect(),
            height,
            width,
            down: width,
            across: 1,
        })
    }

    /// A grid of samples of `sample` values: where the channels of its first place lie, its height and width, and how
    /// far apart places are down and across.
    ///
    /// # Errors
    /// [`FlowError::Setting`] if a value lies outside the sample or two share a place.
    pub fn new(sample: usize, channels: Vec<usize>, size: [usize; 2], steps: [usize; 2]) -> Result<Self> {
        let ([height, width], [down, across]) = (size, steps);
        let extent = |size: usize, step: usize| size.saturating_sub(1).checked_mul(step);
        if extent(height, down).zip(extent(width, across)).is_none() {
            return Err(wrong(format!("{height} × {width} places, {down} and {across} apart")));
        }
        let grid = Self { sample, channels, height, width, down, across };
        grid.pixels().map(|_| grid)
    }

    /// Values in a whole sample.
    pub fn sample_len(&self) -> usize {
        self.sample
    }

    /// Channels, c.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Rows of places, h.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Places in a row, w.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Places, h·w.
    pub fn places(&self) -> usize {
        self.height * self.width
    }

    /// The same values with every `factor` × `factor` places as one: c·factor² channels, ordered (channel, row,
    /// column). None if the factor does not divide height and width.
    ///
    /// Source: Dinh et al., "Density estimation using Real NVP", section 3.6 (arXiv:1605.08803).
    #[must_use]
    pub fn squeeze(&self, factor: usize) -> Option<Self> {
        if factor == 0 || !self.height.is_multiple_of(factor) || !self.width.is_multiple_of(factor) {
            return None;
        }
        let Self { sample, height, width, down, across, .. } = *self;
        let within = (0..factor).flat_map(|y| (0..factor).map(move |x| y * down + x * across));
        let channels = self.channels.iter().flat_map(|channel| within.clone().map(move |place| channel + place)).collect();
        Some(Self { sample, channels, height: height / factor, width: width / factor, down: down * factor, across: across * factor })
    }

    /// The same without a frame of so many places on every side; none if nothing would be left.
    #[must_use]
    pub fn inner(&self, frame: usize) -> Option<Self> {
        let inner = |side: usize| side.checked_sub(frame.checked_mul(2)?).filter(|inner| *inner > 0);
        let (height, width) = (inner(self.height)?, inner(self.width)?);
        let first = frame * (self.down + self.across);
        Some(Self { channels: self.channels.iter().map(|channel| channel + first).collect(), height, width, ..*self })
    }

    /// The same places with some of the channels: those of the range that there are.
    #[must_use]
    pub fn select(&self, channels: std::ops::Range<usize>) -> Self {
        let (skip, take) = (channels.start, channels.len());
        Self { channels: self.channels.iter().skip(skip).take(take).copied().collect(), ..*self }
    }

    /// Every place as a row of its channels: what a 1×1 convolution works on.
    ///
    /// # Errors
    /// None for a grid that was made.
    pub fn pixels(&self) -> Result<RowView> {
        RowView::new(self.sample, self.place_offsets(), self.channels.clone())
    }

    /// Every channel as a row of its places.
    ///
    /// # Errors
    /// As [`Grid::pixels`].
    pub fn channel_rows(&self) -> Result<RowView> {
        RowView::new(self.sample, self.channels.clone(), self.place_offsets())
    }

    fn place_offsets(&self) -> Vec<usize> {
        let Self { height, width, down, across, .. } = *self;
        (0..height).flat_map(|y| (0..width).map(move |x| y * down + x * across)).collect()
    }
}

/// As (c, h, w).
impl std::fmt::Display for Grid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "({}, {}, {})", self.channels.len(), self.height, self.width)
    }
}

fn wrong(got: String) -> FlowError {
    FlowError::Setting { layer: "Grid".to_owned(), field: "size", expected: "a sample that memory can hold".to_owned(), got }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(view: Result<RowView>) -> Vec<usize> {
        view.unwrap().places().collect()
    }

    #[test]
    fn squeezes_are_views_of_the_same_values() {
        let image = Grid::image(2, 4, 4).unwrap();
        let once = image.squeeze(2).unwrap();
        // Channel 1 of the image is channels 4 to 7, whose first place is its upper left square.
        assert_eq!(places(once.pixels())[..8], [0, 1, 4, 5, 16, 17, 20, 21]);
        let twice = once.squeeze(2).unwrap();
        assert_eq!((twice.to_string().as_str(), twice.places()), ("(32, 1, 1)", 1));
        // All values, each once: the channels of channel 0's four corners, row by row.
        assert_eq!(places(twice.pixels())[..16], [0, 2, 8, 10, 1, 3, 9, 11, 4, 6, 12, 14, 5, 7, 13, 15]);
        let mut all = places(twice.pixels());
        all.sort_unstable();
        assert_eq!(all, (0..32).collect::<Vec<_>>());
        assert_eq!(image.squeeze(3), None);
        assert_eq!(image.squeeze(0), None);
    }

    #[test]
    fn channels_are_selected_by_range() {
        let grid = Grid::image(4, 1, 2).unwrap();
        assert_eq!(places(grid.select(2..4).channel_rows()), [4, 5, 6, 7]);
        assert_eq!(grid.select(3..9).channels(), 1);
        assert_eq!(grid.select(0..4), grid);
    }

    #[test]
    fn a_frame_is_set_aside() {
        let grid = Grid::image(2, 4, 5).unwrap();
        assert_eq!(places(grid.inner(1).unwrap().channel_rows()), [6, 7, 8, 11, 12, 13, 26, 27, 28, 31, 32, 33]);
        assert_eq!(grid.inner(0), Some(grid.clone()));
        assert_eq!((grid.inner(2), grid.inner(usize::MAX)), (None, None));
    }

    #[test]
    fn grids_that_no_sample_holds_are_refused() {
        for (sample, channels, size, steps) in
            [(6, vec![0, 1], [2, 2], [2, 1]), (8, vec![0], [3, 3], [3, 1]), (8, vec![0], [3, 1], [usize::MAX, 1])]
        {
            assert!(matches!(Grid::new(sample, channels, size, steps), Err(FlowError::Setting { .. })));
        }
        assert!(Grid::new(9, vec![0], [3, 3], [3, 1]).is_ok());
        assert!(matches!(Grid::image(usize::MAX, 2, 2), Err(FlowError::Setting { .. })));
    }
}
