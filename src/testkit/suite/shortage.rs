//! Refusals for want of memory, which the failure of one allocation brings to one side alone: to
//! the process, or to a device.

use crate::{
    ctx::CallCx,
    error::{FaultError, ObjectError},
    mm::Mm,
    replay::Op,
};

/// Returns true if memory was wanting, or a page of a pool.
pub(super) fn is_shortage(why: &FaultError) -> bool {
    matches!(
        why,
        FaultError::NoMemory(_)
            | FaultError::Object {
                why: ObjectError::NoHugePage,
                ..
            }
    )
}

/// Returns true if an access of the process that was refused succeeds now: only the allocation that
/// failed was in its way.
pub(super) fn is_over(cx: &mut CallCx<'_>, mm: &Mm, access: &Op) -> bool {
    match *access {
        Op::Load { addr } => mm.load(cx, addr).is_ok(),
        Op::Store { addr, byte } => mm.store(cx, addr, byte).is_ok(),
        _ => false,
    }
}
