//! Several threads on one address space: no write is lost, no page shows what nobody wrote, and the
//! counts are exact when all are done.

use crate::common::{PAGE, RW, at, calls::remap};
use emmu::{
    FaultError, Machine, Mm,
    ctx::Thread,
    extmmu::Recorder,
    mm::{Advice, MapFlags, MmapArgs, MremapFlags, Prot},
    notifier::Registration,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::SeqCst},
};

/// What each thread does at least; the others go on until the last one has.
const ROUNDS: u64 = 100;

/// What one thread does until all have done enough.
type Work<'w> = &'w (dyn Fn(&mut Thread, &Clock) + Sync);

/// A machine and one watched address space on it.
struct Crowd {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    _watch: (Arc<Recorder>, Registration),
}

impl Crowd {
    fn new() -> Self {
        let machine = crate::common::machine(1 << 14);
        let mut thread = machine.enter().expect("the first");
        let mm = Mm::new(&machine);
        let watch = mm.register(&mut thread.cx(), Recorder::new);
        drop(thread);
        Self {
            machine,
            mm,
            _watch: watch,
        }
    }
    fn map(&self, from: u64, n: u64) {
        let mut thread = self.machine.enter().expect("nobody else here");
        let args = MmapArgs::anonymous(n * PAGE).fixed(at(from));
        self.mm.mmap(&mut thread.cx(), &args).expect("mappable");
    }
    /// Runs one thread for each of `work` until all have done enough, then checks that nothing is
    /// left after exit.
    fn run(self, work: &[Work<'_>]) {
        let clock = Clock(AtomicUsize::new(work.len()));
        std::thread::scope(|scope| {
            for work in work {
                scope.spawn(|| {
                    let mut thread = self.machine.enter().expect("a new thread");
                    work(&mut thread, &clock);
                });
            }
        });
        assert_eq!(self.mm.windows_open(), 0);
        let mut thread = self.machine.enter().expect("the others are gone");
        self.mm.exit(&mut thread.cx());
        assert_eq!(self.machine.mem().in_use(), 0, "frames left");
        assert_eq!(self.mm.tables(), 0, "tables left");
        assert_eq!(self.machine.commit().pages(), 0, "promises left");
    }
}

/// How many threads have not done enough yet.
struct Clock(AtomicUsize);

/// The rounds of one thread.
struct Rounds<'c> {
    clock: &'c Clock,
    done: u64,
}

impl Clock {
    /// Counts up until all have done enough.
    fn rounds(&self) -> Rounds<'_> {
        let clock = self;
        Rounds { clock, done: 0 }
    }
}

impl Iterator for Rounds<'_> {
    type Item = u64;
    fn next(&mut self) -> Option<u64> {
        if self.done == ROUNDS {
            self.clock.0.fetch_sub(1, SeqCst);
        }
        let round = self.done;
        self.done += 1;
        (self.clock.0.load(SeqCst) > 0).then_some(round)
    }
}

impl Drop for Rounds<'_> {
    fn drop(&mut self) {
        // A panic: nobody shall wait for it.
        if self.done <= ROUNDS {
            self.clock.0.fetch_sub(1, SeqCst);
        }
    }
}

/// A byte that is not zero.
fn byte(n: u64) -> u8 {
    u8::try_from(n % 255 + 1).expect("fits")
}

/// A thread with pages of its own, which it knows: `AREA` pages from `base`.
fn keep_house(mm: &Mm, thread: &mut Thread, clock: &Clock, base: u64) {
    const AREA: u64 = 40;
    let mut known = [0_u8; AREA as usize];
    for round in clock.rounds() {
        let cx = &mut thread.cx();
        let page = round * 7 % AREA;
        let slot = usize::try_from(page).expect("small");
        match round % 23 {
            0 => {
                mm.mprotect(cx, at(base), AREA * PAGE, Prot::READ).unwrap();
                let denied = mm.store(cx, at(base + page), 1);
                assert!(matches!(denied, Err(FaultError::Denied(_))));
                mm.mprotect(cx, at(base), AREA * PAGE, RW).unwrap();
            }
            5 => {
                mm.madvise(cx, at(base + page), PAGE, Advice::DontNeed)
                    .unwrap();
                known[slot] = 0;
            }
            9 => {
                mm.munmap(cx, at(base + page), PAGE).unwrap();
                let gone = mm.load(cx, at(base + page));
                assert!(matches!(gone, Err(FaultError::NotMapped(_))));
                let again = MmapArgs::anonymous(PAGE).fixed(at(base + page));
                mm.mmap(cx, &again).unwrap();
                known[slot] = 0;
            }
            17 if round % 3 == 0 => {
                let child = mm.fork(cx).unwrap();
                for (page, &byte) in (0..).zip(&known) {
                    assert_eq!(child.load(cx, at(base + page)), Ok(byte), "in the child");
                }
                child.store(cx, at(base), 255).unwrap();
                child.exit(cx);
            }
            _ => {
                known[slot] = byte(round);
                mm.store(cx, at(base + page), known[slot]).unwrap();
            }
        }
        assert_eq!(
            mm.load(cx, at(base + page)),
            Ok(known[slot]),
            "round {round}"
        );
    }
    for (page, &byte) in (0..).zip(&known) {
        assert_eq!(mm.load(&mut thread.cx(), at(base + page)), Ok(byte));
    }
}

