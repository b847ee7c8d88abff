//! userfaultfd: the faults of registered memory become messages, and a handler answers them.
//!
//! A handler gets a [`Userfault`] of an address space, agrees on features
//! ([`api`](Userfault::api)), and [registers](Userfault::register) memory. An access that meets an
//! absent or protected page there ends with
//! [`FaultError::Userfault`](crate::error::FaultError::Userfault); a message is in the queue
//! ([`read`](Userfault::read)) until the handler answers: it fills the page, lifts its protection,
//! or wakes the access. Then the access is repeated; [`Mm::wait_for_answer`] waits for that moment
//! (`docs/adr/0029-a-fault-that-waits-is-returned.md`).
//!
//! | file | holds |
//! | --- | --- |
//! | this one | [`Userfault`]: handshake, messages |
//! | `register` | registration, its end, closing |
//! | `fill` | answers that bring pages: `UFFDIO_COPY`, `ZEROPAGE`, `CONTINUE`, `POISON` |
//! | `fill_huge` | … those of huge pages of a pool |
//! | `protect` | `UFFDIO_WRITEPROTECT` |
//! | `move_pages`, `move_page` | `UFFDIO_MOVE` |
//! | `events` | events: fork, move, drop and end of mappings |

pub(in crate::mm) mod events;
mod fill;
mod fill_huge;
mod move_page;
mod move_pages;
mod protect;
mod register;

use crate::mm::{
    entry::uffd_flags::UffdFeatures,
    space::Mm,
    vma::userfault::{Context, Event, HandlerMessage, PageFault},
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, UserfaultError},
};
use std::{any::Any, sync::Arc};

/// A userfaultfd: the handler's side of the faults of registered memory.
///
/// Clones are the same userfaultfd. It does not keep its address space. One that is dropped without
/// [`close`](Self::close) leaves its memory registered: accesses there wait for ever.
///
/// # Examples
///
/// ```
/// use emmu::{Machine, MachineConfig, Mm, error::FaultError, mm::*};
///
/// let machine = Machine::new(MachineConfig::default());
/// let mut thread = machine.enter().unwrap();
/// let mut cx = thread.cx();
/// let mm = Mm::new(&machine);
/// let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(0x2000))?;
/// let uffd = mm.userfaultfd();
/// uffd.api(Userfault::VERSION, UffdFeatures::empty())?;
/// uffd.register(&mut cx, addr, 0x2000, RegisterMode::MISSING)?;
/// assert_eq!(mm.load(&mut cx, addr), Err(FaultError::Userfault(addr)));
/// let Some(UffdMessage::PageFault(fault)) = uffd.read() else {
///     panic!("the load waits")
/// };
/// uffd.copy(&mut cx, fault.addr, &[7; 0x1000], FillMode::empty())?;
/// assert_eq!(mm.load(&mut cx, addr), Ok(7));
/// mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Userfault(Arc<Context>);

/// A message of a [`Userfault`]. Addresses and lengths are in bytes.
#[derive(Clone, Debug)]
#[must_use = "an access may wait for the answer"]
#[non_exhaustive]
pub enum UffdMessage {
    /// An access waits for an answer.
    PageFault(PageFault),
    /// The address space was forked; this is the userfaultfd of the child.
    Fork(Userfault),
    /// Memory moved.
    Remap {
        /// The old address.
        from: u64,
        /// The new address.
        to: u64,
        /// The old length.
        len: u64,
    },
    /// The pages of a range were dropped.
    Remove {
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
    /// A range was unmapped.
    Unmap {
        /// The first byte.
        start: u64,
        /// One past the last byte.
        end: u64,
    },
}

impl Mm {
    /// Returns a new userfaultfd of this address space, which waits for its handshake.
    pub fn userfaultfd(&self) -> Userfault {
        Userfault(Context::new(self.as_any()))
    }
    /// Waits until no access to the page of byte `addr` waits for an answer of userfaultfd, or the
    /// address space ends; returns at once if the page is not registered. The access can be
    /// repeated then.
    ///
    /// The token proves that the caller holds no lock: an answer may take any.
    pub fn wait_for_answer(&self, cx: &mut CallCx<'_>, addr: u64) {
        let at = Vpn::containing(addr);
        let waiting = {
            let g = self.lock_shared_over(cx, None);
            let vma = g.layout.vmas.get(at);
            let waiting = vma.and_then(|vma| {
                let context = vma.userfault().cloned()?;
                Some((context, vma.huge_page_of(at)))
            });
            // Before the lock is free: an exit after this one finds it.
            self.awaited
                .lock()
                .extend(waiting.iter().map(|(context, _)| Arc::clone(context)));
            waiting
        };
        if let Some((context, page)) = waiting {
            context.wait_for_answer(page);
            let mut awaited = self.awaited.lock();
            let nth = awaited.iter().position(|c| Arc::ptr_eq(c, &context));
            awaited.swap_remove(nth.expect("this thread has put it there"));
        }
    }
    /// Wakes every thread that waits for an answer, also one whose memory was unmapped meanwhile.
    pub(super) fn wake_all_faults(&self) {
        for context in self.awaited.lock().iter() {
            context.wake(VpnRange::ALL);
        }
    }
}

impl Userfault {
    /// The version of the interface (`UFFD_API`).
    pub const VERSION: u64 = 0xaa;

