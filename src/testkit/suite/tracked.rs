//! The profile of memory whose writes are tracked: that of anonymous memory, registered for write
//! protection by userfaultfd that sends no messages, and scanned. No access of the script can tell;
//! a scan must tell of every write.

use super::{
    arena::{ARENA, any, at},
    draw::Draw,
    pages,
};
use crate::{
    addr::PAGE_SIZE,
    mm::{MremapArgs, PageCategories, RegisterMode, ScanFlags, UffdFeatures},
    replay::{Moded, Op, Open, Part, ScanOf},
};

/// Draws, of 100, that are operations on the userfaultfd or the pagemap.
const TRACKING: u32 = 30;

/// Returns a userfaultfd that sends no messages.
pub(super) fn opening() -> Vec<Op> {
    let features = UffdFeatures::WP_ASYNC | UffdFeatures::WP_HUGETLBFS_SHMEM;
    vec![Op::Uffd(Open {
        features: Some(features.bits()),
    })]
}

/// Returns true if only the process that made the userfaultfd can do the operation.
pub(super) fn is_of_the_first(op: &Op) -> bool {
    op.has_results()
}

/// Returns the operation of a draw.
pub(super) fn op(d: Draw) -> Option<Op> {
    if d.kind < TRACKING {
        return Some(tracking(d));
    }
    let kind = (d.kind - TRACKING) * 100 / (100 - TRACKING);
    let op = pages::op(Draw { kind, ..d })?;
    // A move of several registered mappings is refused, and which mappings there are is nothing
    // that the model knows.
    Some(match op {
        Op::Mremap(all) if all.old_len == all.new_len && all.old_len > PAGE_SIZE => {
            Op::Mremap(MremapArgs {
                old_len: PAGE_SIZE,
                new_len: PAGE_SIZE,
                ..all
            })
        }
        op => op,
    })
}

fn tracking(d: Draw) -> Op {
    let (addr, len) = (at(d.page % ARENA), d.n * PAGE_SIZE);
    let scan = |flags: ScanFlags| {
        Op::PagemapScan(ScanOf {
            target: 0,
            flags: flags.bits(),
            start: addr,
            end: addr + len,
            mask: PageCategories::WRITTEN.bits(),
            inverted: None,
            anyof: None,
            ret_mask: any(&[None, Some(PageCategories::WRITTEN.bits())], d.other),
        })
    };
    let mode = RegisterMode::WP.bits();
    match d.kind % 10 {
        0..3 => Op::UffdRegister(Moded { addr, len, mode }),
        3 => Op::UffdUnregister(Part { addr, len }),
        4 | 5 => Op::UffdWriteprotect(Moded {
            addr,
            len,
            mode: u64::from(!d.byte.is_multiple_of(3)),
        }),
        6 | 7 => scan(ScanFlags::WP_MATCHING),
        _ => scan(ScanFlags::empty()),
    }
}
