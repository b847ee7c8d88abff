//! `madvise`: the walk over the VMAs, and the advices that only change flags.

pub(in crate::mm) mod collapse;
pub(in crate::mm) mod collapse_object;
pub(in crate::mm) mod discard;
pub(in crate::mm) mod mergeable;
pub(in crate::mm) mod pageout;
pub(in crate::mm) mod remove;
pub(in crate::mm) mod will_need;

use super::madvise::mergeable::with_merging;
use crate::ctx::CallCx;

use crate::mm::{
    entry::flags::{Advice, VmFlags},
    fault::populate::PopulateError,
    guard::{Lease, MmapPin, MmapWriteGuard},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::{Sleepable, rank},
    error::{MadviseError, VmaError},
    notifier::Access,
};

impl Mm {
    /// Gives advice on `[addr, addr + len)`, `len` rounded up to pages.
    ///
    /// # Errors
    ///
    /// [`MadviseError`]. A hole is reported at the end, when everything mapped was done; any other error stops the
    /// walk, and what lies below stays done.
    pub fn madvise(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        advice: Advice,
    ) -> Result<(), MadviseError> {
        let bad = MadviseError::Range { addr, len };
        let rounded = len.checked_next_multiple_of(PAGE_SIZE).ok_or(bad)?;
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(bad);
        }
        let end = addr.checked_add(rounded).ok_or(bad)?;
        let Some(range) = VpnRange::new(Vpn::containing(addr), Vpn::containing(end)) else {
            return Ok(());
        };
        match advice {
            Advice::PopulateRead => self.advise_populate(cx, range, Access::Read),
            Advice::PageOut => self.advise_pageout(cx, range),
            Advice::Collapse => self.advise_collapse(cx, range),
            Advice::WillNeed => self.advise_will_need(cx, range),
            Advice::Remove => self.advise_remove(cx, range),
            Advice::PopulateWrite => self.advise_populate(cx, range, Access::Write),
            Advice::DontNeed | Advice::DontNeedLocked => self.advise_discard(cx, range, advice),
            _ => {
                let mut g = self.lock_exclusive_some(cx);
                g.settle_on(range);
                g.advise(range, advice)
            }
        }
    }

    /// `madvise_populate`: page by page; the first hole or fault ends it.
    fn advise_populate(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        access: Access,
    ) -> Result<(), MadviseError> {
        self.in_turns(cx, range, |held, rest| held.populate_range(rest, access))
            .map_err(|e| match e {
                PopulateError::Hole(at) => MadviseError::Hole(at),
                PopulateError::Denied(at) => MadviseError::PopulateDenied(at),
                PopulateError::Fault(e) => MadviseError::Populate(e),
            })
    }
}

/// `madvise_walk_vmas`: `next` does the part of the range in the VMA that it finds at a page or above, and says where to go
/// on; `Err` inside: nothing is mapped from the page up to there.
fn each_vma(
    range: VpnRange,
    mut next: impl FnMut(Vpn) -> Result<Result<Vpn, Option<Vpn>>, MadviseError>,
) -> Result<(), MadviseError> {
    let mut hole = None;
    let mut at = range.start();
    while at < range.end() {
        at = match next(at)? {
            Ok(end) => end,
            Err(None) => return Err(MadviseError::Hole(at.addr())),
            Err(Some(start)) => {
                hole.get_or_insert(at);
                start
            }
        };
    }
    hole.map_or(Ok(()), |at| Err(MadviseError::Hole(at.addr())))
}

/// The part of `range` from `at` on in the VMA there; else where the next VMA starts.
fn part_at(vma: Option<&Vma>, at: Vpn, range: VpnRange) -> Result<VpnRange, Option<Vpn>> {
    match vma {
        Some(vma) if vma.start() <= at => {
            Ok(VpnRange::new(at, vma.end().min(range.end())).expect("vma holds at"))
        }
        vma => Err(vma.map(Vma::start)),
    }
}

impl Mm {
    /// Dropping pages leaves the VMAs as they are (`madvise_lock`).
    fn advise_discard(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        advice: Advice,
    ) -> Result<(), MadviseError> {
        self.each_pinned(cx, range, |vma, part| {
            check_sealed(vma, advice)?;
            if advice == Advice::DontNeed && vma.flags.contains(VmFlags::LOCKED) {
                return Err(MadviseError::Unsuitable(vma.start().addr()));
            }
            let flags = vma.flags;
            Ok(move |mut lease: Lease<'_, rank::Mmap, Sleepable>| lease.discard(flags, part))
        })
    }
    /// VMA by VMA, `look` with the mmap lock held shared, then what it returned. If a driver may sleep in that, only the
    /// range is kept as it is meanwhile.
    pub(in crate::mm) fn each_pinned<W: FnOnce(Lease<'_, rank::Mmap, Sleepable>)>(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        mut look: impl FnMut(&Vma, VpnRange) -> Result<W, MadviseError>,
    ) -> Result<(), MadviseError> {
        let mut pin = None;
        each_vma(range, |at| {
            let mut g = self.lock_shared_over(cx, Some(range));
            let vma = g.layout.vmas.find(at);
            let part = match part_at(vma, at, range) {
                Ok(part) => part,
                Err(next) => return Ok(Err(next)),
            };
            let work = look(vma.expect("it has a part"), part)?;
            if self.notifiers.is_made() {
                let pin = pin.get_or_insert_with(|| MmapPin::new(self, &g, range));
                drop(g);
                let mut lease = pin.lease(cx);
                work(lease.again());
                lease.settle_exports();
            } else {
                let mut lease = g.lease();
                work(lease.again());
                lease.settle_exports();
            }
            Ok(Ok(part.end()))
        })
    }
}

impl MmapWriteGuard<'_> {
    fn advise(&mut self, range: VpnRange, advice: Advice) -> Result<(), MadviseError> {
        each_vma(range, |at| {
            let vma = self.layout.vmas.find(at);
            match part_at(vma, at, range) {
                Err(next) => Ok(Err(next)),
                Ok(part) => {
                    let start = vma.expect("it has a part").start();
                    let start = self.advise_vma(start, part, advice)?;
                    // It may have merged with what follows.
                    Ok(Ok(self.vma(start).end()))
                }
            }
        })
    }

