//! `madvise`: advice about a range, VMA by VMA.
//!
//! Advice that changes flags, or needs VMAs to stay, runs under the mmap lock held exclusively.
//! Advice that only drops or reads pages takes the lock shared, and leaves it before a driver may
//! sleep, with the range claimed (ADR 0009).
//!
//! | file | holds |
//! | --- | --- |
//! | `discard` | `DONTNEED`, `FREE`, `COLD`, guard markers |
//! | `pageout` | `PAGEOUT` |
//! | `collapse` | `COLLAPSE` |
//! | `collapse_object` | … of an object's memory |
//! | `mergeable` | `MERGEABLE`, `UNMERGEABLE`, and merging of all memory |
//! | `process` | several ranges, of another process (`process_madvise`) |
//! | `remove` | `REMOVE` |
//! | `will_need` | `WILLNEED` |

pub(in crate::mm) mod collapse;
mod collapse_object;
pub(in crate::mm) mod discard;
pub(in crate::mm) mod mergeable;
pub(in crate::mm) mod pageout;
pub(in crate::mm) mod process;
pub(in crate::mm) mod remove;
pub(in crate::mm) mod will_need;

use super::vma_walk::{Visit, each_vma, part_at};
use mergeable::with_merging;

use crate::mm::{
    entry::{
        errors::PopulateError,
        flags::{Advice, VmFlags},
    },
    guard::{MmapSharedClaim, MmapWriteGuard},
    space::Mm,
    vma::{Vma, hugetlb::with_shared_tables},
    window::Lease,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::{CallCx, Sleepable, rank},
    error::{ByteRange, MadviseError, VmaError},
    notifier::Access,
    trace,
};

impl Mm {
    /// Gives advice on `[addr, addr + len)`, `len` rounded up to pages.
    ///
    /// # Errors
    ///
    /// [`MadviseError`]. A hole is reported at the end, after all mapped memory was handled. Any
    /// other error stops the walk; the memory below has been handled, and stays so.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, extmmu::Recorder, mm::{Advice, MmapArgs}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let (recorder, registration) = mm.register(&mut cx, Recorder::new);
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    /// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
    /// assert_eq!(recorder.take().len(), 1, "an external MMU drops the page first");
    /// assert_eq!(mm.load(&mut cx, at)?, 0);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn madvise(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        advice: Advice,
    ) -> Result<(), MadviseError> {
        let _call = trace::call("madvise", addr, len);
        let bad = MadviseError::Range(ByteRange { addr, len });
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
                g.claim_range(range);
                g.advise(range, advice)
            }
        }
    }

    /// Faults the pages in one by one; the first hole or fault ends it (`madvise_populate`).
    fn advise_populate(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        access: Access,
    ) -> Result<(), MadviseError> {
        self.in_turns(cx, range, |held, rest, reached| {
            let done = held.populate_range(rest, access, reached);
            done.map_err(|e| match e {
                PopulateError::Hole(at) => MadviseError::Hole(at),
                PopulateError::Denied(at) => MadviseError::PopulateDenied(at),
                PopulateError::Fault(e) => MadviseError::Populate(e),
            })
        })
    }
}

impl Mm {
    /// Drops pages, with the mmap lock held shared: the VMAs stay as they are (`madvise_lock`).
    fn advise_discard(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        advice: Advice,
    ) -> Result<(), MadviseError> {
        self.each_claimed(cx, range, |vma, part| {
            check_sealed(vma, advice)?;
            if advice == Advice::DontNeed && vma.flags.contains(VmFlags::LOCKED) {
                return Err(MadviseError::Unsuitable(vma.start().addr()));
            }
            let (how, is_owner) = ((vma.flags, vma.zap_marks()), vma.is_owner());
            let huge = vma.flags.contains(VmFlags::HUGETLB);
            let huge = huge.then(|| whole_huge_pages(vma, part)).transpose()?;
            if let Some(told) = huge.map_or(Some(part), |pages| pages.map(|(pages, _)| pages)) {
                vma.tell_removed(told);
            }
            Ok(
                move |mut lease: Lease<'_, rank::Mmap, Sleepable>| match huge {
                    None => lease.discard(how, part),
                    Some(Some(pages)) => lease.discard_hugetlb(pages, (how.1, is_owner)),
                    Some(None) => {} // Less than a page.
                },
            )
        })
    }
    /// Walks the VMAs of `range`: runs `look` with the mmap lock held shared, then the work that it
    /// returned. If a driver may sleep in that, the lock is left, and only the range is claimed.
    pub(in crate::mm) fn each_claimed<W: FnOnce(Lease<'_, rank::Mmap, Sleepable>)>(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        mut look: impl FnMut(&Vma, VpnRange) -> Result<W, MadviseError>,
    ) -> Result<(), MadviseError> {
        let mut claim = None;
        each_vma(range, MadviseError::Hole, |at| {
            let mut g = self.lock_shared_over(cx, Some(range));
            let (vma, part) = match part_at(g.layout.vmas.find(at), at, range) {
                Ok(found) => found,
                Err(visit) => return Ok(visit),
            };
            let work = look(vma, part)?;
            if self.notifiers.is_made() {
                let claim = claim.get_or_insert_with(|| MmapSharedClaim::new(self, &g, range));
                drop(g);
                let mut lease = claim.lease(cx);
                work(lease.again());
                lease.settle_exports();
            } else {
                let mut lease = g.lease();
                work(lease.again());
                lease.settle_exports();
            }
            Ok(Visit::Done(part.end()))
        })
    }
}

