//! Policies: from which nodes memory comes (`mm/mempolicy.c`). A machine here has one node.

use crate::error::MbindError;
use bitflags::bitflags;

/// The nodes of a machine, a bit each.
const NODES: u64 = 1;

/// The mode of a policy, with Linux's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum PolicyMode {
    /// No policy.
    Default = 0,
    /// From one node if possible.
    Preferred = 1,
    /// From these nodes only.
    Bind = 2,
    /// From these nodes in turn.
    Interleave = 3,
    /// From the node of the processor.
    Local = 4,
    /// From these nodes if possible.
    PreferredMany = 5,
    /// From these nodes in turn, by their weights.
    WeightedInterleave = 6,
}

impl PolicyMode {
    /// Returns the mode with number `raw`; `None` if the number is unknown (EINVAL on Linux).
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            0 => Self::Default,
            1 => Self::Preferred,
            2 => Self::Bind,
            3 => Self::Interleave,
            4 => Self::Local,
            5 => Self::PreferredMany,
            6 => Self::WeightedInterleave,
            _ => return None,
        })
    }
}

bitflags! {
    /// Flags of `mbind`. With one node no page is on a wrong one, so none of them has an effect.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MbindFlags: u32 {
        /// Fail if a page is on another node.
        const STRICT = 1;
        /// Move pages of this process that are.
        const MOVE = 2;
        /// Move pages that other processes have as well.
        const MOVE_ALL = 4;
    }
}

/// The policy of a VMA. VMAs with different policies do not merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) struct MemPolicy(PolicyMode);

impl MemPolicy {
    /// Returns the policy of that mode for `nodes`, a bit each; `None` is the default (`mpol_new`,
    /// `mpol_set_nodemask`). All policies for the one node differ by their modes alone.
    pub(in crate::mm) fn new(mode: PolicyMode, nodes: u64) -> Result<Option<Self>, MbindError> {
        let bad = MbindError::Policy {
            mode: mode as u32,
            nodes,
        };
        let mode = match mode {
            PolicyMode::Preferred if nodes == 0 => PolicyMode::Local,
            mode => mode,
        };
        let fits = match mode {
            PolicyMode::Default | PolicyMode::Local => nodes == 0,
            _ => nodes & NODES != 0,
        };
        if !fits {
            return Err(bad);
        }
        Ok((mode != PolicyMode::Default).then_some(Self(mode)))
    }
}
