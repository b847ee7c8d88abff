//! [`Device`]: the use of memory through an external MMU, and the declarations of a device.

use super::Broken;
use crate::{
    ctx::CallCx,
    driver::TranslateError,
    error::FaultError,
    extmmu::References,
    mm::Mm,
    notifier::{ExternalMmu, Registration, SecondaryTlb},
    oracle::Watchee,
};
use std::sync::Arc;
use thiserror::Error;

/// The reason of a device that neither has a write nor says so.
const NO_WRITE: &str = "the device has no `write`, and does not declare `reads_only`";

/// An access that a device did not make.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The address space refuses the access, as it would refuse the process.
    #[error("{0}")]
    Fault(#[from] FaultError),
    /// The address space has ended, or the device was unregistered.
    #[error("the device is no longer registered")]
    Gone,
    /// The device has a reason of its own. The kit accepts no such reason.
    #[error("{0}")]
    Other(String),
}

impl From<TranslateError> for Refused {
    fn from(why: TranslateError) -> Self {
        match why {
            TranslateError::Fault(why) => Self::Fault(why),
            TranslateError::Range(fault) => Self::Fault(fault.why),
            TranslateError::Detached { .. } => Self::Gone,
        }
    }
}

/// The place of a device's translations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holds {
    /// In a table: a translation stays until a window drops it. The kit looks at 16 pages at once;
    /// a table with room for fewer, which evicts entries by itself, counts as a TLB.
    #[default]
    Table,
    /// In a TLB: the last translation is present.
    Tlb,
    /// Nowhere: each access translates anew.
    Nothing,
}

/// The declarations of a device. The kit requires the declared behaviour, no more and no less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// The place of the translations. [`ExternalMmu::translations`] must show them.
    pub holds: Holds,
    /// References that entries hold on their frames.
    pub references: References,
    /// The callbacks sleep, so the device may refuse any window of an atomic context. A device that
    /// does not sleep refuses none.
    pub sleeps: bool,
    /// The answers to aging are reliable: after an access the page is young. The kit ignores the
    /// answers of a device that declares `false`.
    pub ages: bool,
    /// The device remembers refusals, as some IOMMUs do. The kit then restores rights and checks
    /// that the device notices.
    pub caches_refusals: bool,
    /// The device looks pages up for writing even for a read, so it cannot read a page that it may
    /// not write.
    ///
    /// A look-up for writing on the thread of the access copies a private page, and the kit
    /// notices. Look-ups on threads of the device itself go unnoticed.
    pub always_writes: bool,
    /// The device follows its address space. Devices that keep pinned pages and say so (RDMA
    /// without paging) do not. The kit does not compare the bytes that such a device reads, and no
    /// window has to hold it off; only a use of returned pages counts against it.
    pub coherent: bool,
    /// The device walks the page table itself ([`SecondaryTlb`]): it gets flushes, and no windows,
    /// so it uses what the page table says inside of a window as well. The kit skips the properties
    /// that are about accesses inside of windows.
    pub walks: bool,
    /// The device pins what it translates: it has one pin ([`Mm::pin`]) on the frame of each
    /// translation that it shows, and no other pin once an access has ended, but for memory that
    /// cannot be pinned. It may give up the pins of translations that windows removed as late as in
    /// its next access.
    pub pins: bool,
    /// The device makes no writes, as a cache of registrations that are only read. The kit then
    /// lets the process write in its place, never calls [`Device::write`], and skips the properties
    /// that are about writes of the device.
    pub reads_only: bool,
}

impl Declared {
    /// Returns the declarations of a device that makes no writes.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::testkit::{Declared, Holds};
    ///
    /// let declared = Declared { holds: Holds::Tlb, ..Declared::default().reads_only() };
    /// assert!(declared.reads_only && declared.coherent);
    /// ```
    #[must_use]
    pub fn reads_only(self) -> Self {
        Self {
            reads_only: true,
            ..self
        }
    }
}

