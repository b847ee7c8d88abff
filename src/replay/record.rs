//! The recording of this library: operations without a recorded outcome, executed and written in
//! the format of the recordings.

use super::{
    family::Family,
    op::Op,
    script::{Header, MapsRow, Outcome, Script, Step},
    uffd_op::More,
};
use crate::{
    ctx::CallCx,
    mm::{Machine, Mm},
};
use std::{collections::BTreeMap, sync::Arc};

/// The processes of a script, by number.
pub type Processes = BTreeMap<u32, Arc<Mm>>;

/// An observer of the operations of a recording.
pub trait Follow {
    /// Called with process 0, which has no mappings yet.
    fn begin(&mut self, cx: &mut CallCx<'_>, first: &Arc<Mm>);
    /// Called before a step, for activity outside of the step. The activity should depend on the
    /// step alone, not on the number of steps before: then it stays with the step in a shorter
    /// script.
    fn disturb(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op);
    /// Called right before the step; activity here counts as a part of the step.
    fn before(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op);
    /// Called after the step with the processes that exist now; `false` ends the script.
    fn after(&mut self, cx: &mut CallCx<'_>, step: &Step, now: &Processes) -> bool;
    /// Called after the last step; the processes exit after this.
    fn finish(&mut self, cx: &mut CallCx<'_>, now: &Processes);
}

/// The source of operations: given the living processes, returns the next process and its
/// operation, or `None` at the end.
pub type Next<'n> = dyn FnMut(&[u32]) -> Option<(u32, Op)> + 'n;

/// Executes the operations of `next` and records them in `script`, whose header describes the
/// world. With `look`, the script also gets windows, VMAs and page tables, which a replay then
/// compares.
///
/// # Panics
///
/// Panics if the machine has no memory for the files of the script.
pub fn record(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    script: &mut Script,
    look: bool,
    next: &mut Next<'_>,
    follow: &mut dyn Follow,
) {
    let mut family = Family::new(cx, machine, script)
        .unwrap_or_else(|why| panic!("the machine is too small for {}: {why}", script.name));
    let first = family.first();
    follow.begin(cx, &first);
    let mut before = Written::default();
    while let Some((actor, op)) = next(&family.living()) {
        let nth = script.steps.len();
        follow.disturb(cx, actor, &op);
        if look {
            family.forget_notices();
        }
        follow.before(cx, actor, &op);
        let outcome = family.act(cx, actor, &op);
        let mut step = Step {
            // The header is line 1.
            line: nth + 2,
            actor,
            op,
            outcome: outcome.clone(),
            notified: Vec::new(),
            layouts: BTreeMap::new(),
            pages: None,
            vm_flags: BTreeMap::new(),
            more: Box::new(More {
                results: family.results().clone(),
                ..More::default()
            }),
        };
        if look {
            before.advance(cx, &mut family, outcome, &mut step);
        }
        let on = follow.after(cx, &step, family.processes());
        script.steps.push(step);
        if !on {
            break;
        }
    }
    follow.finish(cx, family.processes());
    family.end(cx, machine);
}

/// The state of the processes that the steps so far say.
#[derive(Default)]
struct Written {
    layouts: BTreeMap<u32, Vec<MapsRow>>,
    protected: BTreeMap<u32, Vec<u64>>,
}

impl Written {
    /// Writes the changes of the processes in a step.
    fn advance(
        &mut self,
        cx: &mut CallCx<'_>,
        family: &mut Family,
        outcome: Outcome,
        step: &mut Step,
    ) {
        let notified = family.notified(&[]);
        let seen = family.observe(cx, outcome, notified);
        step.notified = seen.notified;
        step.layouts = changes(&mut self.layouts, seen.layouts);
        step.pages = Some(seen.pages);
        step.more.protected = changes(&mut self.protected, seen.more.protected);
    }
}

/// Returns the lists that differ from those before, which they become; a process without a list had
/// an empty one.
fn changes<T: Clone + PartialEq>(
    before: &mut BTreeMap<u32, Vec<T>>,
    mut now: BTreeMap<u32, Vec<T>>,
) -> BTreeMap<u32, Vec<T>> {
    now.retain(|process, list| match before.get(process) {
        Some(old) => old != list,
        None => !list.is_empty(),
    });
    before.extend(now.clone());
    now
}

/// Returns a script without steps.
pub fn blank(name: &str, header: Header) -> Script {
    Script {
        name: name.to_owned(),
        header,
        steps: Vec::new(),
    }
}
