//! Entries that several page tables, places or walks have: an entry goes in one, and stays in
//! another.

use super::{
    paper::{PaperStep::*, Violation},
    piece::{
        Piece,
        Shown::{Schedule, Type},
    },
};

const M: usize = 0;

/// M has page 0, in frame 1.
macro_rules! then {
    ($($step:expr),* $(,)?) => {
        &[Register(M), Map(0, 1), LookUp(M, 0), Enter(M, 0), $($step),*]
    };
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "C3",
        year: 2022,
        system: "Linux, migration from a device",
        reference: "CVE-2022-3523, 16ce101db85d",
        what: "M finds a page of a device and holds nothing; meanwhile the page migrates, and its frame is given back.",
        shown: Schedule {
            broken_by: Violation::Stale,
            broken: &[
                Register(M),
                Map(0, 1),
                LookUp(M, 0),
                Begin(M, 0),
                Clear(0),
                Free(1),
                Map(0, 2),
                End(M),
                Enter(M, 0),
            ],
            sound: &[
                Register(M),
                Map(0, 1),
                Snapshot(M),
                LookUp(M, 0),
                Begin(M, 0),
                Clear(0),
                Free(1),
                Map(0, 2),
                End(M),
                CheckSequence(M),
                Enter(M, 0),
                Quiet,
            ],
        },
    },
    Piece {
        id: "C24",
        year: 2025,
        system: "Linux, IOMMUs that walk a shared page table",
        reference: "CVE-2025-71202; 9f0a7ab700f8, e37d5a2d60a3",
        what: "A table of the kernel's half is freed without a flush, and the device goes on reading it.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: then![Clear(0), Free(1)],
            sound: then![Begin(M, 0), Clear(0), End(M), Free(1), Quiet],
        },
    },
    Piece {
        id: "C25",
        year: 2026,
        system: "Linux, the processes of an IOMMU",
        reference: "CVE-2026-23429; 06e14c36, 58abeb7b",
        what: "The last unbinding frees M, and a flush still finds M on the list of its processes.",
        shown: Schedule {
            broken_by: Violation::CalledAfterFree,
            broken: &[Register(M), FreeDriver(M), Unhash(M), Begin(M, 0)],
            sound: &[
                Register(M),
                Begin(M, 0),
                End(M),
                Unhash(M),
                FreeDriver(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "C43",
        year: 2022,
        system: "Linux, munmap of a driver's pages beside unmap_mapping_range",
        reference: "CVE-2022-39188, b67fbebd4cf9",
        what: "munmap clears the entry and defers the flush; the driver finds no entry, and frees the frame.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: then![Clear(0), Free(1), Begin(M, 0), End(M)],
            sound: then![Clear(0), Begin(M, 0), End(M), Free(1), Quiet],
        },
    },
    Piece {
        id: "C44",
        year: 2018,
        system: "Linux, mremap",
        reference: "eb66ae030829",
        what: "The entry moves to page 1 without a flush of page 0; page 1 is unmapped, and M keeps page 0.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: then![Clear(0), Map(1, 1), Begin(M, 1), Clear(1), Free(1), End(M)],
            sound: then![
                Begin(M, 0),
                Clear(0),
                Map(1, 1),
                End(M),
                Begin(M, 1),
                Clear(1),
                Free(1),
                End(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "C54",
        year: 2025,
        system: "privcmd, a VMA that is split",
        reference: "6.18.y, drivers/xen/privcmd.c (may_split)",
        what: "The two halves of a VMA have one private object, and each frees it.",
        shown: Type("registration/iv09_registration_cloned"),
    },
];
