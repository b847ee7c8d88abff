//! A context: the instructions of a thread, or of several, and how their misses are served.

use super::{
    asid::effective,
    chip::{Chip, Gru, GruStats, Miss},
    space::{GruMistake, GruSpace},
};
use crate::ctx::CallCx;

use crate::{
    addr::{PMD_PAGES, Vpn, VpnRange, by_page},
    ctx::{Atomic, Cx, rank},
    error::FaultError,
    extmmu::tlb::PageSize,
    mm::Mm,
    notifier::{Access, Cached},
    sync::IdSource,
};
use std::sync::Arc;
use thiserror::Error;

static NEXT: IdSource = IdSource::starting_at(0);

/// Why an instruction ended in an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum GruFault {
    /// The address space refuses the access.
    #[error("GRU instruction at {addr:#x}: {why}")]
    Fault {
        /// Byte address.
        addr: u64,
        /// What the address space said.
        why: FaultError,
    },
    /// The address space has ended.
    #[error("the address space of the GRU context is gone")]
    Gone,
}

/// A context is wanted of an address space that has no GRU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the address space is attached to no GRU")]
pub struct NoGru;

/// How a try to serve a miss went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropin {
    /// The entry is in the TLB, or the hardware ignored it; the instruction goes on.
    Done,
    /// Not from an interrupt: the user has to (`CBR in user polling mode`).
    ByUser,
    /// The context is not loaded any more (`-EAGAIN`).
    Unloaded,
}

/// A GRU context of one thread (`gru_thread_state`). It is loaded when it is used, and may be unloaded for others.
#[derive(Debug)]
pub struct GruContext {
    pub(super) space: Arc<GruSpace>,
    pub(super) gru: Arc<Gru>,
    /// Which one of the address space that is.
    pub(super) chip: usize,
    pub(super) id: u64,
}

