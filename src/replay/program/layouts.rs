//! The assignment of recorded initial layouts to `execve` calls.

use super::{
    call::{Call, Returned},
    event::What,
    load::Program,
    maps::Row,
};
use std::collections::BTreeMap;

/// Returns the initial layouts by the line of the `execve` that left them.
///
/// The recorder takes a layout at the first `brk` of a process, so the layout belongs to the last
/// `execve` before that call. The layout of a process that forks, calls `brk` and only then
/// `execve` belongs to no program of that process. Without any `brk` the layout belongs to the
/// first `execve`.
pub(super) fn by_execve(program: &Program) -> BTreeMap<usize, &[Row]> {
    let mut of_thread: BTreeMap<u32, u32> = BTreeMap::new();
    let mut processes: BTreeMap<u32, CallLines> = BTreeMap::new();
    for event in &program.events {
        let What::Call { call, returned, .. } = &event.what else {
            continue;
        };
        let pid = of_thread.get(&event.tid).copied().unwrap_or(event.tid);
        match call {
            Call::Clone { thread: true, .. } => {
                let child = returned.value().and_then(|c| u32::try_from(c).ok());
                of_thread.extend(child.map(|child| (child, pid)));
            }
            Call::Execve if *returned == Returned::Value(0) => {
                let seen = processes.entry(pid).or_default();
                seen.first.get_or_insert(event.line);
                seen.last = Some(event.line);
            }
            Call::Brk { .. } => {
                let seen = processes.entry(pid).or_default();
                seen.before_brk.get_or_insert(seen.last);
            }
            _ => {}
        }
    }
    let layouts = program.initial.iter().filter_map(|(pid, rows)| {
        let seen = processes.get(pid)?;
        Some((seen.before_brk.unwrap_or(seen.first)?, &**rows))
    });
    layouts.collect()
}

/// The calls of a process, by lines.
#[derive(Default)]
struct CallLines {
    first: Option<usize>,
    last: Option<usize>,
    /// The last `execve` before the first `brk`, if there was a `brk`.
    before_brk: Option<Option<usize>>,
}
