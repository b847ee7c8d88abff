//! Entries that are not plain pages: write protection by userfaultfd, faults that wait, huge pages
//! of a pool.

use super::piece::{Piece, flawed};

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "B49",
        year: 2021,
        system: "Linux, UFFDIO_WRITEPROTECT without a flush of stale entries",
        reference: "6ce64428d620 (Amit)",
        what: "Userfaultfd protects a page, and the device keeps its right to write: the write reaches the page, and no handler hears of it.",
        shown: flawed!(KeepsRights, Userfaults, "O4" | "answer" | "bytes"),
    },
    Piece {
        id: "B50",
        year: 2015,
        system: "drivers that fault under a lock of their callbacks",
        reference: "86039bd3b4e6: a fault for userfaultfd waits with no lock",
        what: "The driver holds its lock while a fault waits for an answer: the handler's own window waits for the lock.",
        shown: flawed!(WaitsInside, Userfaults, "time"),
    },
    Piece {
        id: "B51",
        year: 2018,
        system: "KVM on arm64",
        reference: "KVM: arm/arm64: Fix unintended stage 2 PMD mappings (Dall)",
        what: "The driver takes a huge page of a pool for larger than it is: the device reads and writes beyond the mapping.",
        shown: flawed!(BeyondHuge, PoolPages, "answer" | "bytes" | "O4"),
    },
];
