//! The invariants that an oracle watches, and its findings.

use crate::{
    addr::{Pfn, Vpn, VpnRange},
    notifier::Access,
};
use std::{fmt, time::Duration};
use thiserror::Error;

/// The name of an MMU, or of a kind of thing.
type Name = &'static str;

/// The invariants that an [`Oracle`](super::Oracle) watches; their numbers are those of the
/// conformance tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Invariant {
    /// O1: no translation leads to a frame that was given back.
    NoUseAfterFree,
    /// O4: inside a window no MMU has, or gets, a translation of its range; outside, a translation
    /// leads where the page table does, with no more rights, and none is used that was copied
    /// before a window.
    Coherent,
    /// O5: every reference has an owner.
    ReferencesKept,
    /// O3: a driver that was called at the beginning of a window is notified of its end, and counts
    /// both.
    Paired,
    /// O6: a write through an MMU is known before the page is taken for clean.
    DirtyKept,
    /// O9: windows end, and faults get their pages, within the
    /// [deadline](super::Oracle::set_deadline).
    Alive,
    /// O11: no translation is left when an address space gives its pages back.
    GoneAtExit,
    /// O12: no window is open, and no driver counts one, when an address space has ended.
    QuietAtExit,
    /// O0: the oracle could look everywhere.
    Auditable,
}

impl Invariant {
    /// Returns the number in the tables: `O0` to `O12`.
    pub const fn number(self) -> &'static str {
        match self {
            Self::NoUseAfterFree => "O1",
            Self::Coherent => "O4",
            Self::ReferencesKept => "O5",
            Self::Paired => "O3",
            Self::DirtyKept => "O6",
            Self::Alive => "O9",
            Self::GoneAtExit => "O11",
            Self::QuietAtExit => "O12",
            Self::Auditable => "O0",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.number())
    }
}

/// A violation of an invariant, with the MMU, the pages and the frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Finding {
    /// A frame is given back while an MMU translates to it.
    #[error("O1: {pfn:?} is given back while {mmu} translates {range} to it{}", after(*.window))]
    FreedWhileTranslated {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The pages of the translation.
        range: VpnRange,
        /// The frame.
        pfn: Pfn,
        /// The last window over the page that was opened, if the oracle saw one.
        window: Option<VpnRange>,
    },
    /// A translation lies in an open window.
    #[error("O4: {mmu} translates {range} to {pfn:?} {when} of the window over {window}")]
    InsideWindow {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The pages of the translation.
        range: VpnRange,
        /// The frame of the first page.
        pfn: Pfn,
        /// The range of the window.
        window: VpnRange,
        /// The moment: at the beginning or at the end of the window.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        when: Name,
    },
    /// A translation disagrees with the page table.
    #[error("O4: {mmu} translates {range} to {pfn:?}{}, and the page table maps {}{}", rw(*.writable), entry_text(*.primary), after(*.window))]
    Incoherent {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The pages of the translation.
        range: VpnRange,
        /// The frame of the first page.
        pfn: Pfn,
        /// The translation allows writes.
        writable: bool,
        /// The frame and the right to write in the page table, at the first page that differs.
        primary: Option<(Pfn, bool)>,
        /// The last window over that page that was opened, if the oracle saw one.
        window: Option<VpnRange>,
    },
    /// A copy of a translation was used after a window over its page had opened: the driver had
    /// acknowledged that it uses it no more.
    #[error("O4: {mmu} {} {} by a copy of a translation from before the window over {window}", verb(*.access), VpnRange::single(*.at))]
    StaleUse {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The page.
        at: Vpn,
        /// The access.
        access: Access,
        /// The range of the last window over the page.
        window: VpnRange,
    },
    /// References or mappings are left without an owner.
    #[error("O5: {count} {what} are left without an owner")]
    Leaked {
        /// The kind of things that are left.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        what: Name,
        /// Their number.
        count: u64,
    },
    /// A frame is taken for clean, or is retired, but was written through an MMU that has not said
    /// so.
    #[error("O6: an external MMU has written to {}{pfn:?}, and its translation went without the dirty bit", page(*.range))]
    LostWrite {
        /// The frame.
        pfn: Pfn,
        /// A page that led to the frame, if the oracle saw its translation.
        range: Option<VpnRange>,
    },
    /// An MMU gives up its reference on a frame, and still translates to it.
    #[error("O5: {mmu} gives up its reference on {pfn:?} while it translates {range} to it")]
    GivenUpWhileTranslated {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The pages of the translation.
        range: VpnRange,
        /// The frame of the first page.
        pfn: Pfn,
    },
    /// A window has been open for too long.
    #[error("O9: the window over {window} has been open for {after:.1?}{}", waits(*.waiting, *.slowest))]
    LongWindow {
        /// The range of the window.
        window: VpnRange,
        /// How long the window has been open or opening, or was.
        after: Duration,
        /// The driver that has been called and has not acknowledged.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::some_name"))]
        waiting: Option<Name>,
        /// The driver that took longest to acknowledge, and its time.
        #[cfg_attr(
            feature = "serde",
            serde(deserialize_with = "super::names::timed_name")
        )]
        slowest: Option<(Name, Duration)>,
    },
    /// An MMU has tried for too long to get a page.
    #[error(
        "O9: {mmu} has tried {count} times in {after:.1?} to translate {}, without success",
        VpnRange::single(*.at)
    )]
    NoProgress {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The page.
        at: Vpn,
        /// The number of tries.
        count: u64,
        /// The time since the first try.
        after: Duration,
    },
    /// An MMU counts windows while there is none: its faults wait for nothing.
    #[error("O3: {mmu} has counted {count} open windows for {after:.1?}, and no window is open")]
    CountsWindows {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The number that it counts.
        count: u64,
        /// The time since the count was first seen.
        after: Duration,
    },
    /// An MMU counts windows when its address space has ended.
    #[error("O12: {mmu} counts {count} open windows after the address space has ended")]
    CountsAtExit {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The number that it counts.
        count: u64,
    },
    /// A translation is left when its address space has ended.
    #[error("O11: {mmu} still translates {range} to {pfn:?} after the address space has ended")]
    LeftAtExit {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The pages of the translation.
        range: VpnRange,
        /// The frame of the first page.
        pfn: Pfn,
    },
    /// Windows are left open when an address space has ended.
    #[error("O12: {0} windows are open after the address space has ended")]
    WindowsLeft(
        /// Their number.
        usize,
    ),
    /// A driver did not let the oracle look.
    #[error("O0: the oracle cannot look at {0}: another thread holds its lock, and waits")]
    Hidden(
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        Name,
    ),
    /// A driver panicked while the oracle looked.
    #[error("O0: the oracle cannot look at {mmu}, which panics: {why}")]
    Panicked {
        /// The name of the MMU.
        #[cfg_attr(feature = "serde", serde(deserialize_with = "super::names::name"))]
        mmu: Name,
        /// The message of the panic.
        why: String,
    },
}

