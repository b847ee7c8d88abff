//! Translations outside of the gate: the contents of a TLB.
//!
//! No type can follow a translation into hardware, so a [`Cached`] translation is checked at run
//! time. The driver must drop it when a window asks for that. A use after its frame was given back
//! is caught by the [`FrameView`]. The [oracle](crate::oracle) finds a stale one where it lies, and
//! each use of a copy from before a window (`docs/adr/0008-who-may-keep-a-translation.md`).

use super::{
    outcome::Access,
    seat::Seat,
    translation::{RegId, Translation},
};
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    frame::{FrameView, FrameViewMut, PhysMem},
};
use std::num::NonZeroU64;

/// A translation as a TLB holds it.
///
/// The driver that keeps one must drop it when a window asks for that: under the lock that its
/// invalidation callback takes, or by hardware that ignores a translation which comes too late. It
/// must hold that lock from the moment at which it finds the value to the end of the access: a
/// copy that is followed after the lock was released may be of a page that is gone. No type
/// forbids that; an [oracle](crate::oracle) finds each such use, and the test kit provokes it
/// (`testkit::Property::Reuse`).
///
/// It gives no access by itself. The driver's gate does, which checks its registration:
///
/// ```compile_fail,E0599
/// use emmu::driver::*;
///
/// fn first_byte(cached: Cached) -> u8 {
///     cached.frame().read_u8(0) // `gate.follow(&cached, page)`
/// }
/// ```
///
/// # Examples
///
/// ```
/// use emmu::{driver::*, mm::MmapArgs};
/// use std::sync::Arc;
/// # struct Device(Gate<NoStore, Option<Cached>, Atomic>);
/// # impl SpinningMmu for Device {
/// #     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
/// #         self.0.exclude(cx, inv, |tlb, _, _| *tlb = None)
/// #     }
/// # }
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
/// # let new = |seat| Arc::new(Device(Gate::new(seat, NoStore, None)));
/// # let (device, _registration) = mm.register(&mut cx, new);
///
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// let page = Vpn::containing(at);
/// device.0.translate(&mut cx, &mm, page, Access::Read, |mut permit| {
///     let cached = permit.cached();
///     *permit.state() = Some(cached); // with the gate locked still
/// })?;
/// let mut gate = device.0.lock(&mut cx);
/// let cached = gate.state().expect("no window has opened since");
/// assert_eq!(gate.follow(&cached, page).map(|frame| frame.read_u8(0)), Some(0));
/// assert!(gate.follow(&cached, page.plus(1)).is_none());
/// drop(gate);
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a translation that is not kept is lost"]
#[derive(Clone, Copy, Debug)]
pub struct Cached {
    /// The number of the first page, and the bits below. Half a line with the rest, and `None` has
    /// no word of its own, because a hit in a TLB is little more than to fetch this.
    word: NonZeroU64,
    pfn: Pfn,
    generation: u32,
    /// The registration, in full: the tag of a translation is not unique.
    reg: RegId,
    /// The number of windows that an observer had seen open when the page was looked up.
    since: u64,
}

/// Set in the word of a huge page. Page numbers of a process have 36 bits at most.
const HUGE: u64 = 1 << 36;
const WRITABLE: u64 = 1 << 37;
/// Set in every word.
const PRESENT: u64 = 1 << 38;

/// Compares translations and registrations, and not the moments at which the copies were made.
impl PartialEq for Cached {
    fn eq(&self, other: &Self) -> bool {
        let said = |c: &Self| (c.word, c.pfn, c.generation, c.reg);
        said(self) == said(other)
    }
}

impl Eq for Cached {}

impl Cached {
    fn new(found: &Translation, reg: RegId, since: u64) -> Self {
        let first = found.range.start().0;
        debug_assert!(matches!(found.range.pages(), 1 | PMD_PAGES) && first < HUGE);
        let bit = |is: bool, bit: u64| if is { bit } else { 0 };
        let bits = bit(found.range.pages() > 1, HUGE) | bit(found.writable, WRITABLE) | PRESENT;
        Self {
            word: NonZeroU64::new(first | bits).expect("it has a bit"),
            pfn: found.pfn,
            generation: found.generation,
            reg,
            since,
        }
    }
    #[inline]
    fn has(&self, bit: u64) -> bool {
        self.word.get() & bit != 0
    }
    /// Returns the first page, and the number of pages.
    #[inline(always)]
    fn extent(&self) -> (Vpn, u64) {
        let pages = if self.has(HUGE) { PMD_PAGES } else { 1 };
        (Vpn(self.word.get() & (HUGE - 1)), pages)
    }
    /// Returns the pages, the frames and the rights of the translation.
    pub fn translation(&self) -> Translation {
        Translation {
            range: self.range(),
            pfn: self.pfn,
            generation: self.generation,
            writable: self.is_writable(),
            tag: self.reg.tag(),
        }
    }
    /// Returns the pages of the translation.
    #[inline]
    pub fn range(&self) -> VpnRange {
        let (first, pages) = self.extent();
        VpnRange::new(first, first.plus(pages)).expect("one page at least")
    }
    /// Returns the index in the translation of the page that stands as far behind a boundary of its
    /// size as `like` does, which may be a page of other addresses.
    #[inline(always)]
    pub(crate) fn nth_like(&self, like: u64) -> Nth {
        let (_, pages) = self.extent();
        Nth(like & (pages - 1))
    }
    /// Returns the index in the translation of a page; `None` outside of it.
    #[inline(always)]
    fn nth(&self, at: Vpn) -> Option<Nth> {
        let (first, pages) = self.extent();
        let nth = at.0.wrapping_sub(first.0);
        (nth < pages).then_some(Nth(nth))
    }
    /// Returns true if the translation allows writing.
    #[inline]
    pub fn is_writable(&self) -> bool {
        self.has(WRITABLE)
    }
    /// Returns a copy without the right to write.
    pub fn read_only(mut self) -> Self {
        let word = self.word.get() & !WRITABLE;
        self.word = NonZeroU64::new(word).expect("it has another bit");
        self
    }
    /// Returns the frame of a page of the translation, and its generation.
    #[inline(always)]
    fn frame_of(&self, mem: &PhysMem, nth: Nth) -> (Pfn, u32) {
        // One of 512 pages at most.
        #[allow(clippy::cast_possible_truncation)]
        let pfn = self.pfn.nth(nth.0 as u32);
        match nth.0 {
            0 => (pfn, self.generation),
            _ => (pfn, mem.generation_within(pfn, self.pfn, self.generation)),
        }
    }
}

