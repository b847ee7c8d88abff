//! The profile for trials of devices: operations of every kind. Process 0, which has the devices,
//! acts most often.

use super::{
    arena::{FILE_PAGES, PAGES, PROCESSES, RW, any, at, odd, remap},
    draw::Draw,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, Prot},
    replay::Op,
};

/// Returns the operation of a draw and its process.
pub(super) fn op(d: Draw, who: u32, living: &[u32], fresh: u32) -> (u32, Op) {
    let actor = if d.who < 3 { 0 } else { who };
    let (page, other) = (d.page % PAGES, d.other % PAGES);
    let (addr, len) = (at(page), d.n * PAGE_SIZE);
    let file = || ["f0", "f1"][usize::from(d.byte % 2)].to_owned();
    let op = match d.kind {
        0..15 => Op::Load { addr },
        15..40 => Op::Store { addr, byte: d.byte },
        40..60 => map(d, addr, len, other),
        60..65 => Op::Munmap { addr, len },
        65..70 => {
            let prot = any(&[Prot::READ, RW, Prot::empty(), RW], d.byte.into());
            Op::Mprotect { addr, len, prot }
        }
        70..75 => remap(page, d.n, PAGES + other, d.byte.is_multiple_of(5)),
        75..86 => Op::Madvise {
            addr,
            len,
            advice: any(ADVICE, d.byte.into()),
        },
        86..91 if living.len() < PROCESSES - 1 => Op::Fork { child: fresh },
        91..93 if who != 0 => return (who, Op::Exit {}),
        93..94 => Op::Ftruncate {
            file: file(),
            len: other % (FILE_PAGES + 1) * PAGE_SIZE + odd(d.n),
        },
        94..96 => {
            let off = other % FILE_PAGES * PAGE_SIZE;
            Op::PunchHole {
                file: file(),
                off: off + odd(d.n),
                len: any(&[PAGE_SIZE, PAGE_SIZE + 77, 50], d.byte.into()),
            }
        }
        96..98 => {
            let off = other % FILE_PAGES * PAGE_SIZE;
            Op::Pwrite {
                file: file(),
                off: off + odd(d.n),
                byte: d.byte,
            }
        }
        98..99 => Op::msync(addr, len),
        _ => Op::Store {
            addr: at(other),
            byte: d.byte,
        },
    };
    (actor, op)
}

const ADVICE: &[Advice] = &[
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

fn map(d: Draw, addr: u64, len: u64, other: u64) -> Op {
    let kinds = [
        MapFlags::PRIVATE,
        MapFlags::PRIVATE,
        MapFlags::SHARED,
        MapFlags::POPULATE.union(MapFlags::PRIVATE),
    ];
    let of_file = other.is_multiple_of(3);
    let file = of_file.then(|| ["f0", "f1"][usize::from(d.byte % 2)].to_owned());
    let off = if of_file { other % FILE_PAGES } else { 0 };
    Op::Mmap {
        addr,
        len,
        prot: if other == 1 { Prot::READ } else { RW },
        flags: any(&kinds, d.byte.into()) | MapFlags::FIXED,
        file,
        off: off * PAGE_SIZE,
    }
}
