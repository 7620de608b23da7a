//! Training of normalizing flows: data sets and dequantisation.
//!
//! Start at [`data`]: every source of data, from the bundled digits to a folder of photographs, stands behind one
//! [`data::Dataset`] trait and opens from one line of text, a [`data::DataSource`].

pub mod data;
