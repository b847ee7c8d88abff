//! The profile of files: operations on one file with three mappings, with odd sizes, offsets and
//! lengths.

use super::{
    arena::{FILE_PAGES, On, any, at, odd, remap, weighed},
    draw::{Draw, byte_in},
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MsyncFlags},
    replay::Op,
};

/// Pages of the mappings: shared, shared, private. The second one moves to `SECOND_MOVED` and
/// back.
pub(super) const SHARED_AT: u64 = 0;
pub(super) const SECOND_AT: u64 = 20;
pub(super) const PRIVATE_AT: u64 = 40;
const SECOND_MOVED: u64 = 60;

/// Returns the pages of a look.
pub(super) fn looked_at() -> Vec<u64> {
    let all = [SHARED_AT, SECOND_AT, PRIVATE_AT, SECOND_MOVED];
    all.into_iter()
        .flat_map(|from| from..from + FILE_PAGES)
        .collect()
}

const ON_FILES: &[(u32, On)] = &[
    (14, On::Store),
    (11, On::Private),
    (9, On::Write),
    (9, On::Truncate),
    (7, On::Punch),
    (8, On::Blocks),
    (5, On::Advise),
    (9, On::Sync),
    (9, On::Out),
    (7, On::Reclaim),
    (7, On::Move),
    (3, On::Fork),
    (2, On::Exit),
];

/// Returns the operation of a draw on file `nth`.
pub(super) fn op(d: Draw, nth: u32) -> Option<Op> {
    let page = d.page % FILE_PAGES;
    Some(match weighed(d.kind, ON_FILES) {
        On::Store => Op::Store {
            addr: at(SHARED_AT + page) + byte_in(d),
            byte: d.byte,
        },
        On::Private => Op::Store {
            addr: at(PRIVATE_AT + page) + byte_in(d),
            byte: d.byte,
        },
        On::Advise => Op::Madvise {
            addr: at(any(&[SHARED_AT, PRIVATE_AT], d.byte.into()) + page),
            len: PAGE_SIZE,
            advice: Advice::DontNeed,
        },
        On::Out => {
            let some = (SHARED_AT + page, 2.min(FILE_PAGES - page));
            let (from, n) = any(&[some, (PRIVATE_AT, FILE_PAGES)], d.other);
            Op::Madvise {
                addr: at(from),
                len: n * PAGE_SIZE,
                advice: Advice::PageOut,
            }
        }
        On::Reclaim => Op::Reclaim {},
        On::Move => match d.byte.is_multiple_of(2) {
            true => remap(SECOND_AT, FILE_PAGES, SECOND_MOVED, false),
            false => remap(SECOND_MOVED, FILE_PAGES, SECOND_AT, false),
        },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        on => return on_file(on, d, format!("f{nth}")),
    })
}

/// Returns the operation on the file itself, not on a mapping.
fn on_file(on: On, d: Draw, file: String) -> Option<Op> {
    let page = d.page % FILE_PAGES;
    let off = page * PAGE_SIZE;
    Some(match on {
        On::Write => Op::Pwrite {
            file,
            off: off + odd(d.n),
            byte: d.byte,
        },
        On::Truncate => Op::Ftruncate {
            file,
            len: d.other % (FILE_PAGES + 1) * PAGE_SIZE + odd(d.n),
        },
        On::Punch => {
            let pages = [PAGE_SIZE, 2 * PAGE_SIZE, 3 * PAGE_SIZE, 0];
            let len = any(&pages, d.other) + odd(d.other / 4);
            Op::PunchHole {
                file,
                off: off + odd(d.n),
                len: len.max(1),
            }
        }
        On::Blocks => return Some(on_blocks(d, file)),
        On::Sync if d.byte.is_multiple_of(3) => Op::Msync {
            addr: at(any(&[SHARED_AT, SECOND_AT], d.other) + page),
            len: d.n.min(FILE_PAGES - page) * PAGE_SIZE - odd(d.other / 2) / 2,
            flags: MsyncFlags::SYNC,
        },
        On::Sync => Op::Fsync { file },
        _ => return None,
    })
}

/// Modes of `fallocate`: those of ext4, one of them twice, and one that no file has.
const MODES: &[u32] = &[0, 1, 3, 8, 8, 16, 17, 32, 64];

/// Returns an operation on the blocks of the file, or one that passes its cache.
fn on_blocks(d: Draw, file: String) -> Op {
    let off = d.page % FILE_PAGES * PAGE_SIZE;
    let len = (1 + d.other % 3) * PAGE_SIZE;
    match d.byte % 8 {
        0 => Op::DirectWrite {
            file: file.replace('f', "d"),
            off: off + any(&[0, 512, 0, 1], d.n),
            len: any(&[len, 512, 2048], d.other),
            byte: d.byte,
        },
        1 => Op::FadviseDontneed { file, off, len },
        2 => Op::SyncFileRange {
            file,
            off,
            len,
            flags: 7,
        },
        _ => Op::Fallocate {
            file,
            mode: any(MODES, d.other),
            off: off + any(&[0, 0, 0, 100], d.n),
            len: len + any(&[0, 0, 0, 50], d.n / 2),
        },
    }
}
