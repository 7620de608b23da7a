//! flows-coupling
