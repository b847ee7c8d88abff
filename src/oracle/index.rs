//! Where each frame may be translated.
//!
//! No translation comes into being but by one that a driver was handed out, so those noted here are all that can exist,
//! in tables and in hardware that nobody sees change. The notes of a frame go when it is given back: each has been asked
//! about then.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    notifier::Translation,
    sync::Mutex,
};
use std::collections::BTreeSet;

/// Tells address spaces apart.
pub(super) type SpaceKey = usize;

/// Which page of which address space led to a frame since it was given back last.
#[derive(Debug, Default)]
pub(super) struct Index(Mutex<BTreeSet<(Pfn, SpaceKey, Vpn)>>);

impl Index {
    /// These pages of the address space lead to these frames, or will.
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
    /// Takes the notes of a frame out.
    pub(super) fn take(&self, pfn: Pfn) -> Vec<(SpaceKey, VpnRange)> {
        let mut notes = self.0.lock();
        let of_frame = (pfn, 0, Vpn(0))..=(pfn, usize::MAX, Vpn(u64::MAX));
        let found: Vec<_> = notes.range(of_frame).copied().collect();
        found.iter().for_each(|note| {
            notes.remove(note);
        });
        let place = |(_, space, at): (Pfn, SpaceKey, Vpn)| (space, VpnRange::single(at));
        found.into_iter().map(place).collect()
    }
}
