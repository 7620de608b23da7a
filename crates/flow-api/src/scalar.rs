//! The number types that flows compute in, and the tensors of them.

use dfdx::prelude::{Cpu, Device, Dtype, HasShape, NoneTape, ReshapeTo, Shape};
use flow_kernels::Real;
use std::sync::LazyLock;

/// A number type that flows compute in: `f32` or `f64`.
///
/// It is both a [`Real`] of the host kernels and a dfdx [`Dtype`].
pub trait Scalar: Real + Dtype {
    /// dfdx's CPU device. It is an associated type so that `E: Scalar` says everything that a bound on the device would
    /// have to repeat.
    type Device: Device<Self> + Default + Send + Sync;

    /// The device that tensors are made on; one for all, since its random numbers are never asked for.
    fn device() -> &'static Self::Device;

    /// The tensor with these values, row-major.
    ///
    /// # Panics
    /// If there are not as many values as the shape says.
    fn tensor<S: Shape>(values: Vec<Self>, shape: S) -> Tensor<S, Self> {
        use dfdx::prelude::TensorFromVec;
        Self::device().tensor_from_vec(values, shape)
    }

    /// A tensor of zeros.
    fn zeros<S: Shape>(shape: S) -> Tensor<S, Self> {
        use dfdx::prelude::ZerosTensor;
        Self::device().zeros_like(&shape)
    }
}

static CPU: LazyLock<Cpu> = LazyLock::new(Cpu::default);

macro_rules! scalar {
    ($($E:ty),*) => {$(
        impl Scalar for $E {
            type Device = Cpu;

            fn device() -> &'static Cpu {
                &CPU
            }
        }
    )*};
}

scalar!(f32, f64);

/// A dfdx tensor in host memory; `T` is [`NoneTape`], or the tape of a computation that is being recorded.
pub type Tensor<S, E, T = NoneTape> = dfdx::prelude::Tensor<S, E, <E as Scalar>::Device, T>;

/// A tensor's values, row-major.
pub fn to_host<S: Shape, E: Scalar>(x: &Tensor<S, E>) -> Vec<E> {
    let mut values = vec![E::zero(); x.shape().num_elements()];
    x.clone().contiguous().copy_into(&mut values);
    values
}
