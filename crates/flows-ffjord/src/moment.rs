//! A field at one time.

use flow_kernels::Real;
use flow_kernels::workspace::Buffer;
use flow_nets::smooth::Modulation;

/// The scale and the shift of all layers at one time.
#[derive(Debug)]
pub(crate) struct Moment<E: Real> {
    pub(crate) t: f64,
    pub(crate) scale: Buffer<E>,
    pub(crate) shift: Buffer<E>,
}

impl<E: Real> Moment<E> {
    pub(crate) fn modulation<'m>(&'m self, offset: &'m [E]) -> Modulation<'m, E> {
        Modulation { scale: &self.scale, shift: &self.shift, offset }
    }

    /// The same, layer by layer.
    pub(crate) fn layers(&self) -> LayerModulations<'_, E> {
        LayerModulations { scale: &self.scale, shift: &self.shift }
    }
}

/// The modulation of the layers that have not been taken yet.
pub(crate) struct LayerModulations<'m, E> {
    scale: &'m [E],
    shift: &'m [E],
}

impl<'m, E> LayerModulations<'m, E> {
    /// Scale and shift of the next layer, which has so many outputs: empty where there is none.
    pub(crate) fn next(&mut self, outputs: usize) -> (&'m [E], &'m [E]) {
        let [scale, shift] = [&mut self.scale, &mut self.shift].map(|values| {
            let (own, rest) = values.split_at(outputs.min(values.len()));
            *values = rest;
            own
        });
        (scale, shift)
    }
}
