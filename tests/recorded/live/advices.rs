//! The advice that each profile draws from.

use emmu::mm::Advice;

pub(super) const USUAL: &[Advice] = &[
    Advice::DontNeed,
    Advice::DontNeed,
    Advice::Free,
    Advice::DontFork,
    Advice::DoFork,
    Advice::WipeOnFork,
    Advice::KeepOnFork,
    Advice::PopulateRead,
    Advice::PopulateWrite,
    Advice::Cold,
    Advice::GuardInstall,
    Advice::GuardRemove,
];
pub(super) const SWAPPING: &[Advice] = &[
    Advice::PageOut,
    Advice::PageOut,
    Advice::DontNeed,
    Advice::Free,
    Advice::Cold,
];
/// Without lazy frees: a processor's batch of such pages holds references as well.
pub(super) const HELD: &[Advice] = &[
    Advice::DontNeed,
    Advice::DontFork,
    Advice::WipeOnFork,
    Advice::Cold,
    Advice::GuardInstall,
    Advice::GuardRemove,
];
/// For files: they are put out, punched, read alone.
pub(super) const OUT: &[Advice] = &[
    Advice::DontNeed,
    Advice::PageOut,
    Advice::Remove,
    Advice::Random,
    Advice::Normal,
    Advice::PopulateRead,
    Advice::Cold,
];
pub(super) const ANY: &[Advice] = &[
    Advice::Normal,
    Advice::Random,
    Advice::DontNeed,
    Advice::Free,
    Advice::Remove,
    Advice::DontFork,
    Advice::DoFork,
    Advice::NoHugePage,
    Advice::WipeOnFork,
    Advice::KeepOnFork,
    Advice::Cold,
    Advice::PopulateRead,
    Advice::PopulateWrite,
    Advice::GuardInstall,
    Advice::GuardRemove,
];
/// For huge pages of a pool.
pub(super) const POOL: &[Advice] = &[
    Advice::DontNeed,
    Advice::DontNeed,
    Advice::Remove,
    Advice::PopulateRead,
    Advice::PopulateWrite,
    Advice::WipeOnFork,
    Advice::DontFork,
    Advice::WillNeed,
    Advice::DontNeedLocked,
];
/// For shared memory that is sealed, secret or of System V.
pub(super) const SEGMENTS: &[Advice] = &[
    Advice::DontNeed,
    Advice::Remove,
    Advice::PopulateRead,
    Advice::PopulateWrite,
    Advice::DontFork,
    Advice::Cold,
    Advice::GuardInstall,
    Advice::GuardRemove,
];
/// For memory that a userfaultfd fills.
pub(super) const FILLED: &[Advice] = &[
    Advice::DontNeed,
    Advice::Free,
    Advice::Remove,
    Advice::PopulateRead,
    Advice::PopulateWrite,
];
/// For memory that is run.
pub(super) const CODE: &[Advice] = &[
    Advice::DontNeed,
    Advice::PopulateRead,
    Advice::GuardInstall,
    Advice::GuardRemove,
    Advice::WipeOnFork,
];
/// For memory that other processes reach.
pub(super) const OTHERS: &[Advice] = &[
    Advice::DontNeed,
    Advice::WipeOnFork,
    Advice::DontFork,
    Advice::GuardInstall,
    Advice::GuardRemove,
    Advice::PopulateRead,
    Advice::Cold,
];
/// For memory of other processes: what may be advised, and what may not.
pub(super) const REMOTE: &[Advice] = &[
    Advice::Cold,
    Advice::WillNeed,
    Advice::Cold,
    Advice::DontNeed,
    Advice::GuardInstall,
];
/// For pages that are merged.
pub(super) const MERGED: &[Advice] = &[
    Advice::Mergeable,
    Advice::Mergeable,
    Advice::Mergeable,
    Advice::Unmergeable,
    Advice::DontNeed,
];
/// For heaps and stacks.
pub(super) const PLACED: &[Advice] = &[
    Advice::DontNeed,
    Advice::DontFork,
    Advice::DoFork,
    Advice::WipeOnFork,
    Advice::KeepOnFork,
    Advice::GuardInstall,
    Advice::GuardRemove,
    Advice::PopulateWrite,
    Advice::DontDump,
    Advice::DoDump,
];
/// For a file whose bytes go past its cache.
pub(super) const DIRECT: &[Advice] = &[
    Advice::DontNeed,
    Advice::PopulateRead,
    Advice::PopulateWrite,
    Advice::Random,
    Advice::WillNeed,
];
/// For huge pages of private memory.
pub(super) const HUGE_PAGES: &[Advice] = &[
    Advice::HugePage,
    Advice::HugePage,
    Advice::NoHugePage,
    Advice::Collapse,
    Advice::DontNeed,
    Advice::WipeOnFork,
    Advice::PopulateWrite,
];