#[test]
fn each_with_pages_of_its_own() {
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    // Two in one leaf table, two in others.
    let bases = [0, 100, 600, 1 << 19];
    bases.iter().for_each(|&base| crowd.map(base, 40));
    let work = bases.map(|base| {
        let mm = &mm;
        move |thread: &mut Thread, clock: &Clock| keep_house(mm, thread, clock, base)
    });
    crowd.run(&[&work[0], &work[1], &work[2], &work[3]]);
}

#[test]
fn bytes_of_one_page_while_it_is_forked_and_copied() {
    const PAGES: u64 = 4;
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    crowd.map(0, PAGES);
    let mine = |offset: u64| {
        let mm = &mm;
        move |thread: &mut Thread, clock: &Clock| {
            let cx = &mut thread.cx();
            for round in clock.rounds() {
                let addr = at(round % PAGES) + offset;
                mm.store(cx, addr, byte(round)).unwrap();
                assert_eq!(mm.load(cx, addr), Ok(byte(round)), "a lost write");
            }
        }
    };
    let forks = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        for _ in clock.rounds() {
            let child = mm.fork(cx).unwrap();
            let seen: Vec<_> = (0..PAGES).map(|n| child.load(cx, at(n))).collect();
            std::thread::yield_now();
            let again: Vec<_> = (0..PAGES).map(|n| child.load(cx, at(n))).collect();
            assert_eq!(seen, again, "a child's memory changed by its parent's");
            child.exit(cx);
        }
    };
    crowd.run(&[&mine(0), &mine(1000), &forks]);
}

#[test]
fn faults_against_discarding_of_whole_tables() {
    const PAGES: u64 = 1024;
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    crowd.map(0, PAGES);
    let touch = |stride: u64| {
        let mm = &mm;
        move |thread: &mut Thread, clock: &Clock| {
            let cx = &mut thread.cx();
            for round in clock.rounds() {
                let page = round * stride % PAGES;
                mm.store(cx, at(page), byte(page)).unwrap();
                let seen = mm.load(cx, at(page)).unwrap();
                assert!(seen == 0 || seen == byte(page), "page {page} shows {seen}");
            }
        }
    };
    let discard = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        for round in clock.rounds() {
            mm.madvise(cx, at(0), PAGES * PAGE, Advice::DontNeed)
                .unwrap();
            if round % 8 == 0 {
                mm.madvise(cx, at(0), PAGES * PAGE, Advice::PopulateRead)
                    .unwrap();
            }
        }
    };
    crowd.run(&[&touch(7), &touch(511), &discard]);
}

#[test]
fn access_against_mapping_and_unmapping() {
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    let access = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        for round in clock.rounds() {
            let page = round % 600;
            match mm.store(cx, at(page), byte(page)) {
                Ok(()) | Err(FaultError::NotMapped(_) | FaultError::Denied(_)) => {}
                Err(e) => panic!("{e}"),
            }
            match mm.load(cx, at(page)) {
                Ok(seen) => assert!(seen == 0 || seen == byte(page), "{page}: {seen}"),
                Err(FaultError::NotMapped(_)) => {}
                Err(e) => panic!("{e}"),
            }
        }
    };
    let change = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        for round in clock.rounds() {
            let (from, n) = (round * 37 % 500, 1 + round * 13 % 100);
            match round % 4 {
                0 => mm.munmap(cx, at(from), n * PAGE).unwrap(),
                1 => {
                    let read_only = mm.mprotect(cx, at(from), n * PAGE, Prot::READ);
                    read_only.unwrap_or_default();
                }
                _ => {
                    let args = MmapArgs::anonymous(n * PAGE).fixed(at(from));
                    mm.mmap(cx, &args).unwrap();
                }
            }
        }
    };
    crowd.run(&[&access, &access, &change]);
}