    /// Ends the handshake: agrees on version and features, and returns all features that there are
    /// (`UFFDIO_API`). [`UffdFeatures::WP_ASYNC`] includes [`UffdFeatures::WP_UNPOPULATED`].
    ///
    /// # Errors
    ///
    /// [`UserfaultError::Handshake`]: another version, unknown features, or the handshake is over.
    pub fn api(
        &self,
        version: u64,
        features: UffdFeatures,
    ) -> Result<UffdFeatures, UserfaultError> {
        let mut features = features;
        if version != Self::VERSION || !UffdFeatures::all().contains(features) {
            return Err(UserfaultError::Handshake);
        }
        if features.contains(UffdFeatures::WP_ASYNC) {
            features |= UffdFeatures::WP_UNPOPULATED;
        }
        match self.0.agree(features) {
            true => Ok(UffdFeatures::all()),
            false => Err(UserfaultError::Handshake),
        }
    }
    /// Returns the oldest message that was not read, or `None`: accesses come before events. An
    /// access that was read waits until it is answered; an event needs no answer.
    pub fn read(&self) -> Option<UffdMessage> {
        Some(match self.0.read()? {
            HandlerMessage::Fault(fault) => UffdMessage::PageFault(fault),
            HandlerMessage::Event(Event::Fork(child)) => UffdMessage::Fork(Self(child)),
            HandlerMessage::Event(Event::Remap { from, to, len }) => {
                UffdMessage::Remap { from, to, len }
            }
            HandlerMessage::Event(Event::Remove { start, end }) => {
                UffdMessage::Remove { start, end }
            }
            HandlerMessage::Event(Event::Unmap { start, end }) => UffdMessage::Unmap { start, end },
        })
    }
    /// Returns true if there is a message to read (`poll`).
    pub fn has_message(&self) -> bool {
        self.0.has_message()
    }
    /// Wakes the accesses to `[addr, addr + len)`, which then try again (`UFFDIO_WAKE`).
    ///
    /// # Errors
    ///
    /// [`UserfaultError::Handshake`], [`UserfaultError::Range`].
    pub fn wake(&self, addr: u64, len: u64) -> Result<(), UserfaultError> {
        let (_, range) = self.begin(addr, len)?;
        self.0.wake(range);
        Ok(())
    }

    /// Returns the address space and the range of a call (`validate_range`).
    fn begin(&self, addr: u64, len: u64) -> Result<(Arc<Mm>, VpnRange), UserfaultError> {
        let mm = self.space()?;
        let range = check_range(&mm, addr, len)?;
        Ok((mm, range))
    }
    /// Returns the same for a call that answers: it fails while the handler has not read about a
    /// change.
    fn begin_answer(&self, addr: u64, len: u64) -> Result<(Arc<Mm>, VpnRange), UserfaultError> {
        if self.0.is_running() {
            self.check_steady()?;
        }
        self.begin(addr, len)
    }
    fn space(&self) -> Result<Arc<Mm>, UserfaultError> {
        if !self.0.is_running() {
            return Err(UserfaultError::Handshake);
        }
        let space: Option<Arc<dyn Any + Send + Sync>> = self.0.space();
        let mm = space.and_then(|space| space.downcast::<Mm>().ok());
        mm.ok_or(UserfaultError::Ended)
    }
    /// Fails while the handler has not read about a change of the address space.
    fn check_steady(&self) -> Result<(), UserfaultError> {
        match self.0.is_changing() {
            true => Err(UserfaultError::Changing),
            false => Ok(()),
        }
    }
}

fn check_range(mm: &Mm, addr: u64, len: u64) -> Result<VpnRange, UserfaultError> {
    let bad = UserfaultError::Range(ByteRange { addr, len });
    let lowest = mm.machine().config().mmap_min_addr;
    let whole = (addr | len).is_multiple_of(PAGE_SIZE);
    if !whole || addr < lowest || addr >= TASK_SIZE || len > TASK_SIZE - addr {
        return Err(bad);
    }
    VpnRange::new(Vpn::containing(addr), Vpn::containing(addr + len)).ok_or(bad)
}
