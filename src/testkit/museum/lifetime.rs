//! Registration, release, sleeping and locks.

use super::{
    paper::{PaperStep::*, Violation},
    piece::{
        Piece,
        Shown::{Device, Schedule, Type},
        flawed,
    },
};
use crate::{
    extmmu::xpmem::{Manners, OwnerConfig},
    testkit::{Kit, Property, models},
};
use std::time::Duration;

const M: usize = 0;

/// Returns the kit of partitions that never answer, with this deadline.
fn silent(deadline: Duration) -> Kit {
    let config = OwnerConfig {
        deadline,
        ..OwnerConfig::default()
    };
    models::xpmem(config, Manners::Hangs)
}

pub(super) const PIECES: &[Piece] = &[
    Piece {
        id: "B27",
        year: 2008,
        system: "EMMU notifiers V5, registration in the middle of a window",
        reference: "167f154fa536c2c70c9d.1214440018@duo.random (mm_take_all_locks)",
        what: "M registers in an open window, and is notified of the end of a window that it did not see begin.",
        shown: Schedule {
            broken_by: Violation::EndWithoutBegin,
            broken: &[Map(0, 1), Register(M), Clear(0), End(M), Quiet],
            sound: &[Map(0, 1), Clear(0), Register(M), Begin(M, 0), End(M), Quiet],
        },
    },
    Piece {
        id: "B28",
        year: 2019,
        system: "vhost",
        reference: "7f466032dc9e; Jason Wang, 20190807070617.23716-5-jasowang@redhat.com",
        what: "M is unregistered in a window, its count stays up, and it is registered again.",
        shown: Schedule {
            broken_by: Violation::Unended,
            broken: &[Register(M), Begin(M, 0), Unhash(M), Register(M), Quiet],
            sound: &[
                Register(M),
                Begin(M, 0),
                End(M),
                Unhash(M),
                Register(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B29",
        year: 2012,
        system: "Linux, exit against reclaim",
        reference: "3ad3d901bbcf; again by 751efd8610d3 (2013); d34883d4e35c",
        what: "M is off the list before it is released: reclaim frees a page in between, and no window calls M.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: &[
                Register(M),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                Unhash(M),
                Clear(0),
                Free(1),
                Release(M),
            ],
            sound: &[
                Register(M),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                Release(M),
                Unhash(M),
                Clear(0),
                Free(1),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B30",
        year: 2019,
        system: "HMM and others, unregister_no_release",
        reference: "Gunthorpe 2019, get and put with call_srcu",
        what: "The driver's memory is freed while a walk of the list can still reach it.",
        shown: Schedule {
            broken_by: Violation::CalledAfterFree,
            broken: &[Register(M), Unhash(M), FreeDriver(M), Begin(M, 0)],
            sound: &[
                Register(M),
                Unhash(M),
                Begin(M, 0),
                End(M),
                FreeDriver(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B31",
        year: 2021,
        system: "Linux, mmu_interval_notifier_remove",
        reference: "319561669a59",
        what: "Removal samples the sequence outside of the lock, returns early, and the end finds freed memory.",
        shown: Schedule {
            broken_by: Violation::CalledAfterFree,
            broken: &[Register(M), Begin(M, 0), Unhash(M), FreeDriver(M), End(M)],
            sound: &[
                Register(M),
                Begin(M, 0),
                Unhash(M),
                End(M),
                FreeDriver(M),
                Quiet,
            ],
        },
    },
    Piece {
        id: "B32",
        year: 2017,
        system: "XPMEM, SGX, UCX",
        reference: "hpc/xpmem#45, openucx/xpmem#12, intel/linux-sgx-driver PR#58",
        what: "A driver unregisters in its own callback, and waits for that callback.",
        shown: Type("context/iii19_unregister_in_callback"),
    },
    Piece {
        id: "B33",
        year: 2008,
        system: "SGI GRU, no release",
        reference: "drivers/misc/sgi-gru/grutlbpurge.c; mmu_notifier_put",
        what: "The driver drops nothing at the end of the address space, whose pages are freed under live translations.",
        shown: flawed!(DeafToTheEnd, Release, "O1" | "O11" | "O4"),
    },
    Piece {
        id: "B35",
        year: 2020,
        system: "XPMEM",
        reference: "hpc/xpmem PR#50, PR#51; xpmem_mmu_notifier.c compares tgids",
        what: "The driver ignores windows of other threads than the owner's: those of khugepaged, KSM, reclaim.",
        shown: flawed!(
            OwnThreadOnly,
            ForeignThreads,
            "O4" | "O1" | "bytes" | "panic"
        ),
    },
    Piece {
        id: "B36",
        year: 2017,
        system: "amdgpu in Linux 4.13; EMMU notifiers V5 under RCU",
        reference: "6027ba44-d3ca-9b0b-acdf-f2ec39f01929@amd.com; Piggin, 200802201008.49933",
        what: "A callback sleeps where nothing may sleep.",
        shown: Type("context/iii05_sleep_while_ptl_held"),
    },
    Piece {
        id: "B37",
        year: 2008,
        system: "XPMEM on notifiers V5",
        reference: "Holt, 20080201220952.GA3875@sgi.com",
        what: "A fault holds a lock while it looks a page up; the look-up copies the page, and its window wants the lock.",
        shown: flawed!(LockHeld, Reentrant, "time"),
    },
    Piece {
        id: "B38",
        year: 2019,
        system: "drivers that allocate in a callback",
        reference: "23b68395c7c7 (lockdep); tuhhosg/exmap PR#3",
        what: "A callback allocates memory, and the reclaim for that needs the callback.",
        shown: Type("context/iii16_callback_reenters_mm"),
    },
    Piece {
        id: "B39",
        year: 2010,
        system: "Linux, mmu_gather before the window",
        reference: "Steiner, 20100125174556.GA23003@sgi.com",
        what: "The kernel holds per-processor state when a window begins, which may sleep.",
        shown: Type("context/iii06_sleep_while_pinned"),
    },
    Piece {
        id: "B41",
        year: 2008,
        system: "XPMEM, a partition that does not answer",
        reference: "openucx/xpmem#12; hpc/xpmem#45 (D state)",
        what: "The driver waits without a limit for the answer of a side that is gone.",
        shown: Device {
            property: Property::DropsRange,
            oracles: &["time"],
            broken: || silent(Duration::from_secs(3600)).deadline(Duration::from_millis(400)),
            sound: || silent(Duration::from_millis(20)),
        },
    },
    Piece {
        id: "C28",
        year: 2026,
        system: "Linux, VT-d, a device that was pulled out",
        reference: "CVE-2026-43130, 4fc82cd907ac",
        what: "A flush waits for the device's answer, and the device is gone.",
        shown: Device {
            property: Property::Forks,
            oracles: &["time"],
            broken: || silent(Duration::from_secs(3600)).deadline(Duration::from_millis(400)),
            sound: || silent(Duration::from_millis(20)),
        },
    },
    Piece {
        id: "C7",
        year: 2023,
        system: "amdgpu, a worker that has the last use of a process",
        reference: "a29e067bd389",
        what: "The last use of an address space goes in a callback, whose end the end of the address space waits for.",
        shown: Type("context/iii29_exit_in_callback"),
    },
    Piece {
        id: "C55",
        year: 2019,
        system: "SGX, fork beside exit",
        reference: "intel/SGXDataCenterAttestationPrimitives PR#81",
        what: "A driver takes its list's lock and the notifier's in one order at fork, and in the other at exit.",
        shown: Type("context/iii14_own_lock_order"),
    },
    Piece {
        id: "B42",
        year: 2008,
        system: "XPMEM, two address spaces that export to each other",
        reference: "20080401205637.474020250@sgi.com: mmap locks in address order",
        what: "Each of two faults holds one mmap lock and waits for the other.",
        shown: Type("context/iii15_mmap_under_mmap"),
    },
    Piece {
        id: "B43",
        year: 2024,
        system: "KVM, a vCPU preempted in a window; HMM users, -EBUSY",
        reference: "d02c357e5bfa; retry loops with a limit",
        what: "After a few retries the driver gives up, though every window ends.",
        shown: flawed!(GivesUp, Progress, "answer"),
    },
    Piece {
        id: "C51",
        year: 2025,
        system: "KVM, a slot that loses its guest file by a change of flags",
        reference: "0499add8efd7; af62fe2494da, 20251202020334.1171351-3-seanjc@google.com",
        what: "The file forgets the slot, and closes: no window takes the guest's entries of its pages.",
        shown: Schedule {
            broken_by: Violation::UseAfterFree,
            broken: &[
                Register(M),
                Map(0, 1),
                LookUp(M, 0),
                Enter(M, 0),
                Unhash(M),
                Clear(0),
                Free(1),
                Use(M, 0),
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
                Unhash(M),
                Use(M, 0),
                Quiet,
            ],
        },
    },
    Piece {
        id: "C51'",
        year: 2025,
        system: "KVM, a slot deleted while its guest file closes",
        reference: "ae431059e75d (kvm_gmem_unbind)",
        what: "The slot finds the file closing and leaves its binding there: the file's last window calls a slot that was freed.",
        shown: Schedule {
            broken_by: Violation::CalledAfterFree,
            broken: &[Register(M), Map(0, 1), FreeDriver(M), Begin(M, 0)],
            sound: &[
                Register(M),
                Map(0, 1),
                Unhash(M),
                Begin(M, 0),
                End(M),
                FreeDriver(M),
                Quiet,
            ],
        },
    },
];
