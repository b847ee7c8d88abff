//! Kinds of random scripts: which operations, how often, on what.

use super::{
    draw::{BASE, Draw, RW, at},
    files, huge,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, MremapFlags, Prot},
    replay::{FileKind, FileSpec, Header, OURS, Op},
};
use std::collections::BTreeMap;

/// Which operations a random script has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Something of everything that one address space does: what devices are tried with.
    #[default]
    Mixed,
    /// Private and shared anonymous memory of up to 6 processes: mappings that split, merge, move, grow.
    Pages,
    /// One file, of memory, of a disk, or used in place, mapped twice shared and once private: written, cut, punched, synced,
    /// paged out, moved.
    Files,
    /// A few private pages of up to 6 processes: paged out, freed lazily, reclaimed, migrated, merged.
    Swap,
    /// Huge pages: split by what is done to parts of them, moved, paged out, collapsed.
    Huge,
}

/// Pages that are used by the mixed profile; moves go up to as far again.
pub(super) const PAGES: u64 = 32;
/// … by the profile of pages, and those beside them that it moves to and looks at.
const ARENA: u64 = 40;
const AROUND: u64 = 16;
/// … by the profile of swap.
const FEW: u64 = 12;
/// Pages of each file.
pub(super) const FILE_PAGES: u64 = 8;
pub(super) const PROCESSES: usize = 6;

/// The header of scripts that are made of draws.
pub(super) fn header(profile: Profile) -> Header {
    let file = |kind| FileSpec {
        size: FILE_PAGES * PAGE_SIZE,
        kind,
    };
    let files = BTreeMap::from([
        ("f0".to_owned(), file(FileKind::Memfd)),
        ("f1".to_owned(), file(FileKind::Disk)),
        ("f2".to_owned(), file(FileKind::Xip)),
    ]);
    let pages = match profile {
        Profile::Huge => huge::ARENA,
        _ => 4 * PAGES,
    };
    let end = BASE + pages * PAGE_SIZE;
    Header::new("testkit", 0, OURS, BASE..end, files)
}

/// What a script begins with.
pub(super) fn opening(profile: Profile, file: u32) -> Vec<(u32, Op)> {
    let map = |page, n, flags: MapFlags, file| Op::Mmap {
        addr: at(page),
        len: n * PAGE_SIZE,
        prot: RW,
        flags: flags | MapFlags::FIXED,
        file,
        off: 0,
    };
    let name = || Some(format!("f{file}"));
    let ops = match profile {
        Profile::Mixed | Profile::Pages => Vec::new(),
        Profile::Huge => huge::opening(),
        Profile::Swap => vec![map(0, FEW, MapFlags::PRIVATE, None)],
        Profile::Files => vec![
            map(files::SHARED_AT, FILE_PAGES, MapFlags::SHARED, name()),
            map(files::SECOND_AT, FILE_PAGES, MapFlags::SHARED, name()),
            map(files::PRIVATE_AT, FILE_PAGES, MapFlags::PRIVATE, name()),
        ],
    };
    ops.into_iter().map(|op| (0, op)).collect()
}

/// A look at everything, by everybody.
pub(super) fn looks(profile: Profile, living: &[u32]) -> Vec<(u32, Op)> {
    let pages: Vec<u64> = match profile {
        Profile::Mixed => (0..2 * PAGES).collect(),
        Profile::Pages => (0..ARENA + AROUND).collect(),
        Profile::Swap => (0..FEW).collect(),
        Profile::Huge => huge::looked_at(),
        Profile::Files => files::looked_at(),
    };
    let by = |who: &u32| {
        let who = *who;
        pages
            .iter()
            .map(move |page| (who, Op::Load { addr: at(*page) }))
    };
    living.iter().flat_map(by).collect()
}

impl Profile {
    /// Whether everything is looked at after this. Not after what puts pages out, or they would never stay out.
    pub(super) fn looks_after(self, op: Option<&Op>) -> bool {
        let out = matches!(
            op,
            Some(
                Op::Reclaim {}
                    | Op::Madvise {
                        advice: Advice::PageOut,
                        ..
                    }
            )
        );
        match self {
            Self::Mixed | Self::Huge => false,
            // A draw that is no operation.
            Self::Pages => op.is_none(),
            Self::Files | Self::Swap => !out,
        }
    }
    pub(super) fn looks_at_the_end(self) -> bool {
        self != Self::Mixed
    }
    /// What a draw is, and who does it. Nothing, where it cannot be done now.
    pub(super) fn op(self, d: Draw, file: u32, living: &[u32], fresh: u32) -> Option<(u32, Op)> {
        let who = living[d.who as usize % living.len()];
        let room = living.len() < PROCESSES;
        let op = match self {
            Self::Mixed => return Some(super::mixed::op(d, who, living, fresh)),
            Self::Pages => pages(d),
            Self::Files => files::op(d, file),
            Self::Swap => swap(d),
            Self::Huge => huge::op(d),
        };
        match op {
            Some(Op::Fork { .. }) => room.then_some((who, Op::Fork { child: fresh })),
            Some(Op::Exit {}) if who == 0 => None,
            op => Some((who, op?)),
        }
    }
}

