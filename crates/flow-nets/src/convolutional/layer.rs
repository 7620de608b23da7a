//! One convolution, made ready for a call: matrix products over gathered rows.

use super::neighbours::{NEIGHBOURS, Plane, finish_row};
use crate::residual_mlp::{Activated, Relu, Shifted, Weight, add_rows};
use flow_api::Scalar;
use flow_kernels::matmul::Accumulate;
use flow_kernels::workspace::Buffer;
use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Range;

/// Bytes of gathered rows at a time: with the weights they stay in a second-level cache.
const GATHERED_BYTES: usize = 384 << 10;

/// Least rows of a product: fewer do not keep the multipliers busy.
const LEAST_ROWS: usize = 32;

/// What a convolution's products are over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A 1 × 1 convolution: the pixels themselves, with W as outputs × inputs.
    Pixels,
    /// The neighbourhoods of the input, with W as outputs × (neighbour, input): where there are no more inputs than
    /// outputs.
    Inputs,
    /// The contributions to the output's neighbourhoods, with W as (neighbour, output) × inputs, neighbours in opposite
    /// order: where inputs are more, so that what is gathered is the smaller side always.
    Outputs,
}

/// What becomes of a convolution's result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// It is the output.
    Write,
    /// The larger of it and 0 is.
    Relu,
    /// It is added to what is there.
    Add,
}

/// A convolution y = W ∗ x + b of images with zeros around them, 1 × 1 or 3 × 3, on pixel-major values.
#[derive(Debug)]
pub(super) struct ConvKernel<'a, E: Scalar> {
    form: Form,
    plane: Plane,
    inputs: usize,
    outputs: usize,
    weight: Weight<E, Cow<'a, [E]>>,
    bias: &'a [E],
}

impl<'a, E: Scalar> ConvKernel<'a, E> {
    /// Of a weight (outputs, inputs, k, k) with k = 1 or 3, row-major.
    pub(super) fn new(plane: Plane, weight: &'a [E], bias: &'a [E], inputs: usize) -> Self {
        let outputs = bias.len();
        let form = match weight.len() / (outputs * inputs) {
            1 => Form::Pixels,
            _ if inputs <= outputs => Form::Inputs,
            _ => Form::Outputs,
        };
        let (rows, values) = match form {
            Form::Pixels => (outputs, Cow::Borrowed(weight)),
            Form::Inputs => (outputs, Cow::Owned(placed(form, weight, [outputs, inputs]))),
            Form::Outputs => (NEIGHBOURS * outputs, Cow::Owned(placed(form, weight, [outputs, inputs]))),
        };
        Self { form, plane, inputs, outputs, weight: Weight::new(values, rows), bias }
    }

    pub(super) fn inputs(&self) -> usize {
        self.inputs
    }

    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// Parameters.
    pub(super) fn len(&self) -> usize {
        self.weight.len() + self.bias.len()
    }

    /// Turns the weight for [`ConvKernel::forward`].
    pub(super) fn prepare_forward(&self) {
        self.weight.turned();
    }

    /// Ranges of pixels whose gathered rows, `width` numbers each, fit into the cache.
    fn chunks(pixels: usize, width: usize) -> impl Iterator<Item = Range<usize>> {
        let at_once = (GATHERED_BYTES / size_of::<E>() / width.max(1) / LEAST_ROWS * LEAST_ROWS).max(LEAST_ROWS);
        (0..pixels).step_by(at_once).map(move |first| first..(first + at_once).min(pixels))
    }

