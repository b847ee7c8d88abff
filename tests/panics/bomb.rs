//! A driver that panics when it is told to, in any of its callbacks.

use emmu::{
    Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, AtomicCallbackCx, CallCx, CallbackCx},
    notifier::{
        Access, Ack, AgeKind, ExternalMmu, FirstPass, Gate, Invalidation, OrderedStore, Seat,
        SecondPass, Translation, WouldBlock,
    },
};
use std::sync::{Arc, Mutex};

/// A callback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The first pass of a window.
    Begin,
    /// The second.
    SecondPass,
    /// A window that must not block.
    Try,
    End,
    Age,
    /// Asked for everything, as it leaves.
    Leave,
    Release,
}

impl Call {
    pub const ALL: [Self; 7] = [
        Self::Begin,
        Self::SecondPass,
        Self::Try,
        Self::End,
        Self::Age,
        Self::Leave,
        Self::Release,
    ];
}

pub struct Bomb {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    /// The callback that panics, and the how manieth of them.
    fuse: Mutex<Option<(Call, u64)>>,
}

impl Bomb {
    pub fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            fuse: Mutex::default(),
        })
    }
    pub fn arm(&self, call: Call, nth: u64) {
        *self.fuse.lock().unwrap() = Some((call, nth));
    }
    /// Whether it would still have gone off.
    pub fn disarm(&self) -> bool {
        self.fuse.lock().unwrap().take().is_some()
    }
    fn burn(&self, call: Call) {
        let mut fuse = self.fuse.lock().unwrap();
        if let Some((armed, left)) = &mut *fuse
            && *armed == call
        {
            *left -= 1;
            if *left == 0 {
                *fuse = None;
                drop(fuse);
                panic!("a bomb in {call:?}");
            }
        }
    }
    /// Takes the page of `addr` for the access; not if that is refused.
    pub fn take(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, access: Access) {
        // Its own fault may have opened a window.
        loop {
            let ticket = self.gate.ticket(Vpn::containing(addr), access);
            let Ok(pending) = mm.resolve(cx, ticket) else {
                return;
            };
            if let Ok(permit) = pending.admit(cx) {
                return drop(permit.establish(addr));
            }
        }
    }
}

impl ExternalMmu for Bomb {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.burn(Call::Leave);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_begin<'s, 'i>(
        &'s self,
        _: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        self.burn(Call::Begin);
        inv.defer(|cx, inv| {
            self.burn(Call::SecondPass);
            self.gate.exclude(cx, inv, |(), _, _| ())
        })
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        self.burn(Call::Try);
        self.gate.try_exclude(cx, inv, |(), _| ())
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, _: VpnRange) {
        self.burn(Call::End);
    }
    fn age(&self, _: AtomicCallbackCx<'_>, _: VpnRange, _: AgeKind) -> bool {
        self.burn(Call::Age);
        false
    }
    fn release(&self, _: CallbackCx<'_>) {
        self.burn(Call::Release);
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
}
