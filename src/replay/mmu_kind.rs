//! The kinds of external MMUs that take part in a replay, by name.

use std::{fmt, str::FromStr};

/// A kind of external MMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MmuKind {
    /// A virtual processor whose guest memory is the whole address space.
    Kvm,
    /// A GRU context.
    Gru,
    /// A partition that has the whole address space attached.
    Xpmem,
    /// An RDMA adapter with a region of everything that pages on demand.
    Odp,
    /// A device that shares the page table of the process.
    Sva,
}

/// The error of an unknown kind of external MMU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no external MMU is called {0:?}: kvm, gru, xpmem, odp, sva")]
pub struct NoSuchMmu(
    /// The unknown name.
    pub String,
);

impl FromStr for MmuKind {
    type Err = NoSuchMmu;
    fn from_str(name: &str) -> Result<Self, NoSuchMmu> {
        match name {
            "kvm" => Ok(Self::Kvm),
            "gru" => Ok(Self::Gru),
            "xpmem" => Ok(Self::Xpmem),
            "odp" => Ok(Self::Odp),
            "sva" => Ok(Self::Sva),
            _ => Err(NoSuchMmu(name.to_owned())),
        }
    }
}

impl fmt::Display for MmuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Kvm => "kvm",
            Self::Gru => "gru",
            Self::Xpmem => "xpmem",
            Self::Odp => "odp",
            Self::Sva => "sva",
        })
    }
}
