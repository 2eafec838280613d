//! Memory with a request in it, lent to whoever answers that request.
#![allow(unsafe_code, reason = "a stretch of memory that changes hands while it is named on the stack")]

use std::marker::PhantomData;
use std::ptr::NonNull;

/// A stretch of memory that belongs to one request. On purpose not a reference: a function's `&mut` argument says that
/// nobody else writes there until the function returns, and a token writes there from another thread while
/// the function that handed it out is still running.
pub(super) struct Lent<'q> {
    memory: NonNull<[u8]>,
    /// As long as the memory is there.
    life: PhantomData<&'q mut [u8]>,
}

impl Lent<'_> {
    /// # Safety
    /// The memory must be readable, writable and initialised for the whole life of the value, and belong to its holder: until
    /// the value is dropped, or consumed by what hands the memory on, nobody else may read or write it.
    pub(super) unsafe fn new(memory: NonNull<[u8]>) -> Self {
        Self { memory, life: PhantomData }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory is this value's own (promised to `new`, or borrowed by `from`), and the slice borrows the value.
        unsafe { self.memory.as_ref() }
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; the exclusive borrow of the value is that of its memory.
        unsafe { self.memory.as_mut() }
    }

    pub(super) fn len(&self) -> usize {
        self.memory.len()
    }
}

impl<'q> From<&'q mut [u8]> for Lent<'q> {
    fn from(memory: &'q mut [u8]) -> Self {
        Self { memory: NonNull::from(memory), life: PhantomData }
    }
}
