//! Crashes, pauses, partitions.
