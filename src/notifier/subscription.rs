//! The sequence of one subscribed range: the windows over it that are open, and the number that has
//! ended.
//!
//! Guarantee: a ticket of the range is good only if no window over the range is open and none has
//! ended since the ticket was drawn. Windows elsewhere do not change the sequence
//! (`mmu_interval_read_begin`, `mmu_interval_read_retry`).
//!
//! How: a window counts itself in *before* it calls the driver. A fault checks the sequence under a
//! lock that the driver's callback takes. If it still finds the old sequence, it has left that lock
//! before the callback gets it, and the callback drops the entry that the fault made.

use super::outcome::{Retry, TicketVerdict};
use crate::{
    addr::VpnRange,
    sync::{Condvar, Mutex},
};

#[derive(Debug, Default)]
struct Windows {
    open: usize,
    ended: u64,
}

/// A range of an address space that a driver is registered on.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) range: VpnRange,
    windows: Mutex<Windows>,
    idle: Condvar,
}

impl Subscription {
    pub(super) fn new(range: VpnRange) -> Self {
        Self {
            range,
            windows: Mutex::default(),
            idle: Condvar::new(),
        }
    }
    /// Notes that a window over the range begins.
    pub(super) fn enter(&self) {
        self.windows.lock().open += 1;
    }
    /// Notes that a window over the range has ended, or was refused. Both numbers change in one
    /// step: a ticket that no longer finds the window open finds it ended.
    pub(super) fn leave(&self) {
        let mut w = self.windows.lock();
        w.open -= 1;
        w.ended += 1;
        if w.open == 0 {
            drop(w);
            self.idle.notify_all();
        }
    }
    /// Returns the sequence, for a ticket, before the page is looked up.
    pub(super) fn snapshot(&self) -> u64 {
        self.windows.lock().ended
    }
    /// Returns the verdict on a ticket with sequence `since`. The caller holds the driver's lock.
    pub(super) fn validate(&self, since: u64) -> TicketVerdict {
        let w = self.windows.lock();
        if w.open > 0 {
            TicketVerdict::Busy
        } else if w.ended != since {
            TicketVerdict::Stale
        } else {
            TicketVerdict::Current
        }
    }
    /// Checks a ticket as [`validate`](Self::validate) does; an early one meets a window that did
    /// not call the driver.
    pub(super) fn check(&self, since: u64, early: bool) -> Result<(), Retry> {
        if early {
            return Err(Retry::Busy);
        }
        self.validate(since).check()
    }
    /// Sleeps until no window over the range is open.
    pub(super) fn wait_idle(&self) {
        let mut w = self.windows.lock();
        while w.open > 0 {
            self.idle.wait(&mut w);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Subscription, TicketVerdict};
    use crate::addr::{Vpn, VpnRange};

    #[test]
    fn open_is_busy_and_ended_is_stale_whatever_their_order() {
        let sub = Subscription::new(VpnRange::single(Vpn(1)));
        let since = sub.snapshot();
        assert_eq!(sub.validate(since), TicketVerdict::Current);
        sub.enter();
        sub.enter();
        assert_eq!(sub.validate(since), TicketVerdict::Busy);
        sub.leave();
        assert_eq!(sub.validate(sub.snapshot()), TicketVerdict::Busy);
        sub.leave();
        assert_eq!(sub.validate(since), TicketVerdict::Stale);
        assert_eq!(sub.validate(sub.snapshot()), TicketVerdict::Current);
        sub.wait_idle();
    }

    #[test]
    fn a_waiter_sleeps_until_the_last_window_has_ended() {
        let sub = Subscription::new(VpnRange::single(Vpn(1)));
        sub.enter();
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                sub.wait_idle();
                sub.validate(1)
            });
            sub.leave();
            assert_eq!(waiter.join().unwrap(), TicketVerdict::Current);
        });
    }
}
