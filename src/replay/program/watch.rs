//! [`Watch`]: an observer of the replay of a program.

use super::{call::Call, event::What, faults::FaultKind};
use crate::{ctx::CallCx, mm::Mm};

use std::sync::Arc;

/// The thread that acted, and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The time of the recording, in ns.
    pub at: u64,
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// True for the process that the recording began with.
    pub is_first: bool,
}

/// An observer of a replay. Every method may use the address space as a driver or another thread
/// would.
pub trait Watch {
    /// The event is about to happen.
    fn begins(&mut self, who: Who, what: &What) {
        let _unused = (who, what);
    }
    /// The event is over, and all observers have heard of it.
    fn over(&mut self, cx: &mut CallCx<'_>, who: Who) {
        let _unused = (cx, who);
    }
    /// The first process has its initial layout and has not run yet. Called again if that process
    /// calls `execve` again.
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        let _unused = (cx, mm);
    }
    /// The program touched `addr`, in a recorded page fault.
    fn touched(
        &mut self,
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        who: Who,
        addr: u64,
        access: FaultKind,
    ) {
        let _unused = (cx, mm, who, addr, access);
    }
    /// The program made a call.
    fn called(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>, who: Who, call: &Call) {
        let _unused = (cx, mm, who, call);
    }
    /// The address space of the first process is about to end, by exit or by `execve`.
    fn ended(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        let _unused = (cx, mm);
    }
}

/// An observer that ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Watch for Nobody {}
