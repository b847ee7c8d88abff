//! RDMA regions that page on demand: faults, windows, advice, implicit regions, and the mistakes of
//! such drivers.

use crate::common::{PAGE, RW, World, at, calls::READ, objects::swapping};
use emmu::{
    Errno, FaultError,
    extmmu::odp::{Adapter, Key, OdpAdvice, OdpConfig, OdpError, OdpFault, OdpMistake},
    mm::{Advice, MapFlags},
    notifier::{Access, Event},
    oracle::{Invariant, Oracle},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// A process with 16 pages that can be written, registered with an adapter, and an oracle.
struct Registered {
    w: World,
    adapter: Arc<Adapter>,
    key: Key,
    oracle: Arc<Oracle>,
}

fn config(mistake: Option<OdpMistake>) -> OdpConfig {
    OdpConfig {
        mistake,
        ..OdpConfig::default()
    }
}

impl Registered {
    fn new(config: OdpConfig) -> Self {
        let mut w = swapping(8192, 4096);
        w.map(0, 16, RW);
        let adapter = Adapter::new(config);
        let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
        let key = adapter
            .register(cx, &mm, (at(0), 16 * PAGE), Access::Write)
            .unwrap();
        let oracle = Oracle::new(&w.machine);
        oracle.watch(&mm, adapter.region(key, at(0)).unwrap());
        Self {
            w,
            adapter,
            key,
            oracle,
        }
    }
    fn with(mistake: Option<OdpMistake>) -> Self {
        Self::new(config(mistake))
    }
    fn read(&mut self, page: u64) -> Result<u8, OdpFault> {
        let mut byte = [0];
        let cx = &mut self.w.thread.cx();
        self.adapter.read(cx, self.key, at(page), &mut byte)?;
        Ok(byte[0])
    }
    fn write(&mut self, page: u64, byte: u8) -> Result<(), OdpFault> {
        let cx = &mut self.w.thread.cx();
        self.adapter.write(cx, self.key, at(page), &[byte])
    }
    fn entries(&mut self) -> usize {
        let region = self.adapter.region(self.key, at(0)).unwrap();
        region.entries(&mut self.w.thread.cx())
    }
    fn advise(&mut self, from: u64, n: u64, advice: OdpAdvice) -> Result<u64, OdpError> {
        let cx = &mut self.w.thread.cx();
        self.adapter
            .advise(cx, self.key, (at(from), n * PAGE), advice)
    }
    fn drop_pages(&mut self, from: u64, n: u64) {
        let cx = &mut self.w.thread.cx();
        self.w
            .mm
            .madvise(cx, at(from), n * PAGE, Advice::DontNeed)
            .unwrap();
    }
    fn found(&self, invariant: Invariant) -> bool {
        self.oracle.audit();
        self.oracle
            .take()
            .iter()
            .any(|f| f.invariant() == invariant)
    }
    fn end(mut self) {
        self.oracle.audit();
        let cx = &mut self.w.thread.cx();
        self.adapter.deregister(cx, self.key).unwrap();
        assert_eq!(self.adapter.faults().waiting(), 0);
        assert_eq!(self.adapter.faults().stray, 0);
        assert_eq!(self.w.mm.subscriptions(), 0);
        self.oracle.assert_silent();
        self.w.end();
    }
}

#[test]
fn adapter_and_process_see_the_stores_of_each_other() {
    let mut r = Registered::with(None);
    r.w.put(3, 7);
    assert_eq!((r.read(3), r.read(3)), (Ok(7), Ok(7)));
    assert_eq!(r.adapter.faults().raised, 1, "once in the table, it stays");
    r.write(3, 8).unwrap();
    assert_eq!(r.w.get(3), Ok(8));
    // For reading first, then for writing: the page is asked for again.
    assert_eq!(r.read(5), Ok(0));
    r.write(5, 1).unwrap();
    assert_eq!((r.w.get(5), r.read(5)), (Ok(1), Ok(1)));
    let mut across = [9; 2];
    let cx = &mut r.w.thread.cx();
    r.adapter.read(cx, r.key, at(6) - 1, &mut across).unwrap();
    assert_eq!(across, [0, 0]);
    r.end();
}

#[test]
fn windows_take_pages_out_of_the_table() {
    let mut r = Registered::with(None);
    (0..16).for_each(|n| r.write(n, 1).unwrap());
    assert_eq!(r.entries(), 16);
    r.drop_pages(0, 2);
    assert_eq!(r.entries(), 14);
    assert_eq!(r.read(0), Ok(0));
    let mm = Arc::clone(&r.w.mm);
    mm.mprotect(&mut r.w.thread.cx(), at(2), PAGE, READ)
        .unwrap();
    let refused = r.write(2, 9).unwrap_err();
    assert!(matches!(refused, OdpFault::Refused { .. }), "{refused}");
    assert_eq!(r.read(2), Ok(1));
    let child = mm.fork(&mut r.w.thread.cx()).unwrap();
    r.write(3, 4).unwrap();
    assert_eq!(child.load(&mut r.w.thread.cx(), at(3)), Ok(1));
    child.exit(&mut r.w.thread.cx());
    mm.munmap(&mut r.w.thread.cx(), at(4), PAGE).unwrap();
    assert!(r.read(4).is_err());
    r.w.map(4, 1, RW);
    assert_eq!(r.read(4), Ok(0), "a refusal is not remembered");
    r.end();
}

#[test]
fn keys_and_ranges_are_checked() {
    let mut r = Registered::with(None);
    let (adapter, mm) = (Arc::clone(&r.adapter), Arc::clone(&r.w.mm));
    let cx = &mut r.w.thread.cx();
    for (addr, len) in [(at(0), 0), (u64::MAX, 2), (emmu::TASK_SIZE - 1, 2)] {
        let bad = adapter.register(cx, &mm, (addr, len), Access::Read);
        assert_eq!(bad, Err(OdpError::BadRange { addr, len }));
    }
    let key = adapter.register(cx, &mm, (at(0), 1), Access::Read).unwrap();
    assert_eq!(adapter.read(cx, key, at(0), &mut [0]), Ok(()));
    assert_eq!(
        adapter.write(cx, key, at(0), &[1]),
        Err(OdpFault::Access(at(0)))
    );
    assert_eq!(
        adapter.read(cx, key, at(1), &mut [0]),
        Err(OdpFault::Access(at(1)))
    );
    let write = adapter.advise(cx, key, (at(0), 1), OdpAdvice::PrefetchWrite);
    assert_eq!(write, Err(OdpError::ReadOnly(key.0)));
    let outside = adapter.advise(cx, key, (at(0), 2 * PAGE), OdpAdvice::Prefetch);
    assert_eq!(outside.unwrap_err().errno(), Errno::EINVAL);
    adapter.deregister(cx, key).unwrap();
    assert_eq!(adapter.deregister(cx, key), Err(OdpError::NoKey(key.0)));
    assert_eq!(
        adapter.read(cx, key, at(0), &mut [0]),
        Err(OdpFault::Access(at(0)))
    );
    r.end();
}

#[test]
fn advice_brings_pages_in() {
    let mut r = Registered::with(None);
    r.w.put(1, 1);
    // Nothing is faulted in: the one page that is there.
    assert_eq!(r.advise(0, 4, OdpAdvice::PrefetchNoFault), Ok(1));
    assert_eq!(r.advise(0, 4, OdpAdvice::Prefetch), Ok(4));
    assert_eq!(r.advise(4, 4, OdpAdvice::PrefetchWrite), Ok(4));
    (0..8).for_each(|n| assert!(r.read(n).is_ok()));
    (4..8).for_each(|n| r.write(n, 1).unwrap());
    assert_eq!(r.adapter.faults().raised, 0);
    r.write(0, 1).unwrap();
    assert_eq!(r.adapter.faults().raised, 1, "prefetched for reading");
    // A hole: what comes before it is there.
    r.w.mm.munmap(&mut r.w.thread.cx(), at(10), PAGE).unwrap();
    assert_eq!(r.advise(8, 4, OdpAdvice::Prefetch), Ok(2));
    let hole = r.advise(10, 1, OdpAdvice::Prefetch).unwrap_err();
    assert_eq!(hole.errno(), Errno::EFAULT);
    assert_eq!(r.adapter.bill().prefetched, 1 + 4 + 4 + 2);
    r.end();
}

#[test]
fn huge_pages_are_one_entry() {
    for huge in [true, false] {
        let mut r = Registered::new(OdpConfig {
            huge,
            ..OdpConfig::default()
        });
        let (mm, cx) = (Arc::clone(&r.w.mm), &mut r.w.thread.cx());
        mm.munmap(cx, at(0), 16 * PAGE).unwrap();
        r.w.map_with(0, 512, RW, MapFlags::empty());
        let cx = &mut r.w.thread.cx();
        mm.madvise(cx, at(0), 512 * PAGE, Advice::HugePage).unwrap();
        r.adapter.deregister(cx, r.key).unwrap();
        r.key = r
            .adapter
            .register(cx, &mm, (at(0), 512 * PAGE), Access::Write)
            .unwrap();
        r.oracle.watch(&mm, r.adapter.region(r.key, at(0)).unwrap());
        assert_eq!(r.advise(0, 512, OdpAdvice::PrefetchWrite), Ok(512));
        assert_eq!(r.entries(), if huge { 1 } else { 512 });
        r.write(511, 5).unwrap();
        assert_eq!(r.w.get(511), Ok(5));
        // The process's page is split in a window over all of it.
        r.drop_pages(3, 1);
        assert_eq!(r.entries(), 0);
        assert_eq!((r.read(3), r.read(511)), (Ok(0), Ok(5)));
        r.end();
    }
}

#[test]
fn each_fault_has_one_answer() {
    let mut r = Registered::with(None);
    let (adapter, key) = (Arc::clone(&r.adapter), r.key);
    let good = adapter.raise(key, World::pages(0, 4), Access::Write);
    let bad = adapter.raise(Key(99), World::pages(0, 1), Access::Read);
    assert_eq!(adapter.answer(good), None);
    while adapter.serve_one(&mut r.w.thread.cx()) {}
    assert_eq!(
        (adapter.answer(good), adapter.answer(good)),
        (Some(Ok(())), None)
    );
    assert!(matches!(adapter.answer(bad), Some(Err(_))));
    assert_eq!(r.entries(), 4);
    // The end of a region answers what is asked.
    let second = {
        let (mm, cx) = (Arc::clone(&r.w.mm), &mut r.w.thread.cx());
        adapter
            .register(cx, &mm, (at(0), PAGE), Access::Read)
            .unwrap()
    };
    let waits = adapter.raise(second, World::pages(0, 1), Access::Read);
    adapter.deregister(&mut r.w.thread.cx(), second).unwrap();
    assert_eq!(
        adapter.answer(waits),
        Some(Err(FaultError::NotMapped(at(0)).into()))
    );
    r.end();
}

#[test]
fn the_end_of_the_process_ends_regions() {
    let mut r = Registered::with(None);
    r.write(0, 1).unwrap();
    let mm = Arc::clone(&r.w.mm);
    mm.exit(&mut r.w.thread.cx());
    assert_eq!(r.entries(), 0);
    assert_eq!(r.read(0), Err(OdpFault::Gone(at(0))));
    r.oracle.audit_end(&mm);
    r.end();
}

/// Children come on demand, and go when windows have emptied them.
#[test]
fn an_implicit_region_has_the_children_that_are_used() {
    for mistake in [None, Some(OdpMistake::NeverReaps)] {
        let small = OdpConfig {
            child_pages: 16,
            huge: false,
            mistake,
        };
        let mut r = Registered::new(small);
        r.w.map(0, 64, RW);
        let (adapter, mm) = (Arc::clone(&r.adapter), Arc::clone(&r.w.mm));
        let key = adapter.register_implicit(&mm, Access::Write);
        let implicit = adapter.implicit(key).unwrap();
        let cx = &mut r.w.thread.cx();
        for n in [0, 20, 40] {
            adapter.write(cx, key, at(n), &[1]).unwrap();
        }
        assert_eq!((implicit.children(), mm.subscriptions()), (3, 4));
        // Its own window does not end the child.
        mm.madvise(cx, at(16), 16 * PAGE, Advice::DontNeed).unwrap();
        assert_eq!(implicit.children(), 3);
        let ended = implicit.reap(cx);
        assert_eq!(ended == 1, mistake.is_none());
        assert_eq!(implicit.children(), 3 - ended);
        adapter.read(cx, key, at(20), &mut [0]).unwrap();
        assert_eq!(implicit.children(), 3);
        // A prefetch across children.
        let advice = adapter.advise(cx, key, (at(8), 40 * PAGE), OdpAdvice::Prefetch);
        assert_eq!(advice, Ok(40));
        // Emptied, and filled before the worker came: it stays.
        mm.madvise(cx, at(0), 16 * PAGE, Advice::DontNeed).unwrap();
        adapter.raise(key, World::pages(1, 2), Access::Read);
        assert!(adapter.serve_one(cx));
        adapter.deregister(cx, key).unwrap();
        assert_eq!((implicit.children(), mm.subscriptions()), (0, 1));
        r.end();
    }
}

/// Any number of pages will do: one child has all of memory at the most.
#[test]
fn a_child_has_a_power_of_two_of_pages() {
    for (child_pages, children) in [(0, 2), (1, 2), (3, 2), (u64::MAX, 1)] {
        let mut r = Registered::new(OdpConfig {
            child_pages,
            ..OdpConfig::default()
        });
        let (adapter, mm) = (Arc::clone(&r.adapter), Arc::clone(&r.w.mm));
        let key = adapter.register_implicit(&mm, Access::Write);
        let cx = &mut r.w.thread.cx();
        for n in [0, 8] {
            adapter.write(cx, key, at(n), &[1]).unwrap();
        }
        assert_eq!(adapter.implicit(key).unwrap().children(), children);
        adapter.deregister(cx, key).unwrap();
        r.end();
    }
}

/// A child that ends while the parent leads to it is never replaced.
#[test]
fn a_child_that_ends_linked_loses_accesses() {
    for mistake in [None, Some(OdpMistake::EndsLinked)] {
        let mut r = Registered::with(mistake);
        let (adapter, mm) = (Arc::clone(&r.adapter), Arc::clone(&r.w.mm));
        let key = adapter.register_implicit(&mm, Access::Write);
        let cx = &mut r.w.thread.cx();
        adapter.write(cx, key, at(0), &[1]).unwrap();
        mm.madvise(cx, at(0), PAGE, Advice::DontNeed).unwrap();
        assert_eq!(adapter.implicit(key).unwrap().reap(cx), 1);
        let read = adapter.read(cx, key, at(0), &mut [0]);
        assert_eq!(read.is_ok(), mistake.is_none());
        adapter.deregister(cx, key).unwrap();
        r.end();
    }
}

/// A region hears of windows over its own pages alone.
#[test]
fn windows_elsewhere_cost_a_region_nothing() {
    let mut r = Registered::with(None);
    r.w.map(100, 16, RW);
    r.w.fill(100, 16);
    r.write(0, 1).unwrap();
    let before = r.adapter.bill();
    for n in 100..116 {
        r.drop_pages(n, 1);
    }
    assert_eq!(r.adapter.bill(), before);
    r.drop_pages(0, 1);
    assert_eq!(r.adapter.bill().windows, before.windows + 1);
    r.end();
}

/// A window that must not block is refused while the lock is held, and served otherwise.
#[test]
fn a_window_that_must_not_block_is_served_if_nobody_has_the_lock() {
    let mut r = Registered::with(None);
    r.write(0, 1).unwrap();
    let (mm, cx) = (Arc::clone(&r.w.mm), &mut r.w.thread.cx());
    {
        let mut guard = mm.lock_shared(cx);
        let mut lease = guard.lease();
        let window = lease.try_window(World::pages(0, 16), Event::Clear);
        window.expect("nobody has the lock").close();
    }
    assert_eq!(r.entries(), 0);
    r.end();
}

#[test]
fn what_stays_in_the_table_is_found() {
    for mistake in [OdpMistake::NoZap, OdpMistake::NoWait, OdpMistake::ShortZap] {
        let mut r = Registered::with(Some(mistake));
        (0..2).for_each(|n| r.write(n, 1).unwrap());
        r.drop_pages(0, 2);
        assert!(r.found(Invariant::Coherent), "{mistake:?}");
    }
    let used = catch_unwind(AssertUnwindSafe(|| {
        let mut r = Registered::with(Some(OdpMistake::NoZap));
        r.write(0, 1).unwrap();
        r.drop_pages(0, 1);
        r.read(0)
    }));
    assert!(used.is_err(), "a stale reference");
}

#[test]
fn answers_and_dirty_bits_that_go_wrong_are_found() {
    let mut r = Registered::with(Some(OdpMistake::AnswersTwice));
    r.read(0).unwrap();
    assert_eq!(r.adapter.faults().stray, 1);
    r.w.mm.exit(&mut r.w.thread.cx());
    drop(r);
    let mut r = Registered::with(Some(OdpMistake::LostDirty));
    r.write(0, 1).unwrap();
    r.drop_pages(0, 1);
    assert!(r.found(Invariant::DirtyKept));
}
