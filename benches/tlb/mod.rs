//! What a device's hit and miss cannot do without, written by hand: a TLB in sets of four behind a
//! lock, counts that say whether a frame is still the same, four-level tables, a note of each
//! look-up. No oracle, no bill, no rights, no windows.

use crate::floor::Floor;
use crossbeam_epoch::{Collector, LocalHandle};
use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

const WAYS: usize = 4;

/// Page and frame; page 0 with frame 0: none.
type Way = (u64, u64);

/// A TLB with round-robin replacement.
pub(crate) struct Tlb {
    sets: Vec<[Way; WAYS]>,
    next: Vec<usize>,
}

impl Tlb {
    pub(crate) fn new(entries: usize) -> Self {
        let sets = (entries / WAYS).next_power_of_two();
        Self {
            sets: vec![[(0, 0); WAYS]; sets],
            next: vec![0; sets],
        }
    }
    fn set(&self, page: u64) -> usize {
        page as usize & (self.sets.len() - 1)
    }
    pub(crate) fn get(&self, page: u64) -> Option<u64> {
        let set = &self.sets[self.set(page)];
        set.iter().find(|w| w.0 == page).map(|w| w.1)
    }
    pub(crate) fn insert(&mut self, page: u64, frame: u64) {
        let set = self.set(page);
        let way = self.next[set];
        self.next[set] = (way + 1) % WAYS;
        self.sets[set][way] = (page, frame);
    }
}

/// Frames, by how often each was given back.
pub(crate) struct Frames(Vec<AtomicU32>);

impl Frames {
    pub(crate) fn new(count: u64) -> Self {
        Self((0..count).map(|_| AtomicU32::new(0)).collect())
    }
    /// An access: the frame is the same before and after.
    pub(crate) fn access(&self, frame: u64) {
        let count = &self.0[frame as usize];
        assert_eq!(count.load(Ordering::Acquire), 0);
        black_box(frame);
        assert_eq!(count.load(Ordering::Acquire), 0);
    }
}

fn locked<T, O>(lock: &Mutex<T>, f: impl FnOnce(&mut T) -> O) -> O {
    f(&mut lock.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A device with tables: what KVM is.
pub(crate) struct Shadowing {
    pub(crate) tlb: Mutex<Tlb>,
    pub(crate) shadow: Mutex<Floor>,
    table: Floor,
    /// First page and end of each mapping.
    mappings: BTreeMap<u64, u64>,
    /// Look-ups under way: a number and a page.
    board: Mutex<Vec<(u64, u64)>>,
    epochs: LocalHandle,
    sequence: AtomicU64,
    pub(crate) frames: Frames,
}

impl Shadowing {
    pub(crate) fn new(pages: u64, entries: usize) -> Self {
        let mut table = Floor::new();
        table.map(0..pages, 0);
        Self {
            tlb: Mutex::new(Tlb::new(entries)),
            shadow: Mutex::new(Floor::new()),
            table,
            mappings: BTreeMap::from([(0, pages)]),
            board: Mutex::default(),
            epochs: Collector::new().register(),
            sequence: AtomicU64::new(0),
            frames: Frames::new(pages),
        }
    }
    /// What is known of a page, noted before and struck out after: under a pin, in a mapping, by
    /// the page table.
    fn look_up(&self, page: u64) -> u64 {
        locked(&self.board, |board| board.push((1, page)));
        let pin = self.epochs.pin();
        let mapping = self.mappings.range(..=page).next_back();
        assert!(mapping.is_some_and(|(_, end)| page < *end));
        let entry = self.table.translate(page).expect("mapped");
        drop(pin);
        locked(&self.board, |board| board.retain(|(_, at)| *at != page));
        entry
    }
    /// Through the TLB, or as `serve` gets it.
    pub(crate) fn access(&self, page: u64, serve: impl FnOnce(&Self, u64)) {
        let hit = locked(&self.tlb, |tlb| {
            let frame = tlb.get(page)?;
            self.frames.access(frame);
            Some(())
        });
        if hit.is_none() {
            serve(self, page);
        }
    }
    /// What is not in the shadow table either is looked up, and entered unless the sequence has
    /// moved.
    pub(crate) fn fault(&self, page: u64) {
        if locked(&self.shadow, |shadow| shadow.translate(page)).is_some_and(|e| e != 0) {
            unreachable!("it is a miss");
        }
        let sequence = self.sequence.load(Ordering::Acquire);
        let entry = self.look_up(page);
        locked(&self.shadow, |shadow| {
            assert_eq!(self.sequence.load(Ordering::Acquire), sequence);
            shadow.map_one(page, entry | 1);
            locked(&self.tlb, |tlb| tlb.insert(page, entry >> 12));
        });
        self.access(page, |_, _| unreachable!("it was entered"));
    }
    /// A device without tables: armed with the TLB locked, looked up, dropped in with it locked
    /// again.
    pub(crate) fn drop_in(&self, page: u64) {
        let armed = locked(&self.tlb, |_| self.sequence.load(Ordering::Acquire));
        let entry = self.look_up(page);
        locked(&self.tlb, |tlb| {
            assert_eq!(self.sequence.load(Ordering::Acquire), armed);
            tlb.insert(page, entry >> 12);
        });
        self.access(page, |_, _| unreachable!("it was entered"));
    }
}

/// A partition's entries: a tree of groups of 64 behind a lock.
pub(crate) struct Attached {
    entries: Mutex<BTreeMap<u64, Box<[Option<u64>; 64]>>>,
    frames: Frames,
}

impl Attached {
    pub(crate) fn new(pages: u64) -> Self {
        let group = |g: u64| Box::new(std::array::from_fn(|n| Some(g * 64 + n as u64)));
        let groups = (0..pages / 64).map(|g| (g, group(g)));
        Self {
            entries: Mutex::new(groups.collect()),
            frames: Frames::new(pages),
        }
    }
    pub(crate) fn access(&self, page: u64) {
        locked(&self.entries, |entries| {
            let frame = entries[&(page / 64)][(page % 64) as usize];
            self.frames.access(frame.expect("entered"));
        });
    }
}
