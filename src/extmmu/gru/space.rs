//! An address space that GRUs work on: the driver, its GRUs, and the windows that are active.

use super::{chip::Gru, tracker::Trackers};
use crate::{
    ctx::{Atomic, CallCx},
    extmmu::bill::{Bill, Meter},
    mm::Mm,
    notifier::{Gate, NoStore, Registration, Seat},
    sync::{AtomicBool, AtomicU64, CachePadded, Condvar, Mutex, Ordering},
};
use std::sync::{Arc, Weak};

mistakes! {
    /// Mistakes that drivers of this kind have made or could make, for tests that must find them.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub enum GruMistake {
        /// Windows do not purge.
        NoPurge,
        /// A purge does not cancel the misses in its range (B24: hardware without the armed bit).
        NoDisarm,
        /// A context that is not loaded keeps its identifier over a window.
        NoLazyPurge,
        /// The purge comes at the end of the window.
        LatePurge,
        /// Pages that are entered ahead are not validated (B25).
        BlindPreload,
        /// The last page of a range is not purged.
        ShortPurge,
        /// A window purges first and counts itself as active then.
        LateActive,
        /// A window counts itself out as soon as it has purged (B5).
        EarlyEnd,
        /// The end of a window does not count it out (B2).
        LostEnd,
        /// The frame is not marked dirty by stores of instructions (B26).
        LostDirty,
    }
}

/// The gate has nothing in it: the TLBs lie under the locks of their chips.
pub(super) type GruGate = Gate<NoStore, (), Atomic>;

/// An address space whose memory GRUs work on (`gru_mm_struct`).
pub struct GruSpace {
    pub(super) mm: Weak<Mm>,
    pub(super) grus: Vec<Arc<Gru>>,
    pub(super) gate: GruGate,
    /// Windows that have begun and not ended (`ms_range_active`).
    pub(super) active: AtomicU64,
    quiet: Mutex<()>,
    woken: Condvar,
    pub(super) trackers: Arc<Trackers>,
    pub(super) meter: Meter,
    pub(super) mistake: Option<GruMistake>,
    /// On lines of its own: every access of a context reads it, and every window writes beside it.
    pub(super) released: CachePadded<AtomicBool>,
}

impl GruSpace {
    /// Registers a driver for these GRUs on an address space.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::extmmu::gru::{Gru, GruConfig, GruContext, GruSpace};
    /// use emmu::{PAGE_SIZE, mm::{Advice, MmapArgs}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let grus = Gru::several(1, GruConfig::default());
    /// let (space, registration) = GruSpace::attach(&mut cx, &mm, &grus, None);
    /// let context = GruContext::new(&space, 0)?;
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// context.write(&mut cx, at, b"G")?;
    /// assert_eq!((mm.load(&mut cx, at)?, grus[0].tlb_len()), (b'G', 1));
    ///
    /// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?; // a window: the TLB is purged
    /// let mut byte = [7];
    /// context.read(&mut cx, at, &mut byte)?;
    /// assert_eq!(byte, [0]);
    /// mm.unregister(&mut cx, registration);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn attach(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        grus: &[Arc<Gru>],
        mistake: Option<GruMistake>,
    ) -> (Arc<Self>, Registration) {
        mm.register(cx, |seat| {
            Self::new(seat, Arc::downgrade(mm), grus, mistake)
        })
    }
    pub(super) fn new(
        seat: Seat,
        mm: Weak<Mm>,
        grus: &[Arc<Gru>],
        mistake: Option<GruMistake>,
    ) -> Arc<Self> {
        Arc::new(Self {
            mm,
            grus: grus.to_vec(),
            gate: Gate::new(seat, NoStore, ()),
            active: AtomicU64::new(0),
            quiet: Mutex::default(),
            woken: Condvar::new(),
            trackers: Arc::new(Trackers::of(grus.len())),
            meter: Meter::default(),
            mistake,
            released: CachePadded(AtomicBool::new(false)),
        })
    }
    /// Returns the counts of windows, faults and retries so far.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
    /// Returns the number of windows that are open.
    pub fn active(&self) -> u64 {
        self.active.load(Ordering::Acquire)
    }
    /// Returns true if the address space has ended or the driver has left it.
    pub fn is_released(&self) -> bool {
        self.released.0.load(Ordering::Acquire)
    }
    pub(super) fn made(&self, mistake: GruMistake) -> bool {
        self.mistake == Some(mistake)
    }
    /// Sleeps until no window is open.
    pub(super) fn wait_quiet(&self, cx: &mut CallCx<'_>) {
        let _may_sleep = cx;
        let mut held = self.quiet.lock();
        while self.active() > 0 {
            self.woken.wait(&mut held);
        }
    }
    pub(super) fn count_out(&self) {
        let held = self.quiet.lock();
        self.active.fetch_sub(1, Ordering::SeqCst);
        drop(held);
        self.woken.notify_all();
    }
}

impl std::fmt::Debug for GruSpace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GruSpace")
            .field("active", &self.active())
            .field("grus", &self.grus.len())
            .finish_non_exhaustive()
    }
}