impl GruContext {
    /// A context on one of the GRUs of the address space, by number modulo their count; not loaded yet.
    ///
    /// # Errors
    ///
    /// [`NoGru`]: the address space was attached to none.
    pub fn new(space: &Arc<GruSpace>, chip: usize) -> Result<Self, NoGru> {
        let chip = chip.checked_rem(space.grus.len()).ok_or(NoGru)?;
        Ok(Self {
            space: Arc::clone(space),
            gru: Arc::clone(&space.grus[chip]),
            chip,
            id: NEXT.next(),
        })
    }
    /// The GRU that it runs on.
    pub fn gru(&self) -> &Arc<Gru> {
        &self.gru
    }
    /// Loads bytes (a `VLOAD` instruction); within a page at once.
    ///
    /// # Errors
    ///
    /// [`GruFault`].
    pub fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> Result<(), GruFault> {
        by_page(addr, out, |page, offset, part| {
            let at = page.addr() + offset as u64;
            self.instruct(cx, at, Access::Read, |space, cached| {
                let view = space.gate.follow(cached, page);
                view.expect("one of its pages").read(offset, part);
            })
        })
    }
    /// Stores bytes (a `VSTORE` instruction); within a page at once.
    ///
    /// # Errors
    ///
    /// [`GruFault`].
    pub fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) -> Result<(), GruFault> {
        by_page(addr, bytes, |page, offset, part| {
            let at = page.addr() + offset as u64;
            self.instruct(cx, at, Access::Write, |space, cached| {
                let view = space.gate.follow_mut(cached, page);
                let mut view = view.expect("found for writing");
                if space.made(GruMistake::LostDirty) {
                    view.write_deferring_dirty(offset, part);
                } else {
                    view.write(offset, part);
                }
            })
        })
    }
    /// Runs one instruction: through the TLB, or after a miss has been served.
    #[inline(always)]
    fn instruct(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        access: Access,
        f: impl FnOnce(&GruSpace, &Cached),
    ) -> Result<(), GruFault> {
        let gru = &self.gru;
        loop {
            if self.space.is_released() {
                return Err(GruFault::Gone);
            }
            let mut chip = gru.lock();
            let Some(asid) = chip.slot_of(self.id).map(|l| l.asid) else {
                drop(chip);
                self.load();
                continue;
            };
            let hit = chip.tlb.get(effective(asid, addr), Vpn::containing(addr).0);
            if let Some(cached) = hit.filter(|c| access == Access::Read || c.is_writable()) {
                f(&self.space, cached);
                return Ok(());
            }
            let serial = arm(&mut chip, self.id, addr);
            drop(chip);
            let miss = serial.map(|serial| self.armed(serial));
            self.serve(cx, addr, access, miss)?;
        }
    }
    fn armed(&self, serial: u64) -> Armed<'_> {
        Armed {
            context: self,
            serial,
        }
    }
    /// A miss: the interrupt path first, then the user's.
    #[cold]
    #[inline(never)]
    fn serve(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        access: Access,
        miss: Option<Armed<'_>>,
    ) -> Result<(), GruFault> {
        let mm = self.space.mm.upgrade().ok_or(GruFault::Gone)?;
        let Some(miss) = miss else { return Ok(()) };
        match self.interrupt(&mut cx.non_blocking(), &mm, (addr, access), miss)? {
            Dropin::Done | Dropin::Unloaded => Ok(()),
            Dropin::ByUser => self.call_os(cx, &mm, addr, access),
        }
    }
    /// `gru_intr`: no lock, no sleep, a look at the page table as it is.
    fn interrupt(
        &self,
        cx: &mut Cx<'_, rank::Idle, Atomic>,
        mm: &Mm,
        (addr, access): (u64, Access),
        miss: Armed<'_>,
    ) -> Result<Dropin, GruFault> {
        if self.space.active() > 0 {
            self.space.meter.retried();
            return Ok(Dropin::ByUser);
        }
        let ticket = self
            .space
            .gate
            .ticket(Vpn::containing(addr), access)
            .allow_huge();
        let found = mm.try_resolve(cx, ticket);
        let Some(pending) = found.map_err(|why| GruFault::Fault { addr, why })? else {
            return Ok(Dropin::ByUser);
        };
        // The armed miss says whether this still holds, not the ticket.
        let done = self.drop_in(addr, miss, pending.vouch(), |s| &mut s.interrupt_dropins);
        if done == Dropin::Done {
            self.preload(cx, mm, addr);
        }
        Ok(done)
    }
    /// `gru_handle_user_call_os`: waits for windows to end, faults the page in, and tries again.
    fn call_os(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        addr: u64,
        access: Access,
    ) -> Result<(), GruFault> {
        self.space.wait_quiet(cx);
        let gru = &self.gru;
        let serial = arm(&mut gru.lock(), self.id, addr);
        let Some(miss) = serial.map(|serial| self.armed(serial)) else {
            return Ok(());
        };
        if self.space.active() > 0 {
            self.space.meter.retried();
            return Ok(());
        }
        let ticket = self
            .space
            .gate
            .ticket(Vpn::containing(addr), access)
            .allow_huge();
        // The page is asked for, and let go at once: nothing but windows keeps the entry true.
        let found = mm.resolve(cx, ticket);
        let pending = found.map_err(|why| GruFault::Fault { addr, why })?;
        // A fault may have opened a window of its own, which has purged: then the miss is armed no more.
        self.drop_in(addr, miss, pending.vouch(), |s| &mut s.user_dropins);
        Ok(())
    }
    /// `tfh_write_restart`: the hardware takes the entry if the miss is still armed.
    fn drop_in(
        &self,
        addr: u64,
        miss: Armed<'_>,
        cached: Cached,
        count: impl FnOnce(&mut GruStats) -> &mut u64,
    ) -> Dropin {
        let mut chip = self.gru.lock();
        let serial = miss.into_serial();
        let Some(loaded) = chip.slot_of(self.id) else {
            return Dropin::Unloaded;
        };
        let asid = loaded.asid;
        // With the chip locked: the purge of a release comes after this, or its mark was there before.
        if !loaded.disarm(serial) || self.space.is_released() {
            chip.stats.ignored_dropins += 1;
            self.space.meter.retried();
            return Dropin::Done;
        }
        *count(&mut chip.stats) += 1;
        self.space.meter.faulted(cached.range());
        enter(&mut chip, effective(asid, addr), cached);
        Dropin::Done
    }
    /// Enters pages behind a miss, from the far end backwards (`gru_preload_tlb`). Each has its own ticket, checked with
    /// the chip locked: no miss is armed for it.
    fn preload(&self, cx: &mut Cx<'_, rank::Idle, Atomic>, mm: &Mm, addr: u64) {
        let gru = &self.gru;
        let ahead = gru.config.preload.min(gru.config.tlb_entries as u64);
        for n in (1..=ahead).rev() {
            let at = Vpn::containing(addr).plus(n);
            let ticket = self.space.gate.ticket(at, Access::Read);
            let Ok(Some(pending)) = mm.try_resolve(cx, ticket) else {
                continue;
            };
            let mut chip = gru.lock();
            let asid = chip.slot_of(self.id).map(|l| l.asid);
            let Some(asid) = asid.filter(|_| !self.space.is_released()) else {
                return;
            };
            let checked = if self.space.made(GruMistake::BlindPreload) {
                Ok(pending.vouch())
            } else {
                pending.validate()
            };
            let known = chip.tlb.get(effective(asid, at.addr()), at.0).is_some();
            if let Ok(cached) = checked
                && !known
            {
                chip.stats.preloads += 1;
                self.space.meter.faulted(cached.range());
                enter(&mut chip, effective(asid, at.addr()), cached);
            }
        }
    }
}

#[cfg(all(test, loom))]
#[path = "context_models.rs"]
mod models;

/// The instruction missed at `addr`: from here on a purge there is noticed. `None`: the context is not loaded.
fn arm(chip: &mut Chip, context: u64, addr: u64) -> Option<u64> {
    let serial = chip.misses;
    let loaded = chip.slot_of(context)?;
    // A drop-in may be of the huge page around it, so a purge anywhere in that cancels it.
    let first = Vpn::containing(addr).align_down(PMD_PAGES);
    let pages = VpnRange::new(first, first.plus(PMD_PAGES)).expect("not empty");
    loaded.armed.push(Miss { serial, pages });
    chip.misses += 1;
    Some(serial)
}

/// A miss that is being served: its own, whoever else uses the context. Dropped without a drop-in, it is given up.
#[must_use]
struct Armed<'c> {
    context: &'c GruContext,
    serial: u64,
}

impl Armed<'_> {
    /// For a drop-in, with the chip locked.
    fn into_serial(self) -> u64 {
        let serial = self.serial;
        std::mem::forget(self);
        serial
    }
}

impl Drop for Armed<'_> {
    fn drop(&mut self) {
        let GruContext { gru, id, .. } = self.context;
        if let Some(loaded) = gru.lock().slot_of(*id) {
            let _was_armed = loaded.disarm(self.serial);
        }
    }
}

fn enter(chip: &mut Chip, asid: u32, cached: Cached) {
    let range = cached.range();
    let _evicted = chip
        .tlb
        .insert(asid, range.start().0, PageSize::of(range.pages()), cached);
}
