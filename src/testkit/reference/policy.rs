//! Policies of memory.

use super::{
    Reference,
    outcome::{Came, DONE, Step, errno, must},
    page::pages,
};
use crate::replay::{Mbind, Op};

impl Reference {
    /// `mbind`: a policy changes no page. A hole is an error, but for the default policy.
    pub(super) fn policy(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        let Op::Mbind(Mbind {
            addr,
            len,
            mode,
            flags,
        }) = *op
        else {
            unreachable!("the caller matched")
        };
        let (Some(range), 0..=3, 0..=7) = (pages(addr, len), mode, flags) else {
            return self.odd(came);
        };
        let all = &self.processes[&actor];
        let mut mapped = range.map(|n| all.contains_key(&n));
        let hole = match mode {
            0 => !mapped.any(|there| there),
            _ => !mapped.all(|there| there),
        };
        must(&if hole { errno("EFAULT") } else { DONE }, came)
    }
}
