//! Begins, ends, and the shape of windows.

use super::{
    paper::{PaperStep::*, Violation},
    piece::{
        Piece,
        Shown::{Schedule, Type},
        flawed,
    },
};

const M: usize = 0;
const N: usize = 1;

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "B1",
        year: 2008,
        system: "EMMU notifiers V5, do_wp_page",
        reference: "Holt, 20080201104959.GJ26420@sgi.com",
        what: "The path that reuses a page jumps to the end of the path that copies it: a window ends that has not begun.",
        shown: Schedule {
            broken_by: Violation::EndWithoutBegin,
            broken: &[Register(M), Map(0, 1), End(M), Quiet],
            sound: &[Register(M), Map(0, 1), Begin(M, 0), End(M), Quiet],
        },
    },
    Piece {
        id: "B2",
        year: 2008,
        system: "EMMU notifiers V5, copy_page_range",
        reference: "20080201050623.344041545@sgi.com; v18 turned the return into a break",
        what: "A fork runs out of memory, and the error path returns without the end of the window.",
        shown: Schedule {
            broken_by: Violation::Unended,
            broken: &[Register(M), Map(0, 1), Begin(M, 0), WriteProtect(0), Quiet],
            sound: &[
                Register(M),
                Map(0, 1),
                Begin(M, 0),
                WriteProtect(0),
                End(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B3",
        year: 2008,
        system: "EMMU notifiers V5, zap_page_range",
        reference: "20080201050623.344041545@sgi.com; 2ec74c3ef2d8",
        what: "The code overwrites `end`, so the end of a window has another range than its beginning.",
        shown: Type("window/i12_swap_scoped_windows"),
    },
    Piece {
        id: "B4",
        year: 2008,
        system: "drivers with one current range",
        reference: "EMMU notifiers V5, patch 2: hugetlb nests (1) in (0)",
        what: "The driver keeps one current range: a second window overwrites the first, which is still open.",
        shown: flawed!(SingleRange, Overlap, "O4" | "O12" | "bytes"),
    },
    Piece {
        id: "B4'",
        year: 2008,
        system: "drivers with a flag for a count",
        reference: "EMMU notifiers V5, patch 2; Gunthorpe 2019 on drivers' own counters",
        what: "The driver counts windows in a flag: the end of the first of two windows lets faults in.",
        shown: flawed!(BoolWindow, Overlap, "O4" | "O12" | "bytes"),
    },
    Piece {
        id: "B5",
        year: 2008,
        system: "drivers that drop at the end",
        reference: "EMMU notifiers V5, unmap_region frees inside of the window",
        what: "A driver without references drops its entries at the end of the window, after the pages are freed.",
        shown: flawed!(DropAtEnd, DropsRange, "O4" | "O1"),
    },
    Piece {
        id: "B6",
        year: 2021,
        system: "Linux, mn_hlist_invalidate_range_start",
        reference: "c2655835fd8c; 20210311180057.1582638-1-seanjc@google.com",
        what: "M acknowledges, N refuses, and the caller skips the end: M waits for ever.",
        shown: Schedule {
            broken_by: Violation::Unended,
            broken: &[Register(M), Register(N), Begin(M, 0), Refuse(N), Quiet],
            sound: &[
                Register(M),
                Register(N),
                Begin(M, 0),
                Refuse(N),
                End(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B7",
        year: 2021,
        system: "Linux, interval notifiers and a list notifier that refuses",
        reference: "5.15 mm/mmu_notifier.c; no report found",
        what: "The intervals count the window, the list refuses it, and the intervals never see an end.",
        shown: Schedule {
            broken_by: Violation::Unended,
            broken: &[
                Register(N),
                Begin(N, 0),
                Register(M),
                Refuse(M),
                Snapshot(N),
                Quiet,
            ],
            sound: &[
                Register(N),
                Begin(N, 0),
                Register(M),
                Refuse(M),
                End(N),
                Snapshot(N),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B8",
        year: 2018,
        system: "Linux, OOM reaper",
        reference: "93065ac753e4; Tetsuo Handa, August 2018",
        what: "A window is refused, and the early `continue` leaves the windows before it open.",
        shown: Type("window/i02_window_dropped_under_its_entries"),
    },
    Piece {
        id: "B9",
        year: 2021,
        system: "Linux, change_pmd_range",
        reference: "5.15 mm/mprotect.c; no report found",
        what: "`start == 0` stands for `no window yet`, and page 0 has one.",
        shown: flawed!(ZeroSentinel, Edges, "O4" | "O1" | "bytes"),
    },
    Piece {
        id: "B34",
        year: 2021,
        system: "KVM, memory slots that change in a window",
        reference: "52ac8b358b0c, 071064f14d87",
        what: "The driver counts a window up if its range has an entry at the beginning, and down if it has one at the end.",
        shown: flawed!(Unbalanced, Pairing, "time"),
    },
    Piece {
        id: "B40",
        year: 2025,
        system: "amd xdna driver",
        reference: "amd/xdna-driver PR#1540",
        what: "The callback does not wait for a transfer in progress, which goes on after the page is freed.",
        shown: flawed!(Unlocked, Reuse, "O4"),
    },
];
