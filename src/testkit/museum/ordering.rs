//! Look-ups against windows.

use super::{
    paper::{PaperStep::*, Violation},
    piece::{
        Piece,
        Shown::{Device, Schedule, Type},
        flawed,
    },
};
use crate::{
    extmmu::{
        gru::{GruConfig, GruMistake as Gru},
        kvm::{KvmMistake as Kvm, VmConfig},
    },
    testkit::{Kit, Property, models},
};

const M: usize = 0;

fn kvm(mistake: Option<Kvm>) -> Kit {
    models::kvm(VmConfig {
        mistake,
        ..VmConfig::default()
    })
}
fn pfn_cache(mistake: Option<Kvm>) -> Kit {
    let config = VmConfig {
        mistake,
        ..VmConfig::default()
    };
    models::pfn_caches(config)
}
fn gru(mistake: Option<Gru>) -> Kit {
    let config = GruConfig {
        preload: 4,
        ..GruConfig::default()
    };
    models::gru(config, mistake)
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "B11",
        year: 2008,
        system: "KVM on notifiers V7",
        reference: "Arcangeli, 20080216104827.GI11732@v2.random; Holt, 20080216115138.GA11391",
        what: "A page is looked up, dropped and freed, and then entered: nobody asks whether it still holds.",
        shown: flawed!(NoRetry, Retry, "bytes" | "panic" | "O1" | "O4"),
    },
    Piece {
        id: "B11'",
        year: 2008,
        system: "drivers with a count and no sequence",
        reference: "Arcangeli, 20080218123551.GS11732",
        what: "A window that opened and closed between the look-up and the entry has left no trace in a count.",
        shown: flawed!(CountOnly, Retry, "bytes" | "panic" | "O1" | "O4"),
    },
    Piece {
        id: "B11''",
        year: 2008,
        system: "drivers with a sequence and no count",
        reference: "Holt, 20080216115138.GA11391",
        what: "The sequence moves at the end of a window, and the old page is looked up in the middle of it.",
        shown: flawed!(SequenceOnly, HoldsOff, "O4"),
    },
    Piece {
        id: "B12",
        year: 2008,
        system: "drivers without windows",
        reference: "EMMU notifiers V5: why invalidate_page is called under the lock of the entry",
        what: "Told first, cleared afterwards: a fault comes in between.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: &[
                Register(M),
                Map(0, 1),
                Point(M, 0),
                Snapshot(M),
                LookUp(M, 0),
                CheckSequence(M),
                Enter(M, 0),
                Clear(0),
                Free(1),
            ],
            sound: &[
                Register(M),
                Map(0, 1),
                Snapshot(M),
                LookUp(M, 0),
                CheckSequence(M),
                Enter(M, 0),
                Clear(0),
                Point(M, 0),
                Free(1),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B13",
        year: 2017,
        system: "Linux 4.13, invalidate_page after the lock",
        reference: "20170831211738.17922-1-jglisse@redhat.com; 369ea8242c0f; bugzilla 197951",
        what: "invalidate_page moved behind the unlock: the page is freed before the driver is told.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: &[
                Register(M),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                Clear(0),
                Free(1),
                Use(M, 0),
                Point(M, 0),
            ],
            sound: &[
                Register(M),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                Begin(M, 0),
                Clear(0),
                Free(1),
                End(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B14",
        year: 2017,
        system: "Linux, copy-on-write without a notice under the lock",
        reference: "Documentation/mm/mmu_notifier.rst, case B; 0f10851ea475",
        what: "Page 0 is copied and written, then page 1: the device sees the new page 1, then the old page 0.",
        shown: Schedule {
            broken_by: Violation::Order,
            broken: &[
                Register(M),
                Map(0, 1),
                Map(1, 2),
                LookUp(M, 0),
                Enter(M, 0),
                LookUp(M, 1),
                Enter(M, 1),
                Map(0, 3),
                Store(0),
                Store(1),
                Use(M, 1),
                Use(M, 0),
            ],
            sound: &[
                Register(M),
                Map(0, 1),
                Map(1, 2),
                LookUp(M, 0),
                Enter(M, 0),
                LookUp(M, 1),
                Enter(M, 1),
                Clear(0),
                Point(M, 0),
                Map(0, 3),
                Store(0),
                Store(1),
                Use(M, 1),
                Use(M, 0),
                AgeAll,
                Quiet,
            ],
        },
    },
    Piece {
        id: "B15",
        year: 2014,
        system: "Linux, hugetlb copies; khugepaged (2022)",
        reference: "e8569dd299db; f268f6cf875f, 2ba99c5e0881 (Jann Horn)",
        what: "An entry changes, and there is no window.",
        shown: Type("window/i01_no_window_no_clear"),
    },
    Piece {
        id: "B17",
        year: 2012,
        system: "Linux, change_pte inside of a window",
        reference: "6bdb913f0a70; removed by f7842747d13d (2024)",
        what: "A driver enters a page because it is told to, while windows over it are open.",
        shown: Type("permit/ii03_establish_without_permit"),
    },
    Piece {
        id: "B18",
        year: 2023,
        system: "KVM on arm64",
        reference: "13ec9308a857",
        what: "The sequence is taken after the page was looked up, not before.",
        shown: flawed!(LateSnapshot, Retry, "bytes" | "panic" | "O1" | "O4"),
    },
    Piece {
        id: "B19",
        year: 2008,
        system: "KVM, the two halves of an end",
        reference: "kvm_mmu_notifier_invalidate_range_end and its write barrier",
        what: "The count goes down before the sequence goes up: in between a fault finds no window, and none that was.",
        shown: Schedule {
            broken_by: Violation::Stale,
            broken: &[
                Register(M),
                Map(0, 1),
                Begin(M, 0),
                Snapshot(M),
                LookUp(M, 0),
                Clear(0),
                EndCount(M),
                CheckCount(M),
                CheckSequence(M),
                Enter(M, 0),
                EndSequence(M),
            ],
            sound: &[
                Register(M),
                Map(0, 1),
                Begin(M, 0),
                Snapshot(M),
                LookUp(M, 0),
                Clear(0),
                EndSequence(M),
                CheckCount(M),
                CheckSequence(M),
                Enter(M, 0),
                EndCount(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B20",
        year: 2023,
        system: "KVM 6.1, mmu_seq in an int",
        reference: "82d811ff5665; ba6e3fe25543",
        what: "A sequence is kept in something narrow and signed: it never compares equal again, and the fault spins.",
        shown: flawed!(SignedSequence, Progress, "time"),
    },
    Piece {
        id: "B20'",
        year: 2023,
        system: "sequences that come around",
        reference: "the other half of 82d811ff5665",
        what: "256 windows between the look-up and the entry: a sequence of eight bits is what it was.",
        shown: flawed!(ShortSequence, Retry, "bytes" | "panic" | "O1" | "O4"),
    },
    Piece {
        id: "B21",
        year: 2023,
        system: "KVM, ranges of windows",
        reference: "20230921203331.3746712-10-seanjc@google.com",
        what: "The range of a window is noted only if something was mapped there: an empty range is not held off.",
        shown: flawed!(OnlyMapped, HoldsOff, "O4"),
    },
    Piece {
        id: "B22",
        year: 2022,
        system: "KVM, gfn-to-pfn cache",
        reference: "58cd407ca4c6",
        what: "A second consumer becomes valid outside of the lock under which windows end its validity.",
        shown: Device {
            property: Property::Retry,
            oracles: &["O4", "bytes", "panic", "O1"],
            broken: || pfn_cache(Some(Kvm::EarlyValid)),
            sound: || pfn_cache(None),
        },
    },
    Piece {
        id: "B22'",
        year: 2022,
        system: "KVM, gfn-to-pfn cache",
        reference: "58cd407ca4c6",
        what: "A second consumer is not told of windows at all.",
        shown: Device {
            property: Property::DropsRange,
            oracles: &["O4", "O1"],
            broken: || pfn_cache(Some(Kvm::DeafCache)),
            sound: || pfn_cache(None),
        },
    },
    Piece {
        id: "B23",
        year: 2022,
        system: "KVM, a lock that is dropped before the flush",
        reference: "048f49809c52, a835429cda91",
        what: "Entries are zapped, the TLBs keep them.",
        shown: Device {
            property: Property::DropsRange,
            oracles: &["O4", "O1"],
            broken: || kvm(Some(Kvm::NoFlush)),
            sound: || kvm(None),
        },
    },
    Piece {
        id: "B23'",
        year: 2022,
        system: "KVM, a walk in batches",
        reference: "048f49809c52",
        what: "A large range is worked through in batches, and only the last of them is flushed.",
        shown: flawed!(LastBatch, DropsRange, "O4" | "O1"),
    },
    Piece {
        id: "B24",
        year: 2008,
        system: "SGI GRU, if its hardware had no armed bit",
        reference: "drivers/misc/sgi-gru/grufault.c",
        what: "No window is active; one opens, purges and closes; then the entry is dropped in.",
        shown: Device {
            property: Property::Retry,
            oracles: &["O4", "O1", "bytes", "panic"],
            broken: || gru(Some(Gru::NoDisarm)),
            sound: || gru(None),
        },
    },
    Piece {
        id: "B25",
        year: 2009,
        system: "SGI GRU, gru_preload_tlb",
        reference: "drivers/misc/sgi-gru/grufault.c; xpmem's prefault window",
        what: "Pages that are entered ahead of a miss are not asked about one by one.",
        shown: Device {
            property: Property::Retry,
            oracles: &["O4", "O1", "bytes", "panic"],
            broken: || gru(Some(Gru::BlindPreload)),
            sound: || gru(None),
        },
    },
];
