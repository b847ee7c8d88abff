//! Devices behind an IOMMU whose pages are pinned.

use super::piece::{Piece, Shown::Device};
use crate::{
    extmmu::pinned::{DomainConfig, PinMistake},
    testkit::{Kit, Property, models},
};

fn pinned(mistake: Option<PinMistake>) -> Kit {
    models::pinned(DomainConfig {
        mistake,
        ..DomainConfig::default()
    })
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "C14",
        year: 2026,
        system: "xe, ranges that are bound half-way",
        reference: "CVE-2026-31479, aec6969f75af",
        what: "A call that fails in the middle leaves what it had done so far.",
        shown: Device {
            property: Property::Mappings,
            oracles: &["pins"],
            broken: || pinned(Some(PinMistake::KeepsPins)),
            sound: || pinned(None),
        },
    },
    Piece {
        id: "C35",
        year: 2026,
        system: "iommufd, an unmapping that waits",
        reference: "6.18.y, drivers/iommu/iommufd/io_pagetable.c (iopt_unmap_iova_range)",
        what: "An unmapping lets its lock go to wait, and then takes areas as well that were mapped meanwhile.",
        shown: Device {
            property: Property::Mappings,
            oracles: &["answer"],
            broken: || pinned(Some(PinMistake::TakesLaterAreas)),
            sound: || pinned(None),
        },
    },
    Piece {
        id: "C35'",
        year: 2023,
        system: "iommufd, mediated devices",
        reference: "727c28c1cef2",
        what: "An unmapping ends while kernel code uses the pages that it pinned there.",
        shown: Device {
            property: Property::Mappings,
            oracles: &["answer"],
            broken: || pinned(Some(PinMistake::UnpinsInUse)),
            sound: || pinned(None),
        },
    },
    Piece {
        id: "C40",
        year: 2022,
        system: "Linux, pins for reading after a fork",
        reference: "84209e87c696, a7f226604170",
        what: "A page that a child has as well is pinned for reading: the process's next store goes to a copy, \
               and the device keeps the old page.",
        shown: Device {
            property: Property::Mappings,
            oracles: &["bytes"],
            broken: || pinned(Some(PinMistake::ReadsShared)),
            sound: || pinned(None),
        },
    },
];
