//! The daemon's heap: what the C library is told to keep of it.

/// From this size on, an allocation is a mapping of its own, which goes back to the system when it is freed.
#[cfg(target_env = "gnu")]
const OWN_MAPPING: libc::c_int = 128 << 10;
/// Heaps that threads share.
#[cfg(target_env = "gnu")]
const ARENAS: libc::c_int = 2;

/// Keeps the heap small over the daemon's life; to be called before there are threads.
///
/// A pull runs in some threads that hand each other buffers of 256 kB. glibc gives threads a heap each, up to eight a
/// processor, and takes the first large buffer that is freed as a sign that such buffers are better kept in them: from
/// then on each pull leaves megabytes in another heap, for good. Set by hand, the threshold stays where it is.
pub fn keep_heap_small() {
    #[cfg(target_env = "gnu")]
    for (setting, value) in [(libc::M_MMAP_THRESHOLD, OWN_MAPPING), (libc::M_ARENA_MAX, ARENAS)] {
        // SAFETY: takes two plain numbers, and changes settings of the C library under its own lock. Its answer is of no
        // use: where a setting is refused, the heap is as large as it would have been.
        unsafe { libc::mallopt(setting, value) };
    }
}
