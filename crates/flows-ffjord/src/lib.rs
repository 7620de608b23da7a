//! flows-ffjord
