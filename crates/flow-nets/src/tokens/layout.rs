//! How the tokens of a sample lie in the block of a coupling.

use flow_api::Scalar;
use flow_kernels::matmul::{Operand, transpose};
use flow_kernels::workspace::Buffer;

/// How a coupling's block holds tokens: which numbers that pass go into the network together, and for which numbers
/// that are moved parameters come out together.
///
/// A block has features × lanes, the lanes of a sample beside each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenLayout {
    /// Every lane is a token: a coupling of channels on rows that are places. A token has the channels of its place.
    Lanes {
        /// Lanes of a sample.
        tokens: usize,
        /// Features that pass.
        passing: usize,
        /// Features that are moved.
        moved: usize,
    },
    /// Features are tokens: a coupling of places on rows that are channels. The i-th place that passes and the i-th
    /// that is moved are one token, which sees the channels of the one and gives parameters for those of the other.
    /// Where there are more of one sort than of the other, tokens see zeros, or what they give is left.
    Features {
        /// Lanes of a sample.
        channels: usize,
        /// Features that pass.
        passing: usize,
        /// Features that are moved.
        moved: usize,
    },
}

impl TokenLayout {
    /// Tokens of a sample.
    pub fn tokens(&self) -> usize {
        match *self {
            Self::Lanes { tokens, .. } => tokens,
            Self::Features { passing, moved, .. } => passing.max(moved),
        }
    }

    /// Lanes of a sample.
    pub fn lanes(&self) -> usize {
        match *self {
            Self::Lanes { tokens: lanes, .. } | Self::Features { channels: lanes, .. } => lanes,
        }
    }

    /// Features of a block that pass.
    pub fn passing(&self) -> usize {
        match *self {
            Self::Lanes { passing, .. } | Self::Features { passing, .. } => passing,
        }
    }

    /// Features of a block that are moved.
    pub fn moved(&self) -> usize {
        match *self {
            Self::Lanes { moved, .. } | Self::Features { moved, .. } => moved,
        }
    }

    /// Numbers of a token that go in.
    pub(super) fn inputs(&self) -> usize {
        match *self {
            Self::Lanes { passing, .. } => passing,
            Self::Features { channels, .. } => channels,
        }
    }

    /// Numbers that are moved by what a token gives.
    pub(super) fn outputs(&self) -> usize {
        match *self {
            Self::Lanes { moved, .. } => moved,
            Self::Features { channels, .. } => channels,
        }
    }

    /// The tokens of a block whose features have `each` numbers, one row a token: the first of every sample, then the
    /// second of every sample and so on. The numbers of a row are by feature, or by lane and then the `each` numbers.
    pub(super) fn rows<E: Scalar>(&self, block: &[E], each: usize, samples: usize) -> Buffer<E> {
        match *self {
            Self::Lanes { tokens, .. } => {
                let lanes = samples * tokens;
                let width = block.len() / lanes.max(1);
                let (mut turned, mut rows) = (Buffer::take(block.len()), Buffer::take(block.len()));
                transpose(&mut turned, Operand::new(block, width, lanes));
                for (row, from) in swapped(samples, tokens).zip(turned.chunks_exact(width)) {
                    rows[row * width..][..width].copy_from_slice(from);
                }
                rows
            }
            Self::Features { channels, .. } => {
                let token = each * channels * samples;
                let mut rows = Buffer::take(self.tokens() * token);
                let (given, blank) = rows.split_at_mut(block.len());
                blank.fill(E::zero());
                if each == 1 {
                    given.copy_from_slice(block);
                } else {
                    for (to, from) in given.chunks_exact_mut(token).zip(block.chunks_exact(token)) {
                        transpose(to, Operand::new(from, each, token / each));
                    }
                }
                rows
            }
        }
    }

    /// The block with so many features, `each` numbers apiece, of rows as [`TokenLayout::rows`] makes them.
    pub(super) fn block<E: Scalar>(&self, rows: &[E], features: usize, each: usize, samples: usize) -> Buffer<E> {
        let mut block = Buffer::take(features * each * self.lanes() * samples);
        match *self {
            Self::Lanes { tokens, .. } => {
                let (lanes, width) = (samples * tokens, features * each);
                let mut turned = Buffer::take(block.len());
                for (row, to) in swapped(samples, tokens).zip(turned.chunks_exact_mut(width)) {
                    to.copy_from_slice(&rows[row * width..][..width]);
                }
                transpose(&mut block, Operand::new(&turned, lanes, width));
            }
            Self::Features { channels, .. } => {
                let token = each * channels * samples;
                if each == 1 {
                    let (given, _) = rows.split_at(block.len());
                    block.copy_from_slice(given);
                } else {
                    for (to, from) in block.chunks_exact_mut(token).zip(rows.chunks_exact(token)) {
                        transpose(to, Operand::new(from, token / each, each));
                    }
                }
            }
        }
        block
    }
}

/// The places, token by token, of what comes sample by sample.
fn swapped(samples: usize, tokens: usize) -> impl Iterator<Item = usize> {
    (0..samples).flat_map(move |sample| (0..tokens).map(move |token| token * samples + sample))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_where_the_layout_says_and_come_back() {
        for (layout, each) in [
            (TokenLayout::Lanes { tokens: 4, passing: 2, moved: 3 }, 2),
            (TokenLayout::Features { channels: 3, passing: 4, moved: 5 }, 2),
            (TokenLayout::Features { channels: 2, passing: 5, moved: 4 }, 1),
        ] {
            let (samples, lanes) = (3, layout.lanes());
            for (features, each) in [(layout.passing(), 1), (layout.moved(), each)] {
                let len = features * each * lanes * samples;
                let block: Vec<f64> = (0..len).map(|i| i as f64 + 1.0).collect();
                let rows = layout.rows(&block, each, samples);
                // By the definition, number by number.
                let width = rows.len() / (layout.tokens() * samples);
                for (place, &x) in rows.iter().enumerate() {
                    let (token, sample, number) = (place / width / samples, place / width % samples, place % width);
                    let expected = match layout {
                        TokenLayout::Lanes { tokens, .. } => block[number * samples * tokens + sample * tokens + token],
                        TokenLayout::Features { .. } if token >= features => 0.0,
                        TokenLayout::Features { channels, .. } => {
                            block[(token * each + number % each) * samples * channels + sample * channels + number / each]
                        }
                    };
                    assert_eq!(x.to_bits(), expected.to_bits(), "{layout:?} {each} at {place}");
                }
                assert_eq!(layout.block(&rows, features, each, samples)[..], block, "{layout:?} {each}");
            }
        }
    }
}
