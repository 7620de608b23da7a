//! Gradients of all parameters as one flat buffer.

use crate::module::Entry;
use crate::{FlowError, Module, Result, Scalar, module};
use flow_kernels::vectorized;
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where every parameter lies in the flat buffer.
#[derive(Debug, Default)]
struct Layout {
    /// Path of a parameter or of any module above one → its range.
    ranges: HashMap<String, Range<usize>>,
    /// Parameters in order.
    parameters: Vec<(String, Range<usize>)>,
}

/// Gradients of all parameters of a module in one flat buffer, ordered as [`Module::visit`] names them.
///
/// Clipping, optimisers, averages and, over processes, reductions are therefore one pass each. Parameters below one
/// path are contiguous, so a layer adds its gradients to one slice.
#[derive(Debug, Clone)]
pub struct Gradients<E> {
    layout: Arc<Layout>,
    values: Vec<E>,
    touched: Vec<bool>,
}

impl<E: Scalar> Gradients<E> {
    /// Zeros for every parameter of `module`.
    pub fn zeros<M: Module<E> + ?Sized>(module: &M) -> Self {
        let mut layout = Layout::default();
        let mut end = 0;
        module::visit(module, |path, entry| {
            if let Entry::Parameter { values, .. } = entry {
                let range = end..end + values.len();
                end = range.end;
                for (dot, _) in path.match_indices('.') {
                    let above = layout.ranges.entry(path[..dot].to_owned()).or_insert_with(|| range.clone());
                    above.end = range.end;
                }
                layout.ranges.insert(path.to_owned(), range.clone());
                layout.parameters.push((path.to_owned(), range));
            }
        });
        layout.ranges.insert(String::new(), 0..end);
        let touched = vec![false; layout.parameters.len()];
        Self { layout: Arc::new(layout), values: vec![E::zero(); end], touched }
    }

    /// Back to zeros, for the next step.
    pub fn clear(&mut self) {
        if self.values.len() <= CHUNK {
            self.values.fill(E::zero());
        } else {
            self.values.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(E::zero()));
        }
        self.touched.fill(false);
    }

    /// All gradients.
    pub fn values(&self) -> &[E] {
        &self.values
    }

    /// All gradients, for clipping or a reduction.
    pub fn values_mut(&mut self) -> &mut [E] {
        &mut self.values
    }

    /// The slice of the parameter, or of all parameters below the module, with this path; they count as having received
    /// a gradient. A module without parameters has an empty slice.
    pub fn slice_mut(&mut self, path: &str) -> &mut [E] {
        let Some(range) = self.layout.ranges.get(path).cloned() else { return &mut [] };
        let first = self.layout.parameters.partition_point(|(_, r)| r.start < range.start);
        for (touched, (_, own)) in self.touched[first..].iter_mut().zip(&self.layout.parameters[first..]) {
            if own.start >= range.end {
                break;
            }
            *touched = true;
        }
        &mut self.values[range]
    }

    /// Checks that there is a place below `path` for every parameter of `module`: that these gradients were made for
    /// it, or for what it is a part of.
    ///
    /// # Errors
    /// [`FlowError::Shape`].
    pub fn check<M: Module<E> + ?Sized>(&self, path: &str, module: &M) -> Result<()> {
        let expected = module::parameter_count(module);
        let got = self.layout.ranges.get(path).map_or(0, Range::len);
        if expected == got {
            return Ok(());
        }
        Err(FlowError::Shape { layer: path.to_owned(), operation: "gradient", expected: format!("({expected})"), got: format!("({got})") })
    }

    /// The gradient of the parameter with this path.
    ///
    /// # Errors
    /// [`FlowError::UnknownPath`].
    pub fn get(&self, path: &str) -> Result<&[E]> {
        let range = self.layout.ranges.get(path).ok_or_else(|| FlowError::UnknownPath { path: path.to_owned() })?;
        Ok(&self.values[range.clone()])
    }

    /// Adds `values` to the gradient of the parameter with this path.
    ///
    /// # Errors
    /// [`FlowError::UnknownPath`], and [`FlowError::Shape`] for another length.
    pub fn add(&mut self, path: &str, values: &[E]) -> Result<()> {
        let expected = self.get(path)?.len();
        if expected != values.len() {
            return Err(FlowError::Shape {
                layer: path.to_owned(),
                operation: "gradient",
                expected: format!("({expected})"),
                got: format!("({})", values.len()),
            });
        }
        for (sum, &value) in self.slice_mut(path).iter_mut().zip(values) {
            *sum += value;
        }
        Ok(())
    }

    /// Paths of all parameters with their gradients, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[E])> {
        self.layout.parameters.iter().map(|(path, range)| (path.as_str(), &self.values[range.clone()]))
    }

    /// Parameters that no layer has added a gradient to since the last [`Gradients::clear`]: a bug in a layer's
    /// pullback.
    pub fn untouched(&self) -> impl Iterator<Item = &str> {
        self.layout.parameters.iter().zip(&self.touched).filter(|(_, touched)| !**touched).map(|((path, _), _)| path.as_str())
    }

    /// Euclidean norm over all parameters, accumulated in f64.
    pub fn norm(&self) -> f64 {
        let squares = if self.values.len() <= CHUNK {
            sum_of_squares(&self.values)
        } else {
            // Collected first, so that they are added up in one order.
            self.values.par_chunks(CHUNK).map(sum_of_squares).collect::<Vec<_>>().iter().sum()
        };
        squares.sqrt()
    }
}

/// Numbers that are worth a thread: what is shorter is done before another thread is awake.
const CHUNK: usize = 1 << 17;

vectorized! {
    /// In f64, with sums side by side, so that additions need not wait for one another.
    fn sum_of_squares<E: Scalar>(x: &[E]) -> f64 {
        const SUMS: usize = 32;
        let (chunks, rest) = x.as_chunks::<SUMS>();
        let mut sums = [0.0; SUMS];
        for chunk in chunks {
            sums = std::array::from_fn(|i| sums[i] + chunk[i].as_f64() * chunk[i].as_f64());
        }
        sums.iter().sum::<f64>() + rest.iter().map(|x| x.as_f64() * x.as_f64()).sum::<f64>()
    }
}
