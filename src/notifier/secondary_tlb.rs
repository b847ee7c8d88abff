//! The channel of secondary TLBs: devices that walk the address space's own page table and cache
//! the entries that they read (`arch_invalidate_secondary_tlbs`).
//!
//! Guarantee: when a frame that the page table mapped goes, no device on this channel has a
//! translation to it that it read there; and a right that an entry loses is flushed before the lock
//! of its leaf is released.
//!
//! A window would be wrong for such a device. Between the beginning of a window and the change of
//! the entry the device would walk again, and cache the old entry again. So it is told after the
//! entry has changed, at the moment at which a processor's own TLB is flushed. A device fills its
//! TLB under a lock that the flush takes ([`TlbGate`](super::TlbGate)): it has either read the new
//! entry, or the flush removes the old one.
//!
//! A device may walk once every window has ended that found no device counted. So a window that
//! finds none owes nothing to its end.

#[cfg(feature = "testkit")]
use super::test_hook;
use super::{
    observer::{WindowObserver, name_of_type},
    once_arc::OnceArc,
    put_off_panics::PutOffPanics,
    translation::{RegId, Translation},
    unregistrations::{Space, Unregistrations},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::{AtomicCallbackCx, Below, Context, Cx, Outside, Sleepable, rank},
    frame::PhysMem,
    sync::{AtomicU8, AtomicUsize, Despite, Mutex, OnceLock, Ordering, RwLock},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// A device that walks the page table of an address space itself, as an IOMMU does that shares the
/// table with the processor.
///
/// It gets no windows and draws no tickets, and a driver of windows is not on this channel: a
/// registration is of one kind, by the seat that it gives.
///
/// ```compile_fail,E0308
/// use emmu::driver::*;
///
/// fn gate_of_windows(seat: TlbSeat) -> Gate<OrderedStore<Vpn>, (), Atomic> {
///     Gate::new(seat, OrderedStore::default(), ()) // `TlbGate::new` takes it
/// }
/// ```
pub trait SecondaryTlb: Send + Sync {
    /// Entries of `range` have changed: the device forgets them before this returns
    /// (`arch_invalidate_secondary_tlbs`). The pages of its [`TlbGate`](super::TlbGate) are
    /// gone when this has returned, also if the device has not flushed them; its copies elsewhere
    /// are its own.
    ///
    /// A lock of the page table is held. Nothing is flushed for an entry that was not present, or
    /// that gained a right. More may be flushed than has changed.
    ///
    /// If it panics, the other devices are flushed all the same, and the panic goes on when the
    /// window ends. The [`TlbGate`](super::TlbGate) of the device gives nothing out from then on:
    /// what is in it may be stale.
    fn flush(&self, cx: AtomicCallbackCx<'_>, range: VpnRange);

    /// The tables are about to go: the device walks no more (`release` of
    /// `struct mmu_notifier_ops`). Called once, after a flush of everything. The default does
    /// nothing.
    fn release(&self, cx: AtomicCallbackCx<'_>) {
        let _unused = cx;
    }

    /// Returns the name of the device in reports. The default is the name of its type.
    fn name(&self) -> &'static str {
        name_of_type::<Self>()
    }

    /// Shows every translation that the device could use at this moment:
    /// [`TlbGate::audit`](super::TlbGate::audit), and its copies in TLBs behind that. Returns false
    /// if it could not look everywhere.
    ///
    /// An [oracle](crate::oracle) calls this on any thread, with any lock of the library held but
    /// that of the device's gate. The default shows nothing.
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let _unused = visit;
        true
    }
}

/// One page as a walk found it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walked {
    pub(crate) pfn: Pfn,
    pub(crate) generation: u32,
    pub(crate) writable: bool,
}

/// The life of one registration, shared by its seat and its place on the list.
#[derive(Debug)]
pub(super) struct TlbPhase {
    phase: AtomicU8,
    /// The pages that the device has cached, behind the lock that a flush takes.
    pub(super) pages: Mutex<BTreeMap<Vpn, Walked>>,
    /// Held by the thread that ends the registration, to the end of `release`: of an unregistration
    /// and an exit, each returns when the device was released.
    ending: Mutex<()>,
}

/// The device is not listed yet.
const BUILDING: u8 = 0;
/// Every flush reaches the device, which may walk.
const WALKING: u8 = 1;
/// The device walks no more, and is about to be flushed for the last time.
const ENDING: u8 = 2;
/// That flush is over, or one before it panicked.
const SHUT: u8 = 3;

