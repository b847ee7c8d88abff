//! A driver with a lock beside its gate, and windows that must not block.

use emmu::{Machine, MachineConfig, Mm, PAGE_SIZE, driver::*, mm::MmapArgs, notifier::Event};
use std::sync::{Arc, Mutex};

/// A device with a TLB under a lock of its own.
#[derive(Debug)]
struct Device {
    gate: Gate<OrderedStore<Vpn>, (), Sleepable>,
    tlb: Mutex<Vec<Cached>>,
    /// Drops entries whether the TLB can be flushed or not: the mistake.
    hasty: bool,
}

impl Device {
    fn new(hasty: bool) -> impl FnOnce(Seat) -> Arc<Self> {
        move |seat| {
            Arc::new(Self {
                gate: Gate::new(seat, OrderedStore::default(), ()),
                tlb: Mutex::default(),
                hasty,
            })
        }
    }
    /// Returns the numbers of entries in the store and in the TLB.
    fn entries(&self, cx: &mut CallCx<'_>) -> (usize, usize) {
        let mut all = 0;
        self.gate.lock(cx).store().for_each(&mut |_| all += 1);
        (all, self.tlb.lock().unwrap().len())
    }
}

impl ExternalMmu for Device {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let flush = |(): &mut (), _, _: Cx<'_, _, _>| self.tlb.lock().unwrap().clear();
        self.gate.exclude(cx, inv, flush)
    }
    fn try_invalidate_start<'i>(
        &self,
        cx: AtomicCallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        if self.hasty {
            return self.gate.try_exclude(cx, inv, |(), _| {
                if let Ok(mut tlb) = self.tlb.try_lock() {
                    tlb.clear();
                }
            });
        }
        let lock = |(): &mut (), _| self.tlb.try_lock().map_err(|_| WouldBlock);
        self.gate
            .try_exclude_with(cx, inv, lock, |(), gone, mut tlb| {
                let is_gone = |c: &Cached| gone.entries().iter().any(|e| e.range() == c.range());
                tlb.retain(|cached| !is_gone(cached));
            })
    }
}

/// Opens a window that must not block while the TLB is in use. Returns whether it opened, and the
/// entries afterwards.
fn try_under_lock(hasty: bool) -> (bool, (usize, usize)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (device, registration) = mm.register(&mut cx, Device::new(hasty));
    let at = mm
        .mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))
        .unwrap();
    let page = Vpn::containing(at);
    for page in [page, page.plus(1)] {
        let fill = |permit: Permit<'_, _, _, _>| {
            assert!(format!("{permit:?}").contains("writable: true"));
            device.tlb.lock().unwrap().push(permit.cached());
            drop(permit.establish(page));
        };
        device
            .gate
            .translate(&mut cx, &mm, page, Access::Write, fill)
            .unwrap();
    }
    let open = |cx: &mut CallCx<'_>| {
        let mut guard = mm.lock_shared(cx);
        let mut lease = guard.lease();
        let window = lease.try_window(VpnRange::single(page), Event::Clear);
        window.is_ok()
    };
    let used = device.tlb.lock().unwrap();
    let opened = open(&mut cx);
    drop(used);
    let entries = device.entries(&mut cx);
    assert!(open(&mut cx), "nothing is in its way");
    let after = device.entries(&mut cx);
    assert!(hasty || after == (1, 1), "{after:?}");
    mm.unregister(&mut cx, registration);
    (opened, entries)
}

#[test]
fn a_driver_refuses_a_window_before_any_entry_goes() {
    assert_eq!(try_under_lock(false), (false, (2, 2)));
    // The twin: the entry is gone, and the TLB has the page in an open window.
    assert_eq!(try_under_lock(true), (true, (1, 2)));
}
