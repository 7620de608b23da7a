//! Pictures whose squares stand in another order: structure that is there and that nobody sees.

use super::mapped::{Item, ItemMap, Mapped};
use super::{DataError, Dataset, Draw, ItemShape, Result, Shuffle};
use std::sync::Arc;

/// Pictures cut into squares that stand in one fixed order, drawn at random and the same for all items and seeds: of
/// sides of one pixel a permutation of pixels. The channels of a pixel stay together.
pub type Permuted = Mapped<Permutation>;

/// Where the values of an item of [`Permuted`] come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permutation {
    from: Vec<usize>,
}

impl Permuted {
    /// The pictures of `of`, cut into squares of `side` pixels.
    ///
    /// ```
    /// use flow_train::data::{Dataset, Draw, Permuted, digits};
    /// let digits = digits()?.train;
    /// let permuted = Permuted::new(digits.clone(), 2)?;
    /// let draws = [Draw { epoch: 0, index: 5 }];
    /// assert_ne!(permuted.batch(&draws)?.values, digits.batch(&draws)?.values);
    /// # Ok::<(), flow_train::data::DataError>(())
    /// ```
    ///
    /// # Errors
    /// [`DataError::Setting`] for items that are no pictures, and a side that does not divide theirs.
    pub fn new(of: Arc<dyn Dataset>, side: usize) -> Result<Self> {
        /// Of the order, which is part of what the data are.
        const SEED: u64 = 0;
        const TRIES: u64 = 64;
        let bad = |expected, got: String| Err(DataError::Setting { what: "permute", expected, got });
        let ItemShape::Image { channels, height, width } = of.shape() else { return bad("pictures", format!("items of {}", of.shape())) };
        if side == 0 || !height.is_multiple_of(side) || !width.is_multiple_of(side) {
            return bad("a side of squares that divides height and width of the pictures", format!("{side} for {}", of.shape()));
        }
        let (across, squares) = (width / side, (width / side) * (height / side));
        // The first order that moves anything, if there is one.
        let order = (0..TRIES).map(|number| Shuffle { seed: SEED }.permutation(number, squares)).find(|order| !order.is_sorted());
        let order = order.unwrap_or_else(|| (0..squares).collect());
        let mut from = Vec::with_capacity(of.shape().dims());
        for channel in 0..channels {
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                let square = order[y / side * across + x / side];
                let (top, left) = (square / across * side, square % across * side);
                from.push((channel * height + top + y % side) * width + left + x % side);
            }
        }
        Ok(Self { of, map: Permutation { from } })
    }
}

impl ItemMap for Permutation {
    fn change(&self, item: &mut Item<'_>, _: Draw) {
        fn put<T: Copy>(values: &mut [T], from: &[usize]) {
            let before = values.to_vec();
            values.iter_mut().zip(from).for_each(|(value, &from)| *value = before[from]);
        }
        match item {
            Item::Levels(values) => put(values, &self.from),
            Item::Real(values) => put(values, &self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{InMemory, Values};

    /// Two channels of 4×4 numbered pixels: every square of the result is one of the picture, at another place, the
    /// same one in both channels.
    #[test]
    fn squares_move_as_they_are() {
        let shape = ItemShape::Image { channels: 2, height: 4, width: 4 };
        let set = Arc::new(InMemory::new("p".as_ref(), Values::Levels((0..32).collect()), shape, Some(256), None).unwrap());
        for side in [1, 2] {
            let permuted = Permuted::new(set.clone(), side).unwrap();
            let Values::Levels(values) = permuted.batch(&[Draw { epoch: 3, index: 0 }]).unwrap().values else { panic!("levels") };
            let mut sorted = values.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..32).collect::<Vec<u8>>());
            assert_ne!(values, sorted);
            for (y, x) in (0..4).flat_map(|y| (0..4).map(move |x| (y, x))) {
                let corner = usize::from(values[y / side * side * 4 + x / side * side]);
                let (top, left) = (corner / 4, corner % 4);
                assert!(top % side == 0 && left % side == 0, "{values:?}");
                assert_eq!(usize::from(values[y * 4 + x]), (top + y % side) * 4 + left + x % side);
                assert_eq!(values[16 + y * 4 + x], values[y * 4 + x] + 16);
            }
        }
        assert_eq!(
            Permuted::new(set, 3).unwrap_err().to_string(),
            "permute: expected a side of squares that divides height and width of the pictures, got 3 for 2×4×4"
        );
    }
}
