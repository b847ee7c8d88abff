//! Contexts: the instructions of one thread or several, and the two paths that serve their misses.
//!
//! A miss is armed with the chip locked, before the page is looked up. A purge of its pages cancels
//! it, and the drop-in checks with the chip locked that the miss is still armed. So the tickets of
//! these look-ups have no place on the board: the armed miss is the proof that no window has come
//! between.

use super::{
    asid::effective,
    chip::{Chip, Gru, GruStats, Miss},
    space::{GruGate, GruMistake, GruSpace},
};
use crate::{
    addr::{Vpn, VpnRange, by_page, within_page},
    ctx::{Atomic, CallCx, Cx, rank},
    error::FaultError,
    extmmu::tlb::PageSize,
    mm::Mm,
    notifier::{Access, Cached, Ticket},
    sync::IdSource,
};
use std::sync::Arc;
use thiserror::Error;

static NEXT: IdSource = IdSource::starting_at(0);

/// The exception that an instruction ended in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GruFault {
    /// The address space refuses the access.
    #[error("GRU instruction at {addr:#x}: {why}")]
    Fault {
        /// The byte address.
        addr: u64,
        /// The error of the address space.
        why: FaultError,
    },
    /// The address space has ended.
    #[error("the address space of the GRU context is gone")]
    Gone,
}

/// The address space is attached to no GRU, so it has no contexts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the address space is attached to no GRU")]
pub struct NoGru;

/// The outcome of one attempt to serve a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropin {
    /// The entry is in the TLB, or the hardware ignored it. The instruction is tried again.
    Done,
    /// The interrupt path cannot serve it; the user path must (`CBR in user polling mode`).
    ByUser,
    /// The context is no longer loaded (`-EAGAIN`).
    Unloaded,
}

/// A GRU context of one thread (`gru_thread_state`). It is loaded when it is used, and may be
/// unloaded for other contexts.
///
/// It keeps the object of the address space alive, not its memory (`mmgrab`).
#[derive(Debug)]
pub struct GruContext {
    pub(super) space: Arc<GruSpace>,
    mm: Option<Arc<Mm>>,
    pub(super) gru: Arc<Gru>,
    /// The number of the GRU among those of the address space.
    pub(super) chip: usize,
    pub(super) id: u64,
}