    /// One VMA; returns the start of the one that holds `part` afterwards (`madvise_vma_behavior`).
    fn advise_vma(
        &mut self,
        start: Vpn,
        part: VpnRange,
        advice: Advice,
    ) -> Result<Vpn, MadviseError> {
        let vma = self.vma(start);
        let unsuitable = MadviseError::Unsuitable(start.addr());
        check_sealed(vma, advice)?;
        let locked = vma.flags.contains(VmFlags::LOCKED);
        match advice {
            Advice::Free | Advice::Cold if locked => return Err(unsuitable),
            Advice::Free if !vma.is_anonymous() => return Err(unsuitable),
            Advice::Free => self.free_lazily(part),
            Advice::Cold => self.cool(part),
            Advice::GuardInstall if locked => return Err(unsuitable),
            Advice::GuardInstall => self.install_guards(start, part)?,
            Advice::GuardRemove => self.remove_guards(part),
            _ => return self.advise_flags(start, part, advice),
        }
        Ok(start)
    }

    /// The advices that are flags: split or merged like any other change.
    fn advise_flags(
        &mut self,
        start: Vpn,
        part: VpnRange,
        advice: Advice,
    ) -> Result<Vpn, MadviseError> {
        let vma = self.vma(start);
        let new = advised_flags(vma, advice).ok_or(MadviseError::Unsuitable(start.addr()))?;
        if new == vma.flags {
            return Ok(start);
        }
        match advice {
            Advice::Mergeable => self.enter_merging(),
            Advice::Unmergeable => self.unmerge_part(part)?,
            _ => {}
        }
        Ok(self.modify(start, part, new)?)
    }
}

/// The flags of `vma` after the advice; none where it does not fit.
fn advised_flags(vma: &Vma, advice: Advice) -> Option<VmFlags> {
    use VmFlags as F;
    let flags = vma.flags;
    let droppable = flags.contains(F::DROPPABLE);
    Some(match advice {
        Advice::Normal => flags - (F::RAND_READ | F::SEQ_READ),
        Advice::Sequential => (flags - F::RAND_READ) | F::SEQ_READ,
        Advice::Random => (flags - F::SEQ_READ) | F::RAND_READ,
        Advice::DontFork => flags | F::DONTCOPY,
        Advice::DoFork => flags - F::DONTCOPY,
        Advice::WipeOnFork if !vma.is_anonymous() || flags.contains(F::SHARED) => return None,
        Advice::WipeOnFork => flags | F::WIPEONFORK,
        Advice::KeepOnFork if droppable => return None,
        Advice::KeepOnFork => flags - F::WIPEONFORK,
        Advice::DontDump => flags | F::DONTDUMP,
        Advice::DoDump if droppable || flags.intersects(F::SPECIAL) => return None,
        Advice::DoDump => flags - F::DONTDUMP,
        Advice::Mergeable => with_merging(flags),
        Advice::Unmergeable => flags - F::MERGEABLE,
        Advice::HugePage => (flags - F::NOHUGEPAGE) | F::HUGEPAGE,
        Advice::NoHugePage => (flags - F::HUGEPAGE) | F::NOHUGEPAGE,
        _ => return None,
    })
}

/// Sealed memory refuses to lose data that no store could change (`can_madvise_modify`): private anonymous memory that
/// may not be written. Of a file every mapping may lose its pages, also private copies made before it became read-only.
pub(in crate::mm) fn check_sealed(vma: &Vma, advice: Advice) -> Result<(), MadviseError> {
    let fixed = vma.is_anonymous() && !vma.flags.contains(VmFlags::WRITE);
    if vma.is_sealed() && discards(advice) && fixed {
        return Err(VmaError::Sealed(vma.start().addr()).into());
    }
    Ok(())
}

/// Advices that lose data (`is_discard`).
fn discards(advice: Advice) -> bool {
    matches!(
        advice,
        Advice::Free
            | Advice::DontNeed
            | Advice::DontNeedLocked
            | Advice::Remove
            | Advice::DontFork
            | Advice::WipeOnFork
            | Advice::GuardInstall
    )
}
