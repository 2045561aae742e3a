//! Asking the processor for memory before it is needed. Never reads it. Tested with whatever uses it: it changes nothing that can be seen.

/// Asks for the cache line at `at`, which may be any address.
#[inline]
pub(in crate::storage) fn prefetch<T>(at: *const T) {
    // SAFETY: a prefetch reads nothing into the program, and does not fault on any address.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(at.cast());
    }
    // Other processors' intrinsics are not stable.
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
