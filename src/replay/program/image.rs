//! The layout after `execve`, installed as recorded.

use super::{
    files::{DELETED, Objects},
    maps::Row,
};
use crate::{
    TASK_SIZE,
    ctx::CallCx,
    file::{File, FileMode},
    mm::{Machine, Mm, Segment, VmFlags},
};
use std::{collections::BTreeMap, sync::Arc};

/// The rights that `mprotect` may set.
const MAY: VmFlags = VmFlags::MAYREAD
    .union(VmFlags::MAYWRITE)
    .union(VmFlags::MAYEXEC);

/// Returns an address space with these rows, as `execve` makes it; the error names the row that is
/// wrong.
///
/// Properties outside of `/proc/PID/maps` follow from the kind of a row: writable private memory is
/// accounted, the stack grows down and has its arguments in it, and all rows of one path belong to
/// one open file.
pub(super) fn build(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    objects: &mut Objects,
    rows: &[Row],
) -> Result<Arc<Mm>, String> {
    let mm = Mm::new(machine);
    match fill(cx, &mm, objects, rows) {
        Ok(()) => Ok(mm),
        Err(why) => {
            mm.exit(cx);
            Err(why)
        }
    }
}

fn fill(cx: &mut CallCx<'_>, mm: &Mm, objects: &mut Objects, rows: &[Row]) -> Result<(), String> {
    let mut files: BTreeMap<&str, Arc<File>> = BTreeMap::new();
    let mut top = 0;
    // The page of the kernel is no memory of the process.
    for row in rows.iter().filter(|r| r.end <= TASK_SIZE) {
        let cannot = |why: &dyn std::fmt::Display| format!("{row}: {why}");
        let is_stack = row.path == "[stack]";
        let anonymous = row.path.is_empty() || is_stack || row.path == "[heap]";
        let file = if anonymous {
            None
        } else if let Some(file) = files.get(&*row.path) {
            Some(Arc::clone(file))
        } else {
            let object = objects.named(&row.path).map_err(|e| cannot(&e))?;
            // Which of the rights it has, is not shown; a shared row needs it to be writable.
            let file = File::open(object, FileMode::ReadWrite);
            files.insert(&row.path, Arc::clone(&file));
            Some(file)
        };
        let segment = Segment {
            start: row.start,
            end: row.end,
            flags: flags(row),
            file,
            offset: row.offset,
        };
        mm.install(cx, &segment).map_err(|e| cannot(&e))?;
        if is_stack {
            mm.set_start_stack(cx, row.end - 16)
                .map_err(|e| cannot(&e))?;
            // The kernel put arguments and environment there.
            mm.store(cx, row.end - 16, 1).map_err(|e| cannot(&e))?;
        } else {
            top = row.end;
        }
    }
    // The loader of the program is the first mapping that the kernel places, right below the base.
    if top > 0 {
        mm.set_mmap_base(cx, top).map_err(|e| e.to_string())?;
    }
    Ok(())
}

fn flags(row: &Row) -> VmFlags {
    let has = |letter: char| row.perms.contains(letter);
    let mut flags = MAY;
    for (letter, bit) in [
        ('r', VmFlags::READ),
        ('w', VmFlags::WRITE),
        ('x', VmFlags::EXEC),
    ] {
        if has(letter) {
            flags |= bit;
        }
    }
    if has('s') {
        flags |= VmFlags::SHARED | VmFlags::MAYSHARE;
    } else if has('w') {
        flags |= VmFlags::ACCOUNT;
    }
    match &*row.path {
        "[stack]" => flags |= VmFlags::GROWSDOWN,
        _ if row.is_special() => flags |= VmFlags::DONTEXPAND | VmFlags::DONTDUMP,
        _ => {}
    }
    flags
}

/// Returns the rows of an address space, without the kernel's own mappings.
pub(super) fn rows(cx: &mut CallCx<'_>, mm: &Mm) -> Vec<Row> {
    let lines = mm.maps(cx);
    let rows = lines.iter().map(|line| Row {
        start: line.start,
        end: line.end,
        perms: line.perms(),
        offset: line.offset,
        device: 0,
        path: line.name.clone(),
    });
    rows.filter(|r| !r.is_special()).collect()
}

/// Returns true if two rows are equal. Devices do not count, and neither does a deleted name, as no
/// recorded call shows the deletion.
pub(super) fn same(a: &Row, b: &Row) -> bool {
    let name = |r: &'_ Row| r.path.trim_end_matches(DELETED).len();
    (a.start, a.end, &a.perms, a.offset) == (b.start, b.end, &b.perms, b.offset)
        && a.path.get(..name(a)) == b.path.get(..name(b))
}
