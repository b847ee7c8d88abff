//! Every operation fails with its own enum; each variant carries the offending value and has Linux's errno.
//!
//! A failed operation changed nothing unless its documentation says that it, as Linux does, keeps what was done
//! before the failure (`mprotect`, `madvise` and `mlock` over several VMAs).

mod access;
mod advice;
mod change;
mod common;
mod conversions;
mod errno;
mod mmap;
mod object;
mod register;

pub use access::{CopyError, FaultError, TransferError};
pub use advice::{ForkError, MadviseError, MincoreError, MlockError, MsealError, MsyncError};
pub use change::{MprotectError, MremapError, MunmapError};
pub use common::{BeyondTask, LimitError, NoMemory, VmaError};
pub use errno::{Errno, HasErrno, Signal};
pub use mmap::{MmapError, RemapError};
pub use object::ObjectError;
pub use register::RegisterError;
