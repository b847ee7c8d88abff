//! The order of two calls that overlapped in time: only one order leads to the recorded results.

use super::{
    call::{Call, Returned},
    event::{ProgramEvent, What},
    family::Family,
    files::Objects,
    place::{attach_args, map_args},
};
use crate::{
    ctx::CallCx,
    mm::{Mm, MremapArgs},
};
use std::ops::Range;

/// Returns true if `event`, which ended later, must have taken effect before `due`.
///
/// That is so if `due` would not get its place now, and `event` would, or gives that place back; or
/// if `due` gives memory back and `event` gets its place only before that.
pub(super) fn precedes(
    cx: &mut CallCx<'_>,
    family: &mut Family,
    objects: &mut Objects,
    event: &ProgramEvent,
    due: &ProgramEvent,
) -> bool {
    let Some(space) = family.space_of(event.tid) else {
        return false;
    };
    if family.space_of(due.tid) != Some(space) {
        return false;
    }
    let due_fits = fits(cx, family, objects, due);
    if due_fits == Some(false) {
        let event_fits = fits(cx, family, objects, event);
        return event_fits == Some(true)
            || event_fits.is_none() && {
                let mm = family.mm(space);
                let freed = mm.and_then(|mm| freed(cx, mm, event));
                matches!((freed, placed(objects, due)), (Some(a), Some(b))
                    if a.start < b.end && b.start < a.end)
            };
    }
    let Some(mm) = family.mm(space) else {
        return false;
    };
    let Some(freed) = freed(cx, mm, due) else {
        return false;
    };
    let hole = hole(cx, mm, freed);
    // In the freed memory, the event would get the upper end.
    placed(objects, event)
        .is_some_and(|at| hole.end > at.end && hole.end - hole.start >= at.end - at.start)
        && fits(cx, family, objects, event) == Some(true)
}

/// Returns the hole after the release of `freed`.
fn hole(cx: &mut CallCx<'_>, mm: &Mm, freed: Range<u64>) -> Range<u64> {
    let maps = mm.maps(cx);
    let below = maps.iter().rev().find(|l| l.start < freed.start);
    let above = maps.iter().find(|l| l.end > freed.end);
    Range {
        start: below.map_or(0, |l| l.end.min(freed.start)),
        end: above.map_or(freed.end, |l| l.start.max(freed.end)),
    }
}

fn parts(event: &ProgramEvent) -> Option<(&Call, &Returned)> {
    match &event.what {
        What::Call { call, returned, .. } => Some((call, returned)),
        _ => None,
    }
}

/// Returns true if a call with a kernel-chosen place would get the recorded one now; `None` for
/// other calls.
fn fits(
    cx: &mut CallCx<'_>,
    family: &mut Family,
    objects: &mut Objects,
    event: &ProgramEvent,
) -> Option<bool> {
    let task = family.task(event.tid)?;
    let (call, returned) = parts(event)?;
    let place = match *call {
        Call::Mmap { .. } => {
            let args = map_args(family.descriptors(task.table), objects, call, returned)?;
            let mm = family.mm(task.space?)?;
            args.ok().and_then(|args| mm.would_map_at(cx, &args).ok())
        }
        Call::Shmat { .. } => {
            let args = attach_args(objects, call, returned)?;
            let mm = family.mm(task.space?)?;
            args.ok().and_then(|args| mm.would_map_at(cx, &args).ok())
        }
        Call::Mremap(args) => family.mm(task.space?)?.would_remap_to(cx, args).ok(),
        _ => return None,
    };
    Some(place == returned.value())
}

/// Returns the memory that a call gets.
fn placed(objects: &Objects, event: &ProgramEvent) -> Option<Range<u64>> {
    let (call, returned) = parts(event)?;
    let start = returned.value()?;
    let len = match *call {
        Call::Mmap { len, .. } | Call::Mremap(MremapArgs { new_len: len, .. }) => len,
        Call::Shmat { .. } => attach_args(objects, call, returned)?.ok()?.len,
        _ => return None,
    };
    Some(start..start.saturating_add(len))
}

/// Returns the memory that a call gives back.
fn freed(cx: &mut CallCx<'_>, mm: &Mm, event: &ProgramEvent) -> Option<Range<u64>> {
    let (call, returned) = parts(event)?;
    match *call {
        Call::Munmap { addr, len } => Some(addr..addr.saturating_add(len)),
        Call::Mremap(MremapArgs {
            addr,
            old_len,
            new_len,
            ..
        }) => {
            let kept = match returned.value() {
                Some(to) if to == addr => new_len,
                Some(_) => 0,
                None => old_len,
            };
            (kept < old_len).then(|| addr.saturating_add(kept)..addr.saturating_add(old_len))
        }
        Call::Shmdt { addr } => {
            let maps = mm.maps(cx);
            let line = maps.iter().find(|l| l.start == addr)?;
            Some(addr..line.end)
        }
        _ => None,
    }
}
