//! mixerflow
