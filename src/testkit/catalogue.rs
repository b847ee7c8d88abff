//! The catalogue of properties: names, statements, and the declarations that each one needs.
//!
//! The checks themselves are in [`property`](super::property); verdicts and kits name a property
//! without them.

use super::device::{Declared, Holds};
use crate::extmmu::References;
use std::fmt;

macro_rules! properties {
    ($($(#[$doc:meta])* $name:ident $test:literal: $says:literal,)*) => {
        /// A property that a correct external MMU has.
        ///
        /// Each variant states the property in one sentence, which [`Property::says`] returns.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Property { $($(#[$doc])* #[doc = concat!("\n", $says, ".")] $name,)* }

        impl Property {
            /// Every property, in the order in which a [`Kit`](super::Kit) checks them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Returns the name of the property's test.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $test,)* }
            }
            /// Returns the statement of the property, a sentence without its full stop.
            pub const fn says(self) -> &'static str {
                match self { $(Self::$name => $says,)* }
            }
        }
    };
}

properties! {
    /// Visibility to the oracle (O0).
    Auditable "auditable": "what it translates is shown to who audits it",
    /// Pairs of begin and end, and the counters of open windows.
    Pairing "pairing": "when a window has ended, however it went, accesses go on",
    /// Invalidation proper: the promise that all others build on.
    DropsRange "drops_range": "inside a window nothing of its range is translated, and what comes after is read anew",
    /// Accesses during a window.
    HoldsOff "holds_off": "inside a window no access to its range is made, and none to others is in its way",
    /// Look-ups that a window overtakes.
    Retry "retry": "what was looked up before a window is not used after it",
    /// Several windows.
    Overlap "overlap": "windows that overlap or nest hold off until the last of them has ended",
    /// Ranges of odd shapes.
    Reach "reach": "a range may be larger than what is mapped, lie across tables, be everything, or hold nothing",
    /// Page 0 and the last page.
    Edges "edges": "the first and the last page of an address space are pages like others",
    /// Huge pages.
    HugePages "huge_pages": "a huge page goes as a whole when part of it goes, and comes back in parts",
    /// Windows from threads outside of the process.
    ForeignThreads "foreign_threads": "windows come from any thread, with or without the process at work",
    /// Copy-on-write.
    Forks "forks": "a fork takes the right to write, a copy takes the page",
    /// Access rights.
    Rights "rights": "no access is made that the mapping forbids, and none refused that it allows again",
    /// Aging.
    Aging "aging": "a page that was used since its accessed state was cleared is young",
    /// Dirty bits.
    Dirty "dirty": "what was written is known before a page is written back, swapped out or freed",
    /// References.
    References "references": "references are those that it declares, and none is left",
    /// Faults that open windows over the page they look up.
    Reentrant "reentrant": "a look-up may open a window over its own page",
    /// Windows of atomic contexts, which must not block.
    AtomicWindows "atomic_windows": "a window that must not block is served at once, or refused by a device that sleeps",
    /// Allocations that fail.
    AllocFailure "alloc_failure": "an access that finds no memory is refused, loses nothing, and succeeds later",
    /// Liveness.
    Progress "progress": "while windows come and go, accesses come to an end",
    /// The end of an address space under load.
    Exits "exits": "an address space may end, and others next to it, while accesses are under way",
    /// Accesses after the end of an address space.
    Release "release": "when the address space has ended nothing is translated, and no access is made",
    /// Unregistration of the device.
    Unregister "unregister": "a device that was taken off translates nothing, and another one begins with nothing",
    /// Whole scripts in which each operation that can fail does so once.
    Failures "failures": "whatever fails, allocations, windows, answers from afar, accesses go on and nothing is lost",
    /// Random scripts.
    Scripts "scripts": "whatever the processes do, the device reads and writes what they would",
}

impl Property {
    /// Returns the property with this name, or `None`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }
    /// Returns the reason to skip the property for a device that declares `declared`, if there is
    /// one.
    pub(super) fn needs(self, declared: &Declared) -> Option<&'static str> {
        match self {
            Self::Auditable if declared.holds == Holds::Nothing => Some("it keeps no translations"),
            Self::Aging if !declared.ages => Some("it tells no age"),
            Self::Scripts | Self::Failures if !declared.coherent => {
                Some("it does not follow its address space")
            }
            Self::References if declared.references == References::Held => {
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
