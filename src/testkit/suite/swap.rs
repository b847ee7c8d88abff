//! The profile of swap: few pages, often paged out, shared by forks, migrated and merged;
//! the swap device is taken out of use and put in use.

use super::{
    arena::{FEW, On, at, weighed},
    draw::{Draw, byte_in},
};
use crate::{addr::PAGE_SIZE, mm::Advice, replay::Op};

const ON_SWAP: &[(u32, On)] = &[
    (30, On::Store),
    (15, On::Out),
    (5, On::Free),
    (11, On::Reclaim),
    (5, On::Shrink),
    (11, On::Fork),
    (5, On::Exit),
    (5, On::Migrate),
    (5, On::Advise),
    (5, On::Merge),
    (3, On::Swap),
];

/// Returns the operation of a draw.
pub(super) fn op(d: Draw) -> Option<Op> {
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
        On::Swap => match d.byte.is_multiple_of(2) {
            true => Op::Swapoff {},
            false => Op::Swapon {},
        },
        _ => return None,
    })
}
