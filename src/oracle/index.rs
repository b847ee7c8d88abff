//! An index from frames to the pages that may be translated to them.
//!
//! Every translation of an MMU comes from one that its driver was handed out. So the notes taken
//! then cover all that can exist, also in hardware that changes unseen. The notes of a frame are
//! removed when it is given back: each page has been looked at by then.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    notifier::Translation,
    sync::Mutex,
};
use std::{collections::BTreeSet, ops::RangeInclusive};

/// The identity of an address space.
pub(super) type SpaceKey = usize;

/// The pages, by address space, that led to a frame since it was last given back.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<BTreeSet<(Pfn, SpaceKey, Vpn)>>);

/// Returns the range of all notes of a frame.
fn notes_of(pfn: Pfn) -> RangeInclusive<(Pfn, SpaceKey, Vpn)> {
    (pfn, 0, Vpn(0))..=(pfn, usize::MAX, Vpn(u64::MAX))
}

impl Index {
    /// Notes that pages of an address space lead, or will lead, to these frames.
    pub(super) fn note(&self, space: SpaceKey, t: &Translation) {
        // The zero page is never given back.
        if t.pfn().is_zero() {
            return;
        }
        let mut notes = self.0.lock();
        for (pfn, at) in t.frames().zip(t.range().iter()) {
            notes.insert((pfn, space, at));
        }
    }
    /// Returns the first page of the notes of a frame.
    pub(super) fn first(&self, pfn: Pfn) -> Option<VpnRange> {
        let notes = self.0.lock();
        let (_, _, at) = notes.range(notes_of(pfn)).next()?;
        Some(VpnRange::single(*at))
    }
    /// Removes the notes of a frame and returns them.
    pub(super) fn take(&self, pfn: Pfn) -> Vec<(SpaceKey, VpnRange)> {
        let mut notes = self.0.lock();
        let found: Vec<_> = notes.range(notes_of(pfn)).copied().collect();
        found.iter().for_each(|note| {
            notes.remove(note);
        });
        let place = |(_, space, at): (Pfn, SpaceKey, Vpn)| (space, VpnRange::single(at));
        found.into_iter().map(place).collect()
    }
}