impl TlbPhase {
    fn new() -> Self {
        Self {
            phase: AtomicU8::new(BUILDING),
            pages: Mutex::default(),
            ending: Mutex::default(),
        }
    }
    fn advance(&self, phase: u8) {
        self.phase.fetch_max(phase, Ordering::SeqCst);
    }
    /// Returns true while the device may walk.
    ///
    /// The device asks under its gate. The end of the registration is noted before everything is
    /// flushed through that gate, so nothing is cached after that flush.
    pub(super) fn is_alive(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == WALKING
    }
    /// Removes the pages of `range`: after the device's own flush, which may have been of others.
    pub(super) fn forget(&self, range: VpnRange) {
        remove(&mut self.pages.lock(), range);
    }
    /// Returns true if what the gate has may be stale.
    pub(super) fn is_shut(&self) -> bool {
        self.phase.load(Ordering::SeqCst) == SHUT
    }
}

/// Removes the pages of `range`.
pub(super) fn remove(pages: &mut BTreeMap<Vpn, Walked>, range: VpnRange) {
    let in_range = pages.range(range.start()..range.end());
    let gone: Vec<Vpn> = in_range.map(|(&at, _)| at).collect();
    for at in gone {
        pages.remove(&at);
    }
}

/// The right to make the [`TlbGate`](super::TlbGate) of one registration.
#[derive(Debug)]
pub struct TlbSeat {
    pub(super) reg: RegId,
    pub(super) phase: Arc<TlbPhase>,
    pub(super) mem: Arc<PhysMem>,
    pub(super) list: Arc<TlbList>,
}

struct ListedTlb {
    phase: Arc<TlbPhase>,
    tlb: Arc<dyn SecondaryTlb>,
}

/// The devices of one address space.
pub(super) struct TlbList {
    /// A flush holds the lock shared, so no device leaves during one.
    listed: RwLock<Vec<ListedTlb>>,
    /// The number of devices, with those that are about to be put on the list.
    count: AtomicUsize,
    panics: PutOffPanics,
    /// Learns of each translation that a device reads.
    pub(super) observer: OnceLock<Arc<dyn WindowObserver>>,
    #[cfg(feature = "testkit")]
    hooked: OnceLock<test_hook::HookedSpace>,
    /// The unregistrations under way, which exit waits for.
    unregistrations: Unregistrations,
}

impl TlbList {
    fn new(space: Weak<Space>) -> Self {
        Self {
            listed: RwLock::default(),
            count: AtomicUsize::new(0),
            panics: PutOffPanics::default(),
            observer: OnceLock::new(),
            #[cfg(feature = "testkit")]
            hooked: OnceLock::new(),
            unregistrations: Unregistrations::new(space),
        }
    }
    /// Flushes `range` from each device, also if one panics: that one is shut.
    pub(super) fn flush<R: Below<rank::Callback>, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
    ) {
        let mut despite = Despite::default();
        for listed in &*self.listed.read() {
            let flushed = despite.call(|| listed.tlb.flush(cx.descend(), range));
            listed.phase.forget(range);
            if flushed.is_none() {
                listed.phase.advance(SHUT);
            }
        }
        if despite.has_panic() {
            self.panics.put_off(despite);
        }
    }
    /// Ends a registration, unless that was done: forbids walks, flushes everything, takes the
    /// device off the list, and releases it. The device is called each time, also if it panics.
    /// Waits for a thread that ends the same registration.
    fn end<R: Below<rank::Callback>, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        phase: &Arc<TlbPhase>,
        despite: &mut Despite,
    ) {
        let _one = phase.ending.lock();
        let is = |listed: &ListedTlb| Arc::ptr_eq(&listed.phase, phase);
        let listed = self.listed.read();
        let Some(tlb) = listed.iter().find(|l| is(l)).map(|l| Arc::clone(&l.tlb)) else {
            return;
        };
        drop(listed);
        phase.advance(ENDING);
        despite.call(|| tlb.flush(cx.descend(), VpnRange::ALL));
        phase.forget(VpnRange::ALL);
        phase.advance(SHUT);
        self.listed.write().retain(|listed| !is(listed));
        self.count.fetch_sub(1, Ordering::SeqCst);
        despite.call(|| tlb.release(cx.descend()));
    }
}

#[cfg(feature = "testkit")]
impl TlbList {
    /// Calls the hook of tests.
    pub(super) fn reached(&self, moment: test_hook::Moment) {
        if let Some(space) = self.hooked.get() {
            test_hook::call(*space, moment);
        }
    }
}

impl std::fmt::Debug for TlbList {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlbList").finish_non_exhaustive()
    }
}

