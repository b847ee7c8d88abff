//! Operations of the kernel by itself: `khugepaged`, shrinkers, the swap device, the limit of
//! memory.

use super::{came::done, op::Op, script::Outcome};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::{Advice, Mm},
};

/// Pages that the recorder's control group was charged with for kernel objects (VMAs, nodes of
/// reverse maps) when its limit was set: this library does not count them.
const KERNEL_OBJECTS: u64 = 2;

/// Returns true if the kernel does this by itself, not for a process.
pub(super) fn is_of_the_kernel(op: &Op) -> bool {
    matches!(
        op,
        Op::Reclaim {}
            | Op::Shrink { .. }
            | Op::Migrate { .. }
            | Op::MigrateMany { .. }
            | Op::Merge {}
            | Op::Ksm { .. }
            | Op::Khugepaged { .. }
            | Op::DropCaches { .. }
            | Op::Swapoff {}
            | Op::Swapon {}
            | Op::Limit { .. }
    )
}

/// Executes the operation for a process; `recorded`: a kernel recorded the script.
pub(super) fn act(cx: &mut CallCx<'_>, mm: &Mm, op: &Op, recorded: bool) -> Outcome {
    let machine = mm.machine();
    match *op {
        Op::Khugepaged { ref advise } => {
            for range in advise {
                // A range that cannot be advised is left as it is.
                let _advised = mm.madvise(cx, range.0.0, range.1, Advice::HugePage);
            }
            machine.khugepaged(cx);
            Outcome::Ret(0)
        }
        Op::DropCaches { .. } => {
            machine.split_deferred(cx);
            Outcome::Ret(0)
        }
        Op::Swapoff {} => done(machine.swapoff(cx)),
        Op::Swapon {} => done(machine.swapon()),
        Op::Limit { bytes } => {
            let objects = if recorded { KERNEL_OBJECTS } else { 0 };
            let pages = (bytes / PAGE_SIZE).saturating_sub(objects);
            done(machine.set_memory_limit(cx, Some(pages)))
        }
        ref other => unreachable!("{other:?} is done by a process"),
    }
}

/// Returns an operation of each kind, by number, with any argument.
#[cfg(test)]
pub(super) fn draw(kind: u64, any: u64) -> Op {
    match kind {
        0 => Op::Khugepaged {
            advise: vec![(super::hex::Hex(any), any)],
        },
        1 => Op::DropCaches { value: 2 },
        2 => Op::Swapoff {},
        3 => Op::Swapon {},
        _ => Op::Limit { bytes: any },
    }
}