impl Default for Declared {
    /// Returns the declarations of a table without references that spins, answers no aging, is
    /// coherent, and reads and writes.
    fn default() -> Self {
        Self {
            holds: Holds::Table,
            references: References::None,
            sleeps: false,
            ages: false,
            caches_refusals: false,
            always_writes: false,
            coherent: true,
            walks: false,
            pins: false,
            reads_only: false,
        }
    }
}

/// A device whose memory accesses go through an external MMU.
///
/// Accesses come from several threads. Each must come to an end once the windows in its way have
/// closed: the device waits, or tries again, by itself.
pub trait Device: Send + Sync {
    /// Reads the byte at `addr` of the address space that the MMU was registered on.
    ///
    /// # Errors
    ///
    /// [`Refused`] if the device does not make the access.
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused>;
    /// Writes the byte at `addr` of the address space that the MMU was registered on. The default
    /// is for a device that declares [`reads_only`](Declared::reads_only()).
    ///
    /// # Errors
    ///
    /// [`Refused`] if the device does not make the access.
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let _unused = (cx, mm, addr, byte);
        Err(Refused::Other(NO_WRITE.to_owned()))
    }
    /// Returns the declarations of the device.
    fn declares(&self) -> Declared {
        Declared::default()
    }
    /// Makes the next acknowledgement that the device owes go wrong, and returns true if that is
    /// possible.
    ///
    /// A failure is possible if another party gives the acknowledgement: a remote partition,
    /// another processor, a wire. A device that acknowledges by itself returns false.
    ///
    /// However the acknowledgement fails, the device must end the window, and accesses must go on,
    /// through a successor of the failed party if need be.
    fn break_acknowledgement(&self, how: Broken) -> bool {
        let _unused = how;
        false
    }
    /// Returns a description of the counters that are not zero, or `None`.
    ///
    /// The kit calls this while no window is open and no access is in progress.
    fn unsettled(&self) -> Option<String> {
        None
    }
}

/// A device on the chain of an address space.
pub struct Attached {
    /// The device that accesses memory.
    pub device: Arc<dyn Device>,
    /// The driver on the chain.
    pub mmu: Arc<dyn ExternalMmu>,
    /// The registration of the driver on the chain.
    pub registration: Registration,
}

/// A device that walks the page table of an address space.
pub struct AttachedTlb {
    /// The device that accesses memory.
    pub device: Arc<dyn Device>,
    /// The device on the channel of flushes, which shows its TLBs to an oracle.
    pub tlb: Arc<dyn SecondaryTlb>,
    /// The end of the device's use of the address space: of its registration, and of more.
    pub leave: Leave,
}

/// The function that ends a device's use of an address space.
pub type Leave = Box<dyn FnOnce(&mut CallCx<'_>) + Send>;

impl std::fmt::Debug for AttachedTlb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachedTlb")
            .field("tlb", &self.tlb.name())
            .finish_non_exhaustive()
    }
}

/// A device of either kind.
#[derive(Debug)]
pub(super) enum Placed {
    Driver(Attached),
    Walker(AttachedTlb),
}

impl Placed {
    pub(super) fn device(&self) -> &Arc<dyn Device> {
        match self {
            Self::Driver(attached) => &attached.device,
            Self::Walker(attached) => &attached.device,
        }
    }
    pub(super) fn mmu(&self) -> Watchee {
        match self {
            Self::Driver(attached) => Watchee::Driver(Arc::clone(&attached.mmu)),
            Self::Walker(attached) => Watchee::Walker(Arc::clone(&attached.tlb)),
        }
    }
    /// Returns the end of its use of the address space.
    pub(super) fn into_leave(self) -> Leave {
        match self {
            Self::Driver(Attached { registration, .. }) => {
                Box::new(move |cx| registration.unregister(cx))
            }
            Self::Walker(attached) => attached.leave,
        }
    }
}

/// A constructor of a device for an address space.
pub(super) type Attach = dyn Fn(&mut CallCx<'_>, &Arc<Mm>) -> Placed + Send + Sync;

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("mmu", &self.mmu.name())
            .finish_non_exhaustive()
    }
}
