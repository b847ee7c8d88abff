//! The external MMUs of one address space.

use super::{
    asked::{Callees, List},
    board::{Board, Verdict},
    entry::{Entry, RegId, RegistrationPhase, Visit, Visits},
    intervals::Intervals,
    lazy::OnceArc,
    ops::{AgeKind, ExternalMmu},
    seat::Seat,
    subscription::Subscription,
};
use crate::ctx::FaultCx;

use crate::{
    addr::VpnRange,
    ctx::{Atomic, Below, Context, Cx, Epoch, Outside, Rank, Sleepable, rank},
    error::RegisterError,
    frame::PhysMem,
    sync::{Addresses, AtomicBool, Condvar, Despite, IdSource, Mutex, Ordering},
};
use std::sync::Arc;

static NEXT: IdSource = IdSource::starting_at(0);
/// The drivers that are on a chain.
static LISTED: Addresses = Addresses::new();

/// A driver's registration: of the whole address space, or of a range of it. Taking it off is done by
/// [`unregister`](Self::unregister), from anywhere but a window or a callback.
///
/// Merely dropping this leaves the driver where it is: safe, never stale, until the address space ends.
#[must_use = "dropping it leaves the driver registered until the address space ends"]
pub struct Registration {
    chain: Arc<Chain>,
    entry: Arc<Entry>,
}

impl Registration {
    /// Takes the driver off. When this returns, none of its callbacks runs or will run, no window waits for it, its store is
    /// empty, and `release` has been called. Needs no lock of the address space, which may have ended
    /// (`mmu_notifier_unregister`, `mmu_interval_notifier_remove`).
    ///
    /// Waits for windows that have called the driver: they tell it their end first.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine; the driver stays where it is. If the driver panics. One
    /// that panics when it is asked for all it has stays on the chain: it gets no permit any more, is told of windows like
    /// everybody else, and is released when the address space ends.
    pub fn unregister<R: Outside>(self, cx: &mut Cx<'_, R, Sleepable>) {
        self.chain.list.check_token(cx);
        let _leaving = self.chain.leaving.begin();
        self.chain.take_off(cx, &self.entry);
    }
    /// Gone from the chain, and nothing else: what unregistration must not be.
    #[cfg(all(test, loom))]
    pub(super) fn vanish<R: Rank>(&self, cx: &mut Cx<'_, R, Sleepable>) {
        let entry = &self.entry;
        let unlinked = self
            .chain
            .list
            .unlink(cx.pin().guard(), |e| e.reg == entry.reg);
        match unlinked {
            Some(unlinked) => unlinked.without_waiting().retire(cx.pin().guard()),
            None => self.chain.remove(cx, entry),
        }
    }
    /// The pages that the driver is told of.
    pub fn range(&self) -> VpnRange {
        self.entry
            .sub
            .as_ref()
            .map_or(VpnRange::ALL, |sub| sub.range)
    }
}

/// Registrations that are ending.
#[derive(Default)]
struct Unregistrations {
    now: Mutex<usize>,
    none: Condvar,
}

struct UnregistrationGuard<'l>(&'l Unregistrations);

impl Unregistrations {
    fn begin(&self) -> UnregistrationGuard<'_> {
        *self.now.lock() += 1;
        UnregistrationGuard(self)
    }
    fn wait(&self) {
        let mut now = self.now.lock();
        while *now > 0 {
            self.none.wait(&mut now);
        }
    }
}

impl Drop for UnregistrationGuard<'_> {
    fn drop(&mut self) {
        let mut now = self.0.now.lock();
        *now -= 1;
        drop(now);
        self.0.none.notify_all();
    }
}

/// Board and drivers of one address space that has, or had, an external MMU.
pub(super) struct Chain {
    pub(super) board: Arc<Board>,
    list: List,
    intervals: Intervals,
    leaving: Unregistrations,
    /// No window is open any more that began before there was a board.
    ready: AtomicBool,
}

