//! Simulated physical memory.
//!
//! Guarantee: a frame lives exactly as long as somebody holds a reference on it, and whoever looks at it through a
//! [`FrameView`] after that is caught. Metadata is 22 bytes a frame (16 more where contents are kept), made on demand,
//! so that a machine of a terabyte costs what it uses.
//!
//! | file | |
//! | --- | --- |
//! | `arena` | all frames: allocation, retirement |
//! | `meta` | what is known of each |
//! | `free` | which frames are free, and who gets the next one |
//! | `batch` | … of many at once |
//! | `counts` | reference and map count in one word |
//! | `contents` | what is in a frame |
//! | `lent` | … while other processes have it |
//! | `shared` | memory that several processes map |
//! | `handle` | owning a reference |
//! | `huge` | 512 frames in a row |
//! | `view` | looking at a frame that may be gone: the oracle |
//! | `inject` | making an allocation fail on purpose |
//! | `owner` | who has a frame, and where in him |
//! | `wait` | the lock of a frame |
//! | `exported` | frames that a driver has by number |
//! | `used` | what entries that go say of it |
//! | `watch` | where an oracle looks on |
//! | `lru` | the lists that reclaim works through |
//! | `swap` | the swap device and its cache |
//! | `commit` | memory promised, not yet used |
//! | `quota` | memory that page tables are made of |

mod access_bits;
mod batch;
mod bytes;
mod commit;
mod config;
mod contents;
mod counts;
mod export;
mod exported;
mod flags;
mod free;
mod huge;
mod inject;
#[cfg(all(feature = "remote", target_os = "linux"))]
mod lend;
#[cfg(all(feature = "remote", target_os = "linux"))]
mod lent;
mod lifetime;
mod lists;
mod lock;
mod lru;
mod mem;
mod meta;
mod observer;
mod owner;
mod page_bytes;
mod pfn;
mod quota;
mod read_ahead;
#[cfg(all(feature = "remote", target_os = "linux"))]
mod shared;
mod swap_cache;
mod swap_slots;
mod tables;
#[cfg(test)]
mod tests;
mod view;
mod waiters;

pub(crate) use access_bits::AccessBits;
pub(crate) use batch::Retired;
pub use commit::{Commit, Overcommit};
pub use config::{Contents, MemConfig};
pub(crate) use exported::Lost;
pub use flags::FrameFlags;
pub(crate) use huge::HugeFrame;
pub use inject::{AllocKind, Inject, Injected};
#[cfg(all(feature = "remote", target_os = "linux"))]
pub(crate) use lent::{Lender, Loan, Place};
pub use lifetime::OutOfFrames;
pub(crate) use lists::LruList;
pub use lock::FrameLock;
pub use mem::{Frame, PhysMem};
pub(crate) use observer::FrameWatch;
pub(crate) use owner::{MAX_ID, MAX_INDEX, Owner, OwnerId, SPARSE_INDEX};
pub(crate) use pfn::HUGE;
pub use quota::Refused;
#[cfg(all(feature = "remote", target_os = "linux"))]
pub(crate) use shared::SharedMemory;
pub use swap_slots::{Swap, SwapSlot};
pub use view::{FrameView, FrameViewMut};
