//! A driver with a table that counts what it is told, for one range or for all of an address space.

use emmu::{
    Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
    notifier::{
        Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Retry, Seat, ShadowStore,
        WouldBlock,
    },
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

pub struct Driver {
    pub gate: Gate<OrderedStore<u64>, (), Atomic>,
    pub starts: AtomicUsize,
    pub ends: AtomicUsize,
    pub releases: AtomicUsize,
    /// Called after its release.
    pub late: AtomicBool,
}

impl Driver {
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            starts: AtomicUsize::new(0),
            ends: AtomicUsize::new(0),
            releases: AtomicUsize::new(0),
            late: AtomicBool::new(false),
        })
    }
    /// Windows that it was told of, and their ends.
    pub fn told(&self) -> (usize, usize) {
        (self.starts.load(SeqCst), self.ends.load(SeqCst))
    }
    fn called(&self) {
        let late = self.releases.load(SeqCst) > 0;
        self.late.fetch_or(late, SeqCst);
    }
    /// One attempt to translate the page of `addr`.
    pub fn try_read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Retry> {
        let ticket = self.gate.ticket(Vpn::containing(addr), Access::Read);
        let pending = mm.resolve(cx, ticket).expect("mapped and covered");
        let permit = pending.admit(cx)?;
        let byte = permit.frame().read_u8(0);
        drop(permit.establish(addr));
        Ok(byte)
    }
    /// Through the table, or by a new entry; again until admitted.
    pub fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Retry> {
        loop {
            if let Some(view) = self.gate.lock(cx).lookup(&addr) {
                return Ok(view.read_u8(0));
            }
            match self.try_read(cx, mm, addr) {
                Err(Retry::Busy | Retry::Stale) => std::thread::yield_now(),
                other => return other,
            }
        }
    }
    pub fn entries(&self, cx: &mut CallCx<'_>) -> usize {
        let mut n = 0;
        self.gate.lock(cx).store().for_each(&mut |_| n += 1);
        n
    }
}

impl ExternalMmu for Driver {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.called();
        // Leaving the chain is no window.
        let window = usize::from(inv.range() != VpnRange::ALL);
        self.starts.fetch_add(window, SeqCst);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        self.called();
        let ack = self.gate.try_exclude(cx, inv, |(), _| ())?;
        self.starts.fetch_add(1, SeqCst);
        Ok(ack)
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, range: VpnRange) {
        self.called();
        let window = usize::from(range != VpnRange::ALL);
        self.ends.fetch_add(window, SeqCst);
    }
    fn release(&self, _: CallbackCx<'_>) {
        self.releases.fetch_add(1, SeqCst);
    }
}

/// A driver that cannot be asked without sleeping.
pub struct Refuser(Gate<OrderedStore<u64>, (), Sleepable>);

impl Refuser {
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
}

impl ExternalMmu for Refuser {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}
