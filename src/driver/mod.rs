//! Everything that the author of a driver imports: `use emmu::driver::*`.
//!
//! A driver is an external MMU: it caches translations of an address space, and answers
//! invalidation windows. It has three parts, and each has its place here.
//!
//! 1. **A [`Gate`]**, the driver's lock with its translations inside. [`Mm::register`] hands a
//!    [`Seat`] to the closure that builds the driver, and the gate is built on the seat.
//!    Translations lie in an [`OrderedStore`], in a [`ShadowStore`] of the driver's own, or, for a
//!    device with nothing but TLBs, in [`NoStore`].
//! 2. **The callbacks.** A driver whose gate spins implements [`SpinningMmu`]: one callback answers
//!    every window, by [`Gate::exclude_entries`]; by [`Gate::exclude`] if the gate has a state, as
//!    a TLB, that drops the range; by [`Gate::exclude_with`] if the state has to know the entries
//!    that went. A driver whose gate sleeps implements [`ExternalMmu`], and refuses the windows of
//!    atomic contexts.
//! 3. **The miss.** [`Gate::translate`] looks a page up, waits for the windows in its way, and
//!    calls back with the gate held and a [`Permit`]. [`Gate::translate_range`] does it for many
//!    pages under one [`RangePermit`].
//!
//! | file | holds |
//! | --- | --- |
//! | `references` | [`References`]: entries with or without a reference on their frames |
//! | `spinning` | [`SpinningMmu`]: one callback for a driver whose gate spins |
//! | `translate` | [`Gate::translate`], [`Gates::translate`]: the whole loop of a miss |
//! | `translate_range` | [`Gate::translate_range`]: the same for many pages at once |
//!
//! A device that walks the page table of the process itself, as an IOMMU with shared tables does,
//! is no driver of this kind: it is a [`SecondaryTlb`] with a [`TlbGate`].
//!
//! # A driver
//!
//! ```
//! use emmu::{Machine, MachineConfig, driver::*, mm::{Advice, MmapArgs}};
//! use std::sync::Arc;
//!
//! /// A device with a table of translations.
//! struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);
//!
//! impl SpinningMmu for Device {
//!     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
//!         self.0.exclude_entries(cx, inv)
//!     }
//!     fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
//!         self.0.audit(visit)
//!     }
//! }
//!
//! impl Device {
//!     fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, TranslateError> {
//!         let at = Vpn::containing(addr);
//!         loop {
//!             if let Some(view) = self.0.lock(cx).lookup(&at) {
//!                 return Ok(view.read_u8((addr % PAGE_SIZE) as usize));
//!             }
//!             self.0.translate(cx, mm, at, Access::Read, |permit| drop(permit.establish(at)))?;
//!         }
//!     }
//! }
//!
//! let machine = Machine::new(MachineConfig::default());
//! let mut thread = machine.enter()?;
//! let mut cx = thread.cx();
//! let mm = Mm::new(&machine);
//! let (device, _registration) = mm.register(&mut cx, |seat: Seat| {
//!     Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())))
//! });
//! let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
//! mm.store(&mut cx, at, 7)?;
//! assert_eq!(device.read(&mut cx, &mm, at)?, 7);
//!
//! // The page goes. A window asks the device first, so the next access misses, and finds zeros.
//! mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
//! assert_eq!(device.read(&mut cx, &mm, at)?, 0);
//! mm.exit(&mut cx);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Locks of a driver's own
//!
//! * A callback runs with locks of the address space held; which ones depends on the opener of the
//!   window. No leaf table is locked, and no epoch is pinned.
//!
//!   | opener | held during the callback |
//!   | --- | --- |
//!   | a call such as `munmap` or `mprotect` | a claim on its own pages; the mmap lock is yielded |
//!   | a fault that copies | a claim on its page; the mmap lock is released |
//!   | a fault that takes a page back from a device that had it alone | a claim on its page, and the lock of a frame |
//!   | `mprotect` of locked private memory, `MADV_UNMERGEABLE`, `mremap` of mergeable memory, `clear_refs`, `process_mrelease` | the mmap lock, shared |
//!   | a window of a caller under [`Mm::lock_shared`] | the mmap lock, shared |
//!   | `fork`, `shmdt`, exit, the end of merging of all memory, a window of a caller under [`Mm::lock_exclusive`] | the mmap lock, exclusive |
//!   | merging of equal pages | the lock of a frame, a claim on the page |
//!   | migration to a device and home, exclusive access | the mmap lock, shared, and the lock of a frame |
//!   | reclaim, migration, truncation | the lock of a reverse map, mostly of a frame too |
//!   | the end of a window of a collapse | reverse maps, beside the above |
//!   | the end of a registration | what its caller holds |
//!
//!   So a driver's own lock must not be held by a thread that waits for the address space: for
//!   [`Mm::resolve`], `translate`, or any call that needs the mmap lock.
//! * [`ExternalMmu::translations`] runs inside calls that the driver itself makes: an oracle looks
//!   when a gate is passed, when a permit establishes an entry, and when a frame is given up. So no
//!   lock that `translations` takes may be held across a call of a gate, a permit, or the address
//!   space, nor while a [`GateGuard`] is dropped.
//! * A [`Cached`] translation is a copy. The driver holds the lock that its invalidation takes,
//!   from the look into the TLB to the end of the access, and follows the copy: with the gate
//!   locked, by [`GateGuard::follow`]; under another lock, by [`Gate::follow`]. After the unlock
//!   the copy may lead to a page that a fork shares, or that is gone. No type forbids such a use;
//!   the [oracle](crate::oracle) reports it.
//! * State that an audit must see lies best in the gate, as its state `T`: [`Gate::audit`] shows
//!   the store, [`Gate::audited_parts`] store and state. Both take the gate with a time limit, and
//!   return false if it cannot be had.

mod references;
mod spinning;
mod translate;
mod translate_range;

pub use crate::{
    addr::{PAGE_SIZE, Pfn, Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx, Context, Cx, EnterFrom, Sleepable, rank},
    error::{FaultError, RangeFault},
    frame::{FrameView, FrameViewMut},
    mm::Mm,
    notifier::{
        Access, Ack, AgeKind, Cached, Event, ExternalMmu, FaultRequest, FirstPass, Gate, GateGuard,
        Gates, Invalidated, Invalidation, NoStore, OrderedStore, Pending, Permit, RangePending,
        RangePermit, RangeRetry, RangeTicket, Rearrange, Registration, RemovedEntries, Retry, Seat,
        SecondPass, SecondaryTlb, ShadowEntry, ShadowStore, Slot, Spared, Ticket, TlbEntry,
        TlbGate, TlbPages, TlbRegistration, TlbSeat, Translation, WouldBlock,
    },
};
pub use references::References;
pub use spinning::SpinningMmu;
pub use translate::TranslateError;
