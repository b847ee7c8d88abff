//! Spans and events for subscribers of the `tracing` crate (feature `tracing`).
//!
//! Guarantee: without the feature every function here is empty and every value has no size, so
//! their callers are compiled as if they were not there.
//!
//! A span is entered for as long as the work takes. They lie in each other:
//!
//! ```text
//! call "munmap" 0x10000-0x20000
//! └ window 0x10000-0x20000 Unmap          the rest of its time is work on the page table
//!   ├ callback "KVM" start                drops the range
//!   ├ callback "XPmem" start
//!   └ callback "KVM" end
//! resolve "KVM" 0x10000-0x11000 Write     a driver's look-up
//! └ fault 0x10 Write                      a step of a fault
//!   └ window 0x10000-0x11000 Clear
//! asked "KVM" 0x10                        event: the driver has the look-up checked
//! admitted "KVM" 0x10000-0x11000          event: it gets the translation
//! ```
//!
//! | span or event | level | fields |
//! | --- | --- | --- |
//! | `call` | debug | `name`; `start`, `len` in bytes |
//! | `window` | debug | `range`, `reason` |
//! | `callback` | debug | `mmu`, `range`, `pass`: `start`, `finish` or `end` |
//! | `fault` | trace | `page`, `access` |
//! | `resolve` | trace | `mmu`, `range`, `access`; "range" for one ticket of many pages |
//! | `asked` | trace | `mmu`, `page` |
//! | `admitted` | trace | `mmu`, `range` |
//!
//! A subscriber is called with locks of the library held: it must not call the address space, nor
//! wait for a thread that does.
//!
//! | file | holds |
//! | --- | --- |
//! | `spans` | the functions with the feature |
//! | `nothing` | the functions without it |

#[cfg(not(feature = "tracing"))]
mod nothing;
#[cfg(feature = "tracing")]
mod spans;

#[cfg(not(feature = "tracing"))]
pub(crate) use nothing::{InSpan, admitted, asked, call, callback, fault, resolve, window};
#[cfg(feature = "tracing")]
pub(crate) use spans::{InSpan, admitted, asked, call, callback, fault, resolve, window};

/// The call of a driver by a window.
#[derive(Clone, Copy)]
#[cfg_attr(not(feature = "tracing"), allow(dead_code))]
pub(crate) enum Pass {
    /// The beginning, or the first of two passes.
    Start,
    /// The second pass.
    Finish,
    /// The end.
    End,
}
