//! Failing what can fail: each one of its kind in a piece of work in turn, until none is left.

use super::{Failure, Suite, fault::Fault};
use crate::{mm::Machine, replay::Script};
use std::{fmt::Display, sync::Arc};

/// What failing one allocation came to.
#[derive(Debug)]
pub enum Failed<E> {
    /// The work said so; it is tried again, without a failure.
    Reported(E),
    /// The work found a way around.
    Absorbed,
    /// There was no such allocation: this is the work without any failure.
    None,
}

/// Runs `work` again and again, each time in a world made by `prepare`, failing its 1st, 2nd, … allocation on the machine
/// of the world, until none is left to fail; how many there were. After a failure that was reported the work is done
/// again. `check` gets every world in the end.
///
/// # Panics
///
/// If the work fails though no allocation failed, or fails again.
pub fn fail_each<W, E: Display>(
    prepare: impl Fn() -> W,
    machine: impl Fn(&W) -> Arc<Machine>,
    work: impl Fn(&mut W) -> Result<(), E>,
    check: impl Fn(W, Failed<E>),
) -> u64 {
    for nth in 1.. {
        let mut world = prepare();
        let machine = machine(&world);
        let inject = machine.mem().inject();
        inject.arm(nth);
        let outcome = work(&mut world);
        let asked = inject.count();
        inject.disarm();
        if asked < nth {
            if let Err(why) = outcome {
                panic!("nothing failed, yet the work did: {why}");
            }
            check(world, Failed::None);
            return nth - 1;
        }
        let came = match outcome {
            Ok(()) => Failed::Absorbed,
            Err(why) => {
                if let Err(again) = work(&mut world) {
                    panic!("again, after allocation {nth} failed with {why}: {again}");
                }
                Failed::Reported(why)
            }
        };
        check(world, came);
    }
    unreachable!("work has finitely many allocations")
}

impl Suite {
    /// Runs a script again and again, with the devices of this suite, failing the 1st, 2nd, … of that kind, until none is
    /// left to fail; how many there were. Operations may be refused for it, but nothing may be lost or incoherent.
    ///
    /// For acknowledgements the windows are counted: at each one in turn, the devices are told to spoil the next
    /// acknowledgement that they owe.
    ///
    /// # Errors
    ///
    /// [`Failure`].
    pub fn fail_each(&self, script: &Script, fault: Fault) -> Result<u64, Box<Failure>> {
        for nth in 1.. {
            let mut failing = self.clone();
            failing.disturbances.fault = Some((fault, nth));
            if failing.count(script)? < nth {
                return Ok(nth - 1);
            }
        }
        unreachable!("a script has finitely many of them")
    }
}
