//! The profile of memory of a device: few pages, which go to a device and come home under forks,
//! moves, protections, reclaim, migration and merging. The device of half of the scripts is one
//! that processors reach, and it has room for half of the pages.

use super::{
    arena::{FEW, On, weighed},
    draw::Draw,
    few,
};
use crate::{
    mm::Advice,
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
    let (addr, len) = few::pages(d);
    Some(match weighed(d.kind, ON_DEVICE) {
        On::Device => on_device(d, file, (addr, len)),
        On::Map => few::map(d, None, 0),
        On::Pin => match d.other.is_multiple_of(2) {
            true => Op::Pin { addr, len },
            false => Op::Unpin {},
        },
        kind => return few::op(kind, d, ADVICE),
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
