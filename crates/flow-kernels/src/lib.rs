//! flow-kernels
