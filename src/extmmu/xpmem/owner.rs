//! The owner of exported memory: segments, the frame table, and what a window does.

use super::{
    SegId, XpmemError,
    failure::{Failure, Failures},
    gatekeeper::Gatekeeper,
    pages::Pages,
    partition::{Answer, LONGEST, Partition},
    segment::Segment,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{Below, Cx, Sleepable, rank},
    extmmu::{
        References,
        bill::{Bill, Meter},
    },
    mm::Mm,
    notifier::{
        Access, Ack, Begun, ExternalMmu, Finish, Gate, Invalidation, Registration, ShadowEntry,
        Translation,
    },
    rmap::RmapNotifier,
    sync::{RwLock, Serial},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

/// Mistakes made on purpose, to see them found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// Windows recall nothing.
    NoRecall,
    /// The recall leaves out the last page.
    ShortRecall,
    /// Recalls come at the end of the window.
    LateRecall,
    /// Answers are not waited for.
    NoWait,
    /// References are given up before the answers.
    EarlyUnpin,
    /// What was looked up is exported without asking whether it still holds (B11).
    NoRetry,
    /// What importers store is not told to the frame (B26).
    LostDirty,
}

/// How an owner behaves.
#[derive(Clone, Copy, Debug)]
pub struct OwnerConfig {
    /// How long a partition has for its answer.
    pub deadline: Duration,
    /// Whether exported frames are held.
    pub references: References,
    /// A mistake made on purpose.
    pub mistake: Option<Mistake>,
}

impl Default for OwnerConfig {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5),
            references: References::Pinned,
            mistake: None,
        }
    }
}

static NEXT: Serial = Serial::starting_at(1);

pub(super) fn fresh() -> u64 {
    NEXT.next()
}

/// An address space that exports memory (`xpmem_thread_group`).
pub struct Owner {
    pub(super) mm: Weak<Mm>,
    pub(super) id: u64,
    pub(super) config: OwnerConfig,
    /// The frames exported, by page; each entry has a reference.
    pub(super) gate: Gate<Pages<ShadowEntry>, (), Sleepable>,
    pub(super) keeper: Gatekeeper,
    pub(super) segments: RwLock<BTreeMap<SegId, Arc<Segment>>>,
    partitions: RwLock<Vec<Arc<Partition>>>,
    failures: Failures,
    pub(super) meter: Meter,
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) lent: super::remote::Lent,
    /// Partitions in other processes.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) seats: Arc<crate::sync::AtomicUsize>,
}

impl Owner {
    /// Puts an owner on the chain of an address space.
    pub fn attach(
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        mm: &Arc<Mm>,
        config: OwnerConfig,
    ) -> (Arc<Self>, Registration) {
        mm.register(cx, |seat| {
            Arc::new(Self {
                mm: Arc::downgrade(mm),
                id: fresh(),
                config,
                gate: Gate::new(seat, Pages::default(), ()),
                keeper: Gatekeeper::default(),
                segments: RwLock::default(),
                partitions: RwLock::default(),
                failures: Failures::default(),
                meter: Meter::default(),
                #[cfg(all(feature = "remote", target_os = "linux"))]
                lent: super::remote::Lent::of(Arc::clone(mm.machine())),
                #[cfg(all(feature = "remote", target_os = "linux"))]
                seats: Arc::default(),
            })
        })
    }
    /// Exports pages (`xpmem_make`); they need not be mapped yet.
    pub fn make(&self, range: VpnRange, access: Access) -> SegId {
        self.insert(range, access, None)
    }
    pub(super) fn insert(&self, range: VpnRange, access: Access, parent: Option<u64>) -> SegId {
        let id = SegId::fresh();
        let segment = Arc::new(Segment::new(range, access, parent));
        self.segments.write().insert(id, segment);
        id
    }
    /// Takes a segment back: importers clear it, and those of segments made of it, then it is gone (`xpmem_remove`).
    ///
    /// # Errors
    ///
    /// [`XpmemError::NoSegment`].
    pub fn remove(
        &self,
        cx: &mut Cx<'_, rank::Idle, Sleepable>,
        id: SegId,
    ) -> Result<(), XpmemError> {
        let gone = self.segments.write().remove(&id);
        let gone = gone.ok_or(XpmemError::NoSegment(id))?;
        gone.end();
        let range = gone.range;
        // Nobody finds the segment any more. Who has pages of it gives them back; other segments fault them anew.
        self.take_back(cx, range);
        #[cfg(all(feature = "remote", target_os = "linux"))]
        self.lent.end(id);
        Ok(())
    }
    /// Recalls pages that no window is about.
    pub(super) fn take_back<R: Below<rank::Gate>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: VpnRange,
    ) {
        self.keeper.begin_recall();
        self.recall(range);
        self.take_home(range);
        self.gate.lock(cx).forget_range(range, |()| ());
        self.keeper.end_recall();
    }
    /// What was lent to other processes comes home, whatever these go on doing with the memory where it was: all who could
    /// use it in good faith have answered.
    fn take_home(&self, range: VpnRange) {
        #[cfg(all(feature = "remote", target_os = "linux"))]
        self.lent.take_home(range);
        let _home_already = range;
    }
    pub(super) fn segment(&self, id: SegId) -> Result<Arc<Segment>, XpmemError> {
        let segments = self.segments.read();
        segments.get(&id).cloned().ok_or(XpmemError::NoSegment(id))
    }
    /// What it had to pay so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// What keeps its bill.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    /// Frames exported now, each with a reference.
    pub fn exported(&self, cx: &mut Cx<'_, rank::Idle, Sleepable>) -> usize {
        self.gate.lock(cx).store().len()
    }
    /// Recalls in progress; negative: faults that hold them off. A partition in another process that is gone is recalled from
    /// as well, until it is no longer among the connections.
    pub fn recalls(&self) -> i64 {
        self.keeper.count()
    }
    /// Partitions that had to be fenced off since the last call; the latest 1024 of them.
    pub fn failures(&self) -> Vec<Failure> {
        self.failures.note_breaches(&self.partitions.read());
        self.failures.take()
    }
    pub(super) fn introduce(&self, partition: &Arc<Partition>) {
        let mut known = self.partitions.write();
        // Those that come and go must not be kept for what they did.
        self.failures.note_breaches(&known);
        known.retain(|p| !p.is_cut_off());
        if !known.iter().any(|p| Arc::ptr_eq(p, partition)) {
            known.push(Arc::clone(partition));
        }
    }
    pub(super) fn made(&self, mistake: Mistake) -> bool {
        self.config.mistake == Some(mistake)
    }
    /// Has every partition clear the range, and waits for all answers.
    fn recall(&self, range: VpnRange) {
        self.collect(self.post(range));
    }
    /// Asks every partition to clear the range.
    fn post(&self, range: VpnRange) -> Option<Posted> {
        let range = if self.made(Mistake::ShortRecall) {
            VpnRange::new(range.start(), Vpn(range.end().0 - 1))?
        } else {
            range
        };
        let partitions = self.partitions.read().clone();
        let ask = |p: &Arc<Partition>| Some((Arc::clone(p), p.ask(self.id, range)?));
        Some(Posted {
            range,
            asked: partitions.iter().filter_map(ask).collect(),
            deadline: Instant::now() + self.config.deadline.min(LONGEST),
        })
    }
    /// Waits for the answers.
    fn collect(&self, posted: Option<Posted>) {
        let Some(posted) = posted.filter(|_| !self.made(Mistake::NoWait)) else {
            return;
        };
        for (partition, serial) in posted.asked {
            match partition.wait(serial, posted.deadline) {
                Answer::Cleared => self.meter.acknowledged(1),
                Answer::Fenced => self.failures.note(Failure::Hung {
                    partition: partition.id(),
                    range: posted.range,
                    after: self.config.deadline,
                }),
            }
        }
    }
    /// A window begins.
    fn begin(&self, range: VpnRange) -> Option<Posted> {
        self.meter.begin(range);
        self.keeper.begin_window();
        let silent = matches!(
            self.config.mistake,
            Some(Mistake::NoRecall | Mistake::LateRecall | Mistake::EarlyUnpin)
        );
        if silent { None } else { self.post(range) }
    }
    /// All partitions have answered: references go.
    fn finish<'i>(
        &self,
        mut cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
        posted: Option<Posted>,
    ) -> Ack<'i> {
        let range = inv.range();
        self.collect(posted);
        self.take_home(range);
        // References go after the answers.
        let ack = self.gate.exclude_with(&mut cx, inv, |(), zapped, _| {
            let pages = zapped.entries().iter().map(ShadowEntry::range);
            self.meter.dropped_all(pages);
        });
        if self.made(Mistake::EarlyUnpin) {
            self.recall(range);
        }
        ack
    }
}

