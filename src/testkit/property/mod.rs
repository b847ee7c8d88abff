//! The checks of the properties: the obligations of an external MMU towards its address space.
//!
//! | file | holds |
//! | --- | --- |
//! | `windows` | translations during windows, and windows of every shape |
//! | `edges` | both ends of the address space, and pages that lie far apart |
//! | `race` | look-ups, and uses of their results, that windows overtake; atomic operations |
//! | `aging` | accessed bits |
//! | `memory` | bytes, forks, rights, writes, references, huge pages |
//! | `pins` | pins |
//! | `mappings` | memory that a user maps for the device; reports of written pages |
//! | `resources` | page faults in a queue, subscriptions, hardware that others use |
//! | `pool` | huge pages of a pool |
//! | `userfaults` | faults that a handler answers, write protection, tracked writes |
//! | `life` | other threads, failures, exit, unregistration |
//! | `scripts` | whole scripts, random and failing |
//! | `busy` (`.jsonl`) | the script in which each operation fails once |
//!
//! A check is a function of a [`Trial`], which holds a machine and the device. A check reports
//! every violation to the trial's log and goes on where the state still allows it; `Err(Abort)`
//! ends a check whose device hangs.

mod aging;
mod edges;
mod life;
mod mappings;
mod memory;
mod pins;
mod pool;
mod race;
mod resources;
mod scripts;
mod userfaults;
mod windows;

use super::{
    Kit, Property,
    trial::{Run, Trial},
};
use crate::ctx::CallCx;
use std::sync::Arc;

impl Property {
    /// Runs the check of this property on one device.
    pub(super) fn run(self, t: &Arc<Trial>, cx: &mut CallCx<'_>, kit: &Kit) -> Run {
        let check: fn(&Arc<Trial>, &mut CallCx<'_>, &Kit) -> Run = match self {
            Self::Auditable => windows::auditable,
            Self::Pairing => windows::pairing,
            Self::DropsRange => windows::drops_range,
            Self::HoldsOff => windows::holds_off,
            Self::Retry => race::retry,
            Self::Reuse => race::reuse,
            Self::Overlap => windows::overlap,
            Self::Reach => windows::reach,
            Self::Edges => edges::edges,
            Self::Bytes => memory::bytes,
            Self::HugePages => memory::huge_pages,
            Self::PoolPages => pool::pool_pages,
            Self::Userfaults => userfaults::userfaults,
            Self::ForeignThreads => life::foreign_threads,
            Self::Forks => memory::forks,
            Self::Rights => memory::rights,
            Self::Aging => aging::aging,
            Self::Dirty => memory::dirty,
            Self::References => memory::references,
            Self::Atomics => race::atomics,
            Self::DirtyLog => mappings::dirty_log,
            Self::Pins => pins::pins,
            Self::Mappings => mappings::mappings,
            Self::Reentrant => race::reentrant,
            Self::AtomicWindows => windows::atomic_windows,
            Self::PageFaults => resources::page_faults,
            Self::Subscriptions => resources::subscriptions,
            Self::Displaced => resources::displaced,
            Self::AllocFailure => life::alloc_failure,
            Self::Progress => race::progress,
            Self::Exits => life::exits,
            Self::Release => life::release,
            Self::Unregister => life::unregister,
            Self::Failures => scripts::failures,
            Self::Scripts => scripts::scripts,
        };
        check(t, cx, kit)
    }
}
