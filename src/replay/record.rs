//! The recording of this library: operations without a recorded outcome, executed and written in
//! the format of the recordings.

use super::{
    family::Family,
    op::Op,
    script::{Header, MapsRow, Outcome, Script, Step},
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
    let mut before = BTreeMap::new();
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
        };
        if look {
            written(cx, &family, outcome, &mut step, &mut before);
        }
        let on = follow.after(cx, &step, family.processes());
        script.steps.push(step);
        if !on {
            break;
        }
    }
    follow.finish(cx, family.processes());
    family.end(cx);
}

/// Writes the changes of the processes in a step.
fn written(
    cx: &mut CallCx<'_>,
    family: &Family,
    outcome: Outcome,
    step: &mut Step,
    before: &mut BTreeMap<u32, Vec<MapsRow>>,
) {
    let seen = family.observe(cx, outcome, family.notified());
    step.notified = seen.notified;
    let changed =
        |(p, rows): &(&u32, &Vec<MapsRow>)| before.get(p).map_or(!rows.is_empty(), |b| b != *rows);
    let layouts = seen.layouts.iter().filter(changed);
    step.layouts = layouts.map(|(p, rows)| (*p, rows.clone())).collect();
    *before = seen.layouts;
    step.pages = Some(seen.pages);
}

/// Returns a script without steps.
pub fn blank(name: &str, header: Header) -> Script {
    Script {
        name: name.to_owned(),
        header,
        steps: Vec::new(),
    }
}
