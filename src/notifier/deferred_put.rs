//! References on frames that a driver gives up by itself, when it forgets an entry or replaces it.
//!
//! The references are given up after the gate is unlocked. An observer can then ask the driver for
//! its translations, and so find a driver that gave up a reference and kept the translation.

use super::{
    observer::WindowObserver, removed::RemovedEntries, seat::Seat, shadow_entry::ShadowEntry,
    store::ShadowStore, translation::Translation,
};
use crate::{addr::VpnRange, sync::panicking};
use smallvec::SmallVec;

/// The references to give up when the gate is unlocked: mostly none, and then two words, because
/// each guard of a gate has them.
pub(super) struct DeferredPuts<'p> {
    seat: &'p Seat,
    puts: Option<Box<Puts>>,
}

#[derive(Default)]
struct Puts {
    all: SmallVec<[Translation; 1]>,
    /// The parts of them to whose frames no other entry leads: no translation to these may be left.
    last: SmallVec<[Translation; 1]>,
    /// The observer's count of translations handed out, read just before the gate is unlocked.
    handed: u64,
}

/// Returns the parts of a translation to whose frames none of `others` leads: an entry of one page
/// may lead to one frame of a huge page, and the entry of a huge page leads to each frame of it.
fn parts_apart_from(gone: &Translation, others: &[Translation]) -> SmallVec<[Translation; 1]> {
    let mut parts: SmallVec<[Translation; 1]> = SmallVec::new();
    for (at, pfn) in gone.range().iter().zip(gone.frames()) {
        if others.iter().any(|t| t.leads_to(pfn)) {
            continue;
        }
        let grown = parts.last_mut().filter(|part| part.range().end() == at);
        match grown {
            Some(part) => {
                part.range = VpnRange::new(part.range().start(), at.plus(1)).expect("it grows");
            }
            None => parts.push(Translation {
                range: VpnRange::single(at),
                pfn,
                ..*gone
            }),
        }
    }
    parts
}

/// Returns the entries of a store that overlap a translation. One without a reference needs none: a
/// window takes it before its frame goes.
fn others<S: ShadowStore>(store: &S, t: &Translation) -> Vec<Translation> {
    let mut others = Vec::new();
    store.for_each_in(t.range(), &mut |e| others.push(e.translation()));
    others
}

/// Returns the parts of removed entries with a reference to whose frames no entry of the store
/// leads. Nothing without an observer, which alone asks; nor in a panic, since the store is the
/// driver's code, and may be the part that panicked.
#[inline]
pub(super) fn last_parts<S: ShadowStore>(
    seat: &Seat,
    gone: &RemovedEntries,
    store: &S,
) -> SmallVec<[Translation; 1]> {
    if seat.board.observer.get().is_none() || panicking() {
        return SmallVec::new();
    }
    let pinned = gone.entries().iter().filter(|e| e.is_held());
    let gone = pinned.map(ShadowEntry::translation);
    gone.flat_map(|t| parts_apart_from(&t, &others(store, &t)))
        .collect()
}

impl<'p> DeferredPuts<'p> {
    pub(super) fn new(seat: &'p Seat) -> Self {
        Self { seat, puts: None }
    }
    /// Takes over the references of entries that the store has removed.
    #[inline]
    pub(super) fn take<S: ShadowStore>(&mut self, gone: &mut RemovedEntries, store: &S) {
        if gone.entries().iter().any(ShadowEntry::is_held) {
            let puts = self.puts.get_or_insert_default();
            puts.last.extend(last_parts(self.seat, gone, store));
            puts.all.extend(gone.take_references(self.seat.tag));
        }
    }
    /// Notes the observer's count. The gate is unlocked next.
    #[inline]
    pub(super) fn close(&mut self) {
        if let Some(puts) = &mut self.puts {
            let handed = |w: &dyn WindowObserver| puts.handed = w.handed();
            self.seat.board.observe(handed);
        }
    }
}

/// Gives the references up. The gate has been unlocked: the guard's fields are dropped in order.
impl Drop for DeferredPuts<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(puts) = self.puts.take() {
            puts.put_all(self.seat);
        }
    }
}

impl Puts {
    #[cold]
    fn put_all(&self, seat: &Seat) {
        if !panicking() {
            seat.board
                .observe(|w| w.given_up(seat.reg, &self.last, self.handed));
        }
        self.all.iter().for_each(|gone| gone.put(&seat.mem));
    }
}
