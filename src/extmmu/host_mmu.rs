//! Accesses of the host's own code as an external MMU: addresses of a process's memory that are
//! good while a closure runs.

use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange, chunks},
    ctx::{AtomicCallbackCx, CallCx, CallbackCx, Context, Sleepable},
    driver::TranslateError,
    error::Errno,
    mm::Mm,
    notifier::{
        Access, Ack, ExternalMmu, Gate, GateGuard, Invalidation, OrderedStore, Seat, Translation,
        WouldBlock,
    },
};
use smallvec::SmallVec;
use std::{ptr::NonNull, sync::Arc};
use thiserror::Error;

/// A part of a process's memory in one page, by its address in the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HostSlice {
    /// The address of the first byte.
    pub address: NonNull<u8>,
    /// The number of bytes.
    pub len: usize,
}

/// Memory was not given out by addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SliceError {
    /// The range leaves the address space.
    #[error("[{addr:#x}, +{len:#x}) leaves the address space")]
    Range {
        /// The first address, in bytes.
        addr: u64,
        /// The length in bytes.
        len: usize,
    },
    /// A page could not be translated.
    #[error(transparent)]
    Translate(#[from] TranslateError),
    /// The page has no address: frames have no contents, or its bytes are lent to a partition.
    #[error("page {0:?} has no address in the host")]
    NoAddress(Vpn),
    /// Pages of the range went as fast as others came: memory is too small for all of them.
    #[error("{0} pages are never present at the same time")]
    Crowded(u64),
}

impl SliceError {
    /// Returns the errno that fits.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Range { .. } => Errno::EFAULT,
            Self::Translate(why) => why.errno(),
            Self::NoAddress(_) => Errno::EOPNOTSUPP,
            Self::Crowded(_) => Errno::EAGAIN,
        }
    }
}

type PageGate<T> = Gate<OrderedStore<Vpn>, T, Sleepable>;
type PageGuard<'g, T> = GateGuard<'g, OrderedStore<Vpn>, T, Sleepable>;
type Slices = SmallVec<[HostSlice; 8]>;
type Firsts = SmallVec<[NonNull<u8>; 8]>;
type Missing = SmallVec<[Vpn; 8]>;

/// A driver that gives out addresses of an address space's memory, each for a time.
///
/// Guarantee: while a closure of [`with_slices`](Self::with_slices) runs, its slices are the memory
/// of the process, all of them: a window over any of their pages waits until the closure has
/// returned. How: the closure runs with the gate of this driver held, under which every translation
/// was looked up. A page that is only read and was never written takes no frame.
///
/// Accesses that hit take one lock. Many threads that access the memory at the same time have one
/// of these drivers each.
///
/// # Examples
///
/// ```
/// use emmu::{PAGE_SIZE, extmmu::HostMmu, mm::MmapArgs, notifier::Access};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let (host, _registration) = mm.register(&mut cx, HostMmu::new);
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
/// let across = (at + PAGE_SIZE - 1, 2);
/// host.with_slices(&mut cx, &mm, across, Access::Write, |slices| {
///     for slice in slices {
///         // SAFETY: it is good in this closure, and nobody has references to its bytes.
///         unsafe { slice.address.write_volatile(7) };
///     }
/// })?;
/// assert_eq!(mm.load(&mut cx, at + PAGE_SIZE)?, 7);
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct HostMmu {
    gate: PageGate<()>,
}

