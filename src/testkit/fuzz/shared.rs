//! Operations on the segment of System V, on a file that takes seals, and on names, as numbers.

use crate::{
    addr::PAGE_SIZE,
    mm::{MapFlags, Prot},
    replay::{AnonName, Op, Shmat, Shmget},
};

/// The file that takes seals.
const FILE: &str = "s0";

/// Operations on shared memory.
pub(super) fn on_shared((addr, len): (u64, u64), (other, b): (u8, u8)) -> Op {
    let file = FILE.to_owned();
    let off = u64::from(other % 12) * PAGE_SIZE;
    match b % 16 {
        0 | 1 => Op::Shmget(Shmget {
            len: len.saturating_sub(u64::from(other % 2)),
            // `SHM_NORESERVE`, or flags that a segment has not.
            flags: u32::from(other / 16) << 10,
        }),
        2..=4 => Op::Shmat(Shmat {
            addr,
            // From `SHM_RDONLY` on.
            flags: u32::from(other % 16) << 12,
        }),
        5 | 6 => Op::Shmdt { addr },
        7 if other % 4 == 0 => Op::Shmrm {},
        7 if other % 2 == 0 => Op::Shmunlock {},
        7 => Op::Shmlock {},
        8..=10 => Op::Mmap {
            addr,
            len,
            prot: Prot::from_bits_retain(u32::from(other / 64)),
            flags: MapFlags::FIXED
                | match b % 3 {
                    0 => MapFlags::PRIVATE,
                    _ => MapFlags::SHARED,
                },
            file: Some(file),
            off,
        },
        11 => Op::Pwrite { file, off, byte: b },
        12 => Op::Ftruncate { file, len: off },
        13 => Op::PunchHole { file, off, len },
        14 => Op::AnonName(AnonName {
            addr,
            len,
            name: [None, Some("a".into()), Some("b c".into()), Some("[".into())]
                [usize::from(other % 4)]
            .clone(),
        }),
        _ => Op::Seal {
            file,
            seals: u32::from(other % 65),
        },
    }
}
