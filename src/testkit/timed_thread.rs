//! Other threads of a trial, each with a time limit, and actions between a look-up of the device
//! and the use of its result.

use super::{
    asleep::ObservedThread,
    patience,
    place::place,
    trial::{Abort, Run, Trial},
    verdict::{Seen, Side},
};

pub(super) use crate::oracle::message;
use crate::{
    addr::Vpn,
    ctx::CallCx,
    notifier::{
        Access,
        test_hook::{self, Moment},
    },
    sync::{AtomicU64, Mutex, Ordering},
};
use std::{
    ops::RangeInclusive,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    },
    time::Duration,
};

/// The time for an operation beside an access to end or to fall asleep: by the clock, and as much
/// work ([`patience`]). An operation that does neither spins, on a lock that the access holds.
const SPINS: Duration = Duration::from_millis(20);

impl Trial {
    /// Runs `f` on a thread of its own.
    pub(super) fn timed_thread<T: Send + 'static>(
        self: &Arc<Self>,
        what: impl Into<String>,
        f: impl FnOnce(&Arc<Self>, &mut CallCx<'_>) -> T + Send + 'static,
    ) -> TimedThread<T> {
        self.spawn(what.into(), Arc::default(), f)
    }
    /// Runs `f` with numbers from 0 to `count`, until it returns false, on a thread of its own. The
    /// deadline is that of each call, not of all of them.
    pub(super) fn timed_calls(
        self: &Arc<Self>,
        what: impl Into<String>,
        count: u64,
        f: impl Fn(&Arc<Self>, &mut CallCx<'_>, u64) -> bool + Send + 'static,
    ) -> TimedThread<()> {
        let done: Arc<AtomicU64> = Arc::default();
        let counted = Arc::clone(&done);
        self.spawn(what.into(), done, move |t, cx| {
            for n in 0..count {
                if !f(t, cx, n) {
                    break;
                }
                counted.fetch_add(1, Ordering::Relaxed);
                // A log that grows is no hang.
                t.log.step(Side::Device, format!("has made access {n}"));
            }
        })
    }
    fn spawn<T: Send + 'static>(
        self: &Arc<Self>,
        what: String,
        done: Arc<AtomicU64>,
        f: impl FnOnce(&Arc<Self>, &mut CallCx<'_>) -> T + Send + 'static,
    ) -> TimedThread<T> {
        let (tell, told) = channel();
        let trial = Arc::clone(self);
        self.log.joins();
        let _detached = std::thread::spawn(move || {
            test_hook::stand_by();
            let run = AssertUnwindSafe(|| {
                let mut thread = trial.machine.enter().expect("a thread of its own");
                f(&trial, &mut thread.cx())
            });
            // Report the panic at once, before its echoes on other threads.
            let came = catch_unwind(run).map_err(|payload| {
                trial.see(Seen::Panicked(message(&*payload)));
                Abort
            });
            trial.log.leaves();
            let _receiver_gone = tell.send(came);
        });
        TimedThread {
            what,
            done,
            told,
            trial: Arc::clone(self),
        }
    }
    /// Runs `f` on another thread and waits for it.
    pub(super) fn elsewhere<T: Send + 'static>(
        self: &Arc<Self>,
        what: &str,
        f: impl FnOnce(&Arc<Self>, &mut CallCx<'_>) -> T + Send + 'static,
    ) -> Result<T, Abort> {
        self.timed_thread(what, f).join()
    }
    /// Runs `access` on this thread, and `meanwhile` on another thread between each of these
    /// look-ups (from 1) of the access and the use of its result. Returns true if there was such a
    /// look-up.
    pub(super) fn between<T>(
        self: &Arc<Self>,
        look_ups: RangeInclusive<u32>,
        meanwhile: impl Fn(&Arc<Self>, &mut CallCx<'_>) + Send + Sync + 'static,
        access: impl FnOnce() -> T,
    ) -> Result<(T, bool), Abort> {
        let state = Arc::new(Mutex::new(Overtaken::default()));
        let (trial, shared) = (Arc::clone(self), Arc::clone(&state));
        let meanwhile = Arc::new(meanwhile);
        let look_up = move |moment| {
            let Moment::LookedUp(vpn, _) = moment else {
                return;
            };
            {
                let mut state = shared.lock();
                state.count += 1;
                // A thread of the device may look up another page meanwhile.
                if !look_ups.contains(&state.count) || std::mem::replace(&mut state.busy, true) {
                    return;
                }
            }
            let found = format!("has looked up {}", place(vpn.addr()));
            trial.log.step(Side::Device, found);
            let act = Arc::clone(&meanwhile);
            let what = "a window while the device looks up a page";
            let done = trial.elsewhere(what, move |t, cx| act(t, cx));
            let mut state = shared.lock();
            state.busy = false;
            if state.done.as_ref().is_none_or(Run::is_ok) {
                state.done = Some(done);
            }
        };
        let hooked = test_hook::hook(self.mm.hooked_space(), Arc::new(look_up));
        let out = access();
        drop(hooked);
        let done = state.lock().done.take();
        match done {
            None => Ok((out, false)),
            Some(done) => done.map(|()| (out, true)),
        }
    }
    /// Runs `access` on this thread. At the `nth` (from 1) of these moments of the access, on
    /// whichever thread of the device, `meanwhile` begins on another thread. The access goes on
    /// when `meanwhile` has ended, or sleeps: then it waits for a lock that the access holds.
    /// Returns true if there was such a moment.
    pub(super) fn beside<T>(
        self: &Arc<Self>,
        moments: Moments,
        nth: u32,
        meanwhile: impl Fn(&Arc<Self>, &mut CallCx<'_>) + Send + Sync + Copy + 'static,
        access: impl FnOnce() -> T,
    ) -> Result<(T, bool), Abort> {
        let begun: Arc<Mutex<(u32, Option<TimedThread<()>>)>> = Arc::default();
        let (trial, shared) = (Arc::clone(self), Arc::clone(&begun));
        let pass = move |moment| {
            let Some(text) = moments(moment) else {
                return;
            };
            let count = {
                let mut begun = shared.lock();
                begun.0 += 1;
                begun.0
            };
            if count == nth {
                trial.log.step(Side::Device, text);
                let thread = trial.let_pass(meanwhile);
                shared.lock().1 = Some(thread);
            }
        };
        let hooked = test_hook::hook(self.mm.hooked_space(), Arc::new(pass));
        let out = access();
        drop(hooked);
        let begun = begun.lock().1.take();
        match begun {
            None => Ok((out, false)),
            Some(thread) => thread.join().map(|()| (out, true)),
        }
    }
    /// Begins `act` on another thread, and returns when it has ended or sleeps.
    pub(super) fn let_pass(
        self: &Arc<Self>,
        act: impl Fn(&Arc<Self>, &mut CallCx<'_>) + Send + 'static,
    ) -> TimedThread<()> {
        let (tell, told) = channel();
        let thread = self.timed_thread("a window while the device uses a page", move |t, cx| {
            // The channel closes when the thread is done.
            let _receiver_waits = tell.send(ObservedThread::current());
            act(t, cx);
        });
        let mut asleep = told.recv().ok().flatten();
        let ended = || matches!(told.try_recv(), Err(TryRecvError::Disconnected));
        let mut stops = || ended() || asleep.as_mut().is_none_or(ObservedThread::stays_asleep);
        let _spins_otherwise = patience::until(SPINS, &mut stops);
        thread
    }
}

/// The moments of an access at which another thread acts, each with its step in the log.
pub(super) type Moments = fn(Moment) -> Option<String>;

/// The device has a copy of a translation at hand, and is about to use it.
pub(super) fn before_uses(moment: Moment) -> Option<String> {
    match moment {
        Moment::Locking => Some("is about to lock its gate".to_owned()),
        Moment::Following(at, Access::Read) => Some(format!("is about to read {}", page(at))),
        Moment::Following(at, Access::Write) => Some(format!("is about to write {}", page(at))),
        _ => None,
    }
}

/// The device has got a translation, and may still have to enter it where a window finds it.
pub(super) fn after_look_ups(moment: Moment) -> Option<String> {
    match moment {
        Moment::Unlocked => Some("has unlocked its gate".to_owned()),
        Moment::Validated(at) => Some(format!("has validated a translation of {}", page(at))),
        _ => None,
    }
}

fn page(at: Vpn) -> String {
    place(at.addr())
}

/// The look-ups of an access, and the outcome of what overtook them.
#[derive(Default)]
struct Overtaken {
    count: u32,
    busy: bool,
    done: Option<Run>,
}

/// A thread with a time limit.
pub(super) struct TimedThread<T> {
    what: String,
    /// The calls of the thread that have come to an end.
    done: Arc<AtomicU64>,
    told: Receiver<Result<T, Abort>>,
    trial: Arc<Trial>,
}

impl<T> TimedThread<T> {
    /// Waits for the thread, up to the deadline.
    pub(super) fn join(self) -> Result<T, Abort> {
        let mut done = 0;
        let came = loop {
            match patience::receive(&self.told, self.trial.deadline) {
                Err(RecvTimeoutError::Timeout) if self.done.load(Ordering::Relaxed) > done => {
                    done = self.done.load(Ordering::Relaxed);
                }
                came => break came,
            }
        };
        match came {
            Ok(came) => came,
            Err(RecvTimeoutError::Timeout) => {
                self.trial.see(Seen::Stuck {
                    what: self.what,
                    after: self.trial.deadline,
                });
                Err(Abort)
            }
            Err(RecvTimeoutError::Disconnected) => Err(Abort),
        }
    }
    /// Returns the result if the thread ends within `time`.
    pub(super) fn within(&self, time: Duration) -> Result<Option<T>, Abort> {
        match patience::receive(&self.told, time) {
            Ok(came) => came.map(Some),
            Err(_) => Ok(None),
        }
    }
}
