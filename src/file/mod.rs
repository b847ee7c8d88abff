//! Memory objects: the files and shared memory behind mappings that are not private anonymous
//! memory.
//!
//! An address space sees an object only through [`MemoryObject`]; an object knows no address space,
//! only its [`Mapping`](crate::rmap::Mapping), through which it removes its pages from all of them.
//!
//! | object | its pages |
//! | --- | --- |
//! | [`Shmem`] | in memory alone, and in swap (`memfd`, shared anonymous memory) |
//! | [`DiskFile`] | a page cache in front of a [`Store`], dirty pages, writeback |
//! | [`SecretMem`] | in memory alone, for the processes that map them |
//! | [`DeviceFile`] | none: `/dev/zero`, and files that cannot be mapped |
//! | [`XipFile`] | in place: no cache, holes show one shared page |
//! | [`HugetlbFile`] | huge pages from a pool that is set aside |
//! | a guest file of KVM | in memory alone, for a guest (`extmmu::kvm::GuestMemfd`) |
//! | yours | as you like: [`PageCache`] keeps them |
//!
//! | file | holds |
//! | --- | --- |
//! | `object` | the trait [`MemoryObject`] and its questions |
//! | `open` | an open file: an object and the rights of its handle |
//! | `host` | the parts of a machine that objects use |
//! | `cache` | the page cache, and its answers to reclaim |
//! | `slots` | pages by number: a frame or a swap slot |
//! | `folios` | pages that came in together, and are mapped together |
//! | `filling` | bringing pages in |
//! | `fallocate`, `mode` | changes of a file's blocks: [`FallocateMode`] |
//! | `advice` | [`FileAdvice`], and the writeback of a part of a file |
//! | `seals`, `sealing` | [`Seals`] of shared memory |
//! | `by_daemon` | a block of an object that `khugepaged` looks at |
//! | `huge_policy` | … several at once: [`HugePolicy`] |
//! | `cutting` | cutting pages out |
//! | `collapse` | making huge pages of small ones, and splitting them |
//! | `io` | reading and writing bytes through the cache |
//! | `size_change` | a change of the size that may be undone |
//! | `store` | the blocks behind a cache |
//! | `shmem` | [`Shmem`] |
//! | `locked` | … kept from reclaim |
//! | `secret` | [`SecretMem`] |
//! | `device` | [`DeviceFile`] |
//! | `xip` | [`XipFile`] |
//! | `disk` | [`DiskFile`] |
//! | `disk_read` | … reading its pages |
//! | `read_ahead` | … the number of pages to read at once |
//! | `write_back` | … writing its dirty pages |
//! | `disk_ranges` | … changing its blocks |
//! | `direct` | … transfers past the cache |
//! | `open_direct` | files that are open for such transfers |
//! | `edges` | … blocks that are zeroed in part |
//! | `hugetlb` | [`HugetlbFile`] |
//! | `huge_remove` | … pages that leave it |
//! | `huge_reserve` | … the reservations of it and of its private mappings |
//! | `short_write` | … writes whose bytes must be faulted in first |

mod advice;
mod by_daemon;
mod cache;
mod collapse;
mod cutting;
mod device;
mod direct;
mod disk;
mod disk_ranges;
mod disk_read;
mod edges;
mod fallocate;
mod filling;
mod folios;
mod host;
mod huge_policy;
mod huge_remove;
mod huge_reserve;
mod hugetlb;
mod io;
mod locked;
mod mode;
mod object;
mod open;
mod open_direct;
mod read_ahead;
mod sealing;
mod seals;
mod secret;
mod shmem;
mod short_write;
mod size_change;
mod slots;
mod store;
mod write_back;
mod xip;

pub use advice::{FileAdvice, SyncRangeFlags};
pub(crate) use by_daemon::ByDaemon;
pub use cache::{Backing, PageCache};
pub use cutting::Cutting;
pub use device::DeviceFile;
pub use disk::DiskFile;
pub use filling::Filling;
pub use host::Host;
pub use huge_policy::HugePolicy;
pub(crate) use huge_reserve::VmaReserve;
pub use hugetlb::HugetlbFile;
pub(crate) use locked::LockedPages;
pub use mode::FallocateMode;
pub(crate) use object::sealed;
pub use object::{MAX_SIZE, Mappable, MemoryObject, PageRequest, Pattern};
pub(crate) use open::same_file;
pub use open::{File, FileMode};
pub(crate) use open_direct::SECTOR;
pub use seals::Seals;
pub(crate) use seals::{Coming, MayWrite};
pub use secret::SecretMem;
pub(crate) use shmem::ANONYMOUS;
pub use shmem::Shmem;
pub use store::{BLOCK, MemStore, Store, StoreError};
pub use xip::XipFile;
