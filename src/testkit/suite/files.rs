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
    (15, On::Store),
    (12, On::Private),
    (10, On::Write),
    (10, On::Truncate),
    (9, On::Punch),
    (5, On::Advise),
    (10, On::Sync),
    (10, On::Out),
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
        On::Sync if d.byte.is_multiple_of(3) => Op::Msync {
            addr: at(any(&[SHARED_AT, SECOND_AT], d.other) + page),
            len: d.n.min(FILE_PAGES - page) * PAGE_SIZE - odd(d.other / 2) / 2,
            flags: MsyncFlags::SYNC,
        },
        On::Sync => Op::Fsync { file },
        _ => return None,
    })
}
