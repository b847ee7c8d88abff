//! What another thread does to an address space while a driver looks a page up.

use crate::common::numbered::page;
use emmu::{Machine, driver::*};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Runs `f` on another thread of the machine, to its end.
pub(crate) fn other<T: Send>(
    machine: &Arc<Machine>,
    f: impl FnOnce(&mut CallCx<'_>) -> T + Send,
) -> T {
    thread::scope(|s| {
        let thread = s.spawn(|| f(&mut machine.enter().unwrap().cx()));
        thread.join().unwrap()
    })
}

/// Opens a window over a page on another thread, and returns when it is open. A message to the
/// sender has it closed, a while later: a ticket that is drawn before the message meets the window
/// or its end.
pub(crate) fn window<'s>(
    s: &'s thread::Scope<'s, '_>,
    mm: &'s Mm,
    n: u64,
    closed: &'s AtomicBool,
) -> mpsc::Sender<()> {
    let (open, opened) = mpsc::channel();
    let (close, closes) = mpsc::channel();
    s.spawn(move || {
        let mut thread = mm.machine().enter().unwrap();
        let mut cx = thread.cx();
        let mut guard = mm.lock_shared(&mut cx);
        let mut lease = guard.lease();
        let window = lease.window(VpnRange::single(page(n)), Event::Clear);
        open.send(()).unwrap();
        closes.recv().unwrap();
        thread::sleep(Duration::from_millis(20));
        closed.store(true, SeqCst);
        window.close();
    });
    opened.recv().unwrap();
    close
}
