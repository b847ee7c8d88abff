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
        what: "Frames are given back, and the TLB is flushed afterwards.",
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
        what: "Two stages have pages of different sizes, and the entry gets the larger: a page leads to its neighbour.",
        shown: flawed!(WrongStage, DropsRange, "bytes"),
    },
    Piece {
        id: "asterinas",
        year: 2024,
        system: "Asterinas",
        reference: "asterinas/asterinas#862",
        what: "A copy-on-write only gives more rights, so nothing is flushed; but it leads to another page.",
        shown: flawed!(IgnoresCopies, Forks, "O4" | "O1" | "bytes" | "panic"),
    },
    Piece {
        id: "asterinas'",
        year: 2025,
        system: "Asterinas",
        reference: "asterinas/asterinas#3920",
        what: "An address space identifier is used again, and the TLB still has what the last one left.",
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
        what: "Other processors are waited for in a context that must not wait.",
        shown: Type("context/iii01_dyn_sleeper_from_atomic"),
    },
    Piece {
        id: "gVisor",
        year: 2019,
        system: "gVisor, MemoryManager.Fork",
        reference: "captureInvalidations in pkg/sentry/mm",
        what: "A page is invalidated in the parent while the child is being made, and the child, M's twin N, keeps it.",
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
        what: "The length of everything overflows, and everything is nothing.",
        shown: flawed!(OverflowAtAll, Reach, "O4" | "O1" | "bytes"),
    },
    Piece {
        id: "exmap",
        year: 2023,
        system: "exmap",
        reference: "tuhhosg/exmap PR#3",
        what: "Page tables are allocated from within an invalidation, under the lock that this needs.",
        shown: Type("context/iii20_system_call_in_callback"),
    },
    Piece {
        id: "nanvix",
        year: 2025,
        system: "Nanvix",
        reference: "nanvix/nanvix#2244",
        what: "A table is freed, and the entry that led to it stays in the walk cache.",
        shown: flawed!(WalkCache, DropsRange, "O4" | "O1"),
    },
];
