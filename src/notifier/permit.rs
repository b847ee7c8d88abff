//! Ticket, pending frame, permit: how a translation is established.

use super::{
    board::Verdict,
    chain::Seat,
    gate::{Gate, GateGuard},
    store::{ShadowEntry, ShadowStore},
};
use crate::{
    addr::{Pfn, Vpn},
    ctx::{Below, Context, Cx, EnterFrom, rank},
    frame::{FrameView, FrameViewMut},
    sync::Ordering,
};

/// Kind of access wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    Write,
}

/// Why a pending reference was not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Retry {
    /// An overlapping window is open now.
    #[error("an invalidation window over the page is open")]
    Busy,
    /// An overlapping window closed since the ticket was drawn.
    #[error("the page was invalidated since the ticket was drawn")]
    Stale,
    /// The driver was unregistered; retrying is pointless.
    #[error("the driver is no longer registered")]
    Detached,
}

/// Sequence snapshot, drawn from the gate `G` before the page table is read.
#[must_use]
pub struct Ticket<'g, G> {
    gate: &'g G,
    vpn: Vpn,
    access: Access,
    seq: u64,
}

/// A frame was found but may already be gone: nothing about it is readable.
#[must_use]
pub struct Pending<'g, G> {
    ticket: Ticket<'g, G>,
    pfn: Pfn,
    generation: u32,
}

/// The gate is held and the snapshot is current: no overlapping window is open.
#[must_use]
pub struct Permit<'p, S, T, C: Context> {
    guard: GateGuard<'p, S, T, C>,
    vpn: Vpn,
    access: Access,
    pfn: Pfn,
    generation: u32,
}

mod sealed {
    use super::Seat;
    /// What has a seat on a chain.
    pub trait Seated {
        fn seat(&self) -> &Seat;
    }
}
pub(crate) use sealed::Seated;

impl<S, T, C: Context> Seated for Gate<S, T, C> {
    fn seat(&self) -> &Seat {
        &self.seat
    }
}

impl<'g, G> Ticket<'g, G> {
    pub(super) fn draw(gate: &'g G, seq: u64, vpn: Vpn, access: Access) -> Self {
        Self {
            gate,
            vpn,
            access,
            seq,
        }
    }
    /// The page.
    pub fn vpn(&self) -> Vpn {
        self.vpn
    }
    /// The access wanted.
    pub fn access(&self) -> Access {
        self.access
    }
    /// The page was found to be this frame, in this generation.
    pub(crate) fn fill(self, pfn: Pfn, generation: u32) -> Pending<'g, G> {
        Pending {
            ticket: self,
            pfn,
            generation,
        }
    }
}

impl<G: Seated> Ticket<'_, G> {
    /// Whether the ticket was drawn from a driver of this chain.
    pub(crate) fn is_of(&self, notifiers: &super::Notifiers) -> bool {
        let board = &self.gate.seat().board;
        notifiers
            .chain()
            .is_some_and(|chain| std::sync::Arc::ptr_eq(&chain.board, board))
    }
}

impl<S: ShadowStore, T, C: Context> Pending<'_, Gate<S, T, C>> {
    /// Takes the gate and validates the snapshot under it.
    ///
    /// # Errors
    ///
    /// [`Retry`]: draw a new ticket and look up again, unless the driver is detached.
    pub fn admit<'p, R: Below<rank::Gate>, D: Context>(
        self,
        cx: &'p mut Cx<'_, R, D>,
    ) -> Result<Permit<'p, S, T, C>, Retry>
    where
        Self: 'p,
        C: EnterFrom<D>,
    {
        let Ticket {
            gate,
            vpn,
            access,
            seq,
        } = self.ticket;
        let guard = gate.lock(cx);
        if !gate.seat.alive.load(Ordering::SeqCst) {
            return Err(Retry::Detached);
        }
        match gate.seat.board.validate(vpn, seq) {
            Verdict::Busy => Err(Retry::Busy),
            Verdict::Stale => Err(Retry::Stale),
            Verdict::Current => Ok(Permit {
                guard,
                vpn,
                access,
                pfn: self.pfn,
                generation: self.generation,
            }),
        }
    }
}

impl<'p, S: ShadowStore, T, C: Context> Permit<'p, S, T, C> {
    /// The frame, readable from here on.
    pub fn frame(&self) -> FrameView<'_> {
        self.guard.mem.view(self.pfn, self.generation)
    }
    /// The frame to write to, if the ticket was for writing.
    pub fn frame_mut(&mut self) -> Option<FrameViewMut<'_>> {
        let mem = self.guard.mem;
        (self.access == Access::Write).then(|| mem.view_mut(self.pfn, self.generation))
    }
    /// Its number.
    pub fn pfn(&self) -> Pfn {
        self.pfn
    }
    /// Records the translation under `key` and keeps the gate held.
    pub fn establish(self, key: S::Key) -> GateGuard<'p, S, T, C> {
        let mut guard = self.guard;
        let writable = self.access == Access::Write;
        let entry = ShadowEntry::new(self.vpn, self.pfn, self.generation, writable);
        guard.inner.store.insert(key, entry);
        guard
    }
}
