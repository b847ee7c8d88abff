//! Errno values and signals of Linux, and the trait of errors that stand for an errno.

macro_rules! errnos {
    ($($(#[$m:meta])* $name:ident = $value:literal,)*) => {
        /// An errno value that a modelled system call returns.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Errno { $($(#[$m])* $name = $value,)* }

        impl std::fmt::Display for Errno {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Errno::$name => stringify!($name),)* })
            }
        }

        impl Errno {
            /// Returns the errno with this number; `None` if no modelled system call returns it.
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw {
                    $($value => Some(Self::$name),)*
                    _ => None,
                }
            }
        }
    };
}

errnos! {
    /// Operation not permitted.
    EPERM = 1,
    /// Nothing is mapped or registered there (userfaultfd), or no segment has that key.
    ENOENT = 2,
    /// The process has ended.
    ESRCH = 3,
    /// Reading or writing a store failed.
    EIO = 5,
    /// A descriptor without the right that is needed.
    EBADF = 9,
    /// Try again: a limit on locked memory, or a split that the map limit forbids (`madvise`).
    EAGAIN = 11,
    /// Out of memory, address space or map entries.
    ENOMEM = 12,
    /// Permission denied.
    EACCES = 13,
    /// Bad address.
    EFAULT = 14,
    /// Device or resource busy.
    EBUSY = 16,
    /// Already mapped.
    EEXIST = 17,
    /// No such device.
    ENODEV = 19,
    /// Invalid argument.
    EINVAL = 22,
    /// Beyond the largest size of an object.
    EFBIG = 27,
    /// No place left: no huge page in the pool, the most segments, or the most pages of them.
    ENOSPC = 28,
    /// Waiting would not end: what must be given up is not.
    EDEADLK = 35,
    /// Value too large.
    EOVERFLOW = 75,
    /// Operation not supported.
    EOPNOTSUPP = 95,
    /// The range is in use.
    EADDRINUSE = 98,
    /// The page is poisoned.
    EHWPOISON = 133,
}

impl Errno {
    /// Returns the number, positive as in `errno`.
    pub const fn raw(self) -> i32 {
        self as i32
    }
}

impl std::error::Error for Errno {}

/// An error that stands for an errno of Linux.
///
/// Every error of a call has it, so that code which needs only the number can take
/// `impl HasErrno`, or convert with `Errno::from`.
pub trait HasErrno: std::error::Error {
    /// Returns the errno that Linux returns where this library returns the error.
    fn errno(&self) -> Errno;
}

/// The signal that a faulting access raises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// SIGSEGV.
    Segv,
    /// SIGBUS.
    Bus,
}

impl std::fmt::Display for Signal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Segv => "SIGSEGV",
            Self::Bus => "SIGBUS",
        })
    }
}
