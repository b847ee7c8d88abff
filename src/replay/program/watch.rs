//! Someone who looks on while a program is replayed.

use super::{call::Call, event::What, faults::Kind};
use crate::ctx::CallCx;

use crate::mm::Mm;
use std::sync::Arc;

/// Who did something, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Who {
    /// The time of the recording, in ns.
    pub at: u64,
    /// The process.
    pub pid: u32,
    /// Its thread.
    pub tid: u32,
    /// Whether it is the process that the recording began with.
    pub is_first: bool,
}

/// What a replay tells of. Every method may use the address space as a driver or another thread
/// would.
pub trait Watch {
    /// This is about to be followed.
    fn begins(&mut self, who: Who, what: &What) {
        let _unused = (who, what);
    }
    /// It has been followed, and whoever looks on has been told of it.
    fn over(&mut self, cx: &mut CallCx<'_>, who: Who) {
        let _unused = (cx, who);
    }
    /// The first process has its initial layout; nothing of it ran yet. Comes again if it calls
    /// `execve` again.
    fn started(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        let _unused = (cx, mm);
    }
    /// A recorded page fault was followed: the program touched `addr`.
    fn touched(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>, who: Who, addr: u64, access: Kind) {
        let _unused = (cx, mm, who, addr, access);
    }
    /// A call was followed.
    fn called(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>, who: Who, call: &Call) {
        let _unused = (cx, mm, who, call);
    }
    /// The address space of the first process is about to end, by exit or by `execve`.
    fn ended(&mut self, cx: &mut CallCx<'_>, mm: &Arc<Mm>) {
        let _unused = (cx, mm);
    }
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

impl Watch for Nobody {}
