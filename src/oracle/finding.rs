//! What an oracle can find.

use crate::addr::{Pfn, Vpn, VpnRange};
use std::{fmt, time::Duration};
use thiserror::Error;

/// The invariants that an [`Oracle`](super::Oracle) watches; their numbers are those of the conformance tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// O1: no translation leads to a frame that was given back.
    NoUseAfterFree,
    /// O4: inside a window nobody has, or gets, a translation of its range; outside, a translation leads where the page
    /// table does, with no more rights.
    Coherent,
    /// O5: every reference is somebody's.
    ReferencesKept,
    /// O3: a driver is told the end of each window that it was told the beginning of, and keeps count.
    Paired,
    /// O6: what was written through an MMU is known before the page is taken for clean.
    DirtyKept,
    /// O9: windows end, and faults get their pages, within the [deadline](super::Oracle::set_deadline).
    Alive,
    /// O11: nothing is translated when an address space gives its pages back.
    GoneAtExit,
    /// O12: no window is open, and no counter of a driver is up, when an address space has ended.
    QuietAtExit,
    /// The oracle could look everywhere.
    Auditable,
}

impl Invariant {
    /// Its number in the tables: `O1` to `O12`.
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

/// One violation: who, where, which frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Finding {
    /// A frame is given back while somebody translates to it.
    #[error("O1: {pfn:?} is given back while {mmu} translates {range} to it")]
    FreedWhileTranslated {
        /// The MMU.
        mmu: &'static str,
        /// The pages.
        range: VpnRange,
        /// The frame.
        pfn: Pfn,
    },
    /// A translation lies in an open window.
    #[error("O4: {mmu} translates {range} to {pfn:?} {when} of the window over {window}")]
    InsideWindow {
        /// The MMU.
        mmu: &'static str,
        /// The pages.
        range: VpnRange,
        /// The frame.
        pfn: Pfn,
        /// The window.
        window: VpnRange,
        /// At the beginning or the end of it.
        when: &'static str,
    },
    /// A translation does not say what the page table says.
    #[error("O4: {mmu} translates {range} to {pfn:?}{}, the page table says {}", rw(*.writable), entry_text(*.primary))]
    Incoherent {
        /// The MMU.
        mmu: &'static str,
        /// The pages.
        range: VpnRange,
        /// The frame.
        pfn: Pfn,
        /// Whether the translation may be written through.
        writable: bool,
        /// What the page table has at the first page that differs, and whether it may be written.
        primary: Option<(Pfn, bool)>,
    },
    /// References or mappings are left that nobody has.
    #[error("O5: {what}: {count} left")]
    Leaked {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u64,
    },
    /// A frame is taken for clean, or goes, that was written through an MMU which never said so.
    #[error("O6: what was written to {0:?} through an external MMU is not known to the frame")]
    LostWrite(
        /// The frame.
        Pfn,
    ),
    /// An MMU gives up its reference on a frame, and still uses it.
    #[error("O5: {mmu} gives up its reference on {pfn:?} while it translates {range} to it")]
    UnpinnedWhileTranslated {
        /// The MMU.
        mmu: &'static str,
        /// The pages.
        range: VpnRange,
        /// The frame.
        pfn: Pfn,
    },
    /// A window has been open for too long.
    #[error("O9: the window over {window} is open since {after:.1?}{}", waits(*.waiting, *.slowest))]
    LongWindow {
        /// The window.
        window: VpnRange,
        /// How long it has been on its way, or was.
        after: Duration,
        /// Who has been asked to acknowledge it and has not.
        waiting: Option<&'static str>,
        /// Who took longest to acknowledge it, and how long.
        slowest: Option<(&'static str, Duration)>,
    },
    /// An MMU tries again and again.
    #[error(
        "O9: {mmu} has tried {count} times in {after:.1?} to translate {at:?}, without success"
    )]
    NoProgress {
        /// The MMU.
        mmu: &'static str,
        /// The page.
        at: Vpn,
        /// How often it tried.
        count: u64,
        /// Since when.
        after: Duration,
    },
    /// An MMU counts windows while there is none: its faults wait for nothing.
    #[error("O3: {mmu} counts {count} windows as open since {after:.1?}, and there is none")]
    CountsWindows {
        /// The MMU.
        mmu: &'static str,
        /// How many.
        count: u64,
        /// Since when, as far as was seen.
        after: Duration,
    },
    /// An MMU counts windows when its address space has ended.
    #[error("O12: {mmu} counts {count} windows as open when the address space has ended")]
    CountsAtExit {
        /// The MMU.
        mmu: &'static str,
        /// How many.
        count: u64,
    },
    /// A translation is left at the end of its address space.
    #[error("O11: {mmu} still translates {range} to {pfn:?} when the address space has ended")]
    LeftAtExit {
        /// The MMU.
        mmu: &'static str,
        /// The pages.
        range: VpnRange,
        /// The frame.
        pfn: Pfn,
    },
    /// Windows are left open at the end of an address space.
    #[error("O12: {0} windows are open when the address space has ended")]
    WindowsLeft(
        /// How many.
        usize,
    ),
    /// A driver did not let the oracle look.
    #[error("O0: {0} could not be audited: its lock is held by somebody who waits")]
    Hidden(
        /// The MMU.
        &'static str,
    ),
    /// A driver panicked when the oracle looked.
    #[error("O0: {mmu} could not be audited: it panicked: {why}")]
    Panicked {
        /// The MMU.
        mmu: &'static str,
        /// What the panic said.
        why: String,
    },
}

fn waits(waiting: Option<&str>, slowest: Option<(&str, Duration)>) -> String {
    match (waiting, slowest) {
        (Some(mmu), Some((_, took))) => format!(", waiting for {mmu} since {took:.1?}"),
        (_, Some((mmu, took))) => format!(", of which {mmu} took {took:.1?} to acknowledge it"),
        _ => String::new(),
    }
}

fn rw(writable: bool) -> &'static str {
    if writable { " for writing" } else { "" }
}

fn entry_text(entry: Option<(Pfn, bool)>) -> String {
    entry.map_or_else(
        || "nothing".to_owned(),
        |(pfn, writable)| format!("{pfn:?}{}", rw(writable)),
    )
}

impl Finding {
    /// The invariant that was violated.
    pub fn invariant(&self) -> Invariant {
        match self {
            Self::FreedWhileTranslated { .. } => Invariant::NoUseAfterFree,
            Self::InsideWindow { .. } | Self::Incoherent { .. } => Invariant::Coherent,
            Self::Leaked { .. } | Self::UnpinnedWhileTranslated { .. } => Invariant::ReferencesKept,
            Self::CountsWindows { .. } => Invariant::Paired,
            Self::LongWindow { .. } | Self::NoProgress { .. } => Invariant::Alive,
            Self::LostWrite(_) => Invariant::DirtyKept,
            Self::LeftAtExit { .. } => Invariant::GoneAtExit,
            Self::WindowsLeft(_) | Self::CountsAtExit { .. } => Invariant::QuietAtExit,
            Self::Hidden(_) | Self::Panicked { .. } => Invariant::Auditable,
        }
    }
}
