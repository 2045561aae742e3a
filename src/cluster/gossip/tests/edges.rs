//! Odd neighbours: strangers, twins, floods, bounds.
