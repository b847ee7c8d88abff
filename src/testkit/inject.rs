//! Failing what can fail: each one of its kind in a piece of work in turn, until none is left.

use super::{Failure, Suite};
use crate::{mm::Machine, replay::Script};
use std::{
    fmt::{self, Display},
    sync::Arc,
};

/// What can be made to fail in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// An allocation of the machine: a frame, a table page, a VMA, a node of a reverse map, an object.
    Allocation,
    /// A window that must not block: somebody refuses it after the devices have agreed. Reclaim opens such windows first.
    WouldBlock,
    /// An acknowledgement of a device, in one of these ways ([`Device::break_acknowledgement`](super::Device)).
    Acknowledgement(Broken),
}

/// How an acknowledgement goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// Who would have to give it dies of the question.
    Dies,
    /// It never comes.
    Hangs,
    /// It comes twice.
    Twice,
}

impl Fault {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::Allocation,
        Self::WouldBlock,
        Self::Acknowledgement(Broken::Dies),
        Self::Acknowledgement(Broken::Hangs),
        Self::Acknowledgement(Broken::Twice),
    ];
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Allocation => "an allocation",
            Self::WouldBlock => "a window that must not block, refused",
            Self::Acknowledgement(Broken::Dies) => "an acknowledgement, by a death",
            Self::Acknowledgement(Broken::Hangs) => "an acknowledgement, which never comes",
            Self::Acknowledgement(Broken::Twice) => "an acknowledgement, which comes twice",
        })
    }
}

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
