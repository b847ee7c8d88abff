//! Owning a reference on a frame.

use super::arena::PhysMem;
use crate::addr::Pfn;
use std::{fmt, mem::ManuallyDrop};

/// One reference: the frame stays while this lives. Cloning takes another.
pub struct Frame<'m> {
    mem: &'m PhysMem,
    pfn: Pfn,
}

impl<'m> Frame<'m> {
    pub(super) fn adopted(mem: &'m PhysMem, pfn: Pfn) -> Self {
        Self { mem, pfn }
    }
    /// Its number.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Whether it is a frame of this memory, and not of another machine's.
    pub(crate) fn is_of(&self, mem: &PhysMem) -> bool {
        std::ptr::eq(self.mem, mem)
    }
    /// Reads bytes.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.mem.read(self.pfn, offset, out);
    }
    /// Writes bytes.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn write(&self, offset: usize, bytes: &[u8]) {
        self.mem.write(self.pfn, offset, bytes);
    }
    /// Leaves the reference to whatever keeps the number: [`PhysMem::adopt`] takes it back.
    pub(crate) fn into_raw(self) -> Pfn {
        ManuallyDrop::new(self).pfn
    }
}

impl Clone for Frame<'_> {
    fn clone(&self) -> Self {
        self.mem.get(self.pfn)
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.mem.put(self.pfn);
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:?})", self.pfn)
    }
}
