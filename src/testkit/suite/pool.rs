//! The profile of huge pages of a pool: private, shared, and of a file; forked, protected, moved,
//! migrated and given back as whole pages. A call on a part of one is refused.

use super::{
    arena::{On, RW, any, at, remap, weighed},
    draw::Draw,
};
use crate::{
    addr::{PAGE_SIZE, PMD_PAGES},
    mm::{Advice, MapFlags, Prot},
    replay::{FileKind, FileSpec, Op},
};

/// Huge pages that are mapped; moves reach one more.
const HUGE: u64 = 3;
/// Pages of the profile.
pub(super) const ARENA: u64 = (HUGE + 1) * PMD_PAGES;
/// Huge pages of the pool: enough for all processes, and for the promises that moves of parts of a
/// mapping leave behind.
pub(super) const POOL: u64 = 64;
/// The file of the profile, and its huge pages.
pub(super) const FILE: &str = "h0";
const FILE_PAGES: u64 = 2;
const BYTES: u64 = PMD_PAGES * PAGE_SIZE;
/// The pages of each huge page that operations name.
const CORNERS: [u64; 5] = [0, 1, 256, 510, 511];

const OPERATIONS: &[(u32, On)] = &[
    (32, On::Store),
    (13, On::Load),
    (9, On::Advise),
    (6, On::Protect),
    (5, On::Unmap),
    (9, On::Map),
    (5, On::Move),
    (7, On::Part),
    (4, On::Punch),
    (3, On::Truncate),
    (2, On::Reclaim),
    (5, On::Migrate),
    (3, On::Fork),
    (2, On::Exit),
];

/// Returns the file of the profile.
pub(super) fn file() -> FileSpec {
    FileSpec {
        size: FILE_PAGES * BYTES,
        kind: FileKind::Hugetlb,
    }
}

/// Returns two private huge pages and one of the file.
pub(super) fn opening() -> Vec<Op> {
    vec![map(0, 2, Some(MapFlags::PRIVATE), 0), map(2, 1, None, 0)]
}

/// Returns the pages of a look.
pub(super) fn looked_at() -> Vec<u64> {
    let huge = 0..=HUGE;
    huge.flat_map(|h| CORNERS.map(|n| h * PMD_PAGES + n))
        .collect()
}

/// Maps anonymous memory of this kind, or the file.
fn map(first: u64, n: u64, kind: Option<MapFlags>, offset: u64) -> Op {
    Op::Mmap {
        addr: at(first * PMD_PAGES),
        len: n * BYTES,
        prot: RW,
        flags: MapFlags::FIXED | kind.map_or(MapFlags::SHARED, |kind| kind | MapFlags::HUGETLB),
        file: kind.is_none().then(|| FILE.to_owned()),
        off: offset * BYTES,
    }
}

/// Returns the operation of a draw.
pub(super) fn op(d: Draw) -> Option<Op> {
    let (nth, other) = (d.page % HUGE, d.other % (HUGE + 1));
    let corner = any(&CORNERS, d.other);
    let addr = at(nth * PMD_PAGES + corner);
    let (whole, len) = (at(nth * PMD_PAGES), BYTES);
    let file = FILE.to_owned();
    Some(match weighed(d.kind, OPERATIONS) {
        On::Store => Op::Store { addr, byte: d.byte },
        On::Load => Op::Load { addr },
        On::Advise => Op::Madvise {
            addr: whole,
            len,
            advice: any(
                &[
                    Advice::DontNeed,
                    Advice::DontNeed,
                    Advice::DontFork,
                    Advice::DoFork,
                ],
                d.n,
            ),
        },
        On::Protect => Op::Mprotect {
            addr: whole,
            len,
            prot: any(&[Prot::READ, RW, RW, Prot::empty()], d.byte.into()),
        },
        On::Unmap => Op::Munmap { addr: whole, len },
        On::Map => {
            let kinds = [Some(MapFlags::PRIVATE), Some(MapFlags::SHARED), None];
            map(nth, 1, any(&kinds, d.byte.into()), d.other % FILE_PAGES)
        }
        On::Move => remap(nth * PMD_PAGES, PMD_PAGES, other * PMD_PAGES, false),
        On::Part => part(at(nth * PMD_PAGES + 1 + d.other), d.n),
        On::Punch => Op::PunchHole {
            file,
            off: d.other % FILE_PAGES * BYTES,
            len,
        },
        On::Truncate => Op::Ftruncate {
            file,
            len: d.other % (FILE_PAGES + 1) * BYTES,
        },
        On::Reclaim => Op::Reclaim {},
        On::Migrate => Op::Migrate { addr },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        _ => return None,
    })
}

/// A call on a few pages inside of a huge one.
fn part(addr: u64, n: u64) -> Op {
    let len = n * PAGE_SIZE;
    match n % 3 {
        0 => Op::Munmap { addr, len },
        1 => Op::Mprotect {
            addr,
            len,
            prot: Prot::READ,
        },
        _ => Op::Madvise {
            addr,
            len,
            advice: Advice::DontNeed,
        },
    }
}