/// Recalls that are on their way.
struct Posted {
    range: VpnRange,
    asked: Vec<(Arc<Partition>, u64)>,
    deadline: Instant,
}

impl ExternalMmu for Owner {
    fn invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        let posted = self.begin(inv.range());
        self.finish(cx, inv, posted)
    }
    /// The recalls of all owners are on their way before the first is waited for.
    fn invalidate_begin<'s, 'i>(
        &'s self,
        _: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Begun<'i, Finish<'s>> {
        let posted = self.begin(inv.range());
        inv.later(move |cx, inv| self.finish(cx, inv, posted))
    }
    fn invalidate_end(&self, cx: Cx<'_, rank::Callback, crate::ctx::Atomic>, range: VpnRange) {
        let _unused = cx;
        if self.made(Mistake::LateRecall) {
            self.recall(range);
        }
        self.meter.end(range);
        self.keeper.end_window();
    }
    fn release(&self, cx: Cx<'_, rank::Callback, Sleepable>) {
        let _unused = cx;
        let gone = std::mem::take(&mut *self.segments.write());
        gone.values().for_each(|segment| segment.end());
        #[cfg(all(feature = "remote", target_os = "linux"))]
        gone.keys().for_each(|id| self.lent.end(*id));
    }
    fn name(&self) -> &'static str {
        "XPmem"
    }
    fn windows(&self) -> u64 {
        self.keeper.windows()
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        for partition in self.partitions.read().iter() {
            partition.show(self.id, VpnRange::ALL, &mut |c| visit(c.translation()));
        }
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        for partition in self.partitions.read().iter() {
            partition.show(self.id, range, &mut |c| visit(c.translation()));
        }
        self.gate.audit_in(range, visit)
    }
}

/// An exported frame is recalled by its number, with the frame locked: for machines that tell drivers by frame.
impl RmapNotifier for Owner {
    fn invalidate_frame(&self, mut cx: Cx<'_, rank::Folio, Sleepable>, pfn: crate::addr::Pfn) {
        let mut pages = Vec::new();
        let guard = self.gate.lock(&mut cx);
        crate::notifier::ShadowStore::for_each(guard.store(), &mut |e| {
            if e.translation().leads_to(pfn) {
                pages.push(e.range());
            }
        });
        drop(guard);
        for range in pages {
            self.take_back(&mut cx, range);
        }
    }
}

impl std::fmt::Debug for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owner")
            .field("id", &self.id)
            .field("segments", &self.segments.read().len())
            .finish_non_exhaustive()
    }
}
