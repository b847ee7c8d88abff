//! The comparison of processes with Linux, in place. Processes nearly always agree, so the
//! comparison makes no copy of them, as [`Observed`](super::compare::Observed) is one, until
//! something differs.

use super::{
    compare::{Expected, Parts},
    names::Names,
    observe::{entry, is_row, looked_at, vm_flags},
    op::Op,
    pages::{Kind, Run},
    script::{MapsRow, Step},
    userfaults::protected,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::CallCx,
    mm::Mm,
};
use std::{collections::BTreeMap, sync::Arc};

/// The remaining expected runs of a process.
struct Ahead<'r> {
    runs: &'r [Run],
    /// Pages of the first run that were compared already.
    seen: u64,
}

impl Ahead<'_> {
    /// Advances by one entry, if that is the next one.
    #[inline]
    fn is_next(
        &mut self,
        (page, kind, frame): (u64, Kind, Option<Pfn>),
        names: &mut Names,
    ) -> bool {
        let Some(run) = self.runs.first() else {
            return false;
        };
        let nth = u32::try_from(self.seen).unwrap_or(u32::MAX);
        let named = frame.is_none_or(|frame| names.number(frame) == run.frame.saturating_add(nth));
        let same = run.page + self.seen == page && run.kind == kind && named;
        self.seen += 1;
        if self.seen == run.len {
            (self.runs, self.seen) = (&self.runs[1..], 0);
        }
        same
    }
}

/// Returns the processes whose VMAs a step can have changed; all, for a step that does not tell.
pub(super) fn changed(step: &Step) -> impl Fn(u32) -> bool + '_ {
    let child = match step.op {
        Op::Fork { child } => Some(child),
        _ => None,
    };
    move |p| p == step.actor || Some(p) == child || step.layouts.contains_key(&p)
}

/// Returns true if the processes have the expected VMAs and pages in the arena; VMAs only of those
/// that `changed`.
///
/// Costs nothing for processes without page tables that did not change: scripts may have many.
pub(super) fn look_alike(
    cx: &mut CallCx<'_>,
    processes: &BTreeMap<u32, Arc<Mm>>,
    arena: VpnRange,
    (expected, names): (&Expected<'_>, &mut Names),
    changed: impl Fn(u32) -> bool,
) -> bool {
    let (layouts, pages) = (Parts::LAYOUTS, Parts::PAGES);
    names.forget();
    let mut each = processes.iter();
    each.all(|(&process, mm)| {
        let vmas = expected.compares(layouts) && changed(process);
        let flags = expected
            .compares(Parts::FLAGS)
            .then(|| expected.vm_flags(process))
            .flatten();
        (!vmas || lies_so(cx, mm, arena, expected.rows(process)))
            && flags.is_none_or(|flags| vm_flags(cx, mm, arena) == flags)
            && (!expected.compares(pages)
                || expected
                    .protected(process)
                    .is_none_or(|pages| protected(cx, mm, arena) == pages))
            && (!expected.compares(pages) || maps_so(cx, mm, arena, expected.runs(process), names))
    }) && (!expected.compares(pages) || expected.has_pages_of_none_but(processes))
}

fn lies_so(cx: &mut CallCx<'_>, mm: &Mm, arena: VpnRange, rows: &[MapsRow]) -> bool {
    let lines = mm.maps(cx);
    let inside = |start| arena.contains(Vpn::containing(start));
    let mut lines = lines.iter().filter(|line| inside(line.start));
    rows.iter()
        .all(|row| lines.next().is_some_and(|line| is_row(line, row)))
        && lines.next().is_none()
}

fn maps_so(cx: &mut CallCx<'_>, mm: &Mm, arena: VpnRange, runs: &[Run], names: &mut Names) -> bool {
    if mm.tables() == 0 {
        return runs.is_empty();
    }
    let mut ahead = Ahead { runs, seen: 0 };
    let mut same = true;
    if let Some(part) = looked_at(cx, mm, arena) {
        mm.each_page(cx, part, |page, state| {
            same = same && ahead.is_next(entry((page, state)), names);
        });
    }
    same && ahead.runs.is_empty()
}