/// The index of a page in a translation.
#[derive(Clone, Copy)]
pub(crate) struct Nth(u64);

impl Seat {
    /// Returns a translation of this registration, which is current now, as a TLB holds it.
    #[inline(always)]
    pub(super) fn cache(&self, found: Translation) -> Cached {
        self.cache_since(found, self.windows_opened())
    }
    /// Returns a translation that was looked up when `since` windows had opened, as a TLB holds it.
    #[inline(always)]
    pub(super) fn cache_since(&self, found: Translation, since: u64) -> Cached {
        Cached::new(&found, self.reg, since)
    }
    /// Returns the frame of a page for reading; `None` outside of the translation.
    #[inline(always)]
    pub(super) fn view(&self, found: &Translation, at: Vpn) -> Option<FrameView<'_>> {
        let pfn = found.frame_of(at)?;
        Some(self.mem.view(pfn, found.generation_of(&self.mem, pfn)))
    }
    /// Returns the frame of a page for writing; `None` outside of the translation, or if it does
    /// not allow writing.
    #[inline(always)]
    pub(super) fn view_mut(&self, found: &Translation, at: Vpn) -> Option<FrameViewMut<'_>> {
        let pfn = found.frame_of(at).filter(|_| found.writable)?;
        Some(self.mem.view_mut(pfn, found.generation_of(&self.mem, pfn)))
    }
    /// Follows a cached translation for reading. Returns `None` if it does not translate `at`, or
    /// belongs to another registration.
    #[inline(always)]
    pub(crate) fn follow(&self, cached: &Cached, at: Vpn) -> Option<FrameView<'_>> {
        self.follow_nth(cached, cached.nth(at)?)
    }
    /// Follows a cached translation of a page by its index, as [`follow`](Self::follow) does.
    #[inline(always)]
    pub(super) fn follow_nth(&self, cached: &Cached, nth: Nth) -> Option<FrameView<'_>> {
        if cached.reg != self.reg {
            return None;
        }
        self.follows(nth, Access::Read, cached);
        let (pfn, generation) = cached.frame_of(&self.mem, nth);
        Some(self.mem.view(pfn, generation))
    }
    /// Follows a cached translation for writing. Returns `None` if it does not translate `at`, does
    /// not allow writing, or belongs to another registration.
    #[inline(always)]
    pub(crate) fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        self.follow_nth_mut(cached, cached.nth(at)?)
    }
    /// Follows a cached translation of a page by its index, as [`follow_mut`](Self::follow_mut)
    /// does.
    #[inline(always)]
    pub(super) fn follow_nth_mut(&self, cached: &Cached, nth: Nth) -> Option<FrameViewMut<'_>> {
        if cached.reg != self.reg || !cached.is_writable() {
            return None;
        }
        self.follows(nth, Access::Write, cached);
        let (pfn, generation) = cached.frame_of(&self.mem, nth);
        Some(self.mem.view_mut(pfn, generation))
    }
    /// Reports the use of a copy of a translation. One load, if there is no observer.
    #[inline(always)]
    fn follows(&self, nth: Nth, access: Access, copy: &Cached) {
        if let Some(watch) = self.board.observer.get() {
            let at = copy.extent().0.plus(nth.0);
            self.report_use(&**watch, (at, access), copy.since, &copy.translation());
        }
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use crate::{
        addr::{Vpn, VpnRange},
        frame::{Contents, MemConfig, PhysMem},
        notifier::{
            registration_phase::RegistrationPhase,
            seat::Seat,
            translation::{RegId, RegTag, Translation},
        },
    };
    use std::sync::Arc;

    #[test]
    fn a_registration_of_the_same_tag_does_not_follow_it() {
        let mem = Arc::new(PhysMem::new(MemConfig {
            frames: 4,
            contents: Contents::None,
            swap: 0,
        }));
        let seat = |reg: RegId| Seat {
            reg,
            tag: reg.tag(),
            board: Arc::default(),
            phase: Arc::new(RegistrationPhase::new()),
            mem: Arc::clone(&mem),
            sub: None,
        };
        let [own, later] = [5, 5 + (1 << RegTag::BITS)].map(|reg| seat(RegId(reg)));
        assert_eq!(own.tag, later.tag);
        let frame = mem.alloc().unwrap();
        let at = Vpn(1);
        let cached = own.cache(Translation {
            range: VpnRange::single(at),
            pfn: frame.pfn(),
            generation: mem.generation(frame.pfn()),
            writable: true,
            tag: own.tag,
        });
        let follows = |seat: &Seat| {
            let may = [
                seat.follow(&cached, at).is_some(),
                seat.follow_mut(&cached, at).is_some(),
            ];
            assert_eq!(may[0], may[1]);
            may[0]
        };
        assert_eq!((follows(&own), follows(&later)), (true, false));
    }
}
