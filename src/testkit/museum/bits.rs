//! Rights, dirty bits, aging.

use super::{
    paper::{PaperStep::*, Violation},
    piece::{
        Piece,
        Shown::{Device, Schedule},
        flawed,
    },
};
use crate::{
    extmmu::kvm::{KvmMistake, VmConfig},
    testkit::{Property, models},
};

const M: usize = 0;
const N: usize = 1;

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "B16",
        year: 2023,
        system: "Linux, SMMU with ATS",
        reference: "6bbd42e2df8f (Popple)",
        what: "A device remembers that a page may not be written, and never learns that it may again.",
        shown: flawed!(RefusalsKept, Rights, "answer"),
    },
    Piece {
        id: "B26",
        year: 2008,
        system: "KVM, page_mkclean without a notice",
        reference: "EMMU notifiers V5, patch 3",
        what: "The kernel takes a page for clean that the device has written: the write is lost.",
        shown: Device {
            property: Property::Dirty,
            oracles: &["O6", "bytes"],
            broken: || {
                models::kvm(VmConfig {
                    mistake: Some(KvmMistake::LostDirty),
                    ..VmConfig::default()
                })
            },
            sound: || models::kvm(VmConfig::default()),
        },
    },
    Piece {
        id: "B26'",
        year: 2008,
        system: "drivers that drop an entry and its dirty bit",
        reference: "EMMU notifiers V5, patch 1: mark the page dirty if the external entry is",
        what: "The driver drops an entry and its dirty bit with it.",
        shown: flawed!(LostDirty, Dirty, "O6" | "bytes"),
    },
    Piece {
        id: "B44",
        year: 2024,
        system: "Linux, MGLRU",
        reference: "Houghton, 20240529180510.2295118-3, 20240611002145.2078921-9",
        what: "Reclaim does not ask the device for accessed bits: the pages that it uses most are reclaimed.",
        shown: flawed!(NeverYoung, Aging, "O10"),
    },
    Piece {
        id: "B45",
        year: 2011,
        system: "Linux, test_young of khugepaged, until 2025",
        reference: "8ee53820edfd, 394bfac1c7f7",
        what: "Aging asks the device about another page than the one it means.",
        shown: flawed!(WrongPage, Aging, "O10"),
    },
    Piece {
        id: "B46",
        year: 2008,
        system: "aging with an or that stops early",
        reference: "EMMU notifiers V5 avoids it: a bitwise or",
        what: "Both M and N used the page; aging stops at the yes of M, and N's bit stays set for ever.",
        shown: Schedule {
            broken_by: Violation::StillYoung,
            broken: &[
                Register(M),
                Register(N),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                LookUp(N, 0),
                Enter(N, 0),
                Use(M, 0),
                Use(N, 0),
                AgeUntilOne,
                Quiet,
            ],
            sound: &[
                Register(M),
                Register(N),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                LookUp(N, 0),
                Enter(N, 0),
                Use(M, 0),
                Use(N, 0),
                AgeAll,
                Quiet,
            ],
        },
    },
    Piece {
        id: "B47",
        year: 2015,
        system: "aging without a flush",
        reference: "1d7715c676a1 (clear_young), for hints alone",
        what: "Aging clears the bit in the table, and the TLB has it set: the page looks idle while the device uses it.",
        shown: flawed!(NoFlushAtAging, Aging, "O10"),
    },
];
