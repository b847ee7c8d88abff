//! `make_device_exclusive`: a device gets a page of memory alone.

use crate::mm::{
    external::resolve::Found,
    fault::{Patience, device::exclusive::Grant},
    space::Mm,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::{CallCx, Context, Cx, FolioCx, Rank},
    error::{ExclusiveError, FaultError},
    frame::{DeviceMemory, FrameLock},
    notifier::{Access, Pending, Seated, Ticket},
    sync::thread,
};

/// A page that a device has alone: no processor can access it before it takes the page back, and
/// none can do that while this lives, since the frame is locked.
#[derive(Debug)]
pub struct ExclusivePage<'m> {
    mm: &'m Mm,
    at: Vpn,
    locked: FrameLock<'m>,
}

impl Mm {
    /// Makes the page at byte `addr` present for writing, as a write of the driver would, takes it
    /// from the processors, and runs `f` with it: for atomic operations of a device on memory. The
    /// window has the event `Exclusive`, and `owner` as its owner.
    ///
    /// In `f` the driver maps the page ([`ExclusivePage::resolve`]), while accesses of processors
    /// wait. The next access after that takes the page back, in a window without an owner. So do
    /// `fork` and a pin; reclaim and migration treat the page as any other.
    ///
    /// # Errors
    ///
    /// [`ExclusiveError`]; `f` has not run.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{driver::*, mm::MmapArgs};
    /// use std::sync::Arc;
    /// # struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);
    /// # impl SpinningMmu for Device {
    /// #     fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
    /// #         self.0.exclude(cx, inv, |(), _, _| ())
    /// #     }
    /// # }
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    /// # let new = |seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())));
    /// # let (device, _registration) = mm.register(&mut cx, new);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = Vpn::containing(at);
    /// let mapped = mm.make_device_exclusive(&mut cx, at, None, |exclusive, mut cx| {
    ///     let ticket = device.0.ticket(page, Access::Write); // drawn after the window
    ///     let pending = exclusive.resolve(&mut cx, ticket).ok().flatten();
    ///     let permit = pending.and_then(|pending| pending.admit(&mut cx).ok());
    ///     permit.map(|permit| drop(permit.establish(page))).is_some()
    /// })?;
    /// assert!(mapped, "else the page was taken back at once: try again");
    /// device.0.lock(&mut cx).lookup_mut(&page).expect("writable").write(0, b"!");
    ///
    /// assert_eq!(mm.load(&mut cx, at)?, b'!'); // takes the page back
    /// assert!(device.0.lock(&mut cx).lookup(&page).is_none());
    /// # mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn make_device_exclusive<T>(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        owner: Option<&DeviceMemory>,
        f: impl FnOnce(&ExclusivePage<'_>, FolioCx<'_>) -> T,
    ) -> Result<T, ExclusiveError> {
        let at = Vpn::containing(addr);
        let owner = owner.map(DeviceMemory::id);
        let mut patience = Patience::default();
        loop {
            let step = self.fault_in_for_driver(cx, at, addr, Access::Write);
            patience.allow_retry(step)?;
            let block = VpnRange::block_of(at);
            let (grant, _) = self.with_fault_scope(cx, block, |scope| {
                scope.give_alone(self.machine().mem(), at, owner)
            });
            match grant {
                Grant::Given(locked) => {
                    let page = ExclusivePage {
                        mm: self,
                        at,
                        locked,
                    };
                    return Ok(f(&page, cx.descend()));
                }
                Grant::NotPrivate => return Err(ExclusiveError::NotPrivate(addr)),
                Grant::Again => thread::yield_now(),
            }
        }
    }
}

impl ExclusivePage<'_> {
    /// Looks the page up for a driver, with the ticket of this page, which allows writing. `None`
    /// if the page is not exclusive any more, since it was unmapped or a fork took it back; or if
    /// it must not be written any more, since its mapping or userfaultfd forbids that by now.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: the ticket is of another page or address space, or of a driver that did not
    /// subscribe to the page.
    pub fn resolve<'g, G: Seated, R: Rank, C: Context>(
        &self,
        cx: &mut Cx<'_, R, C>,
        ticket: Ticket<'g, G>,
    ) -> Result<Option<Pending<'g, G>>, FaultError> {
        if ticket.vpn() != self.at {
            return Err(FaultError::NotMapped(ticket.vpn().addr()));
        }
        let pfn = self.locked.pfn();
        self.mm.resolve_as(cx, ticket, |pte| {
            let is_here = pte.device_exclusive() == Some(pfn);
            (is_here && pte.on_device() == Some((pfn, true))).then_some(Found {
                range: self.at.into(),
                pfn,
                may_write: true,
            })
        })
    }
    /// Returns the page.
    pub fn page(&self) -> Vpn {
        self.at
    }
}
