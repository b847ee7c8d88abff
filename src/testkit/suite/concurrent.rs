//! The disturbances at work: windows without need, memory pressure, and threads that use the
//! devices.

use super::{
    arena::{BASE, PAGES},
    checker::Checker,
    disturbances::User,
    pace::Pace,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    notifier::Event,
    sync::{Ordering, thread},
    testkit::{timed_thread::message, verdict::Seen},
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
            2 => VpnRange::TASK,
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
            .map(|a| Arc::clone(a.device()))
            .collect();
        let (pace, panics) = (Arc::clone(&self.pace), Arc::clone(&self.panics));
        let beat = Arc::clone(&self.beat);
        thread::spawn(move || {
            let work = AssertUnwindSafe(|| {
                let mut thread = mm.machine().enter().expect("a thread of its own");
                let mut cx = thread.cx();
                let (mut reached, mut rounds) = (0, 0);
                for n in lane.. {
                    if pace.stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let asked = pace.asked.load(Ordering::Relaxed);
                    for device in &devices {
                        let addr = BASE + (n * 13 % (2 * PAGES)) * PAGE_SIZE;
                        let _maybe = device.read(&mut cx, &mm, addr);
                        if !device.declares().reads_only {
                            let _maybe = device.write(&mut cx, &mm, addr + 8 + lane, 1);
                        }
                    }
                    if asked > reached {
                        beat.moves_on();
                        rounds += 1;
                    }
                    if rounds == Pace::ROUNDS {
                        (reached, rounds) = (asked, 0);
                        pace.reaches(lane, asked);
                    }
                    thread::yield_now();
                }
            });
            if let Err(payload) = catch_unwind(work) {
                panics.lock().push(message(&*payload));
            }
            pace.reaches(lane, u64::MAX);
        })
    }
    /// Waits until each of the threads has used each device several times.
    pub(super) fn meet(&self) {
        if !self.users.is_empty() {
            self.beat.does("the threads that use the devices");
            self.pace.wait();
            self.beat.goes_on();
        }
    }
    /// Stops and joins the threads that use the devices.
    pub(super) fn dismiss(&mut self) {
        if !self.users.is_empty() {
            self.beat.does("the threads that use the devices end");
        }
        self.pace.stop();
        for user in self.users.drain(..) {
            let _caught_inside = user.join();
        }
        self.seen
            .extend(self.panics.lock().drain(..).map(Seen::Panicked));
    }
}
