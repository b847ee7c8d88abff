//! A map from the page numbers of an object to frames and swap slots, in chunks, so that neighbours
//! cost little.

use super::folios::Folios;
use crate::{addr::Pfn, frame::SwapSlot};
use std::collections::BTreeMap;

/// The number of pages in a chunk.
const CHUNK: u64 = 64;

/// The place of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageSlot {
    /// A frame, with a reference.
    Frame(Pfn),
    /// A frame, with a reference, that must not be mapped or read: the page was not read in, or not
    /// all of it (no `PG_uptodate`).
    Unread(Pfn),
    /// A slot of the swap device, with a reference.
    Swap(SwapSlot),
}

/// The places of consecutive pages, and how many there are.
#[derive(Debug)]
struct Chunk {
    slots: [Option<PageSlot>; CHUNK as usize],
    used: u8,
}

/// The pages of an object that have a place, by number.
#[derive(Debug, Default)]
pub(super) struct PageSlots {
    chunks: BTreeMap<u64, Box<Chunk>>,
    used: u64,
    /// The pages that came in together. A page that leaves, or goes to swap, dissolves its folio.
    pub(super) folios: Folios,
}

/// Splits a page number into chunk and index.
#[allow(clippy::cast_possible_truncation)]
const fn split(index: u64) -> (u64, usize) {
    (index / CHUNK, (index % CHUNK) as usize)
}

impl PageSlots {
    /// Returns the place of a page.
    pub(super) fn get(&self, index: u64) -> Option<PageSlot> {
        let (chunk, i) = split(index);
        self.chunks.get(&chunk)?.slots[i]
    }
    /// Sets the place of a page and returns the old one.
    pub(super) fn insert(&mut self, index: u64, slot: PageSlot) -> Option<PageSlot> {
        let (chunk, i) = split(index);
        let chunk = self.chunks.entry(chunk).or_insert_with(|| {
            Box::new(Chunk {
                slots: [None; CHUNK as usize],
                used: 0,
            })
        });
        let old = chunk.slots[i].replace(slot);
        if matches!(slot, PageSlot::Swap(_)) {
            self.folios.forget(index);
        }
        if old.is_none() {
            chunk.used += 1;
            self.used += 1;
        }
        old
    }
    /// Removes the place of a page and returns it.
    pub(super) fn remove(&mut self, index: u64) -> Option<PageSlot> {
        let (number, i) = split(index);
        let chunk = self.chunks.get_mut(&number)?;
        let old = chunk.slots[i].take()?;
        self.folios.forget(index);
        chunk.used -= 1;
        self.used -= 1;
        if chunk.used == 0 {
            self.chunks.remove(&number);
        }
        Some(old)
    }
    /// Returns the number of pages that have a place.
    pub(super) fn len(&self) -> u64 {
        self.used
    }
    /// Returns the first page in `[from, to)` that has a place.
    pub(super) fn next(&self, from: u64, to: u64) -> Option<(u64, PageSlot)> {
        let first = from / CHUNK;
        for (&number, chunk) in self.chunks.range(first..) {
            let base = number * CHUNK;
            if base >= to {
                return None;
            }
            let start = from.max(base);
            for index in start..(base + CHUNK).min(to) {
                if let Some(slot) = chunk.slots[split(index).1] {
                    return Some((index, slot));
                }
            }
        }
        None
    }
    /// Removes all places and returns them.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = PageSlot> + use<> {
        self.used = 0;
        self.folios.clear();
        let chunks = std::mem::take(&mut self.chunks);
        chunks
            .into_values()
            .flat_map(|chunk| chunk.slots.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::{PageSlot, PageSlots};
    use crate::addr::Pfn;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let mut slots = PageSlots::default();
        let mut model = BTreeMap::new();
        let mut x = 1_u64;
        for step in 0..5000_u32 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (x >> 33) % 700;
            if x >> 63 == 0 {
                let old = slots.insert(index, PageSlot::Frame(Pfn(step)));
                assert_eq!(old, model.insert(index, PageSlot::Frame(Pfn(step))));
            } else {
                assert_eq!(slots.remove(index), model.remove(&index));
            }
            assert_eq!(slots.get(index), model.get(&index).copied());
            assert_eq!(slots.len(), model.len() as u64);
            let (from, to) = (index / 2, index + 30);
            let next = model.range(from..to).next().map(|(&i, &s)| (i, s));
            assert_eq!(slots.next(from, to), next);
        }
        assert_eq!(slots.drain().count(), model.len());
        assert_eq!(slots.len(), 0);
        assert_eq!(slots.next(0, u64::MAX), None);
    }
}
