//! Mistakes of devices that raise page faults: IOMMUs that share the page table, and RDMA that
//! pages on demand.

use super::piece::{Piece, Shown};
use crate::{
    extmmu::{
        odp::{OdpConfig, OdpMistake},
        sva::{SvaConfig, SvaMistake},
    },
    testkit::{Property, odp, odp_implicit, sva},
};

/// Shows an IOMMU with a mistake; the twin is one without.
macro_rules! of_iommu {
    ($mistake:ident, $property:ident, $($oracle:literal)|+) => {
        Shown::Device {
            property: Property::$property,
            oracles: &[$($oracle),+],
            broken: || sva(SvaConfig {
                mistake: Some(SvaMistake::$mistake),
                ..SvaConfig::default()
            }),
            sound: || sva(SvaConfig::default()),
        }
    };
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "C21",
        year: 2026,
        system: "Linux, HMM",
        reference: "hmm_range_fault, lib/test_hmm.c",
        what: "A page that is there for reading is not asked for again for a write: the device's \
               write is refused instead of the page copied.",
        shown: Shown::Device {
            property: Property::Pairing,
            oracles: &["answer"],
            broken: || {
                odp(OdpConfig {
                    mistake: Some(OdpMistake::NeverUpgrades),
                    ..OdpConfig::default()
                })
            },
            sound: || odp(OdpConfig::default()),
        },
    },
    Piece {
        id: "C26",
        year: 2025,
        system: "Linux, VT-d",
        reference: "04b1b069f151",
        what: "The flush is the command for entries without a PASID: those with one stay.",
        shown: of_iommu!(NoAtcFlush, Auditable, "O1"),
    },
    Piece {
        id: "C27",
        year: 2026,
        system: "Linux, VT-d",
        reference: "6.18.y, intel/pasid.c",
        what: "The entry of a PASID is cleared before the caches that need it are flushed, so they \
               are not: the old entries answer for the next user.",
        shown: of_iommu!(UnbindKeepsAtc, Unregister, "answer"),
    },
    Piece {
        id: "C29",
        year: 2024,
        system: "Linux, page requests",
        reference: "CVE-2024-35843; def054b01a86, 3d39238991e7",
        what: "A device leaves while its page requests are being worked off, and nothing waits for them.",
        shown: of_iommu!(NoDrain, PageFaults, "O12"),
    },
    Piece {
        id: "C30",
        year: 2026,
        system: "Linux, AMD IOMMU",
        reference: "6.18.y, amd/iommu.c",
        what: "A flush waits for a number that another processor has drawn, and returns before the \
               device is done.",
        shown: of_iommu!(NoWait, Auditable, "O1"),
    },
    Piece {
        id: "C31",
        year: 2023,
        system: "Linux, Arm SMMU",
        reference: "d5afb4b47e13",
        what: "The size of a flush of everything overflows to nothing.",
        shown: of_iommu!(WholeMissed, Auditable, "O1"),
    },
    Piece {
        id: "C33",
        year: 2026,
        system: "Linux, generic page table",
        reference: "CVE-2026-31735",
        what: "A range that ends inside of a table is flushed too short.",
        shown: of_iommu!(ShortFlush, Pairing, "O1"),
    },
    Piece {
        id: "C33'",
        year: 2026,
        system: "Linux, drivers of IOMMUs",
        reference: "order of IOTLB and device TLB",
        what: "The device's TLB is flushed before the IOTLB, and is filled again from it.",
        shown: of_iommu!(AtcFirst, Retry, "O1"),
    },
    Piece {
        id: "C52",
        year: 2019,
        system: "mlx5, implicit regions",
        reference: "56f434f40f05; e6fb246ccafb",
        what: "A child of an implicit region is ended while its parent still leads to it.",
        shown: Shown::Device {
            property: Property::DropsRange,
            oracles: &["answer"],
            broken: || {
                odp_implicit(OdpConfig {
                    mistake: Some(OdpMistake::EndsLinked),
                    ..OdpConfig::default()
                })
            },
            sound: || odp_implicit(OdpConfig::default()),
        },
    },
];