/// The first entry that the number falls into, by weights that add up to 100.
pub(super) fn weighed<T: Copy>(number: u32, all: &[(u32, T)]) -> T {
    let mut left = number;
    for &(weight, one) in all {
        if left < weight {
            return one;
        }
        left -= weight;
    }
    all[all.len() - 1].1
}

pub(super) fn any<T: Copy>(from: &[T], number: u64) -> T {
    let nth = number % from.len() as u64;
    from[usize::try_from(nth).expect("small")]
}

#[derive(Clone, Copy)]
pub(super) enum On {
    Load,
    Store,
    Private,
    Map,
    Unmap,
    Protect,
    Move,
    Resize,
    Advise,
    Out,
    Free,
    Reclaim,
    Shrink,
    Migrate,
    Merge,
    Write,
    Truncate,
    Punch,
    Sync,
    Fork,
    Exit,
    Look,
    Huge,
    Collapse,
}

const ON_PAGES: &[(u32, On)] = &[
    (27, On::Store),
    (13, On::Load),
    (13, On::Map),
    (7, On::Unmap),
    (10, On::Protect),
    (10, On::Move),
    (6, On::Resize),
    (7, On::Advise),
    (3, On::Fork),
    (2, On::Exit),
    (2, On::Look),
];
const ADVICE: &[Advice] = &[
    Advice::DontNeed,
    Advice::Free,
    Advice::Cold,
    Advice::DontFork,
    Advice::DoFork,
    Advice::WipeOnFork,
    Advice::KeepOnFork,
    Advice::GuardInstall,
    Advice::GuardRemove,
];

/// Somewhere in a page: what is not written shows whether it was copied.
pub(super) fn byte_in(d: Draw) -> u64 {
    any(&[0, 0, 7, PAGE_SIZE - 1], d.n)
}

fn pages(d: Draw) -> Option<Op> {
    let (page, to) = (d.page % ARENA, d.other % ARENA);
    let (addr, len) = (at(page), d.n * PAGE_SIZE);
    let prot = any(
        &[Prot::empty(), Prot::READ, RW, Prot::READ | Prot::EXEC],
        d.other,
    );
    Some(match weighed(d.kind, ON_PAGES) {
        On::Map => {
            let mut flags = any(&[MapFlags::PRIVATE, MapFlags::SHARED], d.byte.into());
            flags |= match d.byte.is_multiple_of(5) {
                true => MapFlags::FIXED_NOREPLACE,
                false => MapFlags::FIXED,
            };
            Op::Mmap {
                addr,
                len,
                prot,
                flags,
                file: None,
                off: 0,
            }
        }
        On::Unmap => Op::Munmap { addr, len },
        On::Protect => Op::Mprotect { addr, len, prot },
        On::Move => remap(page, d.n, to, d.byte.is_multiple_of(2)),
        On::Resize => Op::Mremap {
            addr,
            old_len: len,
            new_len: (1 + d.other % 8) * PAGE_SIZE,
            flags: MremapFlags::empty(),
            new_addr: 0,
        },
        On::Advise => Op::Madvise {
            addr,
            len,
            advice: any(ADVICE, d.other),
        },
        On::Store => Op::Store {
            addr: addr + byte_in(d),
            byte: d.byte,
        },
        On::Load => Op::Load {
            addr: addr + byte_in(d),
        },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        _ => return None,
    })
}

pub(super) fn remap(from: u64, n: u64, to: u64, keep: bool) -> Op {
    let mut flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    flags.set(MremapFlags::DONTUNMAP, keep);
    Op::Mremap {
        addr: at(from),
        old_len: n * PAGE_SIZE,
        new_len: n * PAGE_SIZE,
        flags,
        new_addr: at(to),
    }
}

const ON_SWAP: &[(u32, On)] = &[
    (32, On::Store),
    (16, On::Out),
    (5, On::Free),
    (11, On::Reclaim),
    (5, On::Shrink),
    (11, On::Fork),
    (5, On::Exit),
    (5, On::Migrate),
    (5, On::Advise),
    (5, On::Merge),
];

fn swap(d: Draw) -> Option<Op> {
    let page = d.page % FEW;
    let addr = at(page);
    let advise = |n: u64, advice| Op::Madvise {
        addr,
        len: n.min(FEW - page) * PAGE_SIZE,
        advice,
    };
    Some(match weighed(d.kind, ON_SWAP) {
        On::Store => Op::Store {
            addr: addr + byte_in(d),
            byte: d.byte,
        },
        On::Out => advise(1 + d.n % 4, Advice::PageOut),
        On::Free => advise(1, Advice::Free),
        On::Reclaim => Op::Reclaim {},
        On::Shrink => Op::Shrink { pages: d.n },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        On::Migrate => Op::Migrate { addr },
        On::Advise => advise(1, Advice::DontNeed),
        On::Merge => Op::Merge {},
        _ => return None,
    })
}
