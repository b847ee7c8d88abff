//! The kinds of external MMUs that take part in a replay, and their names.

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
    /// A GPU of two engines.
    Gpu,
    /// An adapter with a registration cache.
    RegCache,
    /// An RDMA adapter with a region of everything that pages on demand.
    Odp,
    /// A device that shares the page table of the process.
    Sva,
}

impl MmuKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::Kvm,
        Self::Gru,
        Self::Xpmem,
        Self::Gpu,
        Self::RegCache,
        Self::Odp,
        Self::Sva,
    ];
    /// Returns the name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Gru => "gru",
            Self::Xpmem => "xpmem",
            Self::Gpu => "gpu",
            Self::RegCache => "regcache",
            Self::Odp => "odp",
            Self::Sva => "sva",
        }
    }
}

/// The error of an unknown kind of external MMU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no external MMU is called {0:?}: {all}", all = MmuKind::ALL.map(MmuKind::name).join(", "))]
pub struct NoSuchMmu(
    /// The unknown name.
    pub String,
);

impl FromStr for MmuKind {
    type Err = NoSuchMmu;
    fn from_str(name: &str) -> Result<Self, NoSuchMmu> {
        let named = Self::ALL.into_iter().find(|kind| kind.name() == name);
        named.ok_or_else(|| NoSuchMmu(name.to_owned()))
    }
}

impl fmt::Display for MmuKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
