//! How much a spec can ask for.

/// The largest number of units or repetitions that a spec can ask for: with more, memory would run out before the
/// mistake is told.
pub const MAX_SIZE: usize = 1 << 14;

/// The most layers that a spec can ask for.
pub const MAX_LAYERS: usize = 1 << 11;

/// The most weights that one network of a spec can have: with layers and widths of up to [`MAX_SIZE`] each, there could
/// be more than any memory holds.
pub const MAX_WEIGHTS: usize = 1 << 28;

/// The most numbers that an event can have.
pub const MAX_EVENT: usize = 1 << 26;

/// The sizes from `least` to [`MAX_SIZE`], in words.
pub fn size_range(least: usize) -> String {
    format!("{least} to {MAX_SIZE}")
}
