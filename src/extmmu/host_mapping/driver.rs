//! The driver: the pages that an area shows are the entries of its gate.

use super::{area::Area, places::Places};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx},
    driver::{SpinningMmu, TranslateError},
    frame::PhysMem,
    mm::Mm,
    notifier::{
        Access, Ack, AgeKind, Gate, Invalidation, OrderedStore, Permit, Seat, ShadowStore,
        Translation,
    },
};
use std::{io, sync::Arc};
use thiserror::Error;

/// The most mappings that one area takes of the host, which allows a process 65,530 of them unless
/// it is told otherwise. An area that needs more is emptied, as a TLB is flushed.
const MOST_MAPPINGS: usize = 1 << 12;

type Store = OrderedStore<Vpn>;
type ShownPermit<'p> = Permit<'p, Store, Shown, Atomic>;

/// Memory of a process that an area shows.
pub(super) struct Driver {
    gate: Gate<Store, Shown, Atomic>,
    pages: VpnRange,
}

/// The state of the area. The gate guards it: a page is shown while it has an entry, and not
/// longer.
struct Shown {
    area: Arc<Area>,
    /// The first page of the process.
    first: Vpn,
    places: Places,
}

/// A page was not shown.
#[derive(Debug, Error)]
pub(super) enum NotShown {
    #[error(transparent)]
    Translate(#[from] TranslateError),
    #[error("the frame cannot be mapped")]
    NoOffset,
    #[error(transparent)]
    Host(#[from] io::Error),
}

impl Shown {
    fn nth(&self, at: Vpn) -> usize {
        usize::try_from(at.0 - self.first.0).expect("a page of the area")
    }
    /// Shows the page of a frame, which lies at this offset of the file.
    fn show(&mut self, at: Vpn, offset: u64, writable: bool) -> io::Result<()> {
        let (page, of) = (self.nth(at), offset / PAGE_SIZE);
        if self.places.get(page) == Some(of) {
            return self.area.show_again(page, writable);
        }
        self.area.show(page, offset, writable)?;
        self.places.put(page, of);
        Ok(())
    }
    fn hide(&self, range: VpnRange) {
        let pages = usize::try_from(range.pages()).expect("not more than the area has");
        self.area.hide(self.nth(range.start()), pages);
    }
    fn clear(&mut self) -> io::Result<()> {
        self.area.clear()?;
        self.places = Places::default();
        Ok(())
    }
}

impl Driver {
    /// Builds the driver on its seat; `pages` of the process are those of the area.
    pub(super) fn new(seat: Seat, area: &Arc<Area>, pages: VpnRange) -> Arc<Self> {
        let shown = Shown {
            area: Arc::clone(area),
            first: pages.start(),
            places: Places::default(),
        };
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), shown),
            pages,
        })
    }
    /// Shows a page to a touch that waits for it.
    pub(super) fn fault(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        nth: usize,
        access: Access,
    ) -> Result<(), NotShown> {
        let at = self.pages.start().plus(nth as u64);
        let mem = mm.machine().mem();
        self.gate.translate_with(
            cx,
            mm,
            |gate| gate.ticket(at, access).or_writable(),
            |permit| self.show(permit, mem, at),
        )?
    }
    fn show(&self, mut permit: ShownPermit<'_>, mem: &PhysMem, at: Vpn) -> Result<(), NotShown> {
        if permit.state().places.mappings() >= MOST_MAPPINGS {
            let mut cleared = Ok(());
            let all = |shown: &mut Shown| cleared = shown.clear();
            permit.guard().forget_range(self.pages, all);
            cleared?;
        }
        let writable = permit.is_writable();
        if let Some(mut frame) = permit.frame_mut() {
            // Stores are not seen from here on: it is dirty at once.
            let _address = frame.as_mut_ptr();
        }
        let offset = mem.offset_in_memfd(permit.pfn());
        let shown = match offset {
            Some(offset) => permit.state().show(at, offset, writable),
            None => return Err(NotShown::NoOffset),
        };
        if let Err(why) = shown {
            let hide = |shown: &mut Shown| shown.hide(at.into());
            permit.guard().forget_range(at.into(), hide);
            return Err(why.into());
        }
        let guard = permit.establish(at);
        if let Some(entry) = guard.store().get(&at).filter(|_| writable) {
            entry.set_dirty();
        }
        Ok(())
    }
    /// Returns the number of pages that are shown now.
    pub(super) fn pages_shown(&self, cx: &mut CallCx<'_>) -> usize {
        let mut shown = 0;
        let gate = self.gate.lock(cx);
        gate.store().for_each(&mut |_| shown += 1);
        shown
    }
}

impl SpinningMmu for Driver {
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude_with(&mut cx, inv, |shown, gone, _| {
            let pages = || gone.entries().iter().map(|entry| entry.vpn());
            let hull = pages().min().zip(pages().max());
            if let Some(range) = hull.and_then(|(a, b)| VpnRange::new(a, b.plus(1))) {
                shown.hide(range);
            }
        })
    }
    /// The host does not say which pages were used. So a page that is shown was used, and is hidden
    /// until it is touched again.
    fn age(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let Some(range) = range.intersect(self.pages) else {
            return false;
        };
        let mut gate = self.gate.lock(&mut cx);
        let mut used = false;
        gate.store().for_each_in(range, &mut |_| used = true);
        if used && kind != AgeKind::Test {
            gate.forget_range(range, |shown| shown.hide(range));
        }
        used
    }
    fn name(&self) -> &'static str {
        "host mapping"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit_in(range, visit)
    }
}
