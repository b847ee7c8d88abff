//! What another thread takes from a process while it forks is not in the child either: the child's mappings are known to
//! the reverse maps before entries are copied, behind those of the parent, and an entry is copied under the lock of its
//! leaf. So a walk finds the parent's entry before it is copied, or the child's after.

mod common;

use common::{Idle, PAGE, World, at, objects};
use emmu::{
    FaultError, Machine, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, Cx, Sleepable, rank},
    file::File,
    mm::MapFlags,
    notifier::{Ack, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use std::sync::{Arc, Barrier, Mutex};

/// Pages of the object, and what is left of it.
const PAGES: u64 = 8;
const LEFT: u64 = 3;
/// Where it is mapped twice, privately.
const LOW: u64 = 0;
const HIGH: u64 = 64;

type Errand = Box<dyn FnOnce() + Send>;

/// Has an errand done by another thread, and waits for it, when the fork has reached a page.
struct Halfway {
    gate: Gate<OrderedStore<()>, (), Sleepable>,
    page: Vpn,
    when: When,
    errand: Mutex<Option<Errand>>,
}

/// Before the entries of the mapping at the page are copied, or after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
}

impl Halfway {
    fn new(seat: Seat, page: u64, when: When) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            page: Vpn::containing(at(page)),
            when,
            errand: Mutex::default(),
        })
    }
    fn reached(&self, page: Vpn, when: When) {
        if page == self.page
            && when == self.when
            && let Some(errand) = self.errand.lock().unwrap().take()
        {
            std::thread::spawn(errand)
                .join()
                .expect("the errand is done");
        }
    }
}

impl ExternalMmu for Halfway {
    fn invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        if inv.event() == Event::ProtectionPage {
            self.reached(inv.range().start(), When::Before);
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    /// Blocks, which a driver must not do here; but the fork holds no lock that the errand takes.
    fn invalidate_end(&self, _: Cx<'_, rank::Callback, Atomic>, range: VpnRange) {
        self.reached(range.start(), When::After);
    }
}

/// A world with an object mapped twice, its pages copied by writing.
fn mapped_twice() -> (World, Arc<File>) {
    let mut w = World::new();
    let file = objects::shmem(&mut w, PAGES);
    for from in [LOW, HIGH] {
        w.map_file(from, PAGES, &file, 0, MapFlags::PRIVATE);
        for page in 0..PAGES {
            w.put(from + page, 50);
        }
    }
    (w, file)
}

fn in_thread(machine: &Arc<Machine>, f: impl FnOnce(&mut Idle<'_>)) {
    let mut thread = machine.enter().expect("a new thread");
    f(&mut thread.cx());
}

/// Both mappings end with the object; what is left of it was copied.
fn assert_cut(mm: &Mm, cx: &mut Idle<'_>, who: &str) {
    for from in [LOW, HIGH] {
        for page in 0..PAGES {
            let there = mm.load(cx, at(from + page));
            if page < LEFT {
                assert_eq!(there, Ok(50), "{who}, page {page} from {from}");
            } else {
                let beyond = matches!(there, Err(FaultError::Beyond(_)));
                assert!(beyond, "{who}, page {page} from {from}: {there:?}");
            }
        }
    }
}

/// The object is cut when the fork has come to a mapping, or is done with its entries: the child loses the rest too.
fn cut_halfway(page: u64, when: When) {
    let (mut w, file) = mapped_twice();
    let (halfway, _stays) =
        w.mm.register(&mut w.thread.cx(), |seat| Halfway::new(seat, page, when));
    let machine = Arc::clone(&w.machine);
    let cut = Arc::clone(&file);
    let errand = move || {
        in_thread(&machine, |cx| {
            cut.truncate(cx.reborrow(), LEFT * PAGE).unwrap()
        })
    };
    *halfway.errand.lock().unwrap() = Some(Box::new(errand));
    let cx = &mut w.thread.cx();
    let child = w.mm.fork(cx).unwrap();
    assert!(
        halfway.errand.lock().unwrap().is_none(),
        "it forked past the page"
    );
    assert_cut(&child, cx, "child");
    assert_cut(&w.mm, cx, "parent");
    child.exit(cx);
}

#[test]
fn what_is_truncated_before_its_entries_are_copied_is_not_in_the_child() {
    cut_halfway(LOW, When::Before);
    cut_halfway(HIGH, When::Before);
}

#[test]
fn what_is_truncated_after_its_entries_were_copied_is_not_in_the_child() {
    cut_halfway(LOW, When::After);
    cut_halfway(HIGH, When::After);
}

#[test]
fn what_another_thread_truncates_during_a_fork_is_not_in_the_child() {
    const ROUNDS: u64 = 150;
    let (mut w, file) = mapped_twice();
    let (start, end) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|s| {
        let (machine, file, start, end) = (&w.machine, &file, &start, &end);
        s.spawn(move || {
            in_thread(machine, |cx| {
                for round in 0..ROUNDS {
                    start.wait();
                    // At another moment of the fork each time.
                    (0..round * 20).for_each(|_| std::hint::spin_loop());
                    file.truncate(cx.reborrow(), LEFT * PAGE).unwrap();
                    end.wait();
                    end.wait();
                }
            });
        });
        for _ in 0..ROUNDS {
            let cx = &mut w.thread.cx();
            start.wait();
            let child = w.mm.fork(cx).unwrap();
            end.wait();
            assert_cut(&child, cx, "child");
            assert_cut(&w.mm, cx, "parent");
            child.exit(cx);
            file.truncate(cx.reborrow(), PAGES * PAGE).unwrap();
            for page in (LEFT..PAGES).flat_map(|p| [LOW + p, HIGH + p]) {
                w.mm.store(cx, at(page), 50).unwrap();
            }
            end.wait();
        }
    });
}
