//! The catalogue of properties: names, statements, and the declarations that each one needs.
//!
//! The checks themselves are in [`property`](super::property); verdicts and kits name a property
//! without them.

use super::{
    asleep::ObservedThread,
    device::{Declared, Holds},
};
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
    Auditable "auditable": "`translations` shows every translation that the device can use",
    /// Pairs of begin and end, and the counters of open windows.
    Pairing "pairing": "accesses go on after each window, also after one that was refused",
    /// Invalidation proper: the promise that all others build on.
    DropsRange "drops_range": "the device translates no page of an open window, and looks the pages up again afterwards",
    /// Accesses during a window.
    HoldsOff "holds_off": "an open window holds off accesses to its own pages, and to no others",
    /// Look-ups that a window overtakes.
    Retry "retry": "the device does not use a look-up that a window has overtaken",
    /// Uses of a copy of a translation that a window overtakes.
    Reuse "reuse": "the device does not use a copy of a translation that a window has overtaken",
    /// Several windows.
    Overlap "overlap": "windows that overlap or nest hold accesses off until the last of them ends",
    /// Ranges of odd shapes.
    Reach "reach": "the device serves windows of any range: beyond the mappings, across tables, of all pages, of none",
    /// Page 0 and the last page.
    Edges "edges": "the device treats the first and the last page of an address space as it treats the others",
    /// Bytes within a page.
    Bytes "bytes": "the device reads and writes each byte of a page in its place, and changes no other",
    /// Huge pages.
    HugePages "huge_pages": "the device drops a huge page as a whole when a window takes part of it, and translates the parts again",
    /// Huge pages of a pool.
    PoolPages "pool_pages": "the device follows huge pages of a pool as whole pages, and reaches nothing behind them",
    /// Userfaultfd.
    Userfaults "userfaults": "a fault of the device may wait for userfaultfd, and no write of the device passes a protection by it",
    /// Windows from threads outside of the process.
    ForeignThreads "foreign_threads": "the device serves windows of any thread, of the process or not",
    /// Copy-on-write.
    Forks "forks": "a fork takes the right to write from the device, and a copy takes the page",
    /// Access rights.
    Rights "rights": "the device makes no access that the mapping forbids, and makes each that the mapping allows again",
    /// Aging.
    Aging "aging": "the device says that a page is young if, and only if, it used the page since the accessed state was cleared",
    /// Dirty bits.
    Dirty "dirty": "the frame knows each write of the device before the page is written back, swapped out or freed",
    /// References.
    References "references": "the device holds the references that it declares, and leaves none behind",
    /// Atomic operations.
    Atomics "atomics": "no store of the process is lost between the halves of an atomic operation of the device",
    /// Reports of written pages.
    DirtyLog "dirty_log": "each report of written pages has every page that the device wrote since the last one",
    /// Pins.
    Pins "pins": "the device has one pin for each translation that it shows, and no other",
    /// Memory that a user maps for the device, and unmaps.
    Mappings "mappings": "the device pins what its user maps, all or nothing, and has none of it left after an unmapping",
    /// Faults that open windows over the page they look up.
    Reentrant "reentrant": "a look-up may open a window over its own page",
    /// Windows of atomic contexts, which must not block.
    AtomicWindows "atomic_windows": "the device serves a window that must not block at once; a device that sleeps may refuse it",
    /// Page faults that others answer.
    PageFaults "page_faults": "each page fault of the device has one answer, however many there are, and before the device ends",
    /// Subscriptions.
    Subscriptions "subscriptions": "the device ends its subscriptions to memory that has gone",
    /// Hardware that other processes use too.
    Displaced "displaced": "a device whose hardware others have used meanwhile has missed no window",
    /// Allocations that fail.
    AllocFailure "alloc_failure": "an access that finds no memory is refused, loses nothing, and succeeds later",
    /// Liveness.
    Progress "progress": "accesses come to an end while windows come and go",
    /// The end of an address space under load.
    Exits "exits": "an address space, or another one next to it, may end while accesses are in progress",
    /// Accesses after the end of an address space.
    Release "release": "the device translates nothing and makes no access after the address space has ended",
    /// Unregistration of the device.
    Unregister "unregister": "an unregistered device translates nothing, and its successor begins with nothing",
    /// Whole scripts in which each operation that can fail does so once.
    Failures "failures": "accesses go on and nothing is lost when an allocation, a window or an acknowledgement fails",
    /// Random scripts.
    Scripts "scripts": "the device reads and writes the bytes that the processes would, in any script",
}

impl Property {
    /// Returns the property with this name, or `None`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|p| p.name() == name)
    }
    /// Returns true if the steps of a check are those of scripts, which name their addresses.
    pub(super) fn is_of_scripts(self) -> bool {
        matches!(self, Self::Scripts | Self::Failures)
    }
    /// Returns the reason to skip the property for a device that declares `declared`, if there is
    /// one.
    pub(super) fn needs(self, declared: &Declared) -> Option<&'static str> {
        match self {
            Self::HoldsOff | Self::Overlap if declared.walks => Some("it gets no windows"),
            Self::Auditable if declared.holds == Holds::Nothing => Some("it keeps no translations"),
            Self::Reuse | Self::HoldsOff | Self::Overlap if !declared.coherent => {
                Some("it does not follow its address space")
            }
            Self::Aging if !declared.ages => Some("it does not answer aging"),
            Self::Dirty | Self::Reentrant if declared.reads_only => Some("it only reads"),
            Self::Atomics if !declared.atomics => Some("it has no atomic operations"),
            Self::DirtyLog if !declared.logs_writes => Some("it reports no written pages"),
            Self::Mappings if !declared.maps => Some("its user maps nothing"),
            Self::PageFaults if !declared.raises_faults => Some("it raises no page faults"),
            Self::Displaced if !declared.is_displaced => {
                Some("no other process takes its hardware")
            }
            Self::Reuse | Self::Atomics if ObservedThread::current().is_none() => {
                Some("this system does not show whether a thread sleeps")
            }
            Self::Scripts | Self::Failures if !declared.coherent => {
                Some("it does not follow its address space")
            }
            Self::References if declared.references == References::Held => {
                Some("it declares references")
            }
            Self::Pins if !declared.pins => Some("it pins nothing"),
            _ => None,
        }
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
