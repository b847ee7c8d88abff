//! Mistakes that other systems found in themselves.

use super::{
    paper::{PaperStep::*, Violation},
    piece::{
        Piece,
        Shown::{Device, Schedule, Type},
        flawed,
    },
};
use crate::{
    extmmu::kvm::{KvmMistake, VmConfig},
    testkit::{Kit, Property, models},
};

const M: usize = 0;
const N: usize = 1;

fn kvm(mistake: Option<KvmMistake>) -> Kit {
    models::kvm(VmConfig {
        mistake,
        ..VmConfig::default()
    })
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "litebox",
        year: 2025,
        system: "litebox",
        reference: "microsoft/litebox#848",
        what: "The driver lets frames go, and flushes the TLB afterwards.",
        shown: Device {
            property: Property::DropsRange,
            oracles: &["O4", "O1"],
            broken: || kvm(Some(KvmMistake::LateFlush)),
            sound: || kvm(None),
        },
    },
    Piece {
        id: "NEMU",
        year: 2025,
        system: "NEMU, RISC-V emulator",
        reference: "OpenXiangShan/NEMU#1175",
        what: "A fence for a superpage drops one entry of 4 KiB.",
        shown: flawed!(OneOfHuge, HugePages, "O4" | "O1" | "bytes" | "panic"),
    },
    Piece {
        id: "riscv-iommu",
        year: 2025,
        system: "RISC-V IOMMU model",
        reference: "riscv-iommu#780",
        what: "Two stages have pages of different sizes, and the TLB takes the larger: a page leads to its neighbour.",
        shown: flawed!(WrongStage, DropsRange, "bytes"),
    },
    Piece {
        id: "asterinas",
        year: 2024,
        system: "Asterinas",
        reference: "asterinas/asterinas#862",
        what: "The driver does not flush after a copy-on-write, which gives more rights, but leads to another page.",
        shown: flawed!(IgnoresCopies, Forks, "O4" | "O1" | "bytes" | "panic"),
    },
    Piece {
        id: "asterinas'",
        year: 2025,
        system: "Asterinas",
        reference: "asterinas/asterinas#3920",
        what: "The driver reuses an address space identifier, and the TLB still has entries of its last user.",
        shown: flawed!(
            SharedAsid,
            Unregister,
            "answer" | "O4" | "bytes" | "panic" | "O1"
        ),
    },
    Piece {
        id: "asterinas''",
        year: 2025,
        system: "Asterinas",
        reference: "asterinas/asterinas#1961",
        what: "The driver waits for other processors in a context that must not wait.",
        shown: Type("context/iii01_dyn_sleeper_from_atomic"),
    },
    Piece {
        id: "gVisor",
        year: 2019,
        system: "gVisor, MemoryManager.Fork",
        reference: "captureInvalidations in pkg/sentry/mm",
        what: "A window invalidates a page of the parent during a fork, and N, the child's copy of M, keeps it.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: &[
                Register(M),
                Register(N),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                LookUp(N, 0),
                Enter(N, 0),
                Begin(M, 0),
                Clear(0),
                Free(1),
                End(M),
            ],
            sound: &[
                Register(M),
                Register(N),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                LookUp(N, 0),
                Enter(N, 0),
                Begin(M, 0),
                Begin(N, 0),
                Clear(0),
                Free(1),
                End(M),
                End(N),
                Quiet,
            ],
        },
    },
    Piece {
        id: "vhost",
        year: 2021,
        system: "vhost IOTLB; VT-d (e7ad6c2a4b1a)",
        reference: "vhost_iotlb_add_range of the full 64-bit range",
        what: "The length of the range of all pages overflows to 0, so the driver drops nothing.",
        shown: flawed!(OverflowAtAll, Reach, "O4" | "O1" | "bytes"),
    },
    Piece {
        id: "C49",
        year: 2023,
        system: "exmap",
        reference: "tuhhosg/exmap PR#3",
        what: "A callback allocates page tables, under the lock that the invalidation needs.",
        shown: Type("context/iii20_system_call_in_callback"),
    },
    Piece {
        id: "nanvix",
        year: 2025,
        system: "Nanvix",
        reference: "nanvix/nanvix#2244",
        what: "The driver frees a table, and the walk cache keeps the entry that leads to it.",
        shown: flawed!(WalkCache, DropsRange, "O4" | "O1"),
    },
];
