//! Scratch buffers that are reused, so that kernels do not allocate in a steady state.

use crate::Real;
use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::{Deref, DerefMut};

type Pool = HashMap<(TypeId, usize), Vec<Box<dyn Any>>>;
thread_local! {
    static POOL: RefCell<Pool> = RefCell::default();
}

/// A scratch buffer: borrowed from this thread's pool, and back in it when dropped.
#[derive(Debug)]
pub struct Buffer<E: Real> {
    values: Vec<E>,
}

impl<E: Real> Buffer<E> {
    /// A buffer of `len` values; what they are is unspecified.
    pub fn take(len: usize) -> Self {
        let capacity = len.next_power_of_two();
        let pooled = POOL.with_borrow_mut(|pool| pool.get_mut(&(TypeId::of::<E>(), capacity)).and_then(Vec::pop));
        let mut values = pooled.and_then(|any| any.downcast::<Vec<E>>().ok()).map_or_else(|| Vec::with_capacity(capacity), |b| *b);
        values.resize(len, E::zero());
        Self { values }
    }
    /// A buffer of `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        let mut buffer = Self::take(len);
        buffer.fill(E::zero());
        buffer
    }
}
impl<E: Real> Drop for Buffer<E> {
    fn drop(&mut self) {
        let values = std::mem::take(&mut self.values);
        let key = (TypeId::of::<E>(), values.capacity());
        let _ = POOL.try_with(|pool| pool.borrow_mut().entry(key).or_default().push(Box::new(values)));
    }
}
impl<E: Real> Deref for Buffer<E> {
    type Target = [E];
    fn deref(&self) -> &[E] {
        &self.values
    }
}
impl<E: Real> DerefMut for Buffer<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.values
    }
}
