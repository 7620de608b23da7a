//! The commands, one a file.

pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod exchange;
pub(crate) mod inspect;
pub(crate) mod interpolate;
pub(crate) mod plot;
pub(crate) mod sample;
pub(crate) mod score;
mod sources;
mod step_memory;
pub(crate) mod train;
mod unmoved;
