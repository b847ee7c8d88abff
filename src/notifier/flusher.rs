//! The flush that a change of the page table owes to secondary TLBs, and the proof that it was
//! paid.
//!
//! A frame is given up by functions that take a [`Flushed`]. Only a flush gives one, or the finding
//! that nothing can be cached. So a way by which a frame goes unflushed does not compile
//! (`docs/adr/0033-frames-go-against-a-flush.md`).

use super::secondary_tlb::{SecondaryTlbs, TlbList};
use crate::{
    addr::VpnRange,
    ctx::{Atomic, Cx, rank},
};
use std::marker::PhantomData;

/// Proof that no secondary TLB has an entry that its holder took from the page table.
#[derive(Clone, Copy, Debug)]
#[must_use = "it is for the function that gives the frames up"]
pub(crate) struct Flushed<'f>(PhantomData<&'f ()>);

/// The right to flush, inside the critical section of a leaf's lock.
pub(crate) struct Flusher<'p> {
    list: Option<&'p TlbList>,
    cx: Cx<'p, rank::Ptl, Atomic>,
}

impl<'p> Flusher<'p> {
    #[inline]
    pub(crate) fn new(tlbs: &'p SecondaryTlbs, cx: Cx<'p, rank::Ptl, Atomic>) -> Self {
        Self {
            list: tlbs.listed(),
            cx,
        }
    }
    /// Lends the right.
    #[inline]
    pub(crate) fn reborrow(&mut self) -> Flusher<'_> {
        Flusher {
            list: self.list,
            cx: self.cx.reborrow(),
        }
    }
    /// Returns the proof before anything is taken from the table, if no device is registered: none
    /// will be before the window ends.
    #[inline]
    pub(crate) fn nothing_cached(&self) -> Option<Flushed<'p>> {
        self.list.is_none().then_some(Flushed(PhantomData))
    }
    /// Flushes the entries of `range`.
    #[inline]
    pub(crate) fn flush(&mut self, range: VpnRange) -> Flushed<'_> {
        if let Some(list) = self.list {
            list.flush(&mut self.cx, range);
        }
        Flushed(PhantomData)
    }
    /// Flushes as [`flush_if`](Self::flush_if) does, for a proof that outlives this.
    #[inline]
    pub(crate) fn into_flushed(mut self, present: bool, range: VpnRange) -> Flushed<'p> {
        let Flushed(_) = self.flush_if(present, range);
        Flushed(PhantomData)
    }
    /// Flushes `range` if an entry that was taken from it was present: no other is cached.
    #[inline]
    pub(crate) fn flush_if(&mut self, present: bool, range: VpnRange) -> Flushed<'_> {
        if present {
            return self.flush(range);
        }
        Flushed(PhantomData)
    }
}

impl SecondaryTlbs {
    /// Returns the proof for an address space whose devices have been released.
    ///
    /// # Panics
    ///
    /// If a device is registered.
    pub(crate) fn after_release(&self) -> Flushed<'_> {
        assert!(
            self.listed().is_none() || std::thread::panicking(),
            "an address space with secondary TLBs must be ended by `exit`"
        );
        Flushed(PhantomData)
    }
}

#[cfg(test)]
impl Flushed<'static> {
    /// The proof for a table that no address space has.
    pub(crate) const fn of_no_space() -> Self {
        Self(PhantomData)
    }
}
