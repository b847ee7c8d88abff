//! The ledger of an owner's lent pages: which page lies in which memory.
//!
//! Each page lies in the memory of the segment through which it was asked for: in one piece for
//! partitions that may write the page, in another for those that may read it, and in no other. So a
//! partition that has a segment's memory finds there the pages that the segment exports, and can
//! write those that it may write.
//!
//! A page that is asked for through another segment comes home first: all partitions that have it
//! where it lies are asked to clear it. Memory that was sent to a partition is never used again
//! once the partition has gone, since other processes may have it mapped by then (docs/adr/0011).

use super::segment::SegId;
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    error::Errno,
    frame::{Kept, Lender, Loan, Place},
    mm::Machine,
    sync::Mutex,
};
use std::{collections::BTreeMap, io, sync::Arc};

/// The frames for which the first piece of memory of a segment has room. Each further piece has
/// eight times as much as the one before, up to [`LARGEST`]. Unused room takes no memory of the
/// host.
const FIRST: u32 = 64;
const LARGEST: u32 = 1 << 18;
/// The slot that reads as the zero page in each piece: nothing is ever lent there.
const ZERO_SLOT: u32 = 0;

/// A page was not lent.
pub(super) enum NotLent {
    /// The page lies at this place, and must come home first.
    Elsewhere(Place),
    /// A new piece of memory is needed for it, and there may be none.
    NoRoom,
    /// The host refused memory.
    Host(io::Error),
}

/// The pages that an owner has lent, and their memory.
pub(super) struct Lent {
    machine: Arc<Machine>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    away: BTreeMap<Vpn, (Pfn, Place)>,
    /// By segment, and by the right of its holders to write.
    pieces: BTreeMap<(SegId, bool), Vec<Piece>>,
}

/// A piece of memory of a segment, and its slots in use.
struct Piece {
    loan: Arc<Loan>,
    slots: u32,
    /// The first slot that was never used.
    next: u32,
    free: Vec<u32>,
}

impl Piece {
    fn new(lender: Box<dyn Lender>, slots: u32, writable: bool) -> io::Result<Self> {
        Ok(Self {
            loan: Loan::new(slots, writable, lender)?,
            slots,
            next: ZERO_SLOT + 1,
            free: Vec::new(),
        })
    }
    fn take_slot(&mut self) -> Option<u32> {
        self.free.pop().or_else(|| {
            let slot = self.next;
            self.next += u32::from(slot < self.slots);
            (slot < self.slots).then_some(slot)
        })
    }
}

