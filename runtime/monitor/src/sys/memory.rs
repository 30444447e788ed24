//! The heap.

/// Gives whole free pages of the heap back to the system, where the C library can.
pub(crate) fn trim() {
    // SAFETY: takes a plain number; this thread is the only one, and it is not within an allocation.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}