    /// y, given x.
    pub(super) fn forward(&self, x: &[E], y: &mut [E], then: Then) {
        let pixels = x.len() / self.inputs;
        let accumulate = if then == Then::Add { Accumulate::Add } else { Accumulate::Replace };
        let product = |x: &[E], y: &mut [E]| match then {
            Then::Relu => self.weight.product(x, accumulate, y, &mut Activated { activation: PhantomData::<Relu>, bias: self.bias }),
            Then::Write | Then::Add => self.weight.product(x, accumulate, y, &mut Shifted(self.bias)),
        };
        match self.form {
            Form::Pixels => product(x, y),
            Form::Inputs => {
                let (framed, width) = (self.plane.frame(x, self.inputs), NEIGHBOURS * self.inputs);
                for chunk in Self::chunks(pixels, width) {
                    let mut gathered = Buffer::take(chunk.len() * width);
                    self.plane.gather(&framed, self.inputs, chunk.clone(), &mut gathered);
                    product(&gathered, &mut y[chunk.start * self.outputs..chunk.end * self.outputs]);
                }
            }
            Form::Outputs => {
                let (mut framed, width) = (self.plane.zeros(pixels, self.outputs), NEIGHBOURS * self.outputs);
                for chunk in Self::chunks(pixels, width) {
                    let mut contributions = Buffer::take(chunk.len() * width);
                    let x = &x[chunk.start * self.inputs..chunk.end * self.inputs];
                    self.weight.product(x, Accumulate::Replace, &mut contributions, &mut ());
                    self.plane.scatter(&contributions, self.outputs, chunk, &mut framed);
                }
                let (add, relu) = (then == Then::Add, then == Then::Relu);
                self.plane.inside(&framed, y, self.outputs, |y, z| finish_row(y, z, self.bias, add, relu));
            }
        }
    }

    /// ∂L/∂x, given x and ∂L/∂y; adds the gradients of W, as it lies here, and of b to `sums`.
    pub(super) fn pull(&self, x: &[E], cotangent: &[E], sums: &mut [E]) -> Buffer<E> {
        let pixels = x.len() / self.inputs;
        let (for_weight, for_bias) = sums.split_at_mut(self.weight.len());
        add_rows(for_bias, cotangent);
        let mut pulled = Buffer::take(x.len());
        let through = |cotangent: &[E], x: &[E], for_weight: &mut [E], pulled: &mut [E]| {
            self.weight.add_outer(cotangent, x, for_weight);
            self.weight.pull(cotangent, pulled);
        };
        match self.form {
            Form::Pixels => through(cotangent, x, for_weight, &mut pulled),
            Form::Inputs => {
                let (framed, width) = (self.plane.frame(x, self.inputs), NEIGHBOURS * self.inputs);
                let mut into = self.plane.zeros(pixels, self.inputs);
                for chunk in Self::chunks(pixels, width) {
                    let (mut gathered, mut back) = (Buffer::take(chunk.len() * width), Buffer::take(chunk.len() * width));
                    self.plane.gather(&framed, self.inputs, chunk.clone(), &mut gathered);
                    let cotangent = &cotangent[chunk.start * self.outputs..chunk.end * self.outputs];
                    through(cotangent, &gathered, for_weight, &mut back);
                    self.plane.scatter(&back, self.inputs, chunk, &mut into);
                }
                self.plane.inside(&into, &mut pulled, self.inputs, |pulled, into| pulled.copy_from_slice(into));
            }
            Form::Outputs => {
                let (framed, width) = (self.plane.frame(cotangent, self.outputs), NEIGHBOURS * self.outputs);
                for chunk in Self::chunks(pixels, width) {
                    let mut gathered = Buffer::take(chunk.len() * width);
                    self.plane.gather(&framed, self.outputs, chunk.clone(), &mut gathered);
                    let here = chunk.start * self.inputs..chunk.end * self.inputs;
                    through(&gathered, &x[here.clone()], for_weight, &mut pulled[here]);
                }
            }
        }
        pulled
    }

    /// Adds sums to gradients of the parameters as they lie in the module.
    pub(super) fn finish(&self, sums: &[E], gradients: &mut [E]) {
        let (weight, bias) = sums.split_at(self.weight.len());
        let (for_weight, for_bias) = gradients.split_at_mut(self.weight.len());
        let places = places(self.form, [self.outputs, self.inputs]);
        for_weight.iter_mut().zip(places).for_each(|(gradient, place)| *gradient += weight[place]);
        for_bias.iter_mut().zip(bias).for_each(|(gradient, &sum)| *gradient += sum);
    }
}

/// Where every number of a weight (outputs, inputs, 3, 3) lies in a form's own; of a 1 × 1 convolution where it is.
fn places(form: Form, [outputs, inputs]: [usize; 2]) -> impl Iterator<Item = usize> {
    let size = if form == Form::Pixels { 1 } else { NEIGHBOURS };
    (0..outputs).flat_map(move |output| {
        (0..inputs).flat_map(move |input| {
            (0..size).map(move |k| match form {
                Form::Pixels => output * inputs + input,
                Form::Inputs => (output * NEIGHBOURS + k) * inputs + input,
                Form::Outputs => ((NEIGHBOURS - 1 - k) * outputs + output) * inputs + input,
            })
        })
    })
}

