//! Draws of operations on userfaultfds.

use super::numbers::Numbers;
use crate::replay::op::Op;

/// An operation on a userfaultfd or the pagemap.
pub(super) fn draw(kind: u64, n: &mut Numbers) -> Op {
    use crate::replay::uffd_op::*;
    let (addr, len, some) = (n.any(), n.any() % (1 << 26), n.any());
    let mode = some.is_multiple_of(2).then_some(some);
    let byte = n.any().to_le_bytes()[0];
    let fill = Fill { addr, len, mode };
    let moded = Moded {
        addr,
        len,
        mode: some,
    };
    match kind {
        0 => Op::Uffd(Open { features: mode }),
        1 => Op::UffdClose {},
        2 => Op::UffdRegister(moded),
        3 => Op::UffdUnregister(Part { addr, len }),
        4 => Op::UffdWake(Part { addr, len }),
        5 => Op::UffdCopy(Copy {
            addr,
            len,
            byte,
            mode,
        }),
        6 => Op::UffdZeropage(fill),
        7 => Op::UffdContinue(fill),
        8 => Op::UffdPoison(fill),
        9 => Op::UffdWriteprotect(moded),
        10 => Op::UffdMove(Move {
            addr,
            src: some,
            len,
            mode,
        }),
        _ => draw_fault(kind, n, fill),
    }
}

/// An access that waits, or an operation on the pagemap.
fn draw_fault(kind: u64, n: &mut Numbers, fill: crate::replay::uffd_op::Fill) -> Op {
    use crate::replay::uffd_op::*;
    let (addr, some) = (n.any(), n.any());
    let mode = some.is_multiple_of(2).then_some(some);
    let of = mode.map(|_| 0);
    let resolve = vec![Resolve(Answer::UffdZeropage(fill))];
    match kind {
        11 => Op::FaultLoad(FaultLoad { addr, resolve, of }),
        12 => Op::FaultStore(FaultStore {
            addr,
            byte: n.any().to_le_bytes()[0],
            resolve,
            of,
        }),
        13 => Op::PagemapScan(ScanOf {
            target: 0,
            flags: some,
            start: addr,
            end: n.any(),
            mask: some,
            inverted: mode,
            anyof: mode,
            ret_mask: mode,
        }),
        _ => Op::ClearRefs(Clear {
            target: 0,
            value: n.any().cast_signed() >> 32,
        }),
    }
}
