//! The owner of exported memory, which is the driver: segments, the frame table, and the callbacks.
//!
//! A window has two passes. The first posts the recalls, so that the recalls of all owners are on
//! their way before the first is waited for. The second waits for the answers, takes lent pages
//! home, and only then gives the references up.

use super::{
    config::{OwnerConfig, XpmemMistake},
    error::XpmemError,
    failure::{Failures, PartitionFailure},
    gatekeeper::Gatekeeper,
    pages::Pages,
    partition::{Answer, LONGEST, Partition},
    segment::{SegId, Segment},
    segments::{Ended, Segments},
    serial::fresh,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, Below, CallCx, CallbackCx, Cx, FolioCx, Sleepable, rank},
    extmmu::bill::{Bill, Meter},
    mm::Mm,
    notifier::{
        Access, Ack, ExternalMmu, FirstPass, Gate, Invalidation, Registration, SecondPass,
        ShadowEntry, Translation,
    },
    rmap::RmapNotifier,
    sync::RwLock,
};
use std::{
    sync::{Arc, Weak},
    time::Instant,
};

/// An address space that exports memory (`xpmem_thread_group`).
pub struct Owner {
    pub(super) mm: Weak<Mm>,
    pub(super) id: u64,
    pub(super) config: OwnerConfig,
    /// The exported frames, by page; each entry has a reference.
    pub(super) gate: Gate<Pages<ShadowEntry>, (), Sleepable>,
    pub(super) keeper: Gatekeeper,
    pub(super) segments: RwLock<Segments>,
    partitions: RwLock<Vec<Arc<Partition>>>,
    failures: Failures,
    pub(super) meter: Meter,
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) lent: super::lent::Lent,
    /// The number of partitions in other processes.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) seats: Arc<crate::sync::AtomicUsize>,
}