#[test]
fn access_while_pages_move_by_entry_and_by_table() {
    const PAGES: u64 = 700;
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    let places = [4096, 8192, 12_289];
    crowd.map(places[0], PAGES);
    let mut thread = crowd.machine.enter().unwrap();
    (0..PAGES).for_each(|n| {
        mm.store(&mut thread.cx(), at(places[0] + n), byte(n))
            .unwrap()
    });
    drop(thread);
    let moves = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        let flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
        let mut now = places[0];
        for (_, &to) in clock.rounds().zip(places.iter().cycle()).skip(1) {
            if to != now {
                mm.mremap(cx, remap(now, PAGES, PAGES, flags, to)).unwrap();
                now = to;
            }
        }
        (0..PAGES).for_each(|n| assert_eq!(mm.load(cx, at(now + n)), Ok(byte(n))));
    };
    let looks = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        for round in clock.rounds() {
            let n = round * 11 % PAGES;
            for place in places {
                match mm.load(cx, at(place + n)) {
                    Ok(seen) => assert_eq!(seen, byte(n), "page {n} at {place}"),
                    Err(FaultError::NotMapped(_)) => {}
                    Err(e) => panic!("{e}"),
                }
            }
        }
    };
    crowd.run(&[&moves, &looks, &looks]);
}

#[test]
fn generations_of_processes_on_threads_of_their_own() {
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    crowd.map(0, 64);
    let line = |tag: u64| {
        let mm = &mm;
        move |thread: &mut Thread, clock: &Clock| {
            let cx = &mut thread.cx();
            for round in clock.rounds() {
                let child = mm.fork(cx).unwrap();
                let grandchild = child.fork(cx).unwrap();
                let page = round % 64;
                let value = byte(round + tag);
                child.store(cx, at(page), value).unwrap();
                assert_ne!(
                    grandchild.load(cx, at(page)),
                    Err(FaultError::NotMapped(at(page)))
                );
                drop(child);
                grandchild.store(cx, at(page), 77).unwrap();
                assert_eq!(grandchild.load(cx, at(page)), Ok(77));
                grandchild.exit(cx);
            }
        }
    };
    let parent = |thread: &mut Thread, clock: &Clock| {
        let cx = &mut thread.cx();
        for round in clock.rounds() {
            mm.store(cx, at(round % 64), byte(round)).unwrap();
            assert_eq!(mm.load(cx, at(round % 64)), Ok(byte(round)));
        }
    };
    crowd.run(&[&line(0), &line(100), &parent]);
}

#[test]
fn a_stack_that_two_threads_let_grow() {
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    let mut thread = crowd.machine.enter().unwrap();
    let args = MmapArgs::anonymous(PAGE).fixed(at(2000));
    mm.mmap(&mut thread.cx(), &args.flags(MapFlags::GROWSDOWN))
        .unwrap();
    drop(thread);
    let next = AtomicU32::new(2000);
    let done = AtomicBool::new(false);
    let grow = |thread: &mut Thread, _: &Clock| {
        while !done.load(SeqCst) {
            let page = u64::from(next.fetch_sub(1, SeqCst));
            if page < 1000 {
                done.store(true, SeqCst);
                return;
            }
            mm.store(&mut thread.cx(), at(page), byte(page)).unwrap();
            assert_eq!(mm.load(&mut thread.cx(), at(page)), Ok(byte(page)));
        }
    };
    crowd.run(&[&grow, &grow]);
}

#[test]
fn faults_on_the_same_pages_agree_on_one_frame() {
    const PAGES: u64 = 64;
    let crowd = Crowd::new();
    let mm = Arc::clone(&crowd.mm);
    let machine = Arc::clone(&crowd.machine);
    crowd.map(0, PAGES);
    let done = AtomicU32::new(0);
    let write = |lane: u64| {
        let (mm, done) = (&mm, &done);
        move |thread: &mut Thread, _: &Clock| {
            let cx = &mut thread.cx();
            (0..PAGES).for_each(|n| mm.store(cx, at(n) + lane, 1).unwrap());
            done.fetch_add(1, SeqCst);
        }
    };
    let look = |thread: &mut Thread, _: &Clock| {
        while done.load(SeqCst) < 3 {
            std::thread::yield_now();
        }
        assert_eq!(u64::from(machine.mem().in_use()), PAGES);
        let mut bytes = [0; 3];
        for n in 0..PAGES {
            mm.read_bytes(&mut thread.cx(), at(n), &mut bytes).unwrap();
            assert_eq!(bytes, [1; 3], "page {n}");
        }
    };
    crowd.run(&[&write(0), &write(1), &write(2), &look]);
}
