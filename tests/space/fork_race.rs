//! What another thread takes from a process while it forks is not in the child either: the child's
//! mappings are known to the reverse maps before entries are copied, behind those of the parent,
//! and an entry is copied under the lock of its leaf. So a walk finds the parent's entry before it
//! is copied, or the child's after.

use crate::common::{PAGE, World, at, calls::private, objects};
use emmu::{
    FaultError, Machine, Mm,
    addr::{Vpn, VpnRange},
    ctx::{AtomicCallbackCx, CallCx, CallbackCx, Sleepable},
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
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        if inv.event() == Event::ProtectionPage {
            self.reached(inv.range().start(), When::Before);
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    /// Blocks, which a driver must not do here; but the fork holds no lock that the errand takes.
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, range: VpnRange) {
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

fn in_thread(machine: &Arc<Machine>, f: impl FnOnce(&mut CallCx<'_>)) {
    let mut thread = machine.enter().expect("a new thread");
    f(&mut thread.cx());
}

/// Both mappings end with the object; what is left of it was copied.
fn assert_cut(mm: &Mm, cx: &mut CallCx<'_>, who: &str) {
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

/// The object is cut when the fork has come to a mapping, or is done with its entries: the child
/// loses the rest too.
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

/// Forks while another thread does something to the pages, at another moment of the fork each time;
/// then both are looked at, and the parent gets back what it lost.
fn forks_beside(
    w: &mut World,
    take: impl Fn(&Mm, &mut CallCx<'_>) + Send,
    look: impl Fn(&Mm, &Mm, &mut CallCx<'_>),
    give_back: impl Fn(&Mm, &mut CallCx<'_>),
) {
    const ROUNDS: u64 = 150;
    let (start, end) = (Barrier::new(2), Barrier::new(2));
    std::thread::scope(|s| {
        let (machine, mm, start, end) = (&w.machine, &w.mm, &start, &end);
        s.spawn(move || {
            in_thread(machine, |cx| {
                for round in 0..ROUNDS {
                    start.wait();
                    (0..round * 20).for_each(|_| std::hint::spin_loop());
                    take(mm, cx);
                    end.wait();
                    end.wait();
                }
            });
        });
        for _ in 0..ROUNDS {
            let cx = &mut w.thread.cx();
            start.wait();
            let child = mm.fork(cx).unwrap();
            end.wait();
            look(mm, &child, cx);
            child.exit(cx);
            give_back(mm, cx);
            end.wait();
        }
    });
}

#[test]
fn what_another_thread_truncates_during_a_fork_is_not_in_the_child() {
    let (mut w, file) = mapped_twice();
    forks_beside(
        &mut w,
        |_, cx| file.truncate(cx.reborrow(), LEFT * PAGE).unwrap(),
        |mm, child, cx| {
            assert_cut(child, cx, "child");
            assert_cut(mm, cx, "parent");
        },
        |mm, cx| {
            file.truncate(cx.reborrow(), PAGES * PAGE).unwrap();
            for page in (LEFT..PAGES).flat_map(|p| [LOW + p, HIGH + p]) {
                mm.store(cx, at(page), 50).unwrap();
            }
        },
    );
}

/// `munmap` takes the mmap lock that a fork holds: the child is from before it or from after it,
/// with all pages or with none.
#[test]
fn what_another_thread_unmaps_during_a_fork_is_in_the_child_as_a_whole_or_not_at_all() {
    let mut w = World::new();
    let map = |mm: &Mm, cx: &mut CallCx<'_>| {
        mm.mmap(cx, &private(LOW, PAGES)).unwrap();
        for page in 0..PAGES {
            mm.store(cx, at(page), 50).unwrap();
        }
    };
    map(&w.mm, &mut w.thread.cx());
    let there = |mm: &Mm, cx: &mut CallCx<'_>| {
        let look = |page| match mm.load(cx, at(page)) {
            Ok(byte) => {
                assert_eq!(byte, 50, "page {page}");
                true
            }
            Err(e) => {
                assert!(matches!(e, FaultError::NotMapped(_)), "page {page}: {e:?}");
                false
            }
        };
        (0..PAGES).map(look).filter(|there| *there).count() as u64
    };
    forks_beside(
        &mut w,
        |mm, cx| mm.munmap(cx, at(LOW), PAGES * PAGE).unwrap(),
        |mm, child, cx| {
            assert_eq!(there(mm, cx), 0, "the parent's are gone");
            let left = there(child, cx);
            assert!(
                left == 0 || left == PAGES,
                "{left} of {PAGES} pages in the child"
            );
        },
        map,
    );
    w.end();
}