/// The registration of a secondary TLB. Dropping it leaves the device registered until the address
/// space ends.
#[derive(Debug)]
#[must_use = "dropping it leaves the device registered until the address space ends"]
pub struct TlbRegistration {
    list: Arc<TlbList>,
    phase: Arc<TlbPhase>,
}

impl TlbRegistration {
    /// Ends the registration. When this returns, the device has nothing cached, walks no more, was
    /// released, and no flush of it runs or will run.
    ///
    /// # Panics
    ///
    /// If the device does. Its registration has ended all the same.
    pub fn unregister<R: Outside>(self, cx: &mut Cx<'_, R, Sleepable>) {
        let _leaving = self.list.unregistrations.begin();
        let mut despite = Despite::default();
        self.list.end(cx, &self.phase, &mut despite);
        despite.resume();
    }
}

/// The secondary TLBs of an address space: one pointer, null until the first is registered.
pub(crate) struct SecondaryTlbs(OnceArc<TlbList>);

impl SecondaryTlbs {
    pub(crate) fn new() -> Self {
        Self(OnceArc::new())
    }
    /// Puts a device on the list.
    ///
    /// The caller holds the mmap lock exclusively, which excludes windows but for those of walks
    /// over reverse maps; `drain` waits until the present walks have ended.
    pub(crate) fn register<E: SecondaryTlb + 'static>(
        &self,
        (mem, space): (&Arc<PhysMem>, Weak<Space>),
        drain: impl FnOnce(),
        build: impl FnOnce(TlbSeat) -> Arc<E>,
    ) -> (Arc<E>, TlbRegistration) {
        self.0.get_or_make(|| TlbList::new(space));
        let list = self.0.share().expect("just made");
        // A device that panics here is not counted.
        let phase = Arc::new(TlbPhase::new());
        let tlb = build(TlbSeat {
            reg: RegId::next(),
            phase: Arc::clone(&phase),
            mem: Arc::clone(mem),
            list: Arc::clone(&list),
        });
        // Windows from here on flush.
        list.count.fetch_add(1, Ordering::SeqCst);
        drain();
        list.listed.write().push(ListedTlb {
            phase: Arc::clone(&phase),
            tlb: Arc::clone(&tlb) as Arc<dyn SecondaryTlb>,
        });
        // The device may walk now that each flush reaches it.
        phase.advance(WALKING);
        (tlb, TlbRegistration { list, phase })
    }
    /// Returns the list, unless no device is counted.
    #[inline]
    pub(super) fn listed(&self) -> Option<&TlbList> {
        let list = self.0.get()?;
        (list.count.load(Ordering::SeqCst) > 0).then_some(list)
    }
    /// Installs an observer, if a device was ever registered; the first one stays.
    pub(crate) fn watch(&self, watch: Arc<dyn WindowObserver>) {
        if let Some(list) = self.0.get() {
            let _first = list.observer.get_or_init(|| watch);
        }
    }
    /// Names the address space to hooks of tests.
    #[cfg(feature = "testkit")]
    pub(crate) fn set_hooked(&self, space: test_hook::HookedSpace) {
        if let Some(list) = self.0.get() {
            let _first = list.hooked.get_or_init(|| space);
        }
    }
    /// Returns true if no device is registered.
    pub(crate) fn is_empty(&self) -> bool {
        self.listed().is_none()
    }
    /// Ends every registration, before the tables go.
    pub(crate) fn release_all<R: Below<rank::Callback>, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        despite: &mut Despite,
    ) {
        let Some(list) = self.0.get() else {
            return;
        };
        loop {
            let first = list.listed.read().first().map(|l| Arc::clone(&l.phase));
            match first {
                Some(phase) => list.end(cx, &phase, despite),
                None => break,
            }
        }
        list.unregistrations.wait();
    }
    /// Returns a value whose drop, at the end of a window, goes on with a panic of a flush.
    #[inline(always)]
    pub(crate) fn panics(&self) -> FlushPanics<'_> {
        FlushPanics(self)
    }
    /// Returns true if the seat was given out by this address space.
    pub(super) fn gave(&self, seat: &TlbSeat) -> bool {
        let list = self.0.get();
        list.is_some_and(|list| std::ptr::eq(list, &raw const *seat.list))
    }
}

/// The part of a window that goes on with a panic of a flush in it: dropped after its end.
#[must_use]
pub(crate) struct FlushPanics<'w>(&'w SecondaryTlbs);

impl Drop for FlushPanics<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(list) = self.0.0.get() {
            list.panics.resume();
        }
    }
}
