//! The profile of shared memory: a segment of System V, and a file that is sealed step by step.

use super::{
    arena::{FEW, FILE_PAGES, On, any, at, odd, remap, weighed},
    draw::Draw,
    few,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, Prot},
    replay::{FileKind, FileSpec, Op, Shmat, Shmget},
};

/// The file of the profile.
pub(super) const FILE: &str = "s0";
/// Pages of the first segment.
const SEGMENT: u64 = 4;

const OPERATIONS: &[(u32, On)] = &[
    (22, On::Store),
    (8, On::Load),
    (11, On::Map),
    (4, On::Unmap),
    (8, On::Protect),
    (5, On::Move),
    (3, On::Advise),
    (4, On::Write),
    (4, On::Truncate),
    (3, On::Punch),
    (3, On::Blocks),
    (4, On::Seal),
    (6, On::Attach),
    (4, On::Detach),
    (3, On::Segment),
    (2, On::Reclaim),
    (4, On::Fork),
    (2, On::Exit),
];
const ADVICE: &[Advice] = &[
    Advice::DontNeed,
    Advice::PageOut,
    Advice::DontFork,
    Advice::PopulateRead,
    Advice::PopulateWrite,
    Advice::GuardInstall,
    Advice::GuardRemove,
];
/// Seals: each alone, all that forbid to write or to change the size, and one that none has.
const SEALS: &[u32] = &[1, 2, 4, 8, 16, 32, 6, 24, 64];
/// Flags of `shmat`: none, `SHM_RDONLY`, `SHM_RND`, `SHM_REMAP`, both, `SHM_EXEC`.
const AT: &[u32] = &[0, 0, 0o10000, 0o20000, 0o40000, 0o60000, 0o100_000];

/// Returns the file of the profile.
pub(super) fn file() -> FileSpec {
    FileSpec {
        size: FILE_PAGES * PAGE_SIZE,
        kind: FileKind::Sealable,
    }
}

/// Returns a mapping of the file, and a segment that is attached.
pub(super) fn opening(map: impl Fn(u64, u64, Option<String>) -> Op) -> Vec<Op> {
    vec![
        map(0, FEW / 2, Some(FILE.into())),
        Op::Shmget(Shmget {
            len: SEGMENT * PAGE_SIZE,
            flags: 0,
        }),
        Op::Shmat(Shmat {
            addr: at(FEW / 2),
            flags: 0,
        }),
    ]
}

/// Returns the operation of a draw.
pub(super) fn op(d: Draw) -> Option<Op> {
    let (addr, len) = few::pages(d);
    let off = d.other % FILE_PAGES * PAGE_SIZE;
    Some(match weighed(d.kind, OPERATIONS) {
        On::Map => map(d, off),
        // Pieces of a segment move one by one.
        On::Move => remap(
            d.page % FEW,
            1,
            FEW + d.other % FEW,
            d.byte.is_multiple_of(3),
        ),
        On::Attach => Op::Shmat(Shmat {
            addr: addr + any(&[0, 0, 0, 5], d.other),
            flags: any(AT, d.byte.into()),
        }),
        On::Detach => Op::Shmdt { addr },
        On::Segment => match d.other % 4 {
            0 => Op::Shmget(Shmget {
                len: len - any(&[0, 5], d.byte.into()),
                // Sometimes `SHM_NORESERVE`.
                flags: any(&[0, 0o10000], d.n),
            }),
            1 => Op::Shmrm {},
            2 => Op::Shmlock {},
            _ => Op::Shmunlock {},
        },
        kind @ (On::Write | On::Truncate | On::Punch | On::Blocks | On::Seal) => {
            on_file(kind, d, off)
        }
        kind => return few::op(kind, d, ADVICE),
    })
}

/// A mapping of the file: shared mostly, and often without the right to write.
fn map(d: Draw, off: u64) -> Op {
    let (addr, len) = few::pages(d);
    let rights = [Prot::READ | Prot::WRITE, Prot::READ];
    let kinds = [MapFlags::SHARED, MapFlags::SHARED, MapFlags::PRIVATE];
    Op::Mmap {
        addr,
        len,
        prot: any(&rights, d.n),
        flags: any(&kinds, d.byte.into()) | MapFlags::FIXED,
        file: Some(FILE.into()),
        off,
    }
}

/// An operation on the file itself.
fn on_file(kind: On, d: Draw, off: u64) -> Op {
    let file = FILE.to_owned();
    match kind {
        On::Write => Op::Pwrite {
            file,
            off: off + odd(d.n),
            byte: d.byte,
        },
        On::Truncate => Op::Ftruncate {
            file,
            len: d.other % (FILE_PAGES + 2) * PAGE_SIZE + odd(d.n),
        },
        On::Punch => Op::PunchHole {
            file,
            off,
            len: PAGE_SIZE + odd(d.n),
        },
        On::Blocks => Op::Fallocate {
            file,
            mode: any(&[0, 1, 3, 16], d.byte.into()),
            off,
            len: d.n * PAGE_SIZE,
        },
        _ => Op::Seal {
            file,
            seals: any(SEALS, d.byte.into()),
        },
    }
}
