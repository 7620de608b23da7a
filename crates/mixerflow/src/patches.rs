//! Images, their patches, and the views that the two sides of a mixing layer have of them.

use dfdx::prelude::{Dim, HasShape, Shape};
use flow_api::bijector::{Cotangent, Mapped, Point, Pulled};
use flow_api::rows::RowView;
use flow_api::samples::Grid;
use flow_api::spec::{EventShape, SpecError};
use flow_api::{Bijector, Context, Facts, Gradients, Module, Result, Scalar, Tensor, module_fields, shape_error, to_host};

/// Shape of an image, channels first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ImageShape {
    /// Channels, c.
    pub channels: usize,
    /// Rows of pixels, H.
    pub height: usize,
    /// Columns of pixels, W.
    pub width: usize,
}

impl ImageShape {
    /// The shape of image events.
    ///
    /// # Errors
    /// [`SpecError::Event`] for vectors and for images without pixels.
    pub fn of(event: EventShape, path: &str) -> Result<Self, SpecError> {
        match event {
            EventShape::Image { channels, height, width } if !event.is_empty() => Ok(Self { channels, height, width }),
            _ => Err(SpecError::Event { path: path.to_owned(), expected: "images", got: event.to_string() }),
        }
    }

    /// Numbers in an image.
    pub fn len(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// No pixels at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every pixel as a row of its channels: what a 1×1 convolution works on.
    ///
    /// # Errors
    /// None for a valid shape.
    pub fn pixels(&self) -> Result<RowView> {
        Grid::image(self.channels, self.height, self.width)?.pixels()
    }
}

/// The patches of an image, or of the image without a frame; or of any other grid.
///
/// Patches are row-major; the numbers of a patch are ordered (channel, row, column).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patches(Grid);

impl Patches {
    /// Patches of `size` × `size` pixels inside a frame `frame` pixels wide, which may be 0.
    ///
    /// # Errors
    /// [`SpecError::Field`] and [`SpecError::Indivisible`], which names what does not divide what.
    pub fn new(image: ImageShape, size: usize, frame: usize, path: &str) -> Result<Self, SpecError> {
        Self::of(&Grid::image(image.channels, image.height, image.width)?, size, frame, path)
    }

    /// The same of a grid, whose places are the pixels.
    ///
    /// # Errors
    /// As [`Patches::new`].
    pub fn of(grid: &Grid, size: usize, frame: usize, path: &str) -> Result<Self, SpecError> {
        let wrong = |field, expected, got: usize| SpecError::Field { path: path.to_owned(), field, expected, got: got.to_string() };
        if size == 0 {
            return Err(wrong("patch", "at least 1".to_owned(), 0));
        }
        let sides = [("height", "height inside the shift frame", grid.height()), ("width", "width inside the shift frame", grid.width())];
        for (name, inner_name, side) in sides {
            let Some(inner) = frame.checked_mul(2).and_then(|frames| side.checked_sub(frames)).filter(|inner| *inner > 0) else {
                return Err(wrong("frame", format!("less than half of the {name} {side}"), frame));
            };
            if !inner.is_multiple_of(size) {
                let dividend_name = if frame == 0 { name } else { inner_name };
                let (dividend, divisor_name) = (inner, "patch");
                return Err(SpecError::Indivisible { path: path.to_owned(), dividend_name, dividend, divisor_name, divisor: size });
            }
        }
        let patches = grid.inner(frame).and_then(|inner| inner.squeeze(size));
        patches.map(Self).ok_or_else(|| wrong("patch", "a size that divides the image's".to_owned(), size))
    }

    /// Number of patches, N.
    pub fn count(&self) -> usize {
        self.0.places()
    }

    /// Numbers in a patch, C = cP².
    pub fn len(&self) -> usize {
        self.0.channels()
    }

    /// An image without channels has patches without numbers.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The mixer matrix as a grid: its places are the patches, its channels the numbers of a patch.
    pub fn grid(&self) -> &Grid {
        &self.0
    }

    /// The rows of the channel flow: every patch is a row of R^C.
    ///
    /// # Errors
    /// None for valid patches.
    pub fn channel_view(&self) -> Result<RowView> {
        self.0.pixels()
    }

