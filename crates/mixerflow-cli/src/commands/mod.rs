//! The commands, one a file.

mod against;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod decode;
pub(crate) mod embed;
mod ended;
pub(crate) mod eval;
pub(crate) mod exchange;
mod folded;
pub(crate) mod inspect;
pub(crate) mod interpolate;
pub(crate) mod plot;
pub(crate) mod predict;
pub(crate) mod probe;
mod reference;
pub(crate) mod report;
mod rows;
pub(crate) mod sample;
pub(crate) mod score;
mod sources;
pub(crate) mod specs;
mod step_memory;
pub(crate) mod train;
mod unmoved;
mod write;
