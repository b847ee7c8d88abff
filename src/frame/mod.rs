//! The simulated physical memory of a machine.
//!
//! Guarantee: a frame lives exactly as long as it has a reference, and a use of a [`FrameView`]
//! after that panics. Metadata take 22 bytes a frame, 24 more with contents, and are made on
//! demand, so a machine of a terabyte costs only the part that it uses.
//!
//! The 4096 bytes of a frame get an address in this process when one is asked for
//! ([`FrameView::as_ptr`], [`FrameViewMut::as_mut_ptr`]). It is a multiple of 4096, and the frame's
//! as long as the machine lives; neighbouring frames lie anywhere. A store through it that comes
//! after the frame was given back reaches no other memory, and the next owner does not see it.
//!
//! Files of structures know no [`PhysMem`]; it has them as fields. Files of operations are methods
//! of [`PhysMem`] and use each other through it.
//!
//! | file | structure |
//! | --- | --- |
//! | `pfn` | numbers of frames: zero pages, huge pages |
//! | `config` | size and kind of a memory |
//! | `flags` | flags of a frame |
//! | `owner` | the owner of a frame and its index there, in one word |
//! | `counts` | reference count and map count, in one word |
//! | `meta` | the metadata of a frame: counts, owner, generation, flags |
//! | `word` | whole and atomic accesses of words |
//! | `atomic_bytes` | bytes that code outside of this crate accesses as well |
//! | `host_page` | the bytes of a frame that has an address in the host |
//! | `page_bytes` | the bytes of one frame |
//! | `arena` | the file of the host that frames with an address lie in (feature `host-mapping`) |
//! | `shared` | memory that several processes map |
//! | `lent` | loans: memory where lent frames lie |
//! | `contents` | the bytes of all frames of a chunk, of one kind or another |
//! | `free` | the free frames, and their order |
//! | `device_frames` | frame numbers of devices, and the free ones |
//! | `waiters` | places to wait for the lock of a frame |
//! | `lists` | the lists of reclaim |
//! | `batches` | pages on their way to another list of reclaim |
//! | `read_ahead` | the number of pages to read from swap at once |
//! | `swap_slots` | the swap device |
//! | `exported` | frames that a driver knows by number |
//! | `pinned` | frames that are pinned, and how often |
//! | `quota` | the limit of page tables |
//! | `huge_pool` | pools of huge pages, and their reservations |
//! | `large_page` | the name of a large page |
//! | `queue` | a queue of pages of which some may be out of date |
//! | `partly` | large pages of which a part may have been given back |
//! | `folio_orders` | which large pages are folios, and of which size |
//! | `resv_map` | the pages of a mapping or file that have a reservation |
//! | `inject` | allocations that fail on purpose |
//! | `observer` | the trait of an oracle that watches frames |
//! | `commit` | memory promised, not yet used |
//! | `mem` | [`PhysMem`], and [`Frame`]: a reference on a frame |
//!
//! | file | operations |
//! | --- | --- |
//! | `alloc` | allocation of one frame, or of many |
//! | `lifetime` | references and mappings, and where a frame is given back |
//! | `huge` | large pages allocated, and views of their frames |
//! | `large` | large pages, of 4 to 512 frames in a row, and what is left of them |
//! | `pool_pages` | huge pages taken from a pool, and given back to it |
//! | `access_bits` | bits of removed entries, merged into flags |
//! | `bytes` | reading and writing |
//! | `view` | looking at a frame without a reference: the oracle |
//! | `lock` | the lock of a frame |
//! | `lru` | moving between the lists of reclaim |
//! | `lru_large` | the place of a large page on these lists |
//! | `collect` | collecting pages on their way to a list |
//! | `swap_cache` | swapping out and in |
//! | `export` | notices to the drivers of exported frames |
//! | `pin` | pinning frames |
//! | `device` | memory of a device, and its frames |
//! | `lend` | lending bytes to other processes |
//! | `tables` | taking and giving back page tables |
//! | `tests` | counts, retirement, exhaustion, stale views |

mod access_bits;
mod alloc;
#[cfg(all(feature = "host-mapping", target_os = "linux"))]
mod arena;
mod atomic_bytes;
mod batches;
mod bytes;
mod collect;
mod commit;
mod config;
mod contents;
mod counts;
mod device;
mod device_frames;
mod export;
mod exported;
mod flags;
mod folio_orders;
mod free;
mod host_page;
mod huge;
mod huge_pool;
mod inject;
mod large;
mod large_page;
#[cfg(all(feature = "remote", target_os = "linux"))]
mod lend;
#[cfg(all(feature = "remote", target_os = "linux"))]
mod lent;
mod lifetime;
mod lists;
mod lock;
mod lru;
mod lru_large;
mod mem;
mod meta;
mod observer;
mod owner;
mod page_bytes;
mod partly;
mod pfn;
mod pin;
mod pinned;
mod pool_pages;
mod queue;
mod quota;
mod read_ahead;
mod resv_map;
#[cfg(all(any(feature = "host-mapping", feature = "remote"), target_os = "linux"))]
mod shared;
mod swap_cache;
mod swap_slots;
mod tables;
#[cfg(test)]
mod tests;
mod view;
mod waiters;
mod word;

pub(crate) use access_bits::AccessBits;
pub use alloc::OutOfFrames;
pub use commit::{Commit, Overcommit};
pub use config::{Contents, MemConfig};
pub use device::DeviceMemory;
pub use device_frames::{DeviceId, DeviceKind};
pub(crate) use exported::Lost;
pub use flags::FrameFlags;
pub(crate) use huge::LargeFrame;
pub use huge_pool::{HugePool, HugePoolConfig, HugeSize};
pub use inject::{AllocKind, Inject, Injected};
pub(crate) use large_page::Large;
#[cfg(all(feature = "remote", target_os = "linux"))]
pub(crate) use lent::{Kept, Lender, Loan, Place};
pub(crate) use lifetime::Retired;
pub(crate) use lists::LruList;
pub use lock::FrameLock;
pub use mem::{Frame, PhysMem};
pub(crate) use observer::FrameWatch;
pub(crate) use owner::{MAX_ID, MAX_INDEX, MERGED_INDEX, Owner, OwnerId, SPARSE_INDEX};
pub(crate) use pfn::HUGE;
pub(crate) use pin::HeldFrame;
pub(crate) use pool_pages::{Claim, PoolPage};
pub use quota::RefusedAllocations;
pub(crate) use resv_map::ResvMap;
#[cfg(all(feature = "remote", target_os = "linux"))]
pub(crate) use shared::SharedMemory;
pub use swap_slots::{Swap, SwapSlot};
pub use view::{FrameView, FrameViewMut};
pub(crate) use word::WordAccess;
pub use word::{AtomicOp, Word};
