//! What is seen of processes, in the words of a script.

use super::{
    pages::Kind,
    script::{MapsRow, Notice, Notified},
};
use crate::{
    addr::{Pfn, Vpn},
    extmmu::Told,
    mm::{MapsLine, PageState},
};

/// A line of the maps as a script has it.
pub(super) fn row(line: &MapsLine) -> MapsRow {
    MapsRow {
        start: line.start,
        end: line.end,
        perms: line.perms(),
        offset: line.offset,
        what: what(line).to_owned(),
    }
}

/// Whether a script has the line so: equal to its [`row`].
pub(super) fn is_row(line: &MapsLine, row: &MapsRow) -> bool {
    (line.start, line.end, line.offset) == (row.start, row.end, row.offset)
        && line.letters() == row.perms.as_bytes()
        && what(line) == row.what
}

fn what(line: &MapsLine) -> &str {
    if line.anonymous {
        return "anon";
    }
    match line.name.strip_suffix(" (deleted)").unwrap_or(&line.name) {
        "/dev/zero" => "zero",
        // `/memfd:f0` or a path.
        name => name.rsplit(['/', ':']).next().unwrap_or(name),
    }
}

/// An entry of a page table.
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

/// What an external MMU was told.
pub(super) fn told(told: &Told) -> Notified {
    let (notice, range) = match told {
        Told::Window(range) => (Notice::Unmap, range),
        Told::Age(range) => (Notice::Age, range),
    };
    Notified {
        notice,
        start: range.start().addr(),
        end: range.end().addr(),
    }
}
