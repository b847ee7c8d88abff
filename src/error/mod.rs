//! Errors: one enum for each operation.
//!
//! Guarantee: a failed operation changed nothing, unless its documentation states that it keeps the
//! effect of its first part, as Linux does (`mprotect`, `madvise` and `mlock` over several VMAs).
//! Each variant carries the offending value, and each error converts to the [`Errno`] that Linux
//! returns. Further variants may be added, so a `match` needs a wildcard.
//!
//! | file | holds |
//! | --- | --- |
//! | `conversions` | conversions of all errors to `Errno`, and of that to `std::io::Error` |
//! | `mmap` | errors of the calls that map |
//! | `change` | errors of the calls that change mappings |
//! | `advice` | errors of the calls that advise, lock and inspect, and of `fork` |
//! | `access` | errors of accesses to memory |
//! | `object` | errors of memory objects |
//! | `policy` | errors of memory policies and protection keys |
//! | `segment` | errors of segments of System V |
//! | `device` | errors of devices with memory of their own |
//! | `register` | errors of the registration of a driver |
//! | `userfault` | errors of userfaultfd, `PAGEMAP_SCAN` and `clear_refs` |
//! | `common` | errors that several calls share |
//! | `errno` | errno values and signals |

mod access;
mod advice;
mod change;
mod common;
mod conversions;
mod device;
mod errno;
mod mmap;
mod object;
mod policy;
mod register;
mod segment;
mod userfault;

pub use access::{
    CopyError, FaultError, PinError, RangeFault, ReleaseError, RemoteAccessError, TransferError,
};
pub use advice::{ForkError, MadviseError, MincoreError, MlockError, MsealError, MsyncError};
pub use change::{MprotectError, MremapError, MunmapError};
pub use common::{BeyondTask, ByteRange, LimitBusy, LimitError, NoMemory, SwapError, VmaError};
pub use device::{ExclusiveError, MigrateError, NoDeviceFrames};
pub use errno::{Errno, HasErrno, Signal};
pub use mmap::{MmapError, RemapError};
pub use object::{ObjectError, SealError};
pub use policy::{KeyError, MbindError};
pub use register::RegisterError;
pub use segment::ShmError;
pub use userfault::{ClearRefsError, ScanError, UserfaultError};
