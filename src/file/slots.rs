//! Which frame holds which page of an object: page numbers in chunks, so that neighbours cost little.

use super::folios::Folios;
use crate::{addr::Pfn, frame::SwapSlot};
use std::collections::BTreeMap;

const CHUNK: u64 = 64;

/// What an object has for a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    /// A frame, with a reference.
    Frame(Pfn),
    /// The same, of which nobody may map or read what it has: the page was not read in, or not all of it (no
    /// `PG_uptodate`).
    Unread(Pfn),
    /// A slot of the swap device, with a count.
    Swap(SwapSlot),
}

#[derive(Debug)]
struct Chunk {
    slots: [Option<Slot>; CHUNK as usize],
    used: u8,
}

/// Pages by number.
#[derive(Debug, Default)]
pub(super) struct Slots {
    chunks: BTreeMap<u64, Box<Chunk>>,
    used: u64,
    /// Which of them came together; a page that leaves, or goes to swap, leaves its folio.
    pub(super) folios: Folios,
}

#[allow(clippy::cast_possible_truncation)]
const fn split(index: u64) -> (u64, usize) {
    (index / CHUNK, (index % CHUNK) as usize)
}

impl Slots {
    pub(super) fn get(&self, index: u64) -> Option<Slot> {
        let (chunk, i) = split(index);
        self.chunks.get(&chunk)?.slots[i]
    }
    /// Puts a page in; returns what was there.
    pub(super) fn insert(&mut self, index: u64, slot: Slot) -> Option<Slot> {
        let (chunk, i) = split(index);
        let chunk = self.chunks.entry(chunk).or_insert_with(|| {
            Box::new(Chunk {
                slots: [None; CHUNK as usize],
                used: 0,
            })
        });
        let old = chunk.slots[i].replace(slot);
        if matches!(slot, Slot::Swap(_)) {
            self.folios.forget(index);
        }
        if old.is_none() {
            chunk.used += 1;
            self.used += 1;
        }
        old
    }
    pub(super) fn remove(&mut self, index: u64) -> Option<Slot> {
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
    /// Pages that are there.
    pub(super) fn len(&self) -> u64 {
        self.used
    }
    /// The first page at or above `from` and below `to` that is there.
    pub(super) fn next(&self, from: u64, to: u64) -> Option<(u64, Slot)> {
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
    /// Takes everything out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Slot> + use<> {
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
    use super::{Slot, Slots};
    use crate::addr::Pfn;
    use std::collections::BTreeMap;

    #[test]
    fn it_is_a_map() {
        let mut slots = Slots::default();
        let mut model = BTreeMap::new();
        let mut x = 1_u64;
        for step in 0..5000_u32 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (x >> 33) % 700;
            if x >> 63 == 0 {
                let old = slots.insert(index, Slot::Frame(Pfn(step)));
                assert_eq!(old, model.insert(index, Slot::Frame(Pfn(step))));
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
