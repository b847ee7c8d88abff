//! Locks. The model knows when nothing is locked; from the first lock on it is lost.

use super::{
    Reference, must,
    ops::{Came, DONE, Step, errno, refusing, whole},
    page::PAGE,
};
use crate::replay::Op;
use std::ops::Range;

/// The pages that a range of bytes touches, whole as in the part; none where it wraps. The rounding may wrap to nothing.
fn touched(addr: u64, len: u64) -> Option<Range<u64>> {
    let first = addr / PAGE;
    let bytes = len.wrapping_add(addr % PAGE).wrapping_add(PAGE - 1);
    let n = bytes / PAGE;
    (first * PAGE).checked_add(n * PAGE)?;
    Some(first..first + n)
}

impl Reference {
    pub(super) fn lock(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Mlock2 { flags, .. } if flags > 1 => must(&errno("EINVAL"), came),
            Op::Mlock { addr, len } | Op::Mlock2 { addr, len, .. } => match touched(addr, len) {
                Some(range) if range.is_empty() => must(&DONE, came),
                // One that fails at a hole has locked what lies before.
                Some(range) if self.pages_of(actor).contains_key(&range.start) => {
                    self.lost = true;
                    Ok(())
                }
                _ => refusing(came),
            },
            Op::Munlock { addr, len } => {
                let Some(range) = touched(addr, len) else {
                    return must(&errno("EINVAL"), came);
                };
                let n = range.end - range.start;
                let mapped = self.pages_of(actor).range(range).count();
                must(&whole(mapped as u64 != n), came)
            }
            // Something now or from now on: 1, 2; only what is there, of those: 4.
            Op::Mlockall { flags } if !matches!(flags, 1..=3 | 5..=7) => {
                must(&errno("EINVAL"), came)
            }
            Op::Mlockall { flags } => {
                let nothing = flags & 2 == 0 && self.pages_of(actor).is_empty();
                self.lost = !nothing;
                must(&DONE, came)
            }
            Op::Munlockall {} => must(&DONE, came),
            _ => unreachable!("the caller matched"),
        }
    }
}
