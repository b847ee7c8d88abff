//! The handles through which purges are issued (`grutlbpurge.c`): 24 on each GRU, each for one
//! purge at a time.
//!
//! A processor of the GRU's own blade has one of the first 16 for itself. Processors of other
//! blades share the other eight: the driver draws one at random, this model takes them in turn, so
//! that runs repeat.

use crate::sync::{AtomicU64, IdSource, Mutex, MutexGuard, Ordering, thread_local};
use std::cell::Cell;

/// The handles for processors of the GRU's own blade, and the processors of a blade.
const LOCAL: usize = 16;
/// The handles for processors of other blades.
const REMOTE: usize = 8;

static NEXT: IdSource = IdSource::starting_at(0);

// A thread that never chose a processor is on one of the first blade; threads are dealt out in
// turn.
thread_local!(static PROCESSOR: Cell<usize> = Cell::new(usize::try_from(NEXT.next()).unwrap_or(0) % LOCAL));

/// Places this thread on a processor of the machine, by number. Sixteen processors make a blade,
/// which has two GRUs. A thread that never chose one is on the first blade.
pub fn run_on(processor: usize) {
    PROCESSOR.with(|here| here.set(processor));
}

/// The handles of one GRU. Each records how many cycles the last purge through it took.
pub(super) struct Handles {
    blade: usize,
    all: [Mutex<u64>; LOCAL + REMOTE],
    turn: AtomicU64,
    waits: AtomicU64,
}

/// A handle in use.
pub(super) struct Handle<'h> {
    cycles: MutexGuard<'h, u64>,
    pub(super) is_local: bool,
    /// The cycles of the purge that this one waited for.
    pub(super) waited: Option<u64>,
}

impl Handles {
    pub(super) fn on_blade(blade: usize) -> Self {
        Self {
            blade,
            all: std::array::from_fn(|_| Mutex::new(0)),
            turn: AtomicU64::new(0),
            waits: AtomicU64::new(0),
        }
    }
    /// Returns how often a handle was busy.
    pub(super) fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }
    /// Acquires the handle for this thread (`get_lock_tgh_handle`), and waits while it is busy: by
    /// spinning in the kernel, so an atomic context may.
    pub(super) fn take(&self) -> Handle<'_> {
        let processor = PROCESSOR.with(Cell::get);
        let is_local = processor / LOCAL == self.blade;
        let nth = if is_local {
            processor % LOCAL
        } else {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed) % REMOTE as u64;
            LOCAL + usize::try_from(turn).unwrap_or(0)
        };
        if let Some(cycles) = self.all[nth].try_lock() {
            return Handle {
                cycles,
                is_local,
                waited: None,
            };
        }
        self.waits.fetch_add(1, Ordering::Relaxed);
        let cycles = self.all[nth].lock();
        Handle {
            waited: Some(*cycles),
            cycles,
            is_local,
        }
    }
}

impl Handle<'_> {
    /// Releases the handle after a purge.
    pub(super) fn done(mut self, cycles: u64) {
        *self.cycles = cycles;
    }
}

#[cfg(all(test, not(loom), not(shuttle)))]
mod tests {
    use super::{Handles, LOCAL, REMOTE, run_on};

    #[test]
    fn a_processor_of_the_blade_has_a_handle_for_itself_and_others_share() {
        let handles = Handles::on_blade(1);
        run_on(LOCAL + 3);
        let own = handles.take();
        assert!(own.is_local);
        run_on(LOCAL + 4);
        assert!(handles.take().is_local, "another than the one that is held");
        run_on(0);
        let others: Vec<_> = (0..REMOTE).map(|_| handles.take()).collect();
        assert!(others.iter().all(|h| !h.is_local && h.waited.is_none()));
        drop(own);
        assert_eq!(handles.waits(), 0);
    }

    #[test]
    fn who_finds_it_busy_waits_for_the_purge_to_end() {
        let handles = Handles::on_blade(0);
        run_on(5);
        let held = handles.take();
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                run_on(5);
                handles.take().waited
            });
            while handles.waits() == 0 {
                std::thread::yield_now();
            }
            held.done(2004);
            assert_eq!(other.join().unwrap(), Some(2004));
        });
    }
}
