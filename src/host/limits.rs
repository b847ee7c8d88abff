//! Limits of recorded processes.

use super::family::refused;
use crate::replay::{Outcome, Resource};
use rustix::process::{self, Pid, Rlimit, prlimit};
use std::{fs, io};

/// Sets a limit of a process: so many bytes, or so many more than are in use; `None`: no limit.
pub(super) fn set(
    pid: i32,
    which: Resource,
    (bytes, over): (Option<u64>, bool),
) -> io::Result<Outcome> {
    let used = match over {
        true => used(pid, which)?,
        false => 0,
    };
    let (resource, title) = match which {
        Resource::As => (process::Resource::As, "Max address space"),
        Resource::Data => (process::Resource::Data, "Max data size"),
        Resource::Stack => (process::Resource::Stack, "Max stack size"),
        Resource::Memlock => (process::Resource::Memlock, "Max locked memory"),
    };
    // The most that may be asked for stays as it is: not every superuser may raise it.
    let most = hard(pid, title)?;
    let wanted = bytes.map_or(u64::MAX, |bytes| bytes.saturating_add(used));
    let limit = Rlimit {
        current: Some(wanted.min(most)).filter(|limit| *limit != u64::MAX),
        maximum: Some(most).filter(|limit| *limit != u64::MAX),
    };
    let done = prlimit(Pid::from_raw(pid), resource, limit);
    done.map_or_else(
        |e| refused(&io::Error::from(e)),
        |_before| Ok(Outcome::Ret(0)),
    )
}

/// Returns the most that a process may ask for, by the title of that line.
fn hard(pid: i32, title: &str) -> io::Result<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let line = limits.lines().find_map(|line| line.strip_prefix(title));
    let hard = line.and_then(|rest| rest.split_ascii_whitespace().nth(1));
    match hard.ok_or(io::ErrorKind::InvalidData)? {
        "unlimited" => Ok(u64::MAX),
        bytes => bytes.parse().map_err(io::Error::other),
    }
}

/// Returns the bytes of a resource that a process uses.
fn used(pid: i32, which: Resource) -> io::Result<u64> {
    let title = match which {
        Resource::As => "VmSize:",
        Resource::Data => "VmData:",
        Resource::Stack => "VmStk:",
        Resource::Memlock => "VmLck:",
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(title));
    let kib = line.and_then(|rest| rest.split_ascii_whitespace().next());
    let kib = kib.ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib.parse::<u64>().map_err(io::Error::other)? << 10)
}