impl GruContext {
    /// Creates a context on one of the GRUs of the address space: number `chip`, modulo their
    /// count. It is loaded by its first instruction.
    ///
    /// # Errors
    ///
    /// [`NoGru`]: the address space was attached to none.
    pub fn new(space: &Arc<GruSpace>, chip: usize) -> Result<Self, NoGru> {
        let chip = chip.checked_rem(space.grus.len()).ok_or(NoGru)?;
        Ok(Self {
            space: Arc::clone(space),
            mm: space.mm.upgrade(),
            gru: Arc::clone(&space.grus[chip]),
            chip,
            id: NEXT.next(),
        })
    }
    /// Returns the GRU that the context runs on.
    pub fn gru(&self) -> &Arc<Gru> {
        &self.gru
    }
    /// Loads bytes (a `VLOAD` instruction); the bytes of one page are loaded at once.
    ///
    /// # Errors
    ///
    /// [`GruFault`]; the bytes before the page that failed have been loaded.
    #[inline]
    pub fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> Result<(), GruFault> {
        let place = within_page(addr, out.len());
        let hit = place.and_then(|(page, offset)| {
            self.hit((addr, page), Access::Read, |space, cached| {
                space.gate.follow(cached, page)?.read(offset, out);
                Some(())
            })
        });
        match hit {
            Some(()) => Ok(()),
            None => self.read_slowly(cx, addr, out),
        }
    }
    #[cold]
    #[inline(never)]
    fn read_slowly(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> Result<(), GruFault> {
        by_page(addr, out, |page, offset, part| {
            let at = page.addr() + offset as u64;
            self.instruct(cx, at, Access::Read, |space, cached| {
                let view = space.gate.follow(cached, page);
                view.expect("one of its pages").read(offset, part);
            })
        })
    }
    /// Stores bytes (a `VSTORE` instruction); the bytes of one page are stored at once.
    ///
    /// # Errors
    ///
    /// [`GruFault`]; the bytes before the page that failed have been stored.
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
    /// Runs `f` on the translation of a page, if the context is loaded and the TLB has it for the
    /// access: all that most instructions are, so it is apart from all else. The chip stays locked
    /// until `f` is done.
    #[inline(always)]
    fn hit<V>(
        &self,
        (addr, page): (u64, Vpn),
        access: Access,
        f: impl FnOnce(&GruSpace, &Cached) -> Option<V>,
    ) -> Option<V> {
        if self.space.is_released() {
            return None;
        }
        let mut chip = self.gru.lock();
        let asid = chip.slot_of(self.id)?.asid;
        let cached = chip.tlb.get(effective(asid, addr), page.0)?;
        match access == Access::Read || cached.is_writable() {
            true => f(&self.space, cached),
            false => None,
        }
    }
    /// Runs one instruction: through the TLB, or after its miss has been served.
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
    /// Serves a miss: by the interrupt path, or else by the user path.
    #[cold]
    #[inline(never)]
    fn serve(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        access: Access,
        miss: Option<Armed<'_>>,
    ) -> Result<(), GruFault> {
        let mm = self.mm.as_ref().ok_or(GruFault::Gone)?;
        let Some(miss) = miss else { return Ok(()) };
        match self.interrupt(&mut cx.non_blocking(), mm, (addr, access), miss)? {
            Dropin::Done | Dropin::Unloaded => Ok(()),
            Dropin::ByUser => self.call_os(cx, mm, addr, access),
        }
    }
    /// The interrupt path (`gru_intr`): a walk of the page table without locks, which never sleeps.
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
        let ticket = self.miss_ticket(addr, access);
        let found = mm.try_resolve(cx, ticket);
        let Some(pending) = found.map_err(|why| GruFault::Fault { addr, why })? else {
            return Ok(Dropin::ByUser);
        };
        let Ok(found) = pending.vouch() else {
            return Ok(Dropin::ByUser);
        };
        let done = self.drop_in(addr, miss, found, |s| &mut s.interrupt_dropins);
        if done == Dropin::Done {
            self.preload(cx, mm, addr);
        }
        Ok(done)
    }
    /// Makes the ticket of an armed miss, whose drop-in proves that its look-up still holds.
    fn miss_ticket(&self, addr: u64, access: Access) -> Ticket<'_, GruGate> {
        let gate = &self.space.gate;
        gate.unplaced_ticket(Vpn::containing(addr), access)
            .allow_huge()
    }
    /// The user path (`gru_handle_user_call_os`): waits for the windows to end, faults the page in,
    /// and tries again.
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
        let ticket = self.miss_ticket(addr, access);
        // No reference is kept on the page: nothing but windows keeps the entry true.
        let found = mm.resolve(cx, ticket);
        let pending = found.map_err(|why| GruFault::Fault { addr, why })?;
        match pending.vouch() {
            // A fault may have opened a window of its own, which has purged: then the miss is no
            // longer armed.
            Ok(found) => {
                self.drop_in(addr, miss, found, |s| &mut s.user_dropins);
            }
            Err(_) => {
                drop(miss);
                self.space.meter.retried();
                let page = VpnRange::single(Vpn::containing(addr));
                self.space.gate.wait_idle(cx, page);
            }
        }
        Ok(())
    }
    /// Enters the translation if the miss is still armed; the hardware ignores it otherwise
    /// (`tfh_write_restart`).
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
        // With the chip locked: the purge of `release` either comes after this, or its mark is seen
        // here.
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
    /// Enters pages behind a miss, the last one first (`gru_preload_tlb`). No miss is armed for
    /// them, so each has a ticket of its own, which is validated with the chip locked.
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
                pending.vouch()
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

/// Records that the instruction at `addr` has missed: a purge there cancels the miss from now on.
/// Returns its serial number, or `None` if the context is not loaded.
fn arm(chip: &mut Chip, context: u64, addr: u64) -> Option<u64> {
    let serial = chip.misses;
    let loaded = chip.slot_of(context)?;
    // The drop-in may be of the huge page around `addr`, so a purge anywhere in it cancels the
    // miss.
    let pages = VpnRange::block_of(Vpn::containing(addr));
    loaded.armed.push(Miss { serial, pages });
    chip.misses += 1;
    Some(serial)
}

/// An armed miss of one instruction, although several may use the context. If it is dropped without
/// a drop-in, the miss is disarmed.
#[must_use]
struct Armed<'c> {
    context: &'c GruContext,
    serial: u64,
}

impl Armed<'_> {
    /// Returns the serial number for a drop-in, with the chip locked. The drop-in disarms the miss.
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
