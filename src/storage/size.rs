//! What an allocation really takes, so that memory is accounted as it is used. Never allocates. Tested below.
//!
//! The classes are mimalloc's (`mi_bin` in its `page-queue.c`): 16-byte steps up to 64 bytes, then four classes to each doubling. Another
//! allocator rounds a little differently; the account stays within a few percent of it.

/// Above this mimalloc rounds to pages instead of classes.
const CLASS_BYTES_MAX: usize = 128 * 1024;
const PAGE_BYTES: usize = 4096;

/// Bytes the allocator sets aside for an allocation of `bytes`.
pub(super) fn allocation(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=64 => bytes.next_multiple_of(16),
        65..=CLASS_BYTES_MAX => {
            let words = bytes.div_ceil(8);
            let step = 1 << ((words - 1).ilog2() - 2);
            words.next_multiple_of(step) * 8
        }
        _ => bytes.next_multiple_of(PAGE_BYTES),
    }
}

/// Control bytes hashbrown keeps beyond one per bucket: the width of its probe group.
const GROUP_BYTES: usize = 16;

/// Bytes of a hashbrown table of `buckets` buckets holding `T` (its `TableLayout::calculate_layout_for`).
pub(super) fn table<T>(buckets: usize) -> usize {
    if buckets == 0 { 0 } else { allocation(buckets * (size_of::<T>() + 1) + GROUP_BYTES) }
}

/// Entries that fit in `buckets` buckets before hashbrown makes room (its `bucket_mask_to_capacity`).
pub(super) fn table_capacity(buckets: usize) -> usize {
    if buckets < 8 { buckets.saturating_sub(1) } else { buckets / 8 * 7 }
}

/// Buckets after hashbrown has made room for one more than `len` entries of 4 bytes or more (its `reserve_rehash`): a table less than half
/// full is only cleaned of the marks that removals left, any other doubles.
pub(super) fn table_after_rehash(buckets: usize, len: usize) -> usize {
    if buckets == 0 {
        4
    } else if len < table_capacity(buckets) / 2 {
        buckets
    } else {
        buckets * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn allocation_classes_are_those_of_mimalloc() {
        for (asked, given) in [
            (1, 16),
            (17, 32),
            (64, 64),
            (65, 80),
            (96, 96),
            (97, 112),
            (128, 128),
            (129, 160),
            (257, 320),
            (1025, 1280),
            (32 * 1024 + 1, 40 * 1024),
            (128 * 1024 + 1, 132 * 1024),
        ] {
            assert_eq!(allocation(asked), given, "{asked}");
        }
    }

    #[test]
    fn a_growing_table_has_the_buckets_the_model_says() {
        let mut map: HashMap<u64, u64> = HashMap::new();
        let mut buckets = 0;
        for key in 0..10_000 {
            if map.len() == table_capacity(buckets) {
                buckets = table_after_rehash(buckets, map.len());
            }
            map.insert(key, key);
            assert_eq!(map.capacity(), table_capacity(buckets), "{key}");
        }
    }
}
