//! The observation of processes, in the words of a script.

use super::{
    pages::Kind,
    script::{MapsRow, Notice, Notified},
};
use crate::{
    addr::{Pfn, Vpn, VpnRange},
    ctx::CallCx,
    extmmu::Recorded,
    mm::{MapsLine, Mm, PageState, VmFlags},
};
use std::borrow::Cow;

/// Returns a line of the maps in the form of a script.
pub(super) fn row(line: &MapsLine) -> MapsRow {
    MapsRow {
        start: line.start,
        end: line.end,
        perms: line.perms(),
        offset: line.offset,
        what: what(line).into_owned(),
    }
}

/// Returns true if the script has this line: a line that equals its [`row`].
pub(super) fn is_row(line: &MapsLine, row: &MapsRow) -> bool {
    (line.start, line.end, line.offset) == (row.start, row.end, row.offset)
        && line.letters() == row.perms.as_bytes()
        && what(line) == row.what
}

fn what(line: &MapsLine) -> Cow<'_, str> {
    if let Some(named) = MapsRow::named(&line.name) {
        return named.into();
    }
    if line.anonymous {
        return match &*line.name {
            "[heap]" => "heap".into(),
            _ => "anon".into(),
        };
    }
    let gone = line.name.strip_suffix(" (deleted)");
    let path = gone.unwrap_or(&line.name);
    let what = MapsRow::fileless(path).unwrap_or_else(|| match gone {
        // A file that the script opened by its path.
        None => path,
        // `/memfd:f0` or a path.
        Some(_) => path.rsplit(['/', ':']).next().unwrap_or(path),
    });
    what.into()
}

/// Words in the last column of a layout, by the last column of `/proc/PID/maps`.
impl MapsRow {
    /// Returns the words for memory that a process has given a name.
    pub(crate) fn named(column: &str) -> Option<String> {
        let inside = column.strip_prefix('[')?.strip_suffix(']')?;
        match inside.split_once(':')? {
            ("anon", name) => Some(format!("anon:{name}")),
            ("anon_shmem", name) => Some(format!("shm:{name}")),
            _ => None,
        }
    }
    /// Returns the word for an object that is no file of a script, by its path.
    pub(crate) fn fileless(path: &str) -> Option<&'static str> {
        match path {
            "/dev/zero" => Some("zero"),
            "/anon_hugepage" => Some("hugetlb"),
            "/secretmem" => Some("secret"),
            path if path.starts_with("/SYSV") => Some("sysv"),
            _ => None,
        }
    }
}

/// Returns the part of the arena where a recorder looks at pages: those of VMAs that begin there. A
/// VMA that has grown down across the beginning of the arena has none in a script.
pub(super) fn looked_at(cx: &mut CallCx<'_>, mm: &Mm, arena: VpnRange) -> Option<VpnRange> {
    match mm.end_of_vma_across(cx, arena.start()) {
        Some(end) => VpnRange::new(end, arena.end()),
        None => Some(arena),
    }
}

/// Returns an entry of a page table in the form of a script.
pub(super) fn entry((page, state): (Vpn, PageState)) -> (u64, Kind, Option<Pfn>) {
    let (kind, pfn) = match state {
        PageState::Anon(pfn) => (Kind::Anon, Some(pfn)),
        PageState::Object(pfn) => (Kind::Object, Some(pfn)),
        PageState::Zero => (Kind::Zero, None),
        PageState::Swap => (Kind::Swap, None),
        PageState::Guard => (Kind::Guard, None),
    };
    (page.0, kind, pfn)
}

/// Returns the notice of a recorded invalidation.
pub(super) fn notice(recorded: &Recorded) -> Notified {
    let (notice, range) = match recorded {
        Recorded::Window(range) => (Notice::Unmap, range),
        Recorded::Age(range) => (Notice::Age, range),
    };
    Notified {
        notice,
        start: range.start().addr(),
        end: match *range == VpnRange::ALL {
            true => u64::MAX,
            false => range.end().addr(),
        },
    }
}

/// The letters of `VmFlags` in `/proc/PID/smaps` (`show_smap_vma_flags`), sorted.
const LETTERS: [(&str, VmFlags); 30] = [
    ("ac", VmFlags::ACCOUNT),
    ("dc", VmFlags::DONTCOPY),
    ("dd", VmFlags::DONTDUMP),
    ("de", VmFlags::DONTEXPAND),
    ("dp", VmFlags::DROPPABLE),
    ("ex", VmFlags::EXEC),
    ("gd", VmFlags::GROWSDOWN),
    ("gu", VmFlags::MAYBE_GUARD),
    ("hg", VmFlags::HUGEPAGE),
    ("ht", VmFlags::HUGETLB),
    ("lf", VmFlags::LOCKONFAULT),
    ("lo", VmFlags::LOCKED),
    ("me", VmFlags::MAYEXEC),
    ("mg", VmFlags::MERGEABLE),
    ("mr", VmFlags::MAYREAD),
    ("ms", VmFlags::MAYSHARE),
    ("mw", VmFlags::MAYWRITE),
    ("nh", VmFlags::NOHUGEPAGE),
    ("nr", VmFlags::NORESERVE),
    ("rd", VmFlags::READ),
    ("rr", VmFlags::RAND_READ),
    ("sf", VmFlags::SYNC),
    ("sh", VmFlags::SHARED),
    ("sl", VmFlags::SEALED),
    ("sr", VmFlags::SEQ_READ),
    ("ui", VmFlags::UFFD_MINOR),
    ("um", VmFlags::UFFD_MISSING),
    ("uw", VmFlags::UFFD_WP),
    ("wf", VmFlags::WIPEONFORK),
    ("wr", VmFlags::WRITE),
];

/// Returns the flags of the VMAs in the arena, each as its letters.
pub(super) fn vm_flags(cx: &mut CallCx<'_>, mm: &Mm, arena: VpnRange) -> Vec<String> {
    let lines = mm.maps(cx);
    let inside = lines
        .iter()
        .filter(|line| arena.contains(Vpn::containing(line.start)));
    let letters = |line: &MapsLine| {
        let has = LETTERS
            .iter()
            .filter(|(_, flag)| line.flags.contains(*flag));
        has.map(|(word, _)| *word).collect::<Vec<_>>().join(" ")
    };
    inside.map(letters).collect()
}
