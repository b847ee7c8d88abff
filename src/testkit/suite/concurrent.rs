//! The disturbances at work: windows without need, memory pressure, and threads that use the
//! devices.

use super::{
    arena::{BASE, PAGES},
    checker::Checker,
    disturbances::User,
};
use crate::ctx::CallCx;

use crate::{
    addr::{PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    notifier::Event,
    sync::{Ordering, thread},
    testkit::timed_thread::message,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

impl Checker<'_> {
    /// Opens the windows of `mark`, or reclaims all memory; the outcome of the step must not
    /// change.
    pub(super) fn make_noise(&self, cx: &mut CallCx<'_>, mark: u64) {
        let mm = self.mm();
        let page = Vpn::containing(BASE).plus((mark >> 8) % PAGES);
        let range = match mark % 6 {
            0 => VpnRange::single(page),
            1 => VpnRange::new(page, page.plus(40)).expect("not empty"),
            2 => VpnRange::new(Vpn(0), Vpn(TASK_PAGES)).expect("not empty"),
            3 => VpnRange::single(Vpn(5)),
            4 => {
                mm.machine().reclaim_all(cx);
                return;
            }
            _ => {
                let mut g = mm.lock_shared(cx);
                let mut lease = g.lease();
                let _refused = lease.try_window(VpnRange::single(page), Event::Clear);
                return;
            }
        };
        let mut g = mm.lock_shared(cx);
        let mut lease = g.lease();
        lease.with_window(range, Event::ProtectionPage, |_| ());
        lease.with_window(range, Event::Unmap, |_| ());
    }
    /// Starts a thread that uses the devices until the end of the script.
    pub(super) fn user(&self, lane: u64) -> User {
        let mm = self.mm();
        let devices: Vec<_> = self
            .attached
            .iter()
            .map(|a| Arc::clone(&a.device))
            .collect();
        let (stop, panics) = (Arc::clone(&self.stop), Arc::clone(&self.panics));
        thread::spawn(move || {
            let work = AssertUnwindSafe(|| {
                let mut thread = mm.machine().enter().expect("a thread of its own");
                let mut cx = thread.cx();
                for n in lane.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    for device in &devices {
                        let addr = BASE + (n * 13 % (2 * PAGES)) * PAGE_SIZE;
                        let _maybe = device.read(&mut cx, &mm, addr);
                        let _maybe = device.write(&mut cx, &mm, addr + 8 + lane, 1);
                    }
                    thread::yield_now();
                }
            });
            if let Err(payload) = catch_unwind(work) {
                panics.lock().push(message(&*payload));
            }
        })
    }
}
