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
    addr::{Vpn, VpnRange},
    frame::{FrameView, FrameViewMut},
};

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
    found: Translation,
    /// The registration, in full: the tag of a translation is not unique.
    reg: RegId,
    /// The number of windows that an observer had seen open when the page was looked up.
    since: u64,
}

/// Compares translations and registrations, and not the moments at which the copies were made.
impl PartialEq for Cached {
    fn eq(&self, other: &Self) -> bool {
        (self.found, self.reg) == (other.found, other.reg)
    }
}

impl Eq for Cached {}

impl Cached {
    /// Returns the pages, the frames and the rights of the translation.
    pub fn translation(&self) -> Translation {
        self.found
    }
    /// Returns the pages of the translation.
    #[inline]
    pub fn range(&self) -> VpnRange {
        self.found.range
    }
    /// Returns true if the translation allows writing.
    pub fn is_writable(&self) -> bool {
        self.found.writable
    }
    /// Returns a copy without the right to write.
    pub fn read_only(mut self) -> Self {
        self.found.writable = false;
        self
    }
}

impl Seat {
    /// Returns a translation of this registration, which is current now, as a TLB holds it.
    #[inline(always)]
    pub(super) fn cache(&self, found: Translation) -> Cached {
        self.cache_since(found, self.windows_opened())
    }
    /// Returns a translation that was looked up when `since` windows had opened, as a TLB holds it.
    #[inline(always)]
    pub(super) fn cache_since(&self, found: Translation, since: u64) -> Cached {
        Cached {
            found,
            reg: self.reg,
            since,
        }
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
        let view = self.view(&cached.found, at);
        let view = view.filter(|_| cached.reg == self.reg)?;
        self.follows(at, Access::Read, cached.since, &cached.found);
        Some(view)
    }
    /// Follows a cached translation for writing. Returns `None` if it does not translate `at`, does
    /// not allow writing, or belongs to another registration.
    #[inline(always)]
    pub(crate) fn follow_mut(&self, cached: &Cached, at: Vpn) -> Option<FrameViewMut<'_>> {
        let view = self.view_mut(&cached.found, at);
        let view = view.filter(|_| cached.reg == self.reg)?;
        self.follows(at, Access::Write, cached.since, &cached.found);
        Some(view)
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
    fn a_registration_of_the_same_brand_does_not_follow_it() {
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
