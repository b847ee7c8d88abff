//! [`Disturbances`]: concurrent activity that must not change the outcome of a script.

use super::arena::hash_of;
use crate::{replay::Op, testkit::Fault};

/// Activity next to the operations of a script: extra windows, threads, injected faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Disturbances {
    /// Opens windows without need (over nothing, over everything, repeated, refused), puts memory
    /// under pressure, and slows neighbours down.
    pub windows: bool,
    /// Number of threads that use the devices all the time. The kit does not compare the bytes that
    /// these threads read. However busy the machine is, each uses each device several times before
    /// the first operation and before the end.
    pub threads: u32,
    /// The kind of operation that fails, and its number among its kind, from 1, counted from the
    /// registration of the devices.
    pub fault: Option<(Fault, u64)>,
    /// Makes one operation fail in most scripts, drawn as the operations are.
    pub random_faults: bool,
}

/// The handle of a thread that uses the devices.
#[cfg(not(any(loom, shuttle)))]
pub(super) type User = std::thread::JoinHandle<()>;
#[cfg(loom)]
pub(super) type User = loom::thread::JoinHandle<()>;
#[cfg(shuttle)]
pub(super) type User = shuttle::thread::JoinHandle<()>;

/// Returns the mark of a step: a hash of the step and of the script's salt.
///
/// The disturbances of a step come from its mark. They stay with the step when a shorter script
/// leaves others out, and when a script runs again from a file.
pub(super) fn mark(salt: u64, actor: u32, op: &Op) -> u64 {
    let sum = hash_of(salt, &format!("{actor} {op:?}"));
    // The low bits of the sum depend on the last bytes alone: mix in the high ones.
    sum ^ (sum >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
