//! The profile of files: what is done to one that is mapped three times, with odd sizes, offsets and lengths.

use super::{
    draw::{Draw, at},
    profile::{FILE_PAGES, On, any, byte_in, remap, weighed},
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MsyncFlags},
    replay::Op,
};

/// Where the file is mapped: shared, shared, private. The second moves to the last and back.
pub(super) const SHARED_AT: u64 = 0;
pub(super) const SECOND_AT: u64 = 20;
pub(super) const PRIVATE_AT: u64 = 40;
const SECOND_MOVED: u64 = 60;

/// The pages that are looked at.
pub(super) fn looked_at() -> Vec<u64> {
    let all = [SHARED_AT, SECOND_AT, PRIVATE_AT, SECOND_MOVED];
    all.into_iter()
        .flat_map(|from| from..from + FILE_PAGES)
        .collect()
}

/// Bytes that an end or a hole lies beside a page's beginning.
pub(super) fn odd(number: u64) -> u64 {
    any(&[0, 0, 1, 7, 100, 2048, PAGE_SIZE - 1], number)
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

/// What a draw is.
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

/// What is done to the file itself.
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
