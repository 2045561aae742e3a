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

#[cfg(test)]
mod tests {
    use super::*;

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
}
