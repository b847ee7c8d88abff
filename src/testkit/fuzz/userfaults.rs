//! Operations on userfaultfds and the pagemap, as numbers.

use crate::replay::{Clear, Copy, Fill, Moded, Move, Op, Open, Part, ScanOf};

/// Operations on userfaultfds and the pagemap.
pub(super) fn on_userfault((addr, len): (u64, u64), src: u64, (other, a, b): (u8, u8, u8)) -> Op {
    let mode = Some(u64::from(other % 4));
    let moded = |most: u8| Moded {
        addr,
        len,
        mode: u64::from(other % most),
    };
    let fill = Fill { addr, len, mode };
    match ((a / 16) ^ b) % 16 {
        0 => Op::Uffd(Open {
            // All but the events, which are never read.
            features: Some(0x1_fe11 & !(u64::from(other) << 7)),
        }),
        1 => Op::UffdClose {},
        2..=4 => Op::UffdRegister(moded(8)),
        5 => Op::UffdUnregister(Part { addr, len }),
        6 => Op::UffdCopy(Copy {
            addr,
            len,
            byte: b,
            mode,
        }),
        7 => Op::UffdZeropage(fill),
        8 => Op::UffdContinue(fill),
        9 => Op::UffdPoison(fill),
        10 | 11 => Op::UffdWriteprotect(moded(4)),
        12 => Op::UffdMove(Move {
            addr,
            src,
            len,
            mode: Some(u64::from(b % 4)),
        }),
        13 => Op::ClearRefs(Clear {
            target: 0,
            value: i64::from(other % 7),
        }),
        _ => Op::PagemapScan(ScanOf {
            target: 0,
            flags: u64::from(other % 4),
            start: addr,
            end: addr.saturating_add(len),
            mask: u64::from(b % 32),
            inverted: None,
            anyof: None,
            ret_mask: Some(0x1ff),
        }),
    }
}
