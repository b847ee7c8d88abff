//! Which windows of an address space are open, and which have closed lately.
//!
//! Guarantee: [`Board::validate`] says `Current` only if no window over the page is open and none has closed since the
//! snapshot. A window elsewhere makes nobody try again, unless more than [`RECENT`] have closed meanwhile.

use super::watch::WindowWatch;
use crate::{
    addr::VpnRange,
    sync::{AtomicU64, Condvar, Mutex, OnceLock, Ordering},
};
use smallvec::SmallVec;
use std::sync::Arc;

/// Closed windows that are remembered.
pub(super) const RECENT: usize = 64;

/// Identity of a window while it is on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WindowId(pub(super) u64);

/// Outcome of validating a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing happened to the page.
    Current,
    /// A window over it is open.
    Busy,
    /// One has closed since.
    Stale,
}

#[derive(Debug, Default)]
struct State {
    open: SmallVec<[(WindowId, VpnRange); 4]>,
    opened: u64,
    /// Window number `n` of those closed is at `n % RECENT`.
    recent: SmallVec<[VpnRange; 4]>,
}

/// The board of one address space.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    /// Windows closed. Advanced under the lock, read without.
    closed: AtomicU64,
    changed: Condvar,
    pub(super) watch: OnceLock<Arc<dyn WindowWatch>>,
}

impl Board {
    pub(super) fn begin(&self, range: VpnRange) -> WindowId {
        let mut s = self.state.lock();
        let id = WindowId(s.opened);
        s.opened += 1;
        s.open.push((id, range));
        id
    }
    pub(super) fn end(&self, id: WindowId) {
        let mut s = self.state.lock();
        let at = s.open.iter().position(|(open, _)| *open == id);
        let (_, range) = s.open.swap_remove(at.expect("a window ends once"));
        // One step: whoever no longer finds the window open finds it closed.
        let n = self.closed.fetch_add(1, Ordering::Release);
        let slot = usize::try_from(n % RECENT as u64).expect("small");
        if slot < s.recent.len() {
            s.recent[slot] = range;
        } else {
            s.recent.push(range);
        }
        drop(s);
        self.changed.notify_all();
    }
    /// To be taken before the page is looked up.
    pub(super) fn snapshot(&self) -> u64 {
        self.closed.load(Ordering::Acquire)
    }
    /// To be asked under the driver's lock.
    pub(super) fn validate(&self, at: VpnRange, since: u64) -> Verdict {
        let s = self.state.lock();
        if s.open.iter().any(|(_, range)| range.overlaps(at)) {
            return Verdict::Busy;
        }
        let closed = self.closed.load(Ordering::Relaxed);
        if closed - since > RECENT as u64 {
            return Verdict::Stale;
        }
        let hit = (since..closed).any(|n| {
            let slot = usize::try_from(n % RECENT as u64).expect("small");
            s.recent[slot].overlaps(at)
        });
        if hit {
            Verdict::Stale
        } else {
            Verdict::Current
        }
    }
    /// Sleeps until no window overlaps `range`.
    pub(super) fn wait_idle(&self, range: VpnRange) {
        let mut s = self.state.lock();
        while s.open.iter().any(|(_, open)| open.overlaps(range)) {
            self.changed.wait(&mut s);
        }
    }
    /// Windows open now.
    pub(super) fn open(&self) -> usize {
        self.state.lock().open.len()
    }
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::{Board, RECENT, Verdict};
    use crate::addr::{Vpn, VpnRange};

    fn range(a: u64, b: u64) -> VpnRange {
        VpnRange::new(Vpn(a), Vpn(b)).unwrap()
    }

    #[test]
    fn open_is_busy_closed_is_stale_elsewhere_is_current() {
        let board = Board::default();
        let since = board.snapshot();
        let id = board.begin(range(10, 20));
        assert_eq!(
            board.validate(VpnRange::single(Vpn(10)), since),
            Verdict::Busy
        );
        assert_eq!(
            board.validate(VpnRange::single(Vpn(20)), since),
            Verdict::Current
        );
        board.end(id);
        assert_eq!(
            board.validate(VpnRange::single(Vpn(19)), since),
            Verdict::Stale
        );
        assert_eq!(
            board.validate(VpnRange::single(Vpn(9)), since),
            Verdict::Current
        );
        assert_eq!(
            board.validate(VpnRange::single(Vpn(19)), board.snapshot()),
            Verdict::Current
        );
    }

    #[test]
    fn what_is_no_longer_remembered_counts_as_stale() {
        let board = Board::default();
        let since = board.snapshot();
        for n in 0..RECENT as u64 {
            let id = board.begin(range(100 + n, 101 + n));
            board.end(id);
            assert_eq!(
                board.validate(VpnRange::single(Vpn(5)), since),
                Verdict::Current,
                "after {n}"
            );
        }
        assert_eq!(
            board.validate(VpnRange::single(Vpn(100)), since),
            Verdict::Stale
        );
        let id = board.begin(range(7, 8));
        board.end(id);
        assert_eq!(
            board.validate(VpnRange::single(Vpn(5)), since),
            Verdict::Stale
        );
    }

    #[test]
    fn nested_windows_end_in_any_order() {
        let board = Board::default();
        let (a, b) = (board.begin(range(0, 9)), board.begin(range(3, 4)));
        board.end(a);
        assert_eq!(
            board.validate(VpnRange::single(Vpn(3)), board.snapshot()),
            Verdict::Busy
        );
        board.end(b);
        assert_eq!(board.open(), 0);
        board.wait_idle(range(0, 9));
    }

    #[test]
    fn a_waiter_sleeps_until_the_range_is_idle() {
        let board = Board::default();
        let id = board.begin(range(0, 1));
        std::thread::scope(|s| {
            let waiter = s.spawn(|| {
                board.wait_idle(range(0, 4));
                board.open()
            });
            board.end(id);
            assert_eq!(waiter.join().unwrap(), 0);
        });
    }
}
