//! flow-nets
