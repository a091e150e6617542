//! Zeroed, page-aligned memory that threads share by raw pointer.

use memmap2::MmapMut;

/// Every buffer starts at a multiple of this: a cache line, and a 512-bit vector.
pub(crate) const ALIGN: usize = 64;

/// From this size on, memory that is used throughout asks for huge pages.
#[cfg(target_os = "linux")]
const HUGE: usize = 2 << 20;

/// A fixed, zeroed mapping. Pages that nobody touches take no memory.
pub(crate) struct SharedBytes {
    map: MmapMut,
    ptr: *mut u8,
}

// SAFETY: plain memory; who may touch which part when is settled by the users of `as_ptr`.
unsafe impl Send for SharedBytes {}
// SAFETY: as above.
unsafe impl Sync for SharedBytes {}

impl SharedBytes {
    /// `len` zero bytes.
    pub(crate) fn zeroed(len: usize) -> std::io::Result<Self> {
        let mut map = MmapMut::map_anon(len.max(1))?;
        let ptr = map.as_mut_ptr();
        Ok(SharedBytes { map, ptr })
    }

    /// `len` zero bytes that will all be used: huge pages save page faults now and address translation later.
    pub(crate) fn zeroed_dense(len: usize) -> std::io::Result<Self> {
        let bytes = Self::zeroed(len)?;
        #[cfg(target_os = "linux")]
        if len >= HUGE {
            // Only a wish: without huge pages everything works, a little slower.
            let _ = bytes.map.advise(memmap2::Advice::HugePage);
        }
        Ok(bytes)
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// The start; valid for `len` bytes as long as `self` lives.
    pub(crate) fn as_ptr(&self) -> *mut u8 {
        self.ptr
    }
}
