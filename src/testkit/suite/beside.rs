//! What happens beside the operations of a random script: windows that nobody needs, and threads that use the devices.

use super::{draw::BASE, jury::Jury, profile::PAGES};
use crate::ctx::CallCx;

use crate::{
    addr::{PAGE_SIZE, TASK_PAGES, Vpn, VpnRange},
    notifier::Event,
    replay::Op,
    sync::{AtomicBool, AtomicU64, Condvar, Mutex, Ordering, thread},
    testkit::{aside::message, verdict::Seen},
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

/// How far the threads are that use the devices. Nobody says when they get processor time, so the script waits for them now
/// and then: what they find is found in every run.
#[derive(Debug)]
pub(super) struct Pace {
    /// They end.
    stop: AtomicBool,
    /// How often they were waited for so far.
    asked: AtomicU64,
    /// Which time each has come to.
    reached: Mutex<Vec<u64>>,
    changed: Condvar,
}

impl Pace {
    /// Rounds that each makes while it is waited for: every device is read and written in each.
    const ROUNDS: u64 = 4;

    pub(super) fn new(threads: u32) -> Self {
        Self {
            stop: AtomicBool::new(false),
            asked: AtomicU64::new(0),
            reached: Mutex::new(vec![0; threads as usize]),
            changed: Condvar::new(),
        }
    }
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }
    /// Waits until each thread has made its rounds from now on, or has ended.
    pub(super) fn wait(&self) {
        let asked = self.asked.fetch_add(1, Ordering::Relaxed) + 1;
        let mut reached = self.reached.lock();
        while reached.iter().any(|at| *at < asked) {
            self.changed.wait(&mut reached);
        }
    }
    fn reaches(&self, lane: u64, asked: u64) {
        self.reached.lock()[lane as usize] = asked;
        self.changed.notify_all();
    }
}

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
                        let _maybe = device.write(&mut cx, &mm, addr + 8 + lane, 1);
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
    /// Waits until each of its threads has used each device several times.
    pub(super) fn meet(&self) {
        if !self.users.is_empty() {
            self.beat.does("the threads that use the devices");
            self.pace.wait();
            self.beat.goes_on();
        }
    }
    /// Lets its threads go.
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
