//! The 3 × 3 neighbourhoods of pixels, as rows of a matrix.
//!
//! Values are pixel-major: the channels of a pixel lie together, pixels row by row, images one after the other. Around
//! every image a frame of zeros is put, so that the neighbours of a pixel are three runs of memory, wherever it lies.

use flow_kernels::workspace::Buffer;
use flow_kernels::{Real, vectorized};
use std::ops::Range;

/// Neighbours of a pixel, itself among them.
pub(super) const NEIGHBOURS: usize = 9;

/// Pixels on a side of a neighbourhood.
const SIDE: usize = 3;

/// Height and width of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Plane {
    pub(super) height: usize,
    pub(super) width: usize,
}

impl Plane {
    pub(super) fn pixels(self) -> usize {
        self.height * self.width
    }

    /// Pixels in a row of a framed image.
    fn framed_width(self) -> usize {
        self.width + SIDE - 1
    }

    /// Pixels of a framed image.
    fn framed(self) -> usize {
        self.framed_width() * (self.height + SIDE - 1)
    }

    /// Framed images, all zero, for so many pixels of `channels` each.
    pub(super) fn zeros<E: Real>(self, pixels: usize, channels: usize) -> Buffer<E> {
        Buffer::zeroed(pixels / self.pixels() * self.framed() * channels)
    }

    /// Where the rows of all images begin in framed ones.
    fn rows(self, pixels: usize) -> impl Iterator<Item = usize> {
        let first = self.framed_width() + 1;
        let row = move |row: usize| row / self.height * self.framed() + row % self.height * self.framed_width() + first;
        (0..pixels / self.width).map(row)
    }

    /// Images with a frame of zeros.
    pub(super) fn frame<E: Real>(self, x: &[E], channels: usize) -> Buffer<E> {
        let mut framed = self.zeros(x.len() / channels, channels);
        let len = self.width * channels;
        for (row, x) in self.rows(x.len() / channels).zip(x.chunks_exact(len)) {
            framed[row * channels..][..len].copy_from_slice(x);
        }
        framed
    }

    /// Calls `f` with every row of images, and with what lies there in framed ones.
    pub(super) fn inside<E: Real>(self, framed: &[E], x: &mut [E], channels: usize, mut f: impl FnMut(&mut [E], &[E])) {
        let len = self.width * channels;
        for (row, x) in self.rows(x.len() / channels).zip(x.chunks_exact_mut(len)) {
            f(x, &framed[row * channels..][..len]);
        }
    }

    /// The upper left neighbours of these pixels, in framed images.
    fn corners(self, pixels: Range<usize>) -> impl Iterator<Item = usize> {
        let mut at = pixels.start;
        let (mut image, mut y, mut x) = (at / self.pixels(), at % self.pixels() / self.width, at % self.width);
        std::iter::from_fn(move || {
            if at == pixels.end {
                return None;
            }
            let corner = image * self.framed() + y * self.framed_width() + x;
            at += 1;
            x += 1;
            if x == self.width {
                (x, y) = (0, y + 1);
            }
            if y == self.height {
                (y, image) = (0, image + 1);
            }
            Some(corner)
        })
    }

    /// The neighbourhoods of these pixels as rows: nine pixels each, row by row.
    pub(super) fn gather<E: Real>(self, framed: &[E], channels: usize, pixels: Range<usize>, rows: &mut [E]) {
        let (run, down) = (SIDE * channels, self.framed_width() * channels);
        for (corner, row) in self.corners(pixels).zip(rows.chunks_exact_mut(NEIGHBOURS * channels)) {
            let from = &framed[corner * channels..];
            for (k, to) in row.chunks_exact_mut(run).enumerate() {
                to.copy_from_slice(&from[k * down..][..run]);
            }
        }
    }

    /// Adds such rows to the pixels that they were gathered from: the transpose of [`Plane::gather`].
    pub(super) fn scatter<E: Real>(self, rows: &[E], channels: usize, pixels: Range<usize>, framed: &mut [E]) {
        let (run, down) = (SIDE * channels, self.framed_width() * channels);
        for (corner, row) in self.corners(pixels).zip(rows.chunks_exact(NEIGHBOURS * channels)) {
            let to = &mut framed[corner * channels..];
            for (k, from) in row.chunks_exact(run).enumerate() {
                to[k * down..][..run].iter_mut().zip(from).for_each(|(to, &from)| *to += from);
            }
        }
    }
}

vectorized! {
    /// ∂L/∂max(x, 0) → ∂L/∂x, given max(x, 0).
    pub(super) fn pull_relu<E: Real>(cotangent: &mut [E], value: &[E]) {
        for (g, &value) in cotangent.iter_mut().zip(value) {
            *g = if value > E::zero() { *g } else { E::zero() };
        }
    }

    /// y + z + b, row by row, where `add`, else z + b; then the larger of it and 0 where `relu`.
    pub(super) fn finish_row<E: Real>(y: &mut [E], z: &[E], bias: &[E], add: bool, relu: bool) {
        for (y, z) in y.chunks_exact_mut(bias.len().max(1)).zip(z.chunks_exact(bias.len().max(1))) {
            for ((y, &z), &bias) in y.iter_mut().zip(z).zip(bias) {
                let value = if add { *y + z + bias } else { z + bias };
                // Unlike `max`, this lets NaN through, so that it is noticed.
                *y = if relu && value < E::zero() { E::zero() } else { value };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_gathered_and_their_transpose_scatters() {
        // Two images of 2 × 3 pixels of 2 channels.
        let plane = Plane { height: 2, width: 3 };
        let x: Vec<f64> = (1..=24).map(f64::from).collect();
        // Row and column are counted from the frame on.
        let at = |image: usize, y: usize, across: usize, channel: usize| {
            let inside = (1..=2).contains(&y) && (1..=3).contains(&across);
            if inside { x[(image * 6 + (y - 1) * 3 + across - 1) * 2 + channel] } else { 0.0 }
        };
        let framed = plane.frame(&x, 2);
        let mut back = vec![0.0; x.len()];
        plane.inside(&framed, &mut back, 2, |back, framed| back.copy_from_slice(framed));
        assert_eq!(back, x);
        let pixels = 4..11;
        let mut rows = vec![0.0; 18 * pixels.len()];
        plane.gather(&framed, 2, pixels.clone(), &mut rows);
        for (pixel, row) in pixels.clone().zip(rows.chunks_exact(18)) {
            let (image, y, across) = (pixel / 6, pixel % 6 / 3, pixel % 3);
            let expected = (0..3).flat_map(|dy| (0..3).flat_map(move |dx| [0, 1].map(|c| (y + dy, across + dx, c))));
            assert_eq!(row, expected.map(|(y, across, c)| at(image, y, across, c)).collect::<Vec<_>>(), "pixel {pixel}");
        }
        // ⟨gather x, r⟩ = ⟨x, scatter r⟩
        let weights: Vec<f64> = (0..rows.len()).map(|i| ((i * 7) % 11) as f64).collect();
        let mut scattered = plane.zeros(12, 2);
        plane.scatter(&weights, 2, pixels, &mut scattered);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert_eq!(dot(&rows, &weights).to_bits(), dot(&framed, &scattered).to_bits());
    }
}
