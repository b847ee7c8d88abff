//! The pages of a guest file, and the slots that show them to the guest (the inode and the bindings
//! of `virt/kvm/guest_memfd.c`).

use super::gfn::Gfn;
use crate::{
    addr::PAGE_SIZE,
    ctx::{Below, CallCx, Cx, Sleepable, rank},
    error::{NoMemory, ObjectError},
    file::{Backing, Host, PageCache},
    frame::Frame,
    sync::{AtomicBool, Mutex, Ordering},
};
use bitflags::bitflags;
use std::{
    fmt,
    ops::Range,
    sync::{Arc, Weak},
};

bitflags! {
    /// The flags of a guest file (`GUEST_MEMFD_FLAG_*`).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct GuestMemfdFlags: u64 {
        /// Processes may map the file, and its slots have no other memory.
        const MMAP = 1;
        /// The pages are shared: a process that maps the file may access them.
        const INIT_SHARED = 1 << 1;
    }
}

/// A part of the file that a slot shows.
struct Binding {
    pages: Range<u64>,
    slot: u16,
    gfn: Gfn,
}

/// The pages of a guest file. They never move and are never swapped out.
pub(super) struct GuestPages {
    pub(super) cache: Arc<PageCache>,
    size: u64,
    flags: GuestMemfdFlags,
    /// Changed while no page is cut off, so that a window over pages finds the same bindings at its
    /// beginning and its end.
    bindings: Mutex<Vec<Binding>>,
    open: AtomicBool,
}

impl GuestPages {
    pub(super) fn new(
        host: &Host,
        size: u64,
        flags: GuestMemfdFlags,
    ) -> Result<Arc<Self>, NoMemory> {
        Ok(Arc::new(Self {
            cache: PageCache::new(host, Backing::Nothing)?,
            size,
            flags,
            bindings: Mutex::default(),
            open: AtomicBool::new(true),
        }))
    }
    pub(super) fn size(&self) -> u64 {
        self.size
    }
    pub(super) fn has(&self, flag: GuestMemfdFlags) -> bool {
        self.flags.contains(flag)
    }
    /// Closes the file: from now on a slot finds no page.
    pub(super) fn close(&self) {
        self.open.store(false, Ordering::Release);
    }
    /// Returns a page, made at its first use; it reads zero then (`kvm_gmem_get_folio`).
    pub(super) fn page<R: Below<rank::Cache>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        index: u64,
    ) -> Result<Frame<'_>, ObjectError> {
        Ok(self.cache.filling(cx).get_or_make(index, |_| Ok(()))?.0)
    }
    /// Shows pages from byte `offset` on as guest frames of a new slot (`kvm_gmem_bind`). Returns
    /// `None` if they are not all in the file, or a slot shows one of them.
    pub(super) fn bind(
        self: &Arc<Self>,
        cx: &mut CallCx<'_>,
        offset: u64,
        (slot, gfn, pages): (u16, Gfn, u64),
    ) -> Option<SlotMemory> {
        let end = offset.checked_add(pages.checked_mul(PAGE_SIZE)?)?;
        if !offset.is_multiple_of(PAGE_SIZE) || end > self.size {
            return None;
        }
        let wanted = offset / PAGE_SIZE..end / PAGE_SIZE;
        let _no_window = self.cache.cutting(cx);
        let mut bindings = self.bindings.lock();
        if bindings
            .iter()
            .any(|b| overlap(&b.pages, &wanted).is_some())
        {
            return None;
        }
        let first = wanted.start;
        bindings.push(Binding {
            pages: wanted,
            slot,
            gfn,
        });
        Some(SlotMemory {
            pages: Arc::downgrade(self),
            first,
        })
    }
    /// Ends the binding of a slot (`kvm_gmem_unbind`).
    pub(super) fn unbind(&self, cx: &mut CallCx<'_>, slot: u16) {
        let _no_window = self.cache.cutting(cx);
        self.bindings.lock().retain(|b| b.slot != slot);
    }
    /// Returns the guest frames that show pages of a range, half-open.
    pub(super) fn gfns(&self, pages: &Range<u64>) -> Vec<(Gfn, Gfn)> {
        let bindings = self.bindings.lock();
        let shown = bindings.iter().filter_map(|b| {
            let part = overlap(&b.pages, pages)?;
            let gfn_of = |page: u64| Gfn(b.gfn.0 + (page - b.pages.start));
            Some((gfn_of(part.start), gfn_of(part.end)))
        });
        shown.collect()
    }
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> Option<Range<u64>> {
    let both = a.start.max(b.start)..a.end.min(b.end);
    (!both.is_empty()).then_some(both)
}

impl fmt::Debug for GuestPages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestPages")
            .field("size", &self.size)
            .field("resident", &self.cache.len())
            .finish_non_exhaustive()
    }
}

/// The pages of a guest file that a slot shows. The slot does not keep the file open.
#[derive(Clone, Debug)]
pub(super) struct SlotMemory {
    pages: Weak<GuestPages>,
    /// The page of the file at the first guest frame of the slot.
    first: u64,
}

impl SlotMemory {
    /// Returns the pages, unless the file is closed (`kvm_gmem_get_file`).
    pub(super) fn pages(&self) -> Option<Arc<GuestPages>> {
        let pages = self.pages.upgrade()?;
        pages.open.load(Ordering::Acquire).then_some(pages)
    }
    /// Returns the page of the file at the `nth` guest frame of the slot.
    pub(super) fn index(&self, nth: u64) -> u64 {
        self.first + nth
    }
}
