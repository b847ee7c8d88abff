//! What an external MMU owes its address space, one property at a time.
//!
//! | file | |
//! | --- | --- |
//! | `windows` | what windows do to translations, and their shapes |
//! | `race` | look-ups that windows overtake |
//! | `memory` | forks, rights, writes, references, huge pages |
//! | `life` | other threads, failures, exit, leaving |
//! | `scripts` | whole scripts, random and failing |

mod life;
mod memory;
mod race;
mod scripts;
mod windows;

use super::{
    Kit,
    device::{Declared, Holds},
    trial::{Run, Trial},
};
use crate::ctx::CallCx;

use crate::extmmu::References;
use std::{fmt, sync::Arc};

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident $test:literal $run:path: $says:literal,)*) => {
        /// What is asked of a device.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Property { $($(#[$doc])* #[doc = concat!("\n", $says, ".")] $name,)* }

        impl Property {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// What its test is called.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $test,)* }
            }
            /// What it says, in a sentence.
            pub const fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }
            pub(super) fn run(self, t: &Arc<Trial>, cx: &mut CallCx<'_>, kit: &Kit) -> Run {
                match self { $(Self::$name => $run(t, cx, kit),)* }
            }
        }
    };
}

properties! {
    /// O0.
    Auditable "auditable" windows::auditable: "what it translates is shown to who audits it",
    /// Pairing, and counters.
    Pairing "pairing" windows::pairing: "when a window has ended, however it went, accesses go on",
    /// The core of it.
    DropsRange "drops_range" windows::drops_range: "inside a window nothing of its range is translated, and what comes after is read anew",
    /// Holding off.
    HoldsOff "holds_off" windows::holds_off: "inside a window no access to its range is made, and none to others is in its way",
    /// Look-ups against windows.
    Retry "retry" race::retry: "what was looked up before a window is not used after it",
    /// Several windows.
    Overlap "overlap" windows::overlap: "windows that overlap or nest hold off until the last of them has ended",
    /// Odd ranges.
    Reach "reach" windows::reach: "a range may be larger than what is mapped, lie across tables, be everything, or hold nothing",
    /// Page 0 and the last page.
    Edges "edges" windows::edges: "the first and the last page of an address space are pages like others",
    /// Huge pages.
    HugePages "huge_pages" memory::huge_pages: "a huge page goes as a whole when part of it goes, and comes back in parts",
    /// Threads that are not the process's.
    ForeignThreads "foreign_threads" life::foreign_threads: "windows come from any thread, with or without the process at work",
    /// Copy-on-write.
    Forks "forks" memory::forks: "a fork takes the right to write, a copy takes the page",
    /// Rights.
    Rights "rights" memory::rights: "no access is made that the mapping forbids, and none refused that it allows again",
    /// Aging.
    Aging "aging" memory::aging: "a page that was used since its accessed state was cleared is young",
    /// Dirty bits.
    Dirty "dirty" memory::dirty: "what was written is known before a page is written back, swapped out or freed",
    /// References.
    References "references" memory::references: "references are those that it declares, and none is left",
    /// Faults that open windows.
    Reentrant "reentrant" race::reentrant: "a look-up may open a window over its own page",
    /// Windows that must not block.
    AtomicWindows "atomic_windows" windows::atomic_windows: "a window that must not block is served at once, or refused by a device that sleeps",
    /// Failing allocations.
    AllocFailure "alloc_failure" life::alloc_failure: "an access that finds no memory is refused, loses nothing, and succeeds later",
    /// Liveness.
    Progress "progress" race::progress: "while windows come and go, accesses come to an end",
    /// Exits under load.
    Exits "exits" life::exits: "an address space may end, and others next to it, while accesses are under way",
    /// Release.
    Release "release" life::release: "when the address space has ended nothing is translated, and no access is made",
    /// Unregistration.
    Unregister "unregister" life::unregister: "a device that was taken off translates nothing, and another one begins with nothing",
    /// Whole scripts in which everything fails once.
    Failures "failures" scripts::failures: "whatever fails, allocations, windows, answers from afar, accesses go on and nothing is lost",
    /// Random scripts.
    Scripts "scripts" scripts::scripts: "whatever the processes do, the device reads and writes what they would",
}

impl Property {
    /// The property whose test is called that.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }
    /// What a device does not declare, and the property would be about.
    pub(super) fn needs(self, declared: &Declared) -> Option<&'static str> {
        match self {
            Self::Auditable if declared.holds == Holds::Nothing => Some("it keeps no translations"),
            Self::Aging if !declared.ages => Some("it tells no age"),
            Self::Scripts | Self::Failures if !declared.coherent => {
                Some("it does not follow its address space")
            }
            Self::References if declared.references == References::Pinned => {
                Some("it declares references")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
