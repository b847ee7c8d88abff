//! The profile of pins, references and accesses by force: few pages, of private memory and of a
//! file, shared by forks.

use super::{
    arena::{FILE_PAGES, On, any, weighed},
    draw::{Draw, byte_in},
    few,
};
use crate::{addr::PAGE_SIZE, mm::Advice, replay::Op};

const ON_HOLDS: &[(u32, On)] = &[
    (24, On::Store),
    (6, On::Load),
    (14, On::Pin),
    (9, On::Splice),
    (12, On::Force),
    (8, On::Fork),
    (4, On::Exit),
    (5, On::Protect),
    (4, On::Map),
    (2, On::Unmap),
    (3, On::Move),
    (4, On::Advise),
    (1, On::Reclaim),
    (2, On::Migrate),
    (1, On::Merge),
    (1, On::Truncate),
];

const ADVICE: &[Advice] = &[
    Advice::DontNeed,
    Advice::Free,
    Advice::PageOut,
    Advice::DontFork,
    Advice::WipeOnFork,
    Advice::GuardInstall,
    Advice::GuardRemove,
];

/// Returns the operation of a draw.
pub(super) fn op(d: Draw, file: u32, living: &[u32]) -> Option<Op> {
    let file = || format!("f{file}");
    Some(match weighed(d.kind, ON_HOLDS) {
        kind @ (On::Pin | On::Splice | On::Force) => hold(kind, d, few::pages(d), living),
        On::Map => few::map(
            d,
            d.other.is_multiple_of(2).then(file),
            d.other % FILE_PAGES * PAGE_SIZE,
        ),
        On::Truncate => Op::Ftruncate {
            file: file(),
            len: d.other % (FILE_PAGES + 1) * PAGE_SIZE,
        },
        kind => return few::op(kind, d, ADVICE),
    })
}

/// A pin, a pipe, or an access by force, or the end of one of the former.
fn hold(kind: On, d: Draw, (addr, len): (u64, u64), living: &[u32]) -> Op {
    let (target, byte) = (any(living, d.other), d.byte);
    let forced = addr + byte_in(d);
    match (kind, d.other % 3) {
        (On::Pin, 0) => Op::Unpin {},
        (On::Pin, _) => Op::Pin { addr, len },
        (On::Splice, 0) => Op::Drain {},
        (On::Splice, _) => Op::Vmsplice { addr, len },
        _ if d.n.is_multiple_of(3) => Op::MemRead {
            addr: forced,
            target,
        },
        _ => Op::MemWrite {
            addr: forced,
            target,
            byte,
        },
    }
}
