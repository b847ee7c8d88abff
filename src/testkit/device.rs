//! What the kit needs of a device beside its callbacks: a way to use memory through it, and what it says of itself.

use super::Broken;
use crate::ctx::CallCx;
use crate::{
    driver::TranslateError,
    error::FaultError,
    extmmu::References,
    mm::Mm,
    notifier::{ExternalMmu, Registration},
};
use std::sync::Arc;
use thiserror::Error;

/// An access that a device did not make.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The address space refuses it, as it would refuse the process.
    #[error("{0}")]
    Fault(#[from] FaultError),
    /// The address space has ended, or the device was taken off its chain.
    #[error("the device is no longer attached")]
    Gone,
    /// The device has a reason of its own. There is none that the kit takes for good.
    #[error("{0}")]
    Other(String),
}

impl From<TranslateError> for Refused {
    fn from(why: TranslateError) -> Self {
        match why {
            TranslateError::Fault(why) => Self::Fault(why),
            TranslateError::Detached { .. } => Self::Gone,
        }
    }
}

/// Where a device keeps its translations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holds {
    /// In a table: what was translated stays translated until a window. The kit looks at 16 pages at once; a table with room
    /// for fewer, which gives entries up by itself, is a TLB to it.
    #[default]
    Table,
    /// In a TLB: the last one is there.
    Tlb,
    /// Nowhere: each access translates anew.
    Nothing,
}

/// What a device says of itself. The kit asks for no more than that, and for no less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Where translations are. [`ExternalMmu::translations`] must show them.
    pub holds: Holds,
    /// Whether entries hold references on their frames.
    pub references: References,
    /// Its callbacks sleep: it may refuse any window of an atomic context. One that does not sleep refuses none.
    pub sleeps: bool,
    /// Its answers to aging can be relied on: after an access the page is young. Otherwise they are not looked at.
    pub ages: bool,
    /// It remembers refusals, as some IOMMUs do: the kit gives rights back and looks whether it notices.
    pub caches_refusals: bool,
    /// It looks pages up for writing even to read them, so it cannot read what may not be written.
    ///
    /// What a device looks up for writing, on the thread of the access, may be more than it writes: private pages are copied
    /// by it, and the kit knows. Of look-ups on threads of the device's own it does not.
    pub always_writes: bool,
    /// It follows its address space. Devices that keep pinned pages and say so (RDMA without paging) do not: what they
    /// read is not compared, only what they use after it was given back.
    pub coherent: bool,
}

impl Default for Declared {
    /// A table without references that spins, tells no age, and is coherent.
    fn default() -> Self {
        Self {
            holds: Holds::Table,
            references: References::Unpinned,
            sleeps: false,
            ages: false,
            caches_refusals: false,
            always_writes: false,
            coherent: true,
        }
    }
}

/// A device whose memory accesses go through an external MMU.
///
/// Accesses come from several threads. Each must come to an end once the windows in its way have closed: the device
/// waits, or tries again, by itself.
pub trait Device: Send + Sync {
    /// Reads the byte at `addr` of the address space that the MMU was registered on.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused>;
    /// Writes it.
    ///
    /// # Errors
    ///
    /// [`Refused`].
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused>;
    /// What it says of itself.
    fn declares(&self) -> Declared {
        Declared::default()
    }
    /// The next acknowledgement that it owes shall go wrong like that, if it is given by somebody who can fail: a remote
    /// partition, another processor, a wire. Whether it can; a device that acknowledges by itself says no.
    ///
    /// However it goes wrong, the device must end the window, and accesses must go on: by a successor of whoever
    /// failed, if need be.
    fn break_acknowledgement(&self, how: Broken) -> bool {
        let _unused = how;
        false
    }
    /// Asked when no window is open and no access under way: what is still counted, if anything is.
    fn unsettled(&self) -> Option<String> {
        None
    }
}

/// A device on the chain of an address space.
pub struct Attached {
    /// What accesses memory.
    pub device: Arc<dyn Device>,
    /// What is on the chain.
    pub mmu: Arc<dyn ExternalMmu>,
    /// Its place on the chain.
    pub registration: Registration,
}

impl std::fmt::Debug for Attached {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attached")
            .field("mmu", &self.mmu.name())
            .finish_non_exhaustive()
    }
}