impl HostMmu {
    /// Builds the driver on its seat.
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
        })
    }
    /// Runs `f` on the `len` bytes from byte `addr` on: a slice for the part in each page, in
    /// order.
    ///
    /// The slices are good until `f` returns. Their bytes change at any time: they are to be
    /// accessed by volatile or atomic loads, and stores if `access` is for writing, which makes the
    /// pages dirty. `f` must not wait for a thread that changes the address space.
    ///
    /// # Errors
    ///
    /// [`SliceError`]; `f` did not run.
    pub fn with_slices<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        (addr, len): (u64, usize),
        access: Access,
        f: impl FnOnce(&[HostSlice]) -> V,
    ) -> Result<V, SliceError> {
        let end = addr.checked_add(len as u64);
        if end.is_none_or(|end| end > TASK_SIZE) {
            return Err(SliceError::Range { addr, len });
        }
        let parts = chunks(addr, len);
        let pages = parts.clone().map(|(page, ..)| page);
        let count = (len as u64).div_ceil(PAGE_SIZE) + 1;
        with_pages(&self.gate, cx, mm, (pages, count, access), |_, firsts| {
            let slices = parts.zip(firsts).map(|((_, offset, len), first)| {
                let address = NonNull::new(first.as_ptr().wrapping_add(offset));
                let address = address.expect("a page ends below the end of memory");
                HostSlice { address, len }
            });
            f(&slices.collect::<Slices>())
        })
    }
}

/// Runs `f` with the gate locked and the addresses of the first bytes of the pages, at most
/// `count`, in order, each translated for the access. Pages for writing become dirty.
///
/// # Errors
///
/// [`SliceError`]; `f` did not run.
pub(super) fn with_pages<T, V>(
    gate: &PageGate<T>,
    cx: &mut CallCx<'_>,
    mm: &Mm,
    (pages, count, access): (impl Iterator<Item = Vpn> + Clone, u64, Access),
    f: impl FnOnce(&mut PageGuard<'_, T>, &[NonNull<u8>]) -> V,
) -> Result<V, SliceError> {
    // As often as each page is missed once, and goes again a few times.
    let mut left = 4 * count + 64;
    // A page that cannot be had ends the search before all others are looked at.
    let mut most = 64;
    loop {
        let mut guard = gate.lock(cx);
        let missing = match first_bytes(&mut guard, pages.clone(), access, most)? {
            Ok(firsts) => return Ok(f(&mut guard, &firsts)),
            Err(missing) => missing,
        };
        drop(guard);
        most = most.saturating_mul(2);
        for page in missing {
            left = left.checked_sub(1).ok_or(SliceError::Crowded(count))?;
            gate.translate(cx, mm, page, access, |permit| {
                drop(permit.establish(page));
            })?;
        }
    }
}

/// Returns the address of the first byte of a page, which is the page's as long as the gate is
/// locked; `None` if the page is not translated for the access. A page for writing becomes dirty.
///
/// # Errors
///
/// [`SliceError::NoAddress`].
pub(super) fn first_byte<T, C: Context>(
    gate: &mut GateGuard<'_, OrderedStore<Vpn>, T, C>,
    page: Vpn,
    access: Access,
) -> Result<Option<NonNull<u8>>, SliceError> {
    let first = match access {
        Access::Read => gate.lookup(&page).map(|frame| frame.as_ptr()),
        Access::Write => gate.lookup_mut(&page).map(|mut frame| frame.as_mut_ptr()),
    };
    first
        .map(|address| address.ok_or(SliceError::NoAddress(page)))
        .transpose()
}

/// Returns the addresses of the first bytes of the pages, or the first pages, `most` of them, that
/// are not translated for the access.
fn first_bytes<T>(
    guard: &mut PageGuard<'_, T>,
    pages: impl Iterator<Item = Vpn>,
    access: Access,
    most: usize,
) -> Result<Result<Firsts, Missing>, SliceError> {
    let (mut firsts, mut missing) = (Firsts::new(), Missing::new());
    for page in pages {
        match first_byte(guard, page, access)? {
            Some(first) => firsts.push(first),
            None => missing.push(page),
        }
        if missing.len() == most {
            break;
        }
    }
    Ok(match missing.is_empty() {
        true => Ok(firsts),
        false => Err(missing),
    })
}

impl ExternalMmu for HostMmu {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        self.gate.try_exclude(cx, inv, |(), _| ())
    }
    fn name(&self) -> &'static str {
        "host"
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
    fn translations_in(&self, range: VpnRange, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit_in(range, visit)
    }
}

impl std::fmt::Debug for HostMmu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostMmu").finish_non_exhaustive()
    }
}
