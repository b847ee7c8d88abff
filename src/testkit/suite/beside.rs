//! What happens beside the operations of a random script: windows that nobody needs, and threads that use the devices.

use super::{draw::BASE, jury::Jury, profile::PAGES};
use crate::ctx::CallCx;

use crate::{
    addr::{PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    notifier::Event,
    replay::Op,
    sync::{Ordering, thread},
    testkit::aside::message,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

#[cfg(not(any(loom, shuttle)))]
pub(super) type User = std::thread::JoinHandle<()>;
#[cfg(loom)]
pub(super) type User = loom::thread::JoinHandle<()>;
#[cfg(shuttle)]
pub(super) type User = shuttle::thread::JoinHandle<()>;

/// A number that a step has by itself, in a script of that salt. What happens beside the step is drawn from it, and so stays
/// with the step when others are left out, and when the script is run again from a file.
pub(super) fn mark(salt: u64, actor: u32, op: &Op) -> u64 {
    let text = format!("{actor} {op:?}");
    let sum = text.bytes().fold(salt ^ 0xcbf2_9ce4_8422_2325, |sum, b| {
        (sum ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    });
    // The low bits of such sums are those of the last bytes.
    sum ^ (sum >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Jury<'_> {
    /// What must not matter.
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
    /// A thread that uses the devices until the end.
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
