//! Random operations: a draw is a few numbers, and becomes an operation with the processes that live by then, so that a
//! sequence that is made shorter still makes sense.

use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, MremapFlags, Prot},
    replay::{FileKind, FileSpec, Header, Op},
};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Where the pages are.
pub(super) const BASE: u64 = 1 << 40;
/// Pages that are used; moves go up to as far again.
pub(super) const PAGES: u64 = 32;
/// Pages of each file.
const FILE_PAGES: u64 = 8;

/// The numbers of one operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draw {
    kind: u32,
    who: u32,
    page: u64,
    n: u64,
    other: u64,
    byte: u8,
}

/// Draws; smaller numbers are simpler operations on lower pages.
pub(super) fn draw() -> impl Strategy<Value = Draw> {
    (
        0..100_u32,
        0..6_u32,
        0..PAGES,
        1..9_u64,
        0..PAGES,
        1..=250_u8,
    )
        .prop_map(|(kind, who, page, n, other, byte)| Draw {
            kind,
            who,
            page,
            n,
            other,
            byte,
        })
}

/// The header of scripts that are made of draws.
pub(super) fn header(seed: u64) -> Header {
    let file = |kind| FileSpec {
        size: FILE_PAGES * PAGE_SIZE,
        kind,
    };
    let files = BTreeMap::from([
        ("f0".to_owned(), file(FileKind::Memfd)),
        ("f1".to_owned(), file(FileKind::Disk)),
    ]);
    let end = BASE + 4 * PAGES * PAGE_SIZE;
    Header::new("testkit", seed, "emmu", BASE..end, files)
}

const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

const RW: Prot = Prot::READ.union(Prot::WRITE);

impl Draw {
    /// What it is, and who does it.
    pub(super) fn op(self, living: &[u32], fresh: u32) -> (u32, Op) {
        let who = living[self.who as usize % living.len()];
        // Process 0 has the devices.
        let actor = if self.who < 3 { 0 } else { who };
        let (addr, len) = (at(self.page), self.n * PAGE_SIZE);
        let op = match self.kind {
            0..15 => Op::Load { addr },
            15..40 => Op::Store {
                addr,
                byte: self.byte,
            },
            40..60 => self.map(addr, len),
            60..65 => Op::Munmap { addr, len },
            65..70 => Op::Mprotect {
                addr,
                len,
                prot: [Prot::READ, RW, Prot::empty(), RW][usize::from(self.byte % 4)],
            },
            70..75 => self.remap(addr, len),
            75..86 => Op::Madvise {
                addr,
                len,
                advice: self.advice(),
            },
            86..91 if living.len() < 5 => Op::Fork { child: fresh },
            91..93 if who != 0 => return (who, Op::Exit {}),
            93..94 => Op::Ftruncate {
                file: self.file(),
                len: self.other % (FILE_PAGES + 1) * PAGE_SIZE,
            },
            94..96 => Op::PunchHole {
                file: self.file(),
                off: self.other % FILE_PAGES * PAGE_SIZE,
                len: PAGE_SIZE,
            },
            96..98 => Op::Pwrite {
                file: self.file(),
                off: self.other % FILE_PAGES * PAGE_SIZE,
                byte: self.byte,
            },
            98..99 => Op::Msync { addr, len },
            _ => Op::Store {
                addr: at(self.other),
                byte: self.byte,
            },
        };
        (actor, op)
    }
    fn file(self) -> String {
        ["f0", "f1"][usize::from(self.byte % 2)].to_owned()
    }
    fn map(self, addr: u64, len: u64) -> Op {
        let kinds = [
            MapFlags::PRIVATE,
            MapFlags::PRIVATE,
            MapFlags::SHARED,
            MapFlags::POPULATE.union(MapFlags::PRIVATE),
        ];
        let kind = kinds[usize::from(self.byte % 4)];
        let file = self.other.is_multiple_of(3).then(|| self.file());
        let off = file.as_ref().map_or(0, |_| self.other % FILE_PAGES);
        Op::Mmap {
            addr,
            len,
            prot: if self.other == 1 { Prot::READ } else { RW },
            flags: kind | MapFlags::FIXED,
            file,
            off: off * PAGE_SIZE,
        }
    }
    fn remap(self, addr: u64, len: u64) -> Op {
        let mut flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
        flags.set(MremapFlags::DONTUNMAP, self.byte.is_multiple_of(5));
        Op::Mremap {
            addr,
            old_len: len,
            new_len: len,
            flags,
            new_addr: at(PAGES + self.other),
        }
    }
    fn advice(self) -> Advice {
        let all = [
            Advice::DontNeed,
            Advice::PageOut,
            Advice::Cold,
            Advice::Free,
            Advice::WillNeed,
            Advice::DontFork,
            Advice::DoFork,
            Advice::WipeOnFork,
            Advice::GuardInstall,
            Advice::GuardRemove,
            Advice::DontNeed,
        ];
        all[usize::from(self.byte) % all.len()]
    }
}
