//! The address space and its devices under shuttle: tasks that operate, fault and use devices, in
//! schedules that are drawn at random, by PCT, or all that change their mind once. The oracle looks
//! on (docs/evidence.md).
//!
//! | file | |
//! | --- | --- |
//! | `run` | running a world in many schedules, replaying one, twins |
//! | `sweep` | a scheduler: every schedule with one change of mind |
//! | `world` | the least world: one page |
//! | `loads` | devices of every kind, behind the same calls |
//! | `races` | one device that loads, one operation: small enough to be swept |
//! | `entries` | a page on its way or in swap, and what goes over it meanwhile |
//! | `device` | a page that a device has, and a processor that wants it |
//! | `guest_memfd` | a page of a guest's own, and its file or its kind that change |
//! | `threads` | operations against each other, without a device |
//! | `moved_pools` | a huge page of a pool that moves, against changes of its mapping and its file |
//! | `moves` | a mapping that moves, against each kind of walk of its reverse maps |
//! | `exports` | a driver that has a frame by number, and one that panics, against another thread |
//! | `pins` | pages that are pinned, against fork, munmap, discard and moves |
//! | `endings` | an access of a device, and the end of the right by which it is made |
//! | `userfaults` | answers of userfaultfd, and scans of written pages, against everything else |
//! | `slices` | slices of guest memory that a device holds (feature `vm-memory`) |
//! | `pool` | faults on huge pages of a pool against a cut of their file |
//! | `large` | large pages of private memory that several threads split |
//! | `shared_tables` | joining a table of huge pages against changes of its mapping |
//! | `whole` | all devices and all operations at once |
#![cfg(shuttle)]

mod device;
mod endings;
mod entries;
mod exports;
mod guest_memfd;
mod large;
mod loads;
mod moved_pools;
mod moves;
mod pins;
mod pool;
mod races;
mod run;
mod shared_tables;
#[cfg(feature = "vm-memory")]
mod slices;
mod sweep;
mod threads;
mod userfaults;
mod whole;
mod world;
