//! The execution of one case on the current thread.

use super::{
    beat::Beat,
    case::{Case, Ran},
    checker::Checker,
    config::Suite,
    profile::Profile,
};
use crate::{
    frame::HugePoolConfig,
    mm::{Machine, MachineConfig},
    reclaim::RmapWindows,
    replay::{Header, record},
    testkit::{Fault, timed_thread::message, trial, verdict::in_order},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Returns the machine of a case, with the pool of its script. Reclaim opens atomic windows first
/// if those are to be refused.
fn machine(fault: Option<(Fault, u64)>, header: &Header) -> Arc<Machine> {
    let config = MachineConfig {
        huge_pages: HugePoolConfig {
            pages: header.huge_pages().first().map_or(0, |pool| pool.pages),
            overcommit: 0,
        },
        folios: header.folios(),
        ..trial::config()
    };
    Machine::new(match fault {
        Some((Fault::WouldBlock, _)) => MachineConfig {
            rmap_windows: RmapWindows::AtomicFirst,
            ..config
        },
        _ => config,
    })
}

impl Suite {
    /// Runs a case on this thread, which must be on no machine, and tells `beat` of each step
    /// before the step begins.
    pub(super) fn ran_here(&self, case: &Case, look: bool, beat: &Arc<Beat>) -> Ran {
        let mut disturbances = self.disturbances;
        disturbances.fault = case.fault.or(disturbances.fault);
        let mut script = case.source.blank();
        let machine = machine(disturbances.fault, &script.header);
        let few = matches!(self.profile, Profile::Files | Profile::Swap);
        let about = (&script.header, few);
        let mut checker = Checker::new(&machine, &self.kits, disturbances, about, beat);
        let run = AssertUnwindSafe(|| {
            let mut thread = machine.enter().expect("a thread that is on no machine");
            let mut cx = thread.cx();
            let mut next = case.source.next();
            record(
                &mut cx,
                &machine,
                &mut script,
                look,
                &mut next,
                &mut checker,
            );
            checker.conclude(&mut cx, &machine);
        });
        let came = catch_unwind(run);
        let asked = checker.asked(&machine);
        let seen = match came {
            Ok(()) => std::mem::take(&mut checker.seen),
            Err(payload) => {
                // In the order of the panics: threads that failed earlier, this one, its echoes.
                checker.panics.lock().push(message(&*payload));
                checker.dismiss();
                let seen = std::mem::take(&mut checker.seen);
                // A destructor may block after a panic: leak the world of the case.
                std::mem::forget(checker);
                seen
            }
        };
        Ran {
            script,
            seen: in_order(seen),
            asked,
            is_over: true,
        }
    }
}