impl Chain {
    fn new(epoch: Epoch) -> Self {
        let board = Arc::<Board>::default();
        Self {
            list: List::new(epoch, Arc::clone(&board)),
            board,
            intervals: Intervals::default(),
            leaving: Unregistrations::default(),
            ready: AtomicBool::new(false),
        }
    }
    /// Those whom a window over `range` has to call. Pin and lock end before this returns, so callbacks may sleep.
    #[inline]
    pub(super) fn ask<R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        range: VpnRange,
        id: u64,
    ) -> Callees<'_> {
        let call = self.list.try_call();
        let call = call.unwrap_or_else(|| self.list.call(cx.pin().guard()));
        Callees::new(call, id, |subs| {
            self.intervals.visit(range, Visit::of_window, subs);
        })
    }
    /// Those whom `range` is about, each kept until the visit ends.
    fn visit<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, range: VpnRange) -> Visits {
        let mut out = Visits::new();
        self.intervals.visit(range, Visit::begin, &mut out);
        let pinned = cx.pin();
        self.list
            .for_each(pinned.guard(), |entry| out.extend(Visit::begin(entry)));
        out
    }
    fn insert<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, entry: &Arc<Entry>) {
        match &entry.sub {
            Some(sub) => self.intervals.insert(sub.range, entry),
            None => self.list.push(Arc::clone(entry), cx.pin().guard()),
        }
        entry.standing.list();
    }
    fn remove<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, entry: &Entry) {
        match &entry.sub {
            Some(sub) => self.intervals.remove(sub.range, entry.reg),
            None => {
                // Not pinned while it waits.
                let unlinked = self.list.unlink(cx.pin().guard(), |e| e.reg == entry.reg);
                if let Some(uncalled) = unlinked.map(|unlinked| unlinked.wait()) {
                    uncalled.retire(cx.pin().guard());
                }
            }
        }
    }
    /// Until it is off the chain a driver is told of windows like everybody else, and then it has nothing any more and can
    /// get nothing: no zap can be missed. `release` comes when nobody can call it.
    fn take_off<R: Below<rank::Callback>>(&self, cx: &mut Cx<'_, R, Sleepable>, entry: &Entry) {
        let Some(leave) = entry.begin_leave() else {
            return;
        };
        entry.exclude_all(cx);
        self.unlist(cx, entry);
        leave.release(cx.descend());
        entry.taken.give_back();
    }
    /// Nobody finds the driver any more, and nobody is calling it.
    fn unlist<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>, entry: &Entry) {
        self.remove(cx, entry);
        entry.close();
    }
    /// [`take_off`](Self::take_off) where the address space ends: a driver that panics is off the chain and released like
    /// the others.
    fn take_off_despite<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        entry: &Entry,
        despite: &mut Despite,
    ) {
        let Some(leave) = entry.begin_leave() else {
            return;
        };
        despite.call(|| entry.exclude_all(cx));
        self.unlist(cx, entry);
        despite.call(|| leave.release(cx.descend()));
        entry.taken.give_back();
    }
    fn all<R: Rank, C: Context>(&self, cx: &mut Cx<'_, R, C>) -> Vec<Arc<Entry>> {
        let mut all = self.intervals.all();
        let pinned = cx.pin();
        self.list
            .for_each(pinned.guard(), |entry| all.push(Arc::clone(entry)));
        all
    }
}

/// The address space ends: nobody is registered, and who registers now gets no permit while this lives.
pub(crate) struct Closing<'c>(Option<&'c Chain>);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        if let Some(chain) = self.0 {
            chain.board.end(VpnRange::ALL);
        }
    }
}

/// What an address space embeds: one pointer, null until the first registration.
pub(crate) struct Notifiers(OnceArc<Chain>);