    /// The rows of the patch flow: the same number of all patches is a row of R^N.
    ///
    /// # Errors
    /// None for valid patches.
    pub fn patch_view(&self) -> Result<RowView> {
        self.0.channel_rows()
    }
}

/// Cuts images into patches: (batch, c, H, W) to the mixer matrix (batch, N, C), a pure permutation.
///
/// # Log-det
/// 0, exact.
///
/// The skeleton itself does not need it (its sides read the image in place); it is there to compose by hand and to look
/// at the mixer matrix.
#[derive(Clone, Debug)]
pub struct Patchify {
    image: ImageShape,
    patches: Patches,
    view: RowView,
}

impl Patchify {
    /// Cuts images of this shape into patches of `size` × `size` pixels.
    ///
    /// # Errors
    /// [`SpecError::Indivisible`].
    pub fn new(image: ImageShape, size: usize) -> Result<Self, SpecError> {
        let patches = Patches::new(image, size, 0, "Patchify")?;
        let view = patches.channel_view()?;
        Ok(Self { image, patches, view })
    }

    /// The mixer matrix of images of this shape.
    fn matrix_shape<C: Dim, H: Dim, W: Dim>(&self, image: &(usize, C, H, W)) -> Result<(usize, usize, usize)> {
        let ImageShape { channels, height, width } = self.image;
        if [image.1.size(), image.2.size(), image.3.size()] == [channels, height, width] {
            return Ok((image.0, self.patches.count(), self.patches.len()));
        }
        Err(shape_error("Patchify", "build", ("batch", channels, height, width), image.concrete()))
    }

    fn matrix<E: Scalar>(&self, image: &[E]) -> Vec<E> {
        self.places(image.len()).map(|place| image[place]).collect()
    }

    fn image<E: Scalar>(&self, matrix: &[E]) -> Vec<E> {
        let mut image = vec![E::zero(); matrix.len()];
        self.places(matrix.len()).zip(matrix).for_each(|(place, &value)| image[place] = value);
        image
    }

    fn places(&self, len: usize) -> impl Iterator<Item = usize> {
        let sample = self.view.sample_len();
        (0..len / sample).flat_map(move |b| self.view.places().map(move |place| b * sample + place))
    }
}

impl<E: Scalar> Module<E> for Patchify {
    module_fields!(E;);
}

impl<C: Dim, H: Dim, W: Dim, E: Scalar> Bijector<(usize, C, H, W), E> for Patchify {
    type Out = (usize, usize, usize);

    fn facts(&self) -> Facts {
        Facts::new("Patchify")
    }

    fn output_shape(&self, input: &(usize, C, H, W)) -> Result<Self::Out> {
        self.matrix_shape(input)
    }

    fn forward(&self, x: Tensor<(usize, C, H, W), E>, _: &Context<E>) -> Result<Mapped<Self::Out, E>> {
        let out = self.matrix_shape(x.shape())?;
        Ok(Mapped::exact(E::tensor(self.matrix(&to_host(&x)), out), E::zeros((out.0,))))
    }

    fn inverse(&self, y: Tensor<Self::Out, E>, cx: &Context<E>) -> Result<Mapped<(usize, C, H, W), E>> {
        let ImageShape { channels, height, width } = self.image;
        let concrete = [y.shape().0, channels, height, width];
        let shape = <(usize, C, H, W)>::from_concrete(&concrete);
        let Some(shape) = shape.filter(|shape| self.matrix_shape(shape).ok() == Some(*y.shape())) else {
            let expected = ("batch", self.patches.count(), self.patches.len());
            return Err(shape_error(cx.path(), "inverse", expected, y.shape()));
        };
        Ok(Mapped::exact(E::tensor(self.image(&to_host(&y)), shape), E::zeros((shape.0,))))
    }

    fn pullback(
        &self,
        at: Point<(usize, C, H, W), Self::Out, E>,
        cotangent: Cotangent<Self::Out, E>,
        _: &mut Gradients<E>,
        cx: &Context<E>,
    ) -> Result<Pulled<(usize, C, H, W), E>> {
        let input = at.input(self, cx)?;
        Ok(Pulled::new(Some(input), self.inverse(cotangent.value, cx)?.value))
    }
}
