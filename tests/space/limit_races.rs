//! The limit of memory, while several threads take frames or set it.

use crate::common::{PAGE, RW, World, at, objects::swapping};
use emmu::{
    driver::*,
    error::LimitBusy,
    file::{File, FileMode, Shmem},
    mm::{FillMode, RegisterMode, UffdFeatures},
};
use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    thread,
};

#[test]
fn threads_that_fault_at_once_stay_within_the_limit() {
    const THREADS: u64 = 4;
    const LIMIT: u64 = 24;
    for _ in 0..200 {
        let mut w = World::new();
        w.map(0, 64 * THREADS, RW);
        w.put(0, 1);
        w.machine
            .set_memory_limit(&mut w.thread.cx(), Some(LIMIT))
            .unwrap();
        let together = Barrier::new(usize::try_from(THREADS).unwrap());
        let (machine, mm) = (&w.machine, &w.mm);
        thread::scope(|s| {
            for nth in 0..THREADS {
                let together = &together;
                s.spawn(move || {
                    let mut thread = machine.enter().unwrap();
                    let cx = &mut thread.cx();
                    together.wait();
                    (0..64).for_each(|n| _ = mm.store(cx, at(64 * nth + n), 1));
                });
            }
        });
        let mem = machine.mem();
        assert_eq!(u64::from(mem.in_use()) + mem.tables_in_use(), LIMIT);
    }
}

/// Waits in its first window until another thread has set a limit.
struct Setter(Gate<OrderedStore<Vpn>, (), Atomic>, AtomicU8);

const CALLED: u8 = 1;
const SET: u8 = 2;

impl SpinningMmu for Setter {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if self.1.fetch_max(CALLED, SeqCst) == 0 {
            while self.1.load(SeqCst) != SET {
                thread::yield_now();
            }
        }
        self.0.exclude_entries(cx, inv)
    }
}

#[test]
fn a_limit_that_cannot_be_set_leaves_the_one_that_was_set_meanwhile() {
    let mut w = swapping(4096, 8);
    w.map(0, 128, RW);
    w.fill(0, 16);
    let mm = Arc::clone(&w.mm);
    let (setter, registration) = mm.register(&mut w.thread.cx(), |seat: Seat| {
        let gate = Gate::new(seat, OrderedStore::default(), ());
        Arc::new(Setter(gate, AtomicU8::new(0)))
    });
    let machine = Arc::clone(&w.machine);
    thread::scope(|s| {
        s.spawn(|| {
            while setter.1.load(SeqCst) != CALLED {
                thread::yield_now();
            }
            let mut thread = machine.enter().unwrap();
            machine
                .set_memory_limit(&mut thread.cx(), Some(64))
                .unwrap();
            setter.1.store(SET, SeqCst);
        });
        let refused = machine.set_memory_limit(&mut w.thread.cx(), Some(4));
        assert_eq!(refused, Err(LimitBusy(4)));
    });
    let stored = (0..128).filter(|&n| mm.store(&mut w.thread.cx(), at(n), 1).is_ok());
    assert!(stored.count() < 80, "the limit of 64 pages is lost");
    mm.unregister(&mut w.thread.cx(), registration);
}

/// Bytes of files, and answers to userfaults.
#[test]
fn calls_that_take_pages_reclaim_first_at_the_limit() {
    const PAGES: u64 = 64;
    let len = usize::try_from(PAGES * PAGE).unwrap();
    let mut w = swapping(4096, 1024);
    w.map(0, PAGES, RW);
    w.map(PAGES, PAGES, RW);
    w.fill(0, 8);
    let uffd = w.userfaultfd(UffdFeatures::empty());
    w.register(&uffd, PAGES, PAGES, RegisterMode::MISSING);
    let memory = Shmem::memfd(w.machine.host(), "bytes", PAGES * PAGE).unwrap();
    let file = File::open(memory, FileMode::ReadWrite);
    let cx = &mut w.thread.cx();
    w.machine.set_memory_limit(cx, Some(40)).unwrap();
    let within = || {
        let mem = w.machine.mem();
        u64::from(mem.in_use()) + mem.tables_in_use() <= 40
    };
    assert_eq!(w.mm.write_file(cx, (&file, 0), at(0), len), Ok(len));
    assert!(within());
    assert_eq!(w.mm.read_file(cx, (&file, 0), at(0), len), Ok(len));
    assert!(within());
    let bytes = vec![7; len];
    let answered = uffd.copy(cx, at(PAGES), &bytes, FillMode::empty());
    assert_eq!(answered, Ok(PAGES * PAGE));
    assert!(within());
    assert_eq!(w.mm.load(cx, at(2 * PAGES - 1)), Ok(7));
    w.end();
}
