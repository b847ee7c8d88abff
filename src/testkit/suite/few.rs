//! Operations on few pages, which several profiles draw.

use super::{
    arena::{FEW, On, RW, any, at, remap},
    draw::{Draw, byte_in},
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, Prot},
    replay::Op,
};

/// Returns address and length of the pages of a draw.
pub(super) fn pages(d: Draw) -> (u64, u64) {
    let page = d.page % FEW;
    (at(page), d.n.min(FEW - page) * PAGE_SIZE)
}

/// Returns a mapping over the pages of a draw.
pub(super) fn map(d: Draw, file: Option<String>, off: u64) -> Op {
    let (addr, len) = pages(d);
    Op::Mmap {
        addr,
        len,
        prot: any(&[RW, RW, Prot::READ], d.other),
        flags: any(&[MapFlags::PRIVATE, MapFlags::SHARED], d.byte.into()) | MapFlags::FIXED,
        file,
        off,
    }
}

/// Returns the operation of a draw, if this kind of operation needs nothing but the pages.
pub(super) fn op(kind: On, d: Draw, advice: &[Advice]) -> Option<Op> {
    let (addr, len) = pages(d);
    Some(match kind {
        On::Store => Op::Store {
            addr: addr + byte_in(d),
            byte: d.byte,
        },
        On::Load => Op::Load { addr },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        On::Protect => {
            let prot = any(&[Prot::READ, RW, RW, Prot::empty()], d.byte.into());
            Op::Mprotect { addr, len, prot }
        }
        On::Unmap => Op::Munmap { addr, len },
        On::Move => remap(d.page % FEW, 1 + d.n % 3, FEW + d.other % FEW, false),
        On::Advise => {
            let advice = any(advice, d.byte.into());
            Op::Madvise { addr, len, advice }
        }
        On::Reclaim => Op::Reclaim {},
        On::Migrate => Op::Migrate { addr },
        On::Merge => Op::Merge {},
        _ => return None,
    })
}
