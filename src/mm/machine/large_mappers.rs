//! The address spaces that map a huge page and are not counted as mappers of it.
//!
//! Linux keeps the numbers of two address spaces for each large folio (`_mm_id`), with the mappings
//! of each. A third one that maps the folio is not counted, not even after the others have gone: to
//! Linux the folio may be shared then (`folio_maybe_mapped_shared`), and an advice passes it by,
//! though one address space alone has it. The two places are given out in the order in which the
//! address spaces begin to map the folio; a place is free again when its owner has no counted
//! mapping left.
//!
//! Here all mappings are counted, so only the address spaces without a place are noted, and how
//! many mappings they had when they got one late. That is looked up, and brought up to date,
//! whenever an address space has mapped more of the folio.

use crate::{
    addr::Pfn,
    frame::PhysMem,
    sync::{AtomicUsize, Mutex, Ordering},
};
use std::{collections::HashMap, fmt};

/// The number of address spaces that have a place.
const PLACES: usize = 2;
/// The number of uncounted mappings of an address space without a place: all it has.
const ALL: u64 = u64::MAX;

/// An address space, by its address while it lives.
pub(in crate::mm) type SpaceAt = usize;

/// The address spaces of one folio that are not counted in full.
#[derive(Default)]
struct Uncounted {
    /// The generation of the folio's first frame.
    generation: u32,
    /// The address spaces, and how many of their mappings are not counted.
    spaces: Vec<(SpaceAt, u64)>,
}

/// New mappings of a folio.
pub(in crate::mm) struct Mapped<'m> {
    /// The first frame of the folio.
    pub(in crate::mm) first: Pfn,
    /// The address space that has them.
    pub(in crate::mm) space: SpaceAt,
    /// The number of new mappings.
    pub(in crate::mm) new: u64,
    /// The number of mappings that each address space has now, the new ones included.
    pub(in crate::mm) all: &'m [(SpaceAt, u64)],
}

/// The folios of a machine that have such mappings, by first frame.
#[derive(Default)]
pub(in crate::mm) struct LargeMappers {
    folios: Mutex<HashMap<Pfn, Uncounted>>,
    /// The number of folios, read without the lock.
    count: AtomicUsize,
}

impl LargeMappers {
    /// Returns true if mappings of the folio by this address space are not counted.
    pub(in crate::mm) fn is_uncounted(&self, mem: &PhysMem, first: Pfn, space: SpaceAt) -> bool {
        if self.count.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let folios = self.folios.lock();
        let folio = folios
            .get(&first)
            .filter(|f| f.generation == mem.generation(first));
        folio.is_some_and(|folio| folio.spaces.iter().any(|&(at, _)| at == space))
    }
    /// Notes that an address space has mapped more of a folio.
    pub(in crate::mm) fn note(&self, mem: &PhysMem, mapped: &Mapped<'_>) {
        let generation = mem.generation(mapped.first);
        let mut folios = self.folios.lock();
        let of_now = folios
            .remove(&mapped.first)
            .filter(|f| f.generation == generation);
        let mut folio = of_now.unwrap_or_default();
        folio.generation = generation;
        folio.note(mapped);
        if !folio.spaces.is_empty() {
            if folios.len() == folios.capacity() {
                folios.retain(|&first, folio| folio.generation == mem.generation(first));
            }
            folios.insert(mapped.first, folio);
        }
        self.count.store(folios.len(), Ordering::Relaxed);
    }
}

impl Uncounted {
    fn note(&mut self, mapped: &Mapped<'_>) {
        let now = |space: SpaceAt| {
            let found = mapped.all.iter().find(|&&(at, _)| at == space);
            found.map_or(0, |&(_, mappings)| mappings)
        };
        let me = mapped.space;
        let before = now(me).saturating_sub(mapped.new);
        self.spaces.retain_mut(|(at, uncounted)| {
            let had = if *at == me { before } else { now(*at) };
            // Without counted mappings its place is free, and the others stay uncounted.
            if had <= *uncounted {
                *uncounted = ALL;
            }
            had > 0
        });
        let is_counted = |at: SpaceAt| !self.spaces.contains(&(at, ALL));
        let others = mapped
            .all
            .iter()
            .filter(|&&(at, n)| at != me && n > 0 && is_counted(at));
        let has_place = others.count() < PLACES;
        let mine = self.spaces.iter_mut().find(|(at, _)| *at == me);
        match mine {
            Some((_, uncounted)) if *uncounted == ALL && has_place => *uncounted = before,
            None if before == 0 && !has_place => self.spaces.push((me, ALL)),
            Some(_) | None => {}
        }
    }
}

impl fmt::Debug for LargeMappers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LargeMappers").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{LargeMappers, Mapped, SpaceAt};
    use crate::{
        addr::Pfn,
        frame::{MemConfig, PhysMem},
    };

    const FIRST: Pfn = Pfn(512);

    fn note(
        mappers: &LargeMappers,
        mem: &PhysMem,
        all: &[(SpaceAt, u64)],
        (space, new): (SpaceAt, u64),
    ) {
        let first = FIRST;
        mappers.note(
            mem,
            &Mapped {
                first,
                space,
                new,
                all,
            },
        );
    }

    #[test]
    fn a_third_address_space_is_not_counted_until_it_maps_again() {
        let (mem, mappers) = (PhysMem::new(MemConfig::default()), LargeMappers::default());
        let uncounted = |space| mappers.is_uncounted(&mem, FIRST, space);
        note(&mappers, &mem, &[(1, 512)], (1, 512));
        note(&mappers, &mem, &[(1, 512), (2, 512)], (2, 512));
        assert!(!uncounted(1) && !uncounted(2));
        note(&mappers, &mem, &[(1, 512), (2, 512), (3, 16)], (3, 16));
        assert!(!uncounted(1) && !uncounted(2) && uncounted(3));
        // The first has gone: its place is for the next one, not for the third.
        assert!(uncounted(3));
        note(&mappers, &mem, &[(2, 512), (3, 16), (4, 1)], (4, 1));
        assert!(uncounted(3) && !uncounted(4));
        // Both have gone. What the third maps from now on is counted, and not what it had.
        note(&mappers, &mem, &[(3, 32)], (3, 16));
        assert!(uncounted(3));
        // It gave up as many as were counted, and then all.
        note(&mappers, &mem, &[(3, 17)], (3, 1));
        assert!(uncounted(3));
        note(&mappers, &mem, &[(3, 5)], (3, 5));
        assert!(!uncounted(3));
    }
}
