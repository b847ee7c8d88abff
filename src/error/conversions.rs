//! Conversions of every error to its [`Errno`], and of that to an error of the standard library.

use super::{
    access::{
        CopyError, FaultError, PinError, RangeFault, ReleaseError, RemoteAccessError, TransferError,
    },
    advice::{ForkError, MadviseError, MincoreError, MlockError, MsealError, MsyncError},
    change::{MprotectError, MremapError, MunmapError},
    common::{BeyondTask, LimitBusy, LimitError, NoMemory, SwapError, VmaError},
    device::{ExclusiveError, MigrateError, NoDeviceFrames},
    errno::{Errno, HasErrno},
    mmap::{MmapError, RemapError},
    object::{ObjectError, SealError},
    policy::{KeyError, MbindError},
    register::RegisterError,
    segment::ShmError,
    userfault::{ClearRefsError, ScanError, UserfaultError},
};
use std::io;

macro_rules! have_errno {
    ($($error:ty)*) => {$(
        impl HasErrno for $error {
            fn errno(&self) -> Errno {
                // The inherent function, which is `const`.
                <$error>::errno(*self)
            }
        }

        impl From<$error> for Errno {
            fn from(error: $error) -> Self {
                error.errno()
            }
        }
    )*};
}

have_errno! {
    BeyondTask
    ClearRefsError
    CopyError
    ExclusiveError
    FaultError
    ForkError
    KeyError
    LimitBusy
    LimitError
    MadviseError
    MbindError
    MigrateError
    MincoreError
    MlockError
    MmapError
    MprotectError
    MremapError
    MsealError
    MsyncError
    MunmapError
    NoDeviceFrames
    NoMemory
    ObjectError
    PinError
    RangeFault
    RegisterError
    ReleaseError
    RemapError
    RemoteAccessError
    ScanError
    SealError
    ShmError
    SwapError
    TransferError
    UserfaultError
    VmaError
}

impl HasErrno for Errno {
    fn errno(&self) -> Errno {
        *self
    }
}

impl From<Errno> for io::Error {
    /// Makes the error that the standard library makes of the number. Kind and message are those of
    /// the host, and right where the host numbers its errors as Linux does.
    fn from(errno: Errno) -> Self {
        Self::from_raw_os_error(errno.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::{Errno, HasErrno, MunmapError, VmaError, io};
    use crate::error::ByteRange;

    #[test]
    fn an_error_is_an_errno_and_an_io_error() {
        let bad = MunmapError::Range(ByteRange { addr: 1, len: 0 });
        assert_eq!(HasErrno::errno(&bad), Errno::EINVAL);
        assert_eq!(Errno::from(bad), bad.errno());
        let sealed = Errno::from(VmaError::Sealed(0));
        let io = io::Error::from(sealed);
        assert_eq!(io.raw_os_error(), Some(Errno::EPERM.raw()));
    }
}
