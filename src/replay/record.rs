//! Writing down what this library does with operations that nobody recorded, in the format of the
//! recordings.

use super::{
    family::Family,
    op::Op,
    script::{Header, MapsRow, Outcome, Script, Step},
};
use crate::ctx::CallCx;

use crate::mm::{Machine, Mm};
use std::{collections::BTreeMap, sync::Arc};

/// Processes by number.
pub type Processes = BTreeMap<u32, Arc<Mm>>;

/// Somebody who is there when operations are done.
pub trait Follow {
    /// Process 0 is there, and has nothing.
    fn begin(&mut self, cx: &mut CallCx<'_>, first: &Arc<Mm>);
    /// Before a step, something may happen that is no part of it. What happens should depend on the
    /// step alone, not on how many there were before it: then it stays with the step when others
    /// are left out.
    fn disturb(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op);
    /// The step is about to be done; what happens here is taken for part of it.
    fn before(&mut self, cx: &mut CallCx<'_>, actor: u32, op: &Op);
    /// It was done, and these processes are there now; `false` ends the script here.
    fn after(&mut self, cx: &mut CallCx<'_>, step: &Step, now: &Processes) -> bool;
    /// Nothing more will be done; the processes exit after this.
    fn finish(&mut self, cx: &mut CallCx<'_>, now: &Processes);
}

/// Given the living processes, who does what next; nothing: it is over.
pub type Next<'n> = dyn FnMut(&[u32]) -> Option<(u32, Op)> + 'n;

/// Does what `next` says, given the living processes, until it says nothing, and writes it down in
/// `script`, whose header says where. With `look`, windows, VMAs and page tables are written down
/// too, so that a replay compares them.
///
/// # Panics
///
/// If the machine has no memory for the files of the script.
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
            family.forget_told();
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

/// What the processes look like after a step, as far as it is new.
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

/// A script that has no steps yet.
pub fn blank(name: &str, header: Header) -> Script {
    Script {
        name: name.to_owned(),
        header,
        steps: Vec::new(),
    }
}
