//! flows-lipschitz
