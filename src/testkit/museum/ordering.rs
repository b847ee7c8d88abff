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
        what: "The driver looks a page up, a window drops the page, and the driver enters it without a check.",
        shown: flawed!(NoRetry, Retry, "bytes" | "panic" | "O1" | "O4"),
    },
    Piece {
        id: "B11'",
        year: 2008,
        system: "drivers with a count and no sequence",
        reference: "Arcangeli, 20080218123551.GS11732",
        what: "The driver checks a count alone: a window that opens and closes between look-up and entry leaves no trace.",
        shown: flawed!(CountOnly, Retry, "bytes" | "panic" | "O1" | "O4"),
    },
    Piece {
        id: "B11''",
        year: 2008,
        system: "drivers with a sequence and no count",
        reference: "Holt, 20080216115138.GA11391",
        what: "The driver checks a sequence alone, which moves at the end of a window: a look-up in the window finds the old page.",
        shown: flawed!(SequenceOnly, HoldsOff, "O4"),
    },
    Piece {
        id: "B12",
        year: 2008,
        system: "drivers without windows",
        reference: "EMMU notifiers V5: why invalidate_page is called under the lock of the entry",
        what: "The kernel calls the driver before it clears the entry: a fault comes in between.",
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
        what: "The kernel calls invalidate_page after it unlocks the table: the page is freed before the call.",
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
        what: "The kernel changes an entry without a window.",
        shown: Type("window/i01_no_window_no_clear"),
    },
    Piece {
        id: "B17",
        year: 2012,
        system: "Linux, change_pte inside of a window",
        reference: "6bdb913f0a70; removed by f7842747d13d (2024)",
        what: "change_pte makes a driver enter a page while windows over it are open.",
        shown: Type("permit/ii03_establish_without_permit"),
    },
    Piece {
        id: "B18",
        year: 2023,
        system: "KVM on arm64",
        reference: "13ec9308a857",
        what: "The driver takes the sequence after the look-up, not before.",
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
        what: "The driver keeps the sequence in a narrow signed type: it never compares equal again, and the fault spins.",
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
        what: "The driver notes the range of a window only if it has an entry there, so it does not hold off an empty range.",
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
        what: "No window calls a second consumer of the translations.",
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
        what: "The driver zaps entries and does not flush the TLBs.",
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
        what: "The driver zaps a large range in batches, and flushes only the last of them.",
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
        what: "The driver checks the page of a miss, and enters the pages ahead of it unchecked.",
        shown: Device {
            property: Property::Retry,
            oracles: &["O4", "O1", "bytes", "panic"],
            broken: || gru(Some(Gru::BlindPreload)),
            sound: || gru(None),
        },
    },
];
