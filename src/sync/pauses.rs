//! The pauses of a thread that looks again until another thread has done something, and the bell
//! that stands for them under a model checker.

#[cfg(not(any(loom, shuttle)))]
use super::thread;
#[cfg(not(any(loom, shuttle)))]
use std::time::Duration;

/// Looks with nothing but a hint to the processor between them.
#[cfg(not(any(loom, shuttle)))]
const SPINS: u32 = 32;
/// Further looks, between which other threads may run.
#[cfg(not(any(loom, shuttle)))]
const YIELDS: u32 = 32;
/// The first and the longest sleep; each is twice as long as the one before.
#[cfg(not(any(loom, shuttle)))]
const SLEEPS: (Duration, Duration) = (Duration::from_micros(32), Duration::from_millis(1));

/// Pauses that begin short, for what mostly takes no time, and become sleeps of a millisecond.
/// There are none under a model checker, where a [`Bell`] stands for them.
#[derive(Debug, Default)]
pub(crate) struct Pauses(#[cfg(not(any(loom, shuttle)))] u32);

#[cfg(not(any(loom, shuttle)))]
impl Pauses {
    /// Pauses before the next look: a wait for a lock, which needs no token that allows to sleep.
    #[allow(clippy::disallowed_methods)]
    pub(crate) fn pause(&mut self) {
        let slept = self.0.saturating_sub(SPINS + YIELDS);
        match self.0 {
            0..SPINS => std::hint::spin_loop(),
            n if n < SPINS + YIELDS => thread::yield_now(),
            _ => thread::sleep((SLEEPS.0 * (1 << slept.min(10))).min(SLEEPS.1)),
        }
        self.0 = self.0.saturating_add(1);
    }
}

/// Rung by a thread that has done what others may look for. It makes no sound: those pause and look
/// again. Under a model checker, where no time passes and each look is a branch more, they wait for
/// it.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    #[cfg(any(loom, shuttle))]
    rung: super::Mutex<u64>,
    #[cfg(any(loom, shuttle))]
    changed: super::Condvar,
}

/// The times that a bell had rung before a look.
#[derive(Debug)]
pub(crate) struct Heard(#[cfg(any(loom, shuttle))] u64);

#[cfg(not(any(loom, shuttle)))]
impl Bell {
    #[inline(always)]
    pub(crate) fn ring(&self) {}
    /// To be asked before a look.
    pub(crate) fn heard(&self) -> Heard {
        Heard()
    }
    /// Pauses after a look that found nothing.
    pub(crate) fn wait(&self, before: Heard, pauses: &mut Pauses) {
        let Heard() = before;
        pauses.pause();
    }
}

#[cfg(any(loom, shuttle))]
impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock() += 1;
        self.changed.notify_all();
    }
    /// To be asked before a look.
    pub(crate) fn heard(&self) -> Heard {
        Heard(*self.rung.lock())
    }
    /// Waits after a look that found nothing, until the bell rings if it has not since.
    pub(crate) fn wait(&self, before: Heard, _: &mut Pauses) {
        let mut rung = self.rung.lock();
        while *rung == before.0 {
            self.changed.wait(&mut rung);
        }
    }
}
