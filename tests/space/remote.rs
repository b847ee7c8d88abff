//! What other processes do to an address space: accesses by force, advice, and the end that comes
//! before its own.

use crate::common::{
    PAGE, RW, World, at,
    calls::{NONE, READ, ToErrno},
    driver::Driver,
    objects::{disk, shmem, swapping},
};
use emmu::{
    Errno, FaultError, Mm,
    ctx::{CallbackCx, Sleepable},
    error::RemoteAccessError,
    mm::{Advice, MapFlags},
    notifier::{Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use std::sync::Arc;

fn write(w: &mut World, page: u64, byte: u8) -> Result<usize, RemoteAccessError> {
    w.mm.write_remote(&mut w.thread.cx(), at(page), &[byte])
}
fn read(w: &mut World, page: u64) -> Result<u8, RemoteAccessError> {
    let mut byte = [0];
    let done = w.mm.read_remote(&mut w.thread.cx(), at(page), &mut byte);
    done.map(|_| byte[0])
}

#[test]
fn a_forced_write_copies_and_leaves_the_entry_read_only() {
    for prot in [READ, NONE] {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.put(0, 1);
        w.protect(0, 2, prot).unwrap();
        let child = w.fork();
        w.told();
        assert_eq!(write(&mut w, 0, 7), Ok(1));
        assert_eq!(w.told(), "W0..1");
        assert_eq!(write(&mut w, 0, 8), Ok(1));
        assert_eq!(write(&mut w, 1, 9), Ok(1));
        assert_eq!(w.told(), "", "the pages are its own by now");
        assert_eq!((read(&mut w, 0), read(&mut w, 1)), (Ok(8), Ok(9)));
        let store = w.mm.store(&mut w.thread.cx(), at(0), 1);
        assert_eq!(store, Err(FaultError::Denied(at(0))));
        assert_eq!(w.inside(&child, |w| read(w, 0)), Ok(1));
        w.protect(0, 2, RW).unwrap();
        w.told();
        w.put(0, 2);
        assert_eq!(w.told(), "");
        w.reap(&child);
        w.end();
    }
}

#[test]
fn a_forced_write_to_a_private_mapping_of_a_file_does_not_reach_the_file() {
    let mut w = World::new();
    let file = shmem(&mut w, 2);
    w.map_file(0, 2, &file, 0, MapFlags::PRIVATE);
    w.protect(0, 2, READ).unwrap();
    assert_eq!(w.get(0), Ok(1));
    assert_eq!(write(&mut w, 0, 9), Ok(1));
    assert_eq!(write(&mut w, 1, 9), Ok(1));
    w.map_file(4, 2, &file, 0, MapFlags::SHARED);
    assert_eq!((w.get(0), w.get(4)), (Ok(9), Ok(1)));
    w.mm.exit(&mut w.thread.cx());
}

#[test]
fn shared_memory_and_guards_are_not_forced() {
    let mut w = World::new();
    let file = shmem(&mut w, 1);
    w.map_file(0, 1, &file, 0, MapFlags::SHARED);
    assert_eq!(write(&mut w, 0, 9), Ok(1), "it may be written");
    w.protect(0, 1, NONE).unwrap();
    let denied = write(&mut w, 0, 8).unwrap_err();
    assert_eq!(
        (denied, denied.errno()),
        (RemoteAccessError(FaultError::Denied(at(0))), Errno::EIO)
    );
    assert_eq!(read(&mut w, 0), Ok(9), "reading is forced");
    w.map(2, 1, RW);
    w.advise(2, 1, Advice::GuardInstall).unwrap();
    let guarded = RemoteAccessError(FaultError::Guarded(at(2)));
    assert_eq!(write(&mut w, 2, 8), Err(guarded));
    assert_eq!(read(&mut w, 2), Err(guarded));
    w.mm.exit(&mut w.thread.cx());
}

#[test]
fn an_access_by_force_ends_at_the_first_page_that_cannot_be_had() {
    let mut w = World::new();
    w.map(0, 2, NONE);
    let mut bytes = [3; 3 * PAGE as usize];
    let cx = &mut w.thread.cx();
    let most = 2 * PAGE as usize - 5;
    assert_eq!(w.mm.write_remote(cx, at(0) + 5, &bytes), Ok(most));
    assert_eq!(w.mm.read_remote(cx, at(0) + 5, &mut bytes), Ok(most));
    assert_eq!(w.mm.read_remote(cx, at(2), &mut []), Ok(0));
    assert!(w.mm.read_remote(cx, u64::MAX - 1, &mut bytes).is_err());
    w.end();
}

#[test]
fn a_stack_grows_for_an_access_by_force() {
    let mut w = World::new();
    w.map_with(8, 2, RW, MapFlags::GROWSDOWN);
    assert_eq!(write(&mut w, 6, 1), Ok(1));
    assert_eq!(w.spans(), [(6, 10)]);
    w.end();
}

#[test]
fn a_clean_page_of_a_file_is_dirty_after_a_forced_write() {
    let mut w = World::new();
    let (object, file) = disk(&mut w, 1);
    w.map_file(0, 1, &file, 0, MapFlags::SHARED);
    assert_eq!(write(&mut w, 0, 9), Ok(1));
    assert_eq!(object.dirty(), 1);
    w.mm.exit(&mut w.thread.cx());
}

#[test]
fn released_memory_goes_from_the_top_down_and_does_not_come_back_as_zeros() {
    let mut w = swapping(64, 64);
    w.map(0, 2, RW);
    w.share(4, 2);
    w.map(8, 2, RW);
    w.map(12, 2, NONE);
    for page in [0, 4, 8] {
        w.put(page, 1);
    }
    w.lock(8, 2).unwrap();
    w.advise(1, 1, Advice::GuardInstall).unwrap();
    w.told();
    w.mm.process_mrelease(&mut w.thread.cx()).unwrap();
    assert_eq!(w.told(), "W12..14 W8..10 W0..2");
    assert_eq!(w.machine.mem().in_use(), 1, "the shared page");
    for page in [0, 9] {
        assert_eq!(w.get(page), Err(FaultError::Released(at(page))));
        let store = w.mm.store(&mut w.thread.cx(), at(page), 1);
        assert_eq!(store, Err(FaultError::Released(at(page))));
    }
    assert_eq!(w.get(1), Err(FaultError::Guarded(at(1))));
    assert_eq!((w.get(4), w.get(5)), (Ok(1), Ok(0)));
    w.end();
}

/// A driver that has to sleep in every window.
struct Sleeper(Gate<OrderedStore<u64>, (), Sleepable>);

impl Sleeper {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
}

impl ExternalMmu for Sleeper {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

#[test]
fn memory_that_a_driver_must_sleep_for_is_not_released_early() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.map(4, 1, RW);
    w.fill(0, 1);
    w.fill(4, 1);
    let mm = Arc::clone(&w.mm);
    let (_driver, registration) =
        mm.subscribe(&mut w.thread.cx(), World::pages(4, 5), Sleeper::new);
    let (quick, _stays) = mm.register(&mut w.thread.cx(), Driver::new);
    let refused = mm.process_mrelease(&mut w.thread.cx()).unwrap_err();
    assert_eq!((refused.0, refused.errno()), (at(4), Errno::EAGAIN));
    assert_eq!(w.machine.mem().in_use(), 1);
    let (starts, ends) = quick.told();
    assert_eq!(starts, ends);
    mm.unregister(&mut w.thread.cx(), registration);
    assert_eq!(mm.process_mrelease(&mut w.thread.cx()), Ok(()));
    assert_eq!(w.machine.mem().in_use(), 0);
    w.end();
}

#[test]
fn another_process_gives_only_advice_that_loses_nothing() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.fill(0, 4);
    let other = Mm::new(&w.machine);
    let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
    let ranges = [(at(0), PAGE), (at(8), PAGE), (at(1), PAGE)];
    let mut advise =
        |by: &Mm, ranges: &[(u64, u64)], advice| by.process_madvise(cx, &mm, ranges, advice).sys();
    assert_eq!(advise(&other, &ranges, Advice::Cold), Ok(PAGE));
    assert_eq!(
        advise(&other, &ranges[1..], Advice::Cold),
        Err(Errno::ENOMEM)
    );
    assert_eq!(advise(&other, &[], Advice::PageOut), Ok(0));
    assert_eq!(
        advise(&other, &ranges, Advice::DontNeed),
        Err(Errno::EINVAL)
    );
    assert_eq!(advise(&mm, &ranges[2..], Advice::DontNeed), Ok(PAGE));
    assert_eq!((w.get(0), w.get(1)), (Ok(1), Ok(0)));
    w.reap(&other);
    w.end();
}
