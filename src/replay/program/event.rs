//! Calls and faults in the order in which they took effect.
//!
//! A call in one line took effect at its beginning: strace saw nothing else until the end of the
//! call. A call that other lines cut in two took effect somewhere between; this module gives the
//! latest time, and `order` may choose an earlier one.

use super::{
    call::{Call, Returned},
    faults::RecordedFault,
    strace::{Body, Line, shorten},
};
use std::collections::BTreeSet;

/// The kind of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A thread called the kernel.
    Call {
        /// The call.
        call: Call,
        /// The result.
        returned: Returned,
        /// Call and result as text, shortened.
        text: String,
    },
    /// A thread ended.
    Ended,
    /// A thread took a page fault.
    Fault(RecordedFault),
}

/// An event of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramEvent {
    /// The time at which it began, in ns.
    pub start: u64,
    /// The time by which its effect had come, in ns: events are in this order.
    pub at: u64,
    /// The line with which it begins, in the event's file.
    pub line: usize,
    /// The thread.
    pub tid: u32,
    /// The event itself.
    pub what: What,
}

/// Returns the events of a recording in the order of their effects; the error is a line of the
/// calls and a reason.
pub(super) fn events(
    lines: &[Line],
    faults: &[RecordedFault],
) -> Result<Vec<ProgramEvent>, (usize, String)> {
    let births = Births::new(lines, faults);
    let mut out = Vec::with_capacity(lines.len() + faults.len());
    for line in lines {
        out.push(event(line, &births).map_err(|why| (line.line, why))?);
    }
    out.extend(faults.iter().enumerate().map(|(n, fault)| ProgramEvent {
        start: fault.at,
        at: fault.at,
        line: n + 1,
        tid: fault.tid,
        what: What::Fault(*fault),
    }));
    // No thread acts before its birth.
    let is_birth = |e: &ProgramEvent| {
        matches!(
            &e.what,
            What::Call {
                call: Call::Clone { .. },
                ..
            }
        )
    };
    out.sort_by_key(|e| (e.at, !is_birth(e)));
    Ok(out)
}

fn event(line: &Line, births: &Births) -> Result<ProgramEvent, String> {
    let mut event = ProgramEvent {
        start: line.start,
        at: line.end,
        line: line.line,
        tid: line.tid,
        what: What::Ended,
    };
    if let Body::Call { name, args, result } = &line.body {
        let call = Call::parse(name, args)?;
        let returned = Returned::parse(result).map_err(|why| format!("{name}: {why}"))?;
        event.at = match &call {
            Call::Clone { .. } => births.latest(line, &returned),
            // Faults of the new program come before the end of `execve`.
            Call::Execve | Call::Exit | Call::ExitGroup => line.start,
            _ => line.end,
        };
        event.what = What::Call {
            call,
            returned,
            text: shorten(&format!("{name}({args}) = {result}")),
        };
    }
    Ok(event)
}

/// The times of each thread's events.
struct Births(BTreeSet<(u32, u64)>);

impl Births {
    fn new(lines: &[Line], faults: &[RecordedFault]) -> Self {
        let calls = lines.iter().map(|l| (l.tid, l.start));
        let faults = faults.iter().map(|f| (f.tid, f.at));
        Self(calls.chain(faults).collect())
    }
    /// Returns the latest time of a child's birth: before the child's first event, and before its
    /// parent hears of it.
    fn latest(&self, clone: &Line, returned: &Returned) -> u64 {
        let child = returned.value().and_then(|tid| u32::try_from(tid).ok());
        let first = child.and_then(|tid| {
            let mut own = self.0.range((tid, clone.start)..=(tid, u64::MAX));
            own.next().map(|(_, at)| *at)
        });
        first.map_or(clone.end, |first| first.min(clone.end))
    }
}
