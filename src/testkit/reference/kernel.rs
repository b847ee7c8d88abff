//! Operations of the kernel by itself: none changes a byte that a process reads.

use super::{
    Reference,
    outcome::{Came, DONE, Step, must},
};
use crate::replay::{Op, Outcome};

impl Reference {
    pub(super) fn by_the_kernel(&mut self, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Reclaim {} | Op::Shrink { .. } => {
                self.pressure();
                must(&DONE, came)
            }
            // The device may be in use already, or not be in use.
            Op::Swapoff {} | Op::Swapon {} => match came {
                Outcome::Err(why) if matches!(why.as_str(), "EINVAL" | "EBUSY") => Ok(()),
                came => must(&DONE, came),
            },
            Op::DropCaches { .. } => must(&DONE, came),
            Op::Khugepaged { ref advise } if advise.is_empty() => must(&DONE, came),
            // The numbers of moved and merged pages are a matter of frames.
            Op::Migrate { .. } | Op::Merge {} | Op::Ksm { .. } => match came {
                Outcome::Ret(_) => Ok(()),
                other => Err(format!("it {other}, and the model of pages returns")),
            },
            _ => self.odd(came),
        }
    }
}
