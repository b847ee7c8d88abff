//! The replay of a recording: one machine, the calls by this library's rules, the page faults as
//! accesses.

use super::{
    follow::Follower,
    load::{CALLS, Program},
    verdict::ProgramOutcome,
    watch::{Nobody, Watch},
};
use crate::{
    frame::HugePoolConfig,
    mm::{Machine, MachineConfig},
    oracle::message,
    replay::limits::{InputError, ReplayError, ReplayLimits},
};
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// Follows a recording to its end on a machine of its own, within the usual [`ReplayLimits`].
///
/// # Errors
///
/// [`ReplayError`] if the current thread is on a machine already; or the call or fault, by file and
/// line, that exceeds the limits, cannot have happened, or made this library panic.
pub fn run(program: &Program) -> Result<ProgramOutcome, ReplayError> {
    run_on(&machine(), program, &mut Nobody)
}

/// Returns a machine for recorded programs, with the memory of the usual [`ReplayLimits`]; memory
/// costs nothing until its first use.
pub fn machine() -> Arc<Machine> {
    machine_within(&ReplayLimits::default())
}

/// Returns a machine for recorded programs, within other limits.
pub fn machine_within(limits: &ReplayLimits) -> Arc<Machine> {
    /// 64 GiB: no recording contains the memory of its machine.
    const RECORDED: (u64, u32) = (1 << 24, 0);
    /// As many huge pages as the recorded pool had, which no recording tells.
    const ANY: HugePoolConfig = HugePoolConfig {
        pages: 0,
        overcommit: u64::MAX,
    };
    let rest = MachineConfig {
        huge_pages: ANY,
        huge_pages_1g: ANY,
        ..MachineConfig::default()
    };
    limits.machine(RECORDED, rest)
}

/// Follows a recording on a given machine, whose memory is its limit, and tells `watch` of it.
///
/// # Errors
///
/// As [`run`].
pub fn run_on(
    machine: &Arc<Machine>,
    program: &Program,
    watch: &mut dyn Watch,
) -> Result<ProgramOutcome, ReplayError> {
    run_within(machine, program, watch, &ReplayLimits::default())
}

/// Follows a recording as [`run_on`] does, within other limits of processes.
///
/// # Errors
///
/// As [`run`].
pub fn run_within(
    machine: &Arc<Machine>,
    program: &Program,
    watch: &mut dyn Watch,
    limits: &ReplayLimits,
) -> Result<ProgramOutcome, ReplayError> {
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let now = Cell::new((CALLS, 1));
    let mut follower = Follower::new(machine, program, watch, limits);
    let done = caught(|| follower.all(&mut cx, &now));
    // After a panic, too, every process must exit, so that devices are released.
    let ended = caught(|| {
        follower.end_all(&mut cx);
        Ok(())
    });
    let done = done.and_then(|outcome| ended.map(|()| outcome));
    done.map_err(|why| {
        let (file, line) = now.get();
        let file = format!("{}/{file}", program.name);
        InputError { file, line, why }.into()
    })
}

/// Turns a panic into an error.
fn caught<T>(what: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(what))
        .unwrap_or_else(|payload| Err(format!("panic: {}", message(payload.as_ref()))))
}