/// Names the driver that the window waits for, or that took longest.
fn waits(waiting: Option<&str>, slowest: Option<(&str, Duration)>) -> String {
    match (waiting, slowest) {
        (Some(mmu), Some((_, took))) => format!(", and has waited for {mmu} for {took:.1?}"),
        (_, Some((mmu, took))) => format!("; {mmu} took {took:.1?} of that to acknowledge it"),
        _ => String::new(),
    }
}

/// Names the page of a frame.
fn page(range: Option<VpnRange>) -> String {
    range.map_or_else(String::new, |range| format!("{range}, "))
}

/// Names the window after which a translation is still there.
fn after(window: Option<VpnRange>) -> String {
    window.map_or_else(String::new, |window| {
        format!("; the last window there was over {window}")
    })
}

/// The verb of an access.
fn verb(access: Access) -> &'static str {
    match access {
        Access::Read => "reads",
        Access::Write => "writes",
    }
}

/// Words for the right to write.
fn rw(writable: bool) -> &'static str {
    if writable { " for writing" } else { "" }
}

/// Words for a page-table entry.
fn entry_text(entry: Option<(Pfn, bool)>) -> String {
    entry.map_or_else(
        || "nothing".to_owned(),
        |(pfn, writable)| format!("{pfn:?}{}", rw(writable)),
    )
}

impl Finding {
    /// Returns the invariant that was violated.
    pub fn invariant(&self) -> Invariant {
        match self {
            Self::FreedWhileTranslated { .. } => Invariant::NoUseAfterFree,
            Self::InsideWindow { .. } | Self::Incoherent { .. } | Self::StaleUse { .. } => {
                Invariant::Coherent
            }
            Self::Leaked { .. } | Self::GivenUpWhileTranslated { .. } => Invariant::ReferencesKept,
            Self::CountsWindows { .. } => Invariant::Paired,
            Self::LongWindow { .. } | Self::NoProgress { .. } => Invariant::Alive,
            Self::LostWrite { .. } => Invariant::DirtyKept,
            Self::LeftAtExit { .. } => Invariant::GoneAtExit,
            Self::WindowsLeft(_) | Self::CountsAtExit { .. } => Invariant::QuietAtExit,
            Self::Hidden(_) | Self::Panicked { .. } => Invariant::Auditable,
        }
    }
}
