//! GPUs that mirror an address space, and caches of registered memory.

use super::piece::{
    Piece,
    Shown::{Device, Type},
};
use crate::{
    extmmu::{
        gpu::{GpuConfig, GpuMistake},
        regcache::{RegCacheConfig, RegMistake},
    },
    frame::DeviceKind,
    testkit::{Kit, Property, models},
};

/// Returns the kit of a GPU with memory, to which hot pages migrate.
fn gpu(mistake: Option<GpuMistake>) -> Kit {
    let config = GpuConfig {
        migrate_after: Some(3),
        mistake,
        ..GpuConfig::default()
    };
    models::gpu(config, Some(DeviceKind::Private))
}

fn gpu_without_memory(mistake: Option<GpuMistake>) -> Kit {
    let config = GpuConfig {
        mistake,
        ..GpuConfig::default()
    };
    models::gpu(config, None)
}

/// Returns the kit of a registration cache that pins.
fn cache(mistake: Option<RegMistake>) -> Kit {
    models::regcache(RegCacheConfig {
        mistake,
        ..RegCacheConfig::default()
    })
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "C4",
        year: 2020,
        system: "HMM's test device, migration to itself",
        reference: "lib/test_hmm.c (dmirror_interval_invalidate)",
        what: "In the window of its own migration the driver does nothing, though pages of memory leave in it as well.",
        shown: Device {
            property: Property::Rights,
            oracles: &["bytes", "panic", "O1", "O4", "answer"],
            broken: || gpu(Some(GpuMistake::FiltersOwn)),
            sound: || gpu(None),
        },
    },
    Piece {
        id: "C5",
        year: 2023,
        system: "amdgpu, user memory of more than 2 GiB",
        reference: "drivers/gpu/drm/amd/amdgpu/amdgpu_hmm.c (amdgpu_hmm_range_get_pages)",
        what: "A range is walked in pieces, each of which overwrites the one stamp: a window over an earlier piece is not seen.",
        shown: Type("permit/ii51_range_ticket_reused"),
    },
    Piece {
        id: "C6",
        year: 2021,
        system: "amdgpu, shared virtual memory",
        reference: "drivers/gpu/drm/amd/amdkfd/kfd_svm.c (svm_range_cpu_invalidate_pagetables)",
        what: "The callback takes a lock that sleeps, and does not ask whether the window may block.",
        shown: Type("context/iii09_driver_uses_sleep_gate_in_try"),
    },
    Piece {
        id: "C10",
        year: 2025,
        system: "amdgpu, user memory whose GPU entries are not marked stale",
        reference: "6.18.y, drivers/gpu/drm/amd/amdgpu/amdgpu_hmm.c",
        what: "A window drops the driver's list of pages, and the GPU goes on with the entries that were made of it.",
        shown: Device {
            property: Property::DropsRange,
            oracles: &["bytes", "panic", "O1", "O4"],
            broken: || gpu(Some(GpuMistake::NoFlush)),
            sound: || gpu(None),
        },
    },
    Piece {
        id: "C11",
        year: 2025,
        system: "drm_gpusvm, pages got half-way",
        reference: "6.18.y, drivers/gpu/drm/drm_gpusvm.c (drm_gpusvm_range_get_pages)",
        what: "A window overtakes the driver between two steps, and the error path leaves what the first step had got.",
        shown: Device {
            property: Property::Pins,
            oracles: &["pins"],
            broken: || cache(Some(RegMistake::LeaksOnFailure)),
            sound: || cache(None),
        },
    },
    Piece {
        id: "C17",
        year: 2019,
        system: "radeon, user memory",
        reference: "drivers/gpu/drm/radeon/radeon_mn.c, and its comment",
        what: "Pages are pinned, a window takes the mapping, and nothing tells that the pins are of the mapping before it.",
        shown: Device {
            property: Property::Pins,
            oracles: &["pins"],
            broken: || cache(Some(RegMistake::UncheckedPins)),
            sound: || cache(None),
        },
    },
    Piece {
        id: "C18",
        year: 2025,
        system: "amdxdna, buffers that fork has copied",
        reference: "amd/xdna-driver#595",
        what: "The two halves of a mapping that was split each remove the same notifier.",
        shown: Type("registration/iv04_unregister_twice"),
    },
    Piece {
        id: "C20",
        year: 2020,
        system: "nouveau, hmm_range_fault after -EBUSY",
        reference: "0cafc62e4daf",
        what: "The results of a walk that a window overtook serve as the requests of the next one.",
        shown: Type("permit/ii52_range_read_before_it_is_admitted"),
    },
    Piece {
        id: "C48",
        year: 2017,
        system: "Linux, userfaultfd's event of unmapping",
        reference: "fs/userfaultfd.c (userfaultfd_unmap_complete)",
        what: "The monitor of a cache learns of an unmapping when it is over: a request before that finds the old region.",
        shown: Device {
            property: Property::HoldsOff,
            oracles: &["O4"],
            broken: || cache(Some(RegMistake::LateMonitor)),
            sound: || cache(None),
        },
    },
    Piece {
        id: "C56",
        year: 2026,
        system: "KVM, an entry over a present one",
        reference: "6.18.y, arch/x86/kvm/mmu/mmu.c",
        what: "An entry takes the place of a present one, and the TLB keeps what it knew of that.",
        shown: Device {
            property: Property::Forks,
            oracles: &["O6", "bytes", "O1", "O4", "panic"],
            broken: || gpu_without_memory(Some(GpuMistake::ReplacesDirty)),
            sound: || gpu_without_memory(None),
        },
    },
    Piece {
        id: "C53",
        year: 2019,
        system: "Open MPI, a hook of mmap beside XPMEM's cache",
        reference: "open-mpi/ompi#6524, #7030; f86f805be114",
        what: "Two notices of one unmapping take a region twice, the second while it is in use.",
        shown: Device {
            property: Property::Pins,
            oracles: &["answer"],
            broken: || cache(Some(RegMistake::InvalidatesTwice)),
            sound: || cache(None),
        },
    },
];