impl Notifiers {
    pub(crate) fn new() -> Self {
        Self(OnceArc::new())
    }
    #[inline(always)]
    pub(super) fn chain(&self) -> Option<&Chain> {
        self.0.get()
    }
    /// Whether there ever was a driver: only then a window may have to wait for one.
    #[inline]
    pub(crate) fn is_made(&self) -> bool {
        self.chain().is_some()
    }
    /// Whether every open window is on the board.
    pub(crate) fn is_ready(&self) -> bool {
        self.chain()
            .is_some_and(|chain| chain.ready.load(Ordering::Acquire))
    }
    /// Makes the board, so that windows are written on it from now on; then `drain` waits for those that began before,
    /// beside those that the mmap lock, held exclusively, keeps out.
    pub(crate) fn prepare(&self, cx: &FaultCx<'_>, drain: impl FnOnce()) {
        if !self.is_ready() {
            let chain = self.0.get_or_make(|| Chain::new(cx.epoch()));
            drain();
            chain.ready.store(true, Ordering::Release);
        }
    }
    /// Puts a driver on the chain, for all of the address space or for a range.
    ///
    /// Windows may be open: on the board they hold off a driver that they did not call.
    ///
    /// Refuses what no window could be answered by: a driver without a gate on its seat, and one that is on a chain, with the
    /// gate of that registration.
    pub(crate) fn register<E: ExternalMmu + 'static, R: Rank>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        mem: &Arc<PhysMem>,
        range: Option<VpnRange>,
        build: impl FnOnce(Seat) -> Arc<E>,
    ) -> Result<(Arc<E>, Registration), RegisterError> {
        let chain = self.0.share().expect("prepared before");
        let reg = RegId(NEXT.next());
        let standing = Arc::new(RegistrationPhase::new());
        let sub = range.map(|range| Arc::new(Subscription::new(range)));
        let ext = build(Seat {
            reg,
            brand: reg.brand(),
            board: Arc::clone(&chain.board),
            standing: Arc::clone(&standing),
            mem: Arc::clone(mem),
            sub: sub.clone(),
        });
        let taken = LISTED.take(Arc::as_ptr(&ext));
        let taken = taken.ok_or_else(|| RegisterError::Twice(ext.name()))?;
        if !standing.has_gate() {
            return Err(RegisterError::NoGate(ext.name()));
        }
        let dynamic = Arc::clone(&ext) as Arc<dyn ExternalMmu>;
        let entry = Arc::new(Entry::new(reg, dynamic, standing, (sub, taken)));
        chain.insert(cx, &entry);
        Ok((ext, Registration { chain, entry }))
    }
    /// The address space ends: each driver is taken off and released, by this or by an unregistration under way. Their
    /// panics wait.
    pub(crate) fn release_all(&self, cx: &mut FaultCx<'_>, despite: &mut Despite) -> Closing<'_> {
        let Some(chain) = self.chain() else {
            return Closing(None);
        };
        loop {
            for entry in chain.all(cx) {
                chain.take_off_despite(cx, &entry, despite);
            }
            chain.leaving.wait();
            // Who comes from here on finds a window open over everything, so nothing can be established meanwhile.
            chain.board.begin(VpnRange::ALL);
            let closing = Closing(Some(chain));
            if chain.all(cx).is_empty() {
                chain.board.watched(|w| w.released());
                return closing;
            }
        }
    }
    /// The registration of a driver.
    pub(crate) fn registration_of(
        &self,
        epoch: &Epoch,
        ext: &Arc<dyn ExternalMmu>,
    ) -> Option<RegId> {
        let chain = self.chain()?;
        let mut all = chain.intervals.all();
        let local = epoch.register();
        chain
            .list
            .for_each(&local.pin(), |entry| all.push(Arc::clone(entry)));
        let is = |e: &Arc<Entry>| std::ptr::addr_eq(Arc::as_ptr(&e.ext), Arc::as_ptr(ext));
        all.iter().find(|e| is(e)).map(|e| e.reg)
    }
    /// Nobody is registered.
    pub(crate) fn is_empty(&self, epoch: &Epoch) -> bool {
        self.chain().is_none_or(|chain| {
            let local = epoch.register();
            let mut empty = chain.intervals.len() == 0;
            chain.list.for_each(&local.pin(), |_| empty = false);
            empty
        })
    }
    /// Drivers that are registered on ranges.
    pub(crate) fn subscriptions(&self) -> usize {
        self.chain().map_or(0, |chain| chain.intervals.len())
    }
    /// Asks every driver whether a page of the range was used: all of them, whatever the first says, so that all clear
    /// their state.
    pub(crate) fn age<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Atomic>,
        range: VpnRange,
        kind: AgeKind,
    ) -> bool {
        let Some(chain) = self.chain() else {
            return false;
        };
        let visits = chain.visit(cx, range);
        visits.iter().fold(false, |young, visit| {
            visit.entry().ext.age(cx.descend(), range, kind) | young
        })
    }
    /// Has an oracle look on, if anybody ever registered.
    pub(crate) fn watch(&self, watch: Arc<dyn super::WindowWatch>) {
        if let Some(chain) = self.chain() {
            chain.board.set_watch(watch);
        }
    }
    /// What `f` says, if no window was open over `range`, a page or pages of one 2-MiB block, while it ran.
    pub(crate) fn quietly<T>(&self, range: VpnRange, f: impl FnOnce() -> T) -> Option<T> {
        let drawn = self.chain().map(|chain| chain.board.draw(range.start()));
        let out = f();
        let verdict = drawn.map_or(Verdict::Current, |drawn| drawn.settle(range));
        (verdict == Verdict::Current).then_some(out)
    }
    /// The ranges of the windows that are open now.
    pub(crate) fn open_windows(&self) -> Vec<VpnRange> {
        self.chain()
            .map_or(Vec::new(), |chain| chain.board.ranges())
    }
    /// Windows open now.
    pub(crate) fn windows_open(&self) -> usize {
        self.chain().map_or(0, |chain| chain.board.open())
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Registration({:?})", self.entry.reg)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_address_space_pays_one_pointer() {
        assert_eq!(size_of::<super::Notifiers>(), size_of::<usize>());
    }
}
