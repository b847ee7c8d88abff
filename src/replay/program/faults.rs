//! `faults.txt`: one page fault a line, `PID TID TIME read|write|exec ADDRESS`.

use super::text::{Text, decimal, hexadecimal, time};
use std::fmt;

/// The access of a page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// A load.
    Read,
    /// A store.
    Write,
    /// An instruction fetch.
    Exec,
}

/// A page fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordedFault {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The time, in ns.
    pub at: u64,
    /// The access.
    pub kind: FaultKind,
    /// The address.
    pub addr: u64,
}

/// Reads every fault of a recording.
///
/// # Errors
///
/// Number, from 1, and reason of the first line that is not a fault.
pub fn parse(text: &str) -> Result<Vec<RecordedFault>, (usize, String)> {
    let rows = text.lines().enumerate();
    rows.filter(|(_, row)| !row.trim().is_empty())
        .map(|(n, row)| {
            RecordedFault::parse(row).ok_or_else(|| {
                let why = "not PID TID TIME read|write|exec ADDRESS";
                (n + 1, why.to_owned())
            })
        })
        .collect()
}

impl RecordedFault {
    fn parse(row: &str) -> Option<Self> {
        let mut text = Text(row);
        let pid = u32::try_from(decimal(text.word()?)?).ok()?;
        let tid = u32::try_from(decimal(text.word()?)?).ok()?;
        let at = time(text.word()?)?;
        let kind = match text.word()? {
            "read" => FaultKind::Read,
            "write" => FaultKind::Write,
            "exec" => FaultKind::Exec,
            _ => return None,
        };
        let addr = hexadecimal(text.word()?.strip_prefix("0x")?)?;
        text.word().is_none().then_some(Self {
            pid,
            tid,
            at,
            kind,
            addr,
        })
    }
}

/// The line of the fault in `faults.txt`.
impl fmt::Display for RecordedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FaultKind::Read => "read",
            FaultKind::Write => "write",
            FaultKind::Exec => "exec",
        };
        let (seconds, ns) = (self.at / 1_000_000_000, self.at % 1_000_000_000);
        let Self { pid, tid, addr, .. } = self;
        write!(f, "{pid} {tid} {seconds}.{ns:09} {kind} {addr:#x}")
    }
}
