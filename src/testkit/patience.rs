//! Waiting for other threads: by the clock, and then by work.
//!
//! The clock of a busy machine proves nothing: a second may pass in which a runnable thread does
//! not run. At the end of the time the waiting thread therefore works, a fixed amount for each
//! millisecond, and looks again. Processors are shared evenly, so a runnable thread has had as much
//! of one by then. Only a thread that is blocked, or that works without end, still has no result.

use std::{
    hint::black_box,
    sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError},
    time::{Duration, Instant},
};

/// Rounds of work for each millisecond: about as long, however the build is optimised. An
/// interpreter does fewer.
const ROUNDS: u64 = if cfg!(miri) { 400 } else { 100_000 };

/// Waits for a message, up to `time` by the clock and as much work.
pub(super) fn receive<T>(from: &Receiver<T>, time: Duration) -> Result<T, RecvTimeoutError> {
    match from.recv_timeout(time) {
        Err(RecvTimeoutError::Timeout) => {}
        came => return came,
    }
    let mut last = Err(RecvTimeoutError::Timeout);
    work_until(time, || {
        last = from.try_recv().map_err(|why| match why {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        });
        !matches!(last, Err(RecvTimeoutError::Timeout))
    });
    last
}

/// Waits until `f` returns true, and returns false if it does not in `time`.
pub(super) fn until(time: Duration, mut f: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + time;
    loop {
        if f() {
            return true;
        }
        if Instant::now() >= end {
            return work_until(time, f);
        }
        std::thread::yield_now();
    }
}

/// Works for about `time`, and calls `f` after each millisecond's worth.
fn work_until(time: Duration, mut f: impl FnMut() -> bool) -> bool {
    for _ in 0..=time.as_millis() {
        // Each division waits for the one before, and no optimisation shortens a division of
        // unknown numbers.
        let mut sum = 1;
        for _ in 0..ROUNDS {
            sum = u64::MAX / (black_box(sum) | 1);
        }
        black_box(sum);
        if f() {
            return true;
        }
        std::thread::yield_now();
    }
    false
}

#[cfg(all(test, not(any(loom, shuttle))))]
mod tests {
    use super::{receive, until};
    use std::{
        sync::mpsc::{RecvTimeoutError, channel},
        time::Duration,
    };

    #[test]
    fn what_is_late_by_the_clock_alone_is_waited_for() {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            // The receiver's clock has run out by now.
            std::thread::sleep(Duration::from_millis(2));
            tell.send(7)
        });
        let mut came = Err(RecvTimeoutError::Timeout);
        while came == Err(RecvTimeoutError::Timeout) {
            came = receive(&told, Duration::from_millis(1));
        }
        assert_eq!(came, Ok(7));
    }

    #[test]
    fn what_does_not_come_is_given_up_and_what_cannot_come_at_once() {
        let (tell, told) = channel::<()>();
        let short = Duration::from_millis(5);
        assert_eq!(receive(&told, short), Err(RecvTimeoutError::Timeout));
        drop(tell);
        let long = Duration::from_secs(3600);
        assert_eq!(receive(&told, long), Err(RecvTimeoutError::Disconnected));
        assert!(!until(short, || false) && until(long, || true));
    }

    #[test]
    fn the_last_look_is_after_the_work() {
        let mut looks = 0;
        assert!(until(Duration::ZERO, || {
            looks += 1;
            looks == 2
        }));
    }
}
