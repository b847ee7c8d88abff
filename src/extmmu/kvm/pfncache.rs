//! Gfn-to-pfn caches: one guest page each that the host itself uses, without the mmu lock
//! (`virt/kvm/pfncache.c`).
//!
//! Their validity is a second protocol beside that of the page table, and it must hold by itself. A
//! window invalidates the cache before it comes to the mmu lock. A refresh becomes valid under the
//! cache's own lock, and only if no window over the page is open then, nor has closed since its
//! ticket. A change of the slots makes every cache void: a refresh notes the generation of the
//! slots in which it found the page, and each use compares it (`kvm_gpc_check`). A cache has the
//! page of the process, also where the guest frame is private, as in Linux.
//!
//! ```text
//! window                            refresh
//! board: begin
//!                                   look up -> frame
//! cache lock: invalid
//!                                   cache lock: window on the board -> look up again
//! ```

use super::{
    cached_page::{CachedPage, OfSlots},
    config::KvmMistake,
    exit::Exit,
    gfn::Gfn,
    vm::Vm,
};
use crate::{
    addr::{PAGE_SIZE, VpnRange},
    ctx::CallCx,
    notifier::{Access, Retry},
    sync::Ordering,
};
use std::sync::Arc;

impl Vm {
    pub(super) fn invalidate_caches(&self, range: VpnRange) {
        // A cache created after this finds the window on the board when it validates its page.
        if self.has_caches.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut caches = self.caches.lock();
        caches.retain(|c| c.strong_count() > 0);
        self.has_caches.store(caches.len(), Ordering::Release);
        for cache in caches.iter().filter_map(std::sync::Weak::upgrade) {
            cache.invalidate(range);
        }
    }
    /// Creates a cache of the page of a guest-physical address, not valid yet.
    pub fn pfn_cache(self: &Arc<Self>, gpa: u64) -> PfnCache {
        let page = Arc::new(CachedPage::default());
        let mut caches = self.caches.lock();
        caches.push(Arc::downgrade(&page));
        self.has_caches.store(caches.len(), Ordering::Release);
        drop(caches);
        PfnCache {
            vm: Arc::clone(self),
            gpa,
            page,
        }
    }
}

/// A guest page that the host reads and writes.
#[derive(Debug)]
pub struct PfnCache {
    vm: Arc<Vm>,
    gpa: u64,
    page: Arc<CachedPage>,
}

impl PfnCache {
    /// Returns true if the page can be used without a refresh: no window over it has come, and no
    /// slot has changed (`kvm_gpc_check`).
    pub fn is_valid(&self) -> bool {
        self.usable(&self.page.0.lock()).is_some()
    }
    /// Returns the translation, if it is of the slots that the machine has now.
    fn usable<'c>(&self, held: &'c Option<OfSlots>) -> Option<&'c OfSlots> {
        let now = self.vm.generation.load(Ordering::Acquire);
        held.as_ref().filter(|of| of.generation == now)
    }
    /// Makes the cache valid; looks the page up anew for as long as windows are in the way
    /// (`kvm_gpc_refresh`).
    ///
    /// # Errors
    ///
    /// [`Exit`]: no slot has the page, or the address space refuses it.
    pub fn refresh(&self, cx: &mut CallCx<'_>) -> Result<(), Exit> {
        let (vm, gpa) = (&self.vm, self.gpa);
        let mm = vm.mm()?;
        loop {
            let slots = vm.current();
            let (slot, generation) = (slots.allowing(gpa, Access::Write)?, slots.generation());
            let gfn = Gfn::containing(gpa);
            let log = slot.logs().then(|| (slot.id, gfn.0 - slot.gfn.0));
            let of = |cached| OfSlots {
                cached,
                generation,
                log,
            };
            let ticket = vm.gates.ticket(slot.hva_of(gfn), Access::Write);
            // Outside of the cache's lock: the look-up may open a window of its own, which takes
            // that lock.
            let found = mm.resolve(cx, ticket);
            let pending = found.map_err(|why| Exit::Fault { gpa, why })?;
            let early = vm.made(KvmMistake::EarlyValid);
            let mut held = self.page.0.lock();
            let checked = match early {
                true => pending.vouch(),
                false => pending.validate(),
            };
            match checked {
                Ok(cached) => {
                    *held = Some(of(cached));
                    return Ok(());
                }
                Err(Retry::Detached) => return Err(Exit::Gone),
                Err(Retry::Busy | Retry::Stale) => drop(held),
            }
            vm.meter.retried();
            crate::sync::thread::yield_now();
        }
    }
    /// Loads bytes from `offset` in the page on, with a refresh if there is no valid translation.
    ///
    /// # Errors
    ///
    /// As [`refresh`](Self::refresh).
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    pub fn read(&self, cx: &mut CallCx<'_>, offset: usize, out: &mut [u8]) -> Result<(), Exit> {
        check(offset, out.len());
        loop {
            let held = self.page.0.lock();
            if let Some(OfSlots { cached, .. }) = self.usable(&held) {
                let at = cached.range().start();
                let view = self.vm.gates.follow(cached, at).expect("its page");
                view.read(offset, out);
                return Ok(());
            }
            drop(held);
            self.refresh(cx)?;
        }
    }
    /// Stores bytes from `offset` in the page on, with a refresh if there is no valid translation;
    /// the frame is marked dirty, and the page enters the dirty log of its slot
    /// (`mark_page_dirty_in_slot`).
    ///
    /// # Errors
    ///
    /// As [`refresh`](Self::refresh).
    ///
    /// # Panics
    ///
    /// If the bytes leave the page.
    pub fn write(&self, cx: &mut CallCx<'_>, offset: usize, bytes: &[u8]) -> Result<(), Exit> {
        check(offset, bytes.len());
        loop {
            let held = self.page.0.lock();
            if let Some(OfSlots { cached, log, .. }) = self.usable(&held) {
                let at = cached.range().start();
                let view = self.vm.gates.follow_mut(cached, at);
                view.expect("refreshed for writing").write(offset, bytes);
                // With the cache locked: a change of the slots makes it void before that comes to
                // the logs.
                if let Some(place) = log {
                    self.vm.gates.lock(cx, at).state().log.insert(*place);
                }
                return Ok(());
            }
            drop(held);
            self.refresh(cx)?;
        }
    }
}

#[track_caller]
fn check(offset: usize, len: usize) {
    let end = offset.checked_add(len).map(|e| e as u64);
    assert!(
        end.is_some_and(|e| e <= PAGE_SIZE),
        "{len} bytes from {offset} on leave the page"
    );
}
