//! A plain four-level table, the floor that everything is measured against, and a world to measure in.

#![allow(unreachable_pub, dead_code)] // Each benchmark uses its part.
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    ctx::{Cx, Sleepable, rank},
    mm::{MmapArgs, Prot},
};
use std::sync::Arc;

/// Where the measured memory lies.
pub const BASE: u64 = 1 << 40;
/// Pages of the larger measurements.
pub const PAGES: u64 = 64 << 10;

/// The token that every operation takes.
pub type Idle<'t> = Cx<'t, rank::Idle, Sleepable>;

/// A machine without contents, large enough for several times [`PAGES`].
pub fn machine() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1 << 22,
            contents: Contents::None,
        },
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    })
}

/// An address space with `pages` pages mapped at [`BASE`], none touched.
pub fn space(cx: &mut Idle<'_>, machine: &Arc<Machine>, pages: u64) -> Arc<Mm> {
    let mm = Mm::new(machine);
    map(cx, &mm, 0, pages, Prot::READ | Prot::WRITE);
    mm
}

/// Maps pages `[from, from + pages)` of the measured memory.
pub fn map(cx: &mut Idle<'_>, mm: &Mm, from: u64, pages: u64, prot: Prot) {
    let at = BASE + from * PAGE_SIZE;
    let args = MmapArgs::anonymous(pages * PAGE_SIZE).fixed(at).prot(prot);
    mm.mmap(cx, &args).expect("there is room");
}

/// Writes to each page once.
pub fn touch(cx: &mut Idle<'_>, mm: &Mm, pages: u64) {
    for n in 0..pages {
        mm.store(cx, BASE + n * PAGE_SIZE, 1).expect("mapped");
    }
}

/// Four levels of 512 entries and nothing else: no VMA, no count, no lock.
#[derive(Default)]
pub struct Floor(Option<Box<Dir<Dir<Dir<Leaf>>>>>);
type Leaf = [u64; 512];
struct Dir<C>(Box<[Option<Box<C>>; 512]>);

impl<C> Default for Dir<C> {
    fn default() -> Self {
        Self(Box::new([const { None }; 512]))
    }
}

const fn index(page: u64, level: u32) -> usize {
    (page >> (9 * level)) as usize & 511
}

impl Floor {
    /// Sets the entries of `[from, from + pages)`.
    pub fn map(&mut self, from: u64, pages: u64) {
        for page in from..from + pages {
            let pud = self.0.get_or_insert_default();
            let pmd = pud.0[index(page, 3)].get_or_insert_default();
            let leaves = pmd.0[index(page, 2)].get_or_insert_default();
            let leaf = leaves.0[index(page, 1)].get_or_insert_with(|| Box::new([0; 512]));
            leaf[index(page, 0)] = page << 12 | 1;
        }
    }
    /// Clears them.
    pub fn unmap(&mut self, from: u64, pages: u64) {
        for page in from..from + pages {
            if let Some(leaf) = self.leaf(page) {
                leaf[index(page, 0)] = 0;
            }
        }
    }
    fn leaf(&mut self, page: u64) -> Option<&mut Leaf> {
        let pud = self.0.as_mut()?;
        let pmd = pud.0[index(page, 3)].as_mut()?;
        let leaves = pmd.0[index(page, 2)].as_mut()?;
        leaves.0[index(page, 1)].as_deref_mut()
    }
    /// Copies the entries into another table, both sides write-protected.
    pub fn copy(&mut self, to: &mut Self, from: u64, pages: u64) {
        to.map(from, pages);
        for page in from..from + pages {
            let Some(leaf) = self.leaf(page) else {
                continue;
            };
            leaf[index(page, 0)] &= !2;
            let pte = leaf[index(page, 0)];
            if let Some(leaf) = to.leaf(page) {
                leaf[index(page, 0)] = pte;
            }
        }
    }
}