impl Lent {
    pub(super) fn of(machine: Arc<Machine>) -> Self {
        Self {
            machine,
            state: Mutex::default(),
        }
    }
    /// Returns the number of lent pages.
    pub(super) fn pages(&self) -> usize {
        self.state.lock().away.len()
    }
    /// Lends the frame of a page to the holders of the segment's memory. The caller holds recalls
    /// off; `lender` makes the lender of a new piece of memory, if there may be one.
    ///
    /// # Errors
    ///
    /// [`NotLent`]; nothing has changed then.
    pub(super) fn lend(
        &self,
        lender: Option<&dyn Fn() -> Box<dyn Lender>>,
        (segment, writable): (SegId, bool),
        page: Vpn,
        pfn: Pfn,
    ) -> Result<Place, NotLent> {
        let mut state = self.state.lock();
        let State { away, pieces } = &mut *state;
        let pieces = pieces.entry((segment, writable)).or_default();
        pieces.retain(|piece| !piece.loan.is_over());
        if pieces.is_empty() && lender.is_none() {
            return Err(NotLent::NoRoom);
        }
        if let Some((_, place)) = away.get(&page) {
            let here = pieces.iter().any(|p| Arc::ptr_eq(&p.loan, &place.loan));
            return if here {
                Ok(place.clone())
            } else {
                Err(NotLent::Elsewhere(place.clone()))
            };
        }
        let zero = pfn.is_zero();
        let (nth, slot) = free_slot(lender, pieces, writable, zero)?;
        let place = Place {
            loan: Arc::clone(&pieces[nth].loan),
            slot,
            page,
        };
        if zero {
            return Ok(place);
        }
        if let Err(kept) = self.machine.mem().lend(pfn, &place) {
            pieces[nth].free.push(slot);
            return Err(match kept {
                Kept::Elsewhere(elsewhere) => NotLent::Elsewhere(elsewhere),
                Kept::AtAnAddress => NotLent::Host(Errno::EBUSY.into()),
            });
        }
        away.insert(page, (pfn, place.clone()));
        Ok(place)
    }
    /// Takes the lent pages of the range home. The holders that follow the protocol have cleared
    /// them; the others lose them now.
    pub(super) fn take_home(&self, range: VpnRange) {
        let mut state = self.state.lock();
        while let Some((&page, _)) = state.away.range(range.start()..range.end()).next() {
            let (pfn, place) = state.away.remove(&page).expect("just seen");
            self.machine.mem().take_home(pfn, &place);
            let mut pieces = state.pieces.values_mut().flatten();
            // Memory that has ended is not used again.
            if let Some(piece) = pieces.find(|p| Arc::ptr_eq(&p.loan, &place.loan)) {
                piece.free.push(place.slot);
            }
        }
    }
    /// Takes a page home whose owner has ended, so that it is in no ledger.
    pub(super) fn take_from_nobody(&self, pfn: Pfn, place: &Place) {
        self.machine.mem().take_home(pfn, place);
    }
    /// Ends the memory of a segment that is gone.
    pub(super) fn end(&self, segment: SegId) {
        let mut state = self.state.lock();
        for writable in [false, true] {
            let gone = state.pieces.remove(&(segment, writable));
            gone.iter().flatten().for_each(|piece| piece.loan.end());
        }
    }
    /// Ends pieces of memory, and returns the pages that still lie there.
    pub(super) fn abandon(&self, loans: &[Arc<Loan>]) -> Vec<VpnRange> {
        let is_of = |loan: &Arc<Loan>| loans.iter().any(|l| Arc::ptr_eq(l, loan));
        let mut state = self.state.lock();
        loans.iter().for_each(|loan| loan.end());
        state.pieces.retain(|_, pieces| {
            pieces.retain(|piece| !is_of(&piece.loan));
            !pieces.is_empty()
        });
        let away = state.away.iter().filter(|(_, (_, at))| is_of(&at.loan));
        let mut runs: Vec<VpnRange> = Vec::new();
        for (&page, _) in away {
            let from = match runs.last() {
                Some(run) if run.end() == page => runs.pop().expect("just seen").start(),
                _ => page,
            };
            runs.extend(VpnRange::new(from, page.plus(1)));
        }
        runs
    }
}

/// Returns a free slot of the pieces, and adds a piece if all are full.
fn free_slot(
    lender: Option<&dyn Fn() -> Box<dyn Lender>>,
    pieces: &mut Vec<Piece>,
    writable: bool,
    zero: bool,
) -> Result<(usize, u32), NotLent> {
    if zero && !pieces.is_empty() {
        return Ok((0, ZERO_SLOT));
    }
    let mut found = pieces.iter_mut().enumerate();
    if let Some(found) = found.find_map(|(nth, p)| Some((nth, p.take_slot()?))) {
        return Ok(found);
    }
    let slots = pieces.last().map_or(FIRST, |p| LARGEST.min(p.slots * 8));
    let lender = lender.ok_or(NotLent::NoRoom)?;
    let piece = Piece::new(lender(), slots, writable);
    pieces.push(piece.map_err(NotLent::Host)?);
    let nth = pieces.len() - 1;
    let slot = if zero {
        ZERO_SLOT
    } else {
        pieces[nth].take_slot().expect("it is new")
    };
    Ok((nth, slot))
}
