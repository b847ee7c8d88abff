//! Memory of a process at addresses in a row of the host, for code that wants a pointer and a
//! length: device models, loaders, the host's kernel.
//!
//! [`HostMapping`] is a page table of the host that a driver fills and empties. It begins empty. A
//! touch of a page waits (`userfaultfd`) until a thread of the mapping has looked the page up; then
//! the page's frame is mapped there, and touches cost what the host's memory costs. A window over
//! the page takes it out again.
//!
//! ```text
//! client             mapping                                    window
//! touch: waits       ticket, look up, permit
//!                    map the frame here, enter it, wake
//! access, access, …
//!                                                               begin: unmap here, Ack
//! touch: waits       wait for the window                        entry: A -> B, A given back
//!                                                               end
//!                    look up: B; map, enter, wake
//! access, …
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `userfault` | the host's userfaultfd |
//! | `area` | addresses of the host in which pages of a file are shown and hidden |
//! | `places` | how many mappings of the host that takes |
//! | `driver` | the driver, whose entries are the pages shown |
//! | `serve` | the threads that serve touches |
//! | `error` | errors of a mapping |
//! | `guest` | regions of guest memory for rust-vmm's crates (feature `vm-memory`) |

mod area;
mod driver;
mod error;
#[cfg(feature = "vm-memory")]
mod guest;
mod places;
mod serve;
mod userfault;

pub use error::HostMappingError;
#[cfg(feature = "vm-memory")]
pub use guest::HostRegion;

use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    mm::Mm,
    notifier::{ExternalMmu, Registration},
};
use area::Area;
use driver::Driver;
use serve::Threads;
use std::{ptr::NonNull, sync::Arc};

/// Memory of a process, mapped at addresses in a row of the host.
///
/// Guarantee: an access through the mapping is an access of the process. A load finds the page that
/// the process has there at that moment; a store goes to it, after the copy or the wait that a
/// store of the process would need. No access reaches a page before a window over it has ended that
/// was open when the page was touched, nor after a window over it has begun.
///
/// How: a window unmaps the page here, on all processors, before anything happens to it, and so
/// before its frame is given back. A page that the process may not write now, because it is shared
/// until it is copied, is only read, or belongs to a file that wants to know, is write-protected
/// here: a store waits for another look-up. A page that was never written takes no frame to be
/// read.
///
/// An access that the process is refused (nothing is mapped there, a right is missing, memory is
/// used up) raises SIGBUS, and a system call that makes it returns `EFAULT`. For some milliseconds
/// after that, all accesses to the page are refused.
///
/// An access waits for the look-up of another thread. So it must not be made under a lock of the
/// address space, in a callback or under a gate, nor in a buffer that is handed to this crate.
/// Pages come and go at any time, and other threads may store to them: the memory is accessed by
/// volatile or atomic operations.
///
/// Pages that the host's kernel holds for a device (`vfio`, `O_DIRECT`) are not known to this
/// crate: a program that has them held, holds them by [`Mm::pin`] as well. A child of the host's
/// process must not use the mapping. Frames that are lent to partitions ([`xpmem`](super::xpmem))
/// cannot be mapped, and their accesses are refused.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, mm::{Advice, MmapArgs}};
/// use emmu::extmmu::{HostMapping, HostMappingError};
///
/// let machine = Machine::new(MachineConfig::default());
/// let mut thread = machine.enter()?;
/// let mut cx = thread.cx();
/// let mm = Mm::new(&machine);
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(16 * PAGE_SIZE))?;
/// let memory = match HostMapping::new(&mut cx, &mm, (at, 16 * 4096)) {
///     Err(HostMappingError::NoUserfaultfd(_)) => return Ok(()),
///     other => other?,
/// };
///
/// let first = memory.as_ptr();
/// mm.store(&mut cx, at, 7)?;
/// // SAFETY: `memory` lives, and nothing refers to its bytes.
/// assert_eq!(unsafe { first.read_volatile() }, 7);
/// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?;
/// // SAFETY: as above.
/// assert_eq!(unsafe { first.read_volatile() }, 0, "the page went in a window");
/// # drop(memory);
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HostMapping {
    registration: Option<Registration>,
    /// Ended after the registration: until then touches are answered.
    _threads: Threads,
    driver: Arc<Driver>,
    area: Arc<Area>,
    mm: Arc<Mm>,
}

impl HostMapping {
    /// Maps the `len` bytes from byte `addr` of a process on. Nothing needs to be mapped there yet.
    ///
    /// # Errors
    ///
    /// [`HostMappingError`]; nothing has changed.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn new(
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        (addr, len): (u64, usize),
    ) -> Result<Self, HostMappingError> {
        let pages = pages(addr, len).ok_or(HostMappingError::Range { addr, len })?;
        let file = mm.machine().mem().memfd();
        let file = file.ok_or(HostMappingError::NoFrames)?;
        let count = usize::try_from(pages.pages()).expect("its length fits");
        let area = Arc::new(Area::new(count, file)?);
        let new = |seat| Driver::new(seat, &area, pages);
        let (driver, registration) = mm.register(cx, new);
        let threads = match Threads::new(mm, &driver, &area) {
            Ok(threads) => threads,
            Err(why) => {
                registration.unregister(cx);
                return Err(why.into());
            }
        };
        Ok(Self {
            registration: Some(registration),
            _threads: threads,
            driver,
            area,
            mm: Arc::clone(mm),
        })
    }
    /// Returns the first address in the host, a multiple of the page size. It is the mapping's as
    /// long as this value lives.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.area.first()
    }
    /// Returns the length in bytes.
    pub fn size(&self) -> usize {
        self.area.len()
    }
    /// Returns true if the host's kernel waits for pages as other code does. Without the right to a
    /// userfaultfd for it, its accesses to pages that are not there fail with `EFAULT`, as in a
    /// `read` of a file into the memory; every other access works.
    pub fn serves_kernel(&self) -> bool {
        self.area.serves_kernel()
    }
    /// Returns the process.
    pub fn mm(&self) -> &Arc<Mm> {
        &self.mm
    }
    /// Returns the driver, to be watched by an [oracle](crate::oracle::Oracle).
    pub fn driver(&self) -> Arc<dyn ExternalMmu> {
        Arc::clone(&self.driver) as Arc<dyn ExternalMmu>
    }
    /// Returns the number of pages that are mapped now.
    pub fn pages_shown(&self, cx: &mut CallCx<'_>) -> usize {
        self.driver.pages_shown(cx)
    }
}

/// Returns the pages of a range of bytes.
fn pages(addr: u64, len: usize) -> Option<VpnRange> {
    let end = addr
        .checked_add(len as u64)
        .filter(|&end| end <= TASK_SIZE)?;
    let whole = addr.is_multiple_of(PAGE_SIZE) && end.is_multiple_of(PAGE_SIZE);
    let (first, end) = (Vpn::containing(addr), Vpn::containing(end));
    VpnRange::new(first, end).filter(|_| whole)
}

impl Drop for HostMapping {
    /// Ends the mapping. Its addresses must not be used any more.
    ///
    /// It waits for windows that are open, so it must not happen in a window or a callback, nor
    /// under a lock of the address space.
    fn drop(&mut self) {
        let epoch = self.mm.machine().epoch();
        if let Some(registration) = self.registration.take() {
            epoch.with_token_of_a_drop(|cx| registration.unregister(cx));
        }
    }
}

impl std::fmt::Debug for HostMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostMapping")
            .field("at", &self.as_ptr())
            .field("size", &self.size())
            .finish_non_exhaustive()
    }
}
