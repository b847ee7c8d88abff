//! Arguments that no script can have: a replay could not hold their results, or does not know them.

use super::{
    about_op::OPTIONS,
    op::Op,
    resource::Resource,
    uffd_op::{Answer, Copy, FaultLoad, FaultStore, Resolve},
};
use crate::addr::PAGE_SIZE;

/// Most pages of a `mincore`: the result has a bit for each.
const MOST_BITS: u64 = 64;

/// Most bytes of a direct write.
const MOST_WRITTEN: u64 = 64 << 20;
/// Pages that a new pipe takes (`PIPE_DEF_BUFFERS`); a writer of more waits.
const PIPE_PAGES: u64 = 16;

impl Op {
    /// Returns the reason if no script can have this operation.
    pub(crate) fn refused(&self) -> Option<String> {
        match *self {
            Self::Mincore { len, .. } if len.div_ceil(PAGE_SIZE) > MOST_BITS => {
                Some(format!("mincore of {len} bytes, more than 64 pages"))
            }
            Self::Vmsplice { len, .. } if len > PIPE_PAGES * PAGE_SIZE => {
                Some(format!("vmsplice of {len} bytes, more than a pipe takes"))
            }
            Self::Rlimit { which, over, .. }
                if over && !matches!(which, Resource::As | Resource::Memlock) =>
            {
                Some(format!("{which:?} over what is in use is not known"))
            }
            Self::Prctl { option, .. } if !OPTIONS.contains(&option) => {
                Some(format!("option {option} of prctl"))
            }
            Self::DropCaches { value } if value != 2 => {
                Some(format!("{value} written to drop_caches"))
            }
            Self::UffdCopy(ref copy) if copy.len > Copy::MOST => {
                Some(format!("a copy of {} bytes, more than 64 MiB", copy.len))
            }
            Self::FaultLoad(FaultLoad { ref resolve, .. })
            | Self::FaultStore(FaultStore { ref resolve, .. }) => {
                let long = |answer: &Resolve| match &answer.0 {
                    Answer::UffdCopy(copy) => copy.len > Copy::MOST,
                    _ => false,
                };
                let any = resolve.iter().any(long);
                any.then(|| "an answer that copies more than 64 MiB".to_owned())
            }
            Self::DirectWrite { len, .. } if len > MOST_WRITTEN => Some(format!(
                "a direct write of {len} bytes, more than {MOST_WRITTEN}"
            )),
            Self::Ksm { mode } if !matches!(mode, 1 | 2) => Some(format!("mode {mode} of ksm")),
            _ => None,
        }
    }
}