fn placed<E: Scalar>(form: Form, weight: &[E], sizes: [usize; 2]) -> Vec<E> {
    let mut own = vec![E::zero(); weight.len()];
    weight.iter().zip(places(form, sizes)).for_each(|(&w, place)| own[place] = w);
    own
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(len: usize, seed: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 7 + seed) % 13) as f64 - 6.0).collect()
    }

    /// The definition, pixel by pixel: small integers, so that every order of summation is exact.
    struct Naive<'a> {
        plane: Plane,
        sizes: [usize; 3],
        weight: &'a [f64],
    }

    impl Naive<'_> {
        /// Calls `f` with the place of every weight, of the input and of the output that it connects.
        fn for_each(&self, pixels: usize, mut f: impl FnMut(usize, usize, usize)) {
            let (Plane { height, width }, [outputs, inputs, side]) = (self.plane, self.sizes);
            for at in 0..pixels {
                let (image, y, x) = (at / (height * width), at % (height * width) / width, at % width);
                for (output, input, dy, dx) in (0..outputs * inputs * side * side)
                    .map(|k| (k / (inputs * side * side), k / (side * side) % inputs, k / side % side, k % side))
                {
                    let (Some(from_y), Some(from_x)) = ((y + dy).checked_sub(side / 2), (x + dx).checked_sub(side / 2)) else { continue };
                    if from_y < height && from_x < width {
                        let from = ((image * height + from_y) * width + from_x) * inputs + input;
                        f(((output * inputs + input) * side + dy) * side + dx, from, at * outputs + output);
                    }
                }
            }
        }
    }

    #[test]
    fn convolutions_are_those_of_the_definition() {
        for (height, width, images, inputs, outputs, side) in
            [(1, 1, 3, 2, 2, 3), (3, 2, 2, 2, 5, 3), (4, 4, 3, 5, 2, 3), (2, 5, 2, 3, 3, 3), (3, 3, 2, 4, 3, 1), (20, 15, 1, 60, 61, 3)]
        {
            let (plane, pixels) = (Plane { height, width }, images * height * width);
            let (weight, bias) = (numbers(outputs * inputs * side * side, 1), numbers(outputs, 2));
            let (x, g) = (numbers(pixels * inputs, 3), numbers(pixels * outputs, 4));
            let naive = Naive { plane, sizes: [outputs, inputs, side], weight: &weight };
            let mut y: Vec<f64> = (0..pixels).flat_map(|_| bias.clone()).collect();
            let (mut for_x, mut for_weight) = (vec![0.0; x.len()], vec![0.0; weight.len()]);
            naive.for_each(pixels, |k, from, to| {
                y[to] += naive.weight[k] * x[from];
                for_x[from] += naive.weight[k] * g[to];
                for_weight[k] += x[from] * g[to];
            });
            let name = format!("{images} × {height} × {width}, {inputs} to {outputs}, {side} × {side}");
            let kernel = ConvKernel::new(plane, &weight, &bias, inputs);
            let mut got = vec![1.0; y.len()];
            kernel.forward(&x, &mut got, Then::Write);
            assert_eq!(got, y, "{name}");
            kernel.forward(&x, &mut got, Then::Add);
            assert_eq!(got, y.iter().map(|y| 2.0 * y).collect::<Vec<_>>(), "{name}");
            kernel.forward(&x, &mut got, Then::Relu);
            assert_eq!(got, y.iter().map(|y| y.max(0.0)).collect::<Vec<_>>(), "{name}");
            let (mut sums, mut gradients) = (vec![0.0; kernel.len()], vec![0.0; kernel.len()]);
            assert_eq!(kernel.pull(&x, &g, &mut sums)[..], for_x, "{name}");
            kernel.finish(&sums, &mut gradients);
            let for_bias = (0..outputs).map(|output| g.iter().skip(output).step_by(outputs).sum::<f64>());
            assert_eq!(gradients, for_weight.into_iter().chain(for_bias).collect::<Vec<_>>(), "{name}");
        }
    }
}
