//! Injection of failures: each operation of a kind fails in turn, until none is left.

use super::{Failure, Suite, fault::Fault};
use crate::{mm::Machine, replay::Script};
use std::{fmt::Display, sync::Arc};

/// The effect of one failed allocation.
#[derive(Debug)]
pub enum Failed<E> {
    /// The work returned this error; it runs again, without a failure.
    Reported(E),
    /// The work succeeded despite the failure.
    Absorbed,
    /// No such allocation exists: the work ran without any failure.
    None,
}

/// Runs `work` once for each of its allocations, with that allocation failing, and returns the
/// number of allocations.
///
/// Each run has a world of its own, which `prepare` makes, and the allocations are those of the
/// world's machine. After an error of `work` the function runs `work` again, without a failure.
/// `check` receives every world in the end.
///
/// # Panics
///
/// Panics if `work` returns an error though no allocation failed, or returns one again.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::MmapArgs, testkit::fail_each};
///
/// let prepare = || Machine::new(MachineConfig::default());
/// let allocations = fail_each(
///     prepare,
///     |machine| machine.clone(),
///     |machine| {
///         let mut thread = machine.enter().expect("one world at a time");
///         let mut cx = thread.cx();
///         let mm = Mm::new(machine);
///         let args = MmapArgs::anonymous(PAGE_SIZE);
///         let at = mm.mmap(&mut cx, &args).map_err(|why| why.errno())?;
///         mm.store(&mut cx, at, 7).map_err(|why| why.errno())
///     },
///     |machine, _failed| assert_eq!(machine.mem().in_use(), 0, "nothing is left"),
/// );
/// assert!(allocations > 0);
/// ```
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
                panic!("no allocation failed, and the work returned an error: {why}");
            }
            check(world, Failed::None);
            return nth - 1;
        }
        let came = match outcome {
            Ok(()) => Failed::Absorbed,
            Err(why) => {
                if let Err(again) = work(&mut world) {
                    panic!(
                        "allocation {nth} failed, and the work returned: {why}; without a failure it returned: {again}"
                    );
                }
                Failed::Reported(why)
            }
        };
        check(world, came);
    }
    unreachable!("work has finitely many allocations")
}

impl Suite {
    /// Runs a script once for each operation of kind `fault`, with that one failing, and returns
    /// the number of such operations.
    ///
    /// The devices of this suite take part. Operations may be refused for the failure, but nothing
    /// may be lost or incoherent. For acknowledgements the suite counts windows: at each one in
    /// turn, the devices spoil the next acknowledgement that they owe.
    ///
    /// # Errors
    ///
    /// [`Failure`] of the first run that fails.
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