impl MmapWriteGuard<'_> {
    fn advise(&mut self, range: VpnRange, advice: Advice) -> Result<(), MadviseError> {
        each_vma(range, MadviseError::Hole, |at| {
            let (start, part) = match part_at(self.layout.vmas.find(at), at, range) {
                Ok((vma, part)) => (vma.start(), part),
                Err(visit) => return Ok(visit),
            };
            let start = self.advise_vma(start, part, advice)?;
            // The VMA may have merged with the next.
            Ok(Visit::Done(self.vma(start).end()))
        })
    }

    /// Applies the advice to part of a VMA (`madvise_vma_behavior`). Returns the start of the VMA
    /// that holds the part then.
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
        let huge = vma.flags.contains(VmFlags::HUGETLB);
        match advice {
            Advice::Cold | Advice::GuardInstall | Advice::GuardRemove if huge => {
                return Err(unsuitable);
            }
            Advice::Free | Advice::Cold if locked => return Err(unsuitable),
            Advice::Free if !vma.is_anonymous() => return Err(unsuitable),
            Advice::Free => {
                vma.tell_removed(part);
                self.free_lazily(part);
            }
            Advice::Cold => self.cool(part),
            Advice::GuardInstall if locked => return Err(unsuitable),
            Advice::GuardInstall => self.install_guards(start, part)?,
            Advice::GuardRemove => self.remove_guards(part),
            _ => return self.advise_flags(start, part, advice),
        }
        Ok(start)
    }

    /// Applies advice that changes flags, with splits and merges as for any other change.
    fn advise_flags(
        &mut self,
        start: Vpn,
        part: VpnRange,
        advice: Advice,
    ) -> Result<Vpn, MadviseError> {
        let vma = self.vma(start);
        // A device is a file, though its memory is anonymous.
        let nameless = vma.is_anonymous() && vma.device().is_none();
        let new = advised_flags(vma.flags, nameless, advice);
        let new = new.ok_or(MadviseError::Unsuitable(start.addr()))?;
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

/// Returns the flags of a VMA after the advice; `None` if the advice does not fit the VMA, or
/// changes no flags.
pub(super) fn advised_flags(flags: VmFlags, anonymous: bool, advice: Advice) -> Option<VmFlags> {
    use VmFlags as F;
    let droppable = flags.contains(F::DROPPABLE);
    let special = flags.intersects(F::SPECIAL) && !flags.contains(F::HUGETLB);
    Some(match advice {
        Advice::Normal => flags - (F::RAND_READ | F::SEQ_READ),
        Advice::Sequential => (flags - F::RAND_READ) | F::SEQ_READ,
        Advice::Random => (flags - F::SEQ_READ) | F::RAND_READ,
        Advice::DontFork => flags | F::DONTCOPY,
        Advice::DoFork => flags - F::DONTCOPY,
        Advice::WipeOnFork if !anonymous || flags.contains(F::SHARED) => return None,
        Advice::WipeOnFork => flags | F::WIPEONFORK,
        Advice::KeepOnFork if droppable => return None,
        Advice::KeepOnFork => flags - F::WIPEONFORK,
        Advice::DontDump => flags | F::DONTDUMP,
        Advice::DoDump if droppable || special => return None,
        Advice::DoDump => flags - F::DONTDUMP,
        Advice::Mergeable => with_merging(flags),
        Advice::Unmergeable => flags - F::MERGEABLE,
        Advice::HugePage => (flags - F::NOHUGEPAGE) | F::HUGEPAGE,
        Advice::NoHugePage => (flags - F::HUGEPAGE) | F::NOHUGEPAGE,
        _ => return None,
    })
}

/// Returns the whole huge pages of `part`, which must begin with one, and the range of the window
/// over them (`madvise_dontneed_free_valid_vma`). A rest shorter than a page stays.
fn whole_huge_pages(
    vma: &Vma,
    part: VpnRange,
) -> Result<Option<(VpnRange, VpnRange)>, MadviseError> {
    let grain = vma.grain();
    if !part.start().is_aligned(grain) {
        return Err(MadviseError::Unsuitable(vma.start().addr()));
    }
    let whole = VpnRange::new(part.start(), part.end().align_down(grain));
    let window = |pages| with_shared_tables(vma.range(), vma.flags, pages);
    Ok(whole.map(|pages| (pages, window(pages))))
}

/// Refuses advice that would lose data of sealed memory which no store could change.
pub(in crate::mm) fn check_sealed(vma: &Vma, advice: Advice) -> Result<(), MadviseError> {
    if is_sealed_against(vma.flags, vma.is_anonymous(), advice) {
        return Err(VmaError::Sealed(vma.start().addr()).into());
    }
    Ok(())
}

/// Returns true if the advice would lose data of sealed memory which no store could change
/// (`can_madvise_modify`): private anonymous memory that is not writable. Every mapping of a file
/// may lose its pages, also private copies made before it became read-only.
pub(super) fn is_sealed_against(flags: VmFlags, anonymous: bool, advice: Advice) -> bool {
    let fixed = anonymous && !flags.contains(VmFlags::WRITE);
    flags.contains(VmFlags::SEALED) && discards(advice) && fixed
}

/// Returns true for advice that loses data (`is_discard`).
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
