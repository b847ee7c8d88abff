//! A VMA: a range of pages with one set of rights, one object behind it and one place in the anonymous family.

use super::{flags::VmFlags, vma_tree::Span};
use crate::{
    addr::{Vpn, VpnRange},
    file::{MemoryObject, same_object},
    rmap::{AnonLink, AnonVma},
    sync::OnceLock,
};
use std::sync::Arc;

/// One mapping. Its fields change only under the mmap lock held for writing, but for `anon`, which the first write
/// fault sets once under the lock held for reading.
#[derive(Debug)]
pub(super) struct Vma {
    start: Vpn,
    end: Vpn,
    /// Page offset of `start`: into the object, or for private anonymous memory the page number at which it was
    /// mapped. Linear within the VMA.
    pub(super) pgoff: u64,
    pub(super) flags: VmFlags,
    /// None: private anonymous memory.
    pub(super) object: Option<Arc<dyn MemoryObject>>,
    /// Unset until the first private page is written ("unfaulted").
    pub(super) anon: OnceLock<AnonLink>,
}

impl Vma {
    pub(super) fn new(
        range: VpnRange,
        pgoff: u64,
        flags: VmFlags,
        object: Option<Arc<dyn MemoryObject>>,
    ) -> Self {
        Self {
            start: range.start(),
            end: range.end(),
            pgoff,
            flags,
            object,
            anon: OnceLock::new(),
        }
    }
    pub(super) fn range(&self) -> VpnRange {
        VpnRange::new(self.start, self.end).expect("a VMA is never empty")
    }
    pub(super) fn start(&self) -> Vpn {
        self.start
    }
    pub(super) fn end(&self) -> Vpn {
        self.end
    }
    pub(super) fn pages(&self) -> u64 {
        self.end.0 - self.start.0
    }
    /// Moves both ends, the page offset with the start (`vma_set_range`).
    pub(super) fn set_range(&mut self, range: VpnRange, pgoff: u64) {
        self.start = range.start();
        self.end = range.end();
        self.pgoff = pgoff;
    }
    /// Page offset of `at`, which lies inside.
    pub(super) fn pgoff_at(&self, at: Vpn) -> u64 {
        self.pgoff + (at.0 - self.start.0)
    }
    /// Page offset that a VMA starting right behind this one must have to continue it.
    pub(super) fn pgoff_end(&self) -> u64 {
        self.pgoff.wrapping_add(self.pages())
    }
    pub(super) fn is_anonymous(&self) -> bool {
        self.object.is_none()
    }
    pub(super) fn anon_node(&self) -> Option<&Arc<AnonVma>> {
        self.anon.get().map(AnonLink::node)
    }
    /// Same in everything but the place: what a split or a copy starts from (`vm_area_dup`, `anon_vma_clone`).
    pub(super) fn dup(&self, range: VpnRange, pgoff: u64) -> Self {
        let dup = Self::new(range, pgoff, self.flags, self.object.clone());
        if let Some(link) = self.anon.get() {
            let _fresh = dup.anon.set(link.clone());
        }
        dup
    }
    /// `VM_SEALED`.
    pub(super) fn is_sealed(&self) -> bool {
        self.flags.contains(VmFlags::SEALED)
    }
    /// May the neighbours `self` and `next` share an anon_vma? They may differ in what mprotect can change.
    pub(super) fn anon_compatible(&self, next: &Self) -> bool {
        self.end == next.start
            && same_object(self.object.as_ref(), next.object.as_ref())
            && (self.flags ^ next.flags) - VmFlags::ACCESS == VmFlags::empty()
            && next.pgoff == self.pgoff_end()
    }
}

impl Span for Vma {
    fn start(&self) -> Vpn {
        self.start
    }
    fn end(&self) -> Vpn {
        self.end
    }
}
