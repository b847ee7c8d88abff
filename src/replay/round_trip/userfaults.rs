//! Draws of operations on userfaultfds.

use crate::replay::op::Op;

/// An operation on a userfaultfd or the pagemap.
pub(super) fn draw(kind: u64, any: &mut dyn FnMut() -> u64) -> Op {
    use crate::replay::uffd_op::*;
    let (addr, len, some) = (any(), any() % (1 << 26), any());
    let mode = some.is_multiple_of(2).then_some(some);
    let byte = any().to_le_bytes()[0];
    let fill = Fill { addr, len, mode };
    let moded = Moded {
        addr,
        len,
        mode: some,
    };
    match kind {
        38 => Op::Uffd(Open { features: mode }),
        39 => Op::UffdClose {},
        40 => Op::UffdRegister(moded),
        41 => Op::UffdUnregister(Part { addr, len }),
        42 => Op::UffdWake(Part { addr, len }),
        43 => Op::UffdCopy(Copy {
            addr,
            len,
            byte,
            mode,
        }),
        44 => Op::UffdZeropage(fill),
        45 => Op::UffdContinue(fill),
        46 => Op::UffdPoison(fill),
        47 => Op::UffdWriteprotect(moded),
        48 => Op::UffdMove(Move {
            addr,
            src: some,
            len,
            mode,
        }),
        _ => draw_fault(kind, any, fill),
    }
}

/// An access that waits, or an operation on the pagemap.
fn draw_fault(kind: u64, any: &mut dyn FnMut() -> u64, fill: crate::replay::uffd_op::Fill) -> Op {
    use crate::replay::uffd_op::*;
    let (addr, some) = (any(), any());
    let mode = some.is_multiple_of(2).then_some(some);
    let of = mode.map(|_| 0);
    let resolve = vec![Resolve(Answer::UffdZeropage(fill))];
    match kind {
        49 => Op::FaultLoad(FaultLoad { addr, resolve, of }),
        50 => Op::FaultStore(FaultStore {
            addr,
            byte: any().to_le_bytes()[0],
            resolve,
            of,
        }),
        51 => Op::PagemapScan(ScanOf {
            target: 0,
            flags: some,
            start: addr,
            end: any(),
            mask: some,
            inverted: mode,
            anyof: mode,
            ret_mask: mode,
        }),
        _ => Op::ClearRefs(Clear {
            target: 0,
            value: any().cast_signed() >> 32,
        }),
    }
}