impl Owner {
    /// Registers an owner on an address space.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{
    ///     PAGE_SIZE,
    ///     addr::{Vpn, VpnRange},
    ///     extmmu::xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    ///     mm::MmapArgs,
    ///     notifier::Access,
    /// };
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let (owner, registration) = Owner::attach(&mut cx, &mm, OwnerConfig::default());
    /// let segment = owner.make(VpnRange::single(Vpn::containing(at)), Access::Write);
    ///
    /// let partition = Partition::new(PartitionId(1));
    /// let attachment = owner.import(&partition, segment, 0, 1)?;
    /// attachment.write(&mut cx, 0, b"from afar")?;
    /// assert_eq!(mm.load(&mut cx, at)?, b'f');
    ///
    /// mm.munmap(&mut cx, at, PAGE_SIZE)?; // a window: the partition gives its entry up
    /// assert_eq!(partition.entries(), 0);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attach(
        cx: &mut CallCx<'_>,
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
                lent: super::lent::Lent::of(Arc::clone(mm.machine())),
                #[cfg(all(feature = "remote", target_os = "linux"))]
                seats: Arc::default(),
            })
        })
    }
    /// Exports pages (`xpmem_make`); they need not be mapped yet.
    pub fn make(&self, range: VpnRange, access: Access) -> SegId {
        let segment = Segment::new(range, access, None);
        self.segments.write().add(segment)
    }
    /// Takes a segment back (`xpmem_remove`): when this returns, no importer has an entry of its
    /// pages, through this segment or one made of it.
    ///
    /// A partition in another process has a right to pages, not to segments: while it has a page by
    /// another segment of this owner, its attachments of this one find that page too.
    ///
    /// # Errors
    ///
    /// [`XpmemError::NoSegment`].
    pub fn remove(&self, cx: &mut CallCx<'_>, id: SegId) -> Result<(), XpmemError> {
        let gone = self.segments.write().end(id)?;
        self.recall_ended(cx, &gone);
        Ok(())
    }
    /// Recalls the pages of segments that have ended, each with those that were made of it. No
    /// fault finds them any more; other segments over these pages fault them anew.
    pub(super) fn recall_ended(&self, cx: &mut CallCx<'_>, gone: &Ended) {
        // A segment has no page that the one that it was made of does not have.
        gone.ranges().for_each(|range| self.take_back(cx, range));
        self.forget_ended(gone);
    }
    /// Ends the memory of segments that have ended.
    pub(super) fn forget_ended(&self, gone: &Ended) {
        #[cfg(all(feature = "remote", target_os = "linux"))]
        gone.ids().for_each(|id| self.lent.end(id));
        let _without_memory = gone;
    }
    /// Recalls pages without a window.
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
    /// Gives up the frame of a page that was exported, and that no partition was given.
    pub(super) fn forget_unused(&self, cx: &mut CallCx<'_>, page: Vpn) {
        let key = (self.id, page);
        let has = |p: &Arc<Partition>| matches!(p.with_entry(key, |_| Some(())), Ok(Some(())));
        let used = self.partitions.read().iter().any(has);
        if !used {
            self.take_back(cx, VpnRange::single(page));
        }
    }
    /// Takes the lent pages of the range home, whatever other processes go on doing with the memory
    /// where they were: those that follow the protocol have answered.
    fn take_home(&self, range: VpnRange) {
        #[cfg(all(feature = "remote", target_os = "linux"))]
        self.lent.take_home(range);
        let _home_already = range;
    }
    pub(super) fn segment(&self, id: SegId) -> Result<Arc<Segment>, XpmemError> {
        self.segments.read().get(id)
    }
    /// Returns the counts of windows, faults and retries so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    /// Returns the number of exported frames, each with a reference.
    pub fn exported(&self, cx: &mut CallCx<'_>) -> usize {
        self.gate.lock(cx).store().len()
    }
    /// Returns the number of recalls in progress or, negative, of the faults that hold them off. A
    /// partition in another process that is gone counts until its connection is closed.
    pub fn recalls(&self) -> i64 {
        self.keeper.count()
    }
    /// Returns the partitions that had to be fenced off since the last call; the latest 1024 of
    /// them.
    pub fn failures(&self) -> Vec<PartitionFailure> {
        self.failures.note_breaches(&self.partitions.read());
        self.failures.take()
    }
    pub(super) fn introduce(&self, partition: &Arc<Partition>) {
        let mut known = self.partitions.write();
        // Partitions that come and go are not kept for the sake of their breaches.
        self.failures.note_breaches(&known);
        known.retain(|p| !p.is_cut_off());
        if !known.iter().any(|p| Arc::ptr_eq(p, partition)) {
            known.push(Arc::clone(partition));
        }
    }
    pub(super) fn made(&self, mistake: XpmemMistake) -> bool {
        self.config.mistake == Some(mistake)
    }
    /// Recalls the range from every partition, and waits for all answers.
    fn recall(&self, range: VpnRange) {
        self.collect(self.post(range));
    }
    /// Asks every partition to clear the range.
    fn post(&self, range: VpnRange) -> Option<Posted> {
        let range = if self.made(XpmemMistake::ShortRecall) {
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
        let Some(posted) = posted.filter(|_| !self.made(XpmemMistake::NoWait)) else {
            return;
        };
        for (partition, serial) in posted.asked {
            match partition.wait(serial, posted.deadline) {
                Answer::Cleared => self.meter.acknowledged(1),
                Answer::Fenced => self.failures.note(PartitionFailure::Hung {
                    partition: partition.id(),
                    range: posted.range,
                    after: self.config.deadline,
                }),
            }
        }
    }
    /// Begins a window, and posts its recalls.
    fn begin(&self, range: VpnRange) -> Option<Posted> {
        self.meter.begin(range);
        self.keeper.begin_window();
        let silent = matches!(
            self.config.mistake,
            Some(XpmemMistake::NoRecall | XpmemMistake::LateRecall | XpmemMistake::EarlyUnpin)
        );
        if silent { None } else { self.post(range) }
    }
    /// Waits for the answers to a window's recalls, and gives the references up.
    fn finish<'i>(
        &self,
        mut cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
        posted: Option<Posted>,
    ) -> Ack<'i> {
        let range = inv.range();
        self.collect(posted);
        self.take_home(range);
        // After the answers: no partition has an entry any more when the references go.
        let ack = self.gate.exclude_with(&mut cx, inv, |(), zapped, _| {
            let pages = zapped.entries().iter().map(ShadowEntry::range);
            self.meter.dropped_all(pages);
        });
        if self.made(XpmemMistake::EarlyUnpin) {
            self.recall(range);
        }
        ack
    }
}

/// Recalls on their way.
struct Posted {
    range: VpnRange,
    asked: Vec<(Arc<Partition>, u64)>,
    deadline: Instant,
}

impl ExternalMmu for Owner {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let posted = self.begin(inv.range());
        self.finish(cx, inv, posted)
    }
    /// The recalls of all owners are on their way before the first is waited for.
    fn invalidate_begin<'s, 'i>(
        &'s self,
        _: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        let posted = self.begin(inv.range());
        inv.defer(move |cx, inv| self.finish(cx, inv, posted))
    }
    fn invalidate_end(&self, cx: AtomicCallbackCx<'_>, range: VpnRange) {
        let _unused = cx;
        if self.made(XpmemMistake::LateRecall) {
            self.recall(range);
        }
        self.meter.end(range);
        self.keeper.end_window();
    }
    fn release(&self, cx: CallbackCx<'_>) {
        let _unused = cx;
        let gone = self.segments.write().end_all();
        self.forget_ended(&gone);
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

/// For machines that call drivers by frame: recalls an exported frame by its number, with the frame
/// locked.
impl RmapNotifier for Owner {
    fn invalidate_frame(&self, mut cx: FolioCx<'_>, pfn: crate::addr::Pfn) {
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
