//! The profile of memory of a device: few pages, which go to a device and come home under forks,
//! moves, protections, reclaim, migration and merging. The device of half of the scripts is one
//! that processors reach, and it has room for half of the pages.

use super::{
    arena::{FEW, On, RW, any, at, remap, weighed},
    draw::{Draw, byte_in},
};
use crate::{
    addr::PAGE_SIZE,
    mm::{Advice, MapFlags, Prot},
    replay::{Bytes, NewDevice, Op},
};

const ON_DEVICE: &[(u32, On)] = &[
    (20, On::Store),
    (6, On::Load),
    (33, On::Device),
    (8, On::Fork),
    (4, On::Exit),
    (5, On::Protect),
    (2, On::Map),
    (2, On::Unmap),
    (4, On::Move),
    (6, On::Advise),
    (3, On::Reclaim),
    (2, On::Migrate),
    (2, On::Merge),
    (3, On::Pin),
];

const ADVICE: &[Advice] = &[
    Advice::DontNeed,
    Advice::Free,
    Advice::PageOut,
    Advice::DontFork,
    Advice::WipeOnFork,
    Advice::GuardInstall,
    Advice::GuardRemove,
    Advice::PopulateWrite,
];

/// Returns a device, and two mappings: private memory, and private memory of a file.
pub(super) fn opening(file: u32, map: impl Fn(u64, u64, Option<String>) -> Op) -> Vec<Op> {
    vec![
        device(file),
        map(0, FEW * 2 / 3, None),
        map(FEW * 2 / 3, FEW / 3, Some(format!("f{file}"))),
    ]
}

fn device(file: u32) -> Op {
    Op::Device(NewDevice {
        frames: 6,
        coherent: file == 1,
    })
}

/// Returns the operation of a draw.
pub(super) fn op(d: Draw, file: u32) -> Option<Op> {
    let page = d.page % FEW;
    let (addr, len) = (at(page), d.n.min(FEW - page) * PAGE_SIZE);
    Some(match weighed(d.kind, ON_DEVICE) {
        On::Store => Op::Store {
            addr: addr + byte_in(d),
            byte: d.byte,
        },
        On::Load => Op::Load { addr },
        On::Device => on_device(d, file, (addr, len)),
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        On::Protect => {
            let prot = any(&[Prot::READ, RW, RW, Prot::empty()], d.byte.into());
            Op::Mprotect { addr, len, prot }
        }
        On::Map => Op::Mmap {
            addr,
            len,
            prot: any(&[RW, RW, Prot::READ], d.other),
            flags: any(&[MapFlags::PRIVATE, MapFlags::SHARED], d.byte.into()) | MapFlags::FIXED,
            file: None,
            off: 0,
        },
        On::Unmap => Op::Munmap { addr, len },
        On::Move => remap(page, 1 + d.n % 3, FEW + d.other % FEW, false),
        On::Advise => {
            let advice = any(ADVICE, d.byte.into());
            Op::Madvise { addr, len, advice }
        }
        On::Reclaim => Op::Reclaim {},
        On::Migrate => Op::Migrate { addr },
        On::Merge => Op::Merge {},
        On::Pin => match d.other.is_multiple_of(2) {
            true => Op::Pin { addr, len },
            false => Op::Unpin {},
        },
        _ => return None,
    })
}

/// The device takes pages and gives them back.
fn on_device(d: Draw, file: u32, (addr, len): (u64, u64)) -> Op {
    match d.other % 32 {
        0..16 => Op::ToDevice(Bytes { addr, len }),
        16..23 => Op::FromDevice(Bytes { addr, len }),
        23..30 => Op::Exclusive { addr },
        30 => Op::EvictDevice {},
        _ if d.byte.is_multiple_of(2) => Op::RemoveDevice {},
        _ => device(file),
    }
}
