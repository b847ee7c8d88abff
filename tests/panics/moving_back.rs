//! A move that a driver's panic takes back: another driver may have a page at its new place by
//! then.

use crate::common::{PAGE, RW, at, machine};
use emmu::{
    Machine, Mm,
    addr::Vpn,
    ctx::{Atomic, AtomicCallbackCx},
    driver::SpinningMmu,
    error::FaultError,
    mm::{Advice, MmapArgs, MremapArgs, MremapFlags},
    notifier::{Access, Ack, Gate, Invalidation, OrderedStore, Seat, ShadowStore},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread,
};

struct Reader(Gate<OrderedStore<Vpn>, (), Atomic>);

impl SpinningMmu for Reader {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

type Act = Box<dyn FnOnce() + Send>;

/// Acts in one of its windows, and panics there.
struct Bomb {
    gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    fuse: Mutex<Option<(u32, Act)>>,
}

impl SpinningMmu for Bomb {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let mut fuse = self.fuse.lock().unwrap();
        if let Some((left, act)) = fuse.take() {
            if left == 0 {
                drop(fuse);
                act();
                panic!("the bomb");
            }
            *fuse = Some((left - 1, act));
        }
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// Has the driver take a page as the page table has it at this moment, on a thread of its own.
fn take(machine: &Machine, mm: &Mm, reader: &Reader, page: Vpn) {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let ticket = reader.0.ticket(page, Access::Read);
    let found = mm.try_resolve(&mut cx, ticket).unwrap();
    let permit = found
        .expect("it has moved")
        .admit(&mut cx)
        .expect("no window");
    drop(permit.establish(page));
}

fn remap(addr: u64, len: u64, new_addr: u64) -> MremapArgs {
    MremapArgs {
        addr,
        old_len: len,
        new_len: len,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr,
    }
}

#[test]
fn a_translation_of_the_new_place_goes_when_the_pages_move_back() {
    const FIRST: u64 = 512;
    const NEW: u64 = 4097; // Huge pages cannot move there as a whole.
    let machine = machine(4096);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let len = 1024 * PAGE;
    let args = MmapArgs::anonymous(len).fixed(at(FIRST)).prot(RW);
    mm.mmap(&mut cx, &args).unwrap();
    mm.madvise(&mut cx, at(FIRST), len, Advice::HugePage)
        .unwrap();
    for n in [FIRST + 5, FIRST + 600] {
        mm.store(&mut cx, at(n), 7).unwrap();
    }
    let (reader, reads) = mm.register(&mut cx, |seat: Seat| {
        Arc::new(Reader(Gate::new(seat, OrderedStore::default(), ())))
    });
    let (bomb, _ticks) = mm.register(&mut cx, |seat: Seat| {
        Arc::new(Bomb {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            fuse: Mutex::default(),
        })
    });
    let moved = Vpn::containing(at(NEW + 5));
    let (m, space, other) = (Arc::clone(&machine), Arc::clone(&mm), Arc::clone(&reader));
    let act = move || {
        thread::spawn(move || take(&m, &space, &other, moved))
            .join()
            .unwrap()
    };
    // The windows of the move and of the split of the first huge page come before.
    *bomb.fuse.lock().unwrap() = Some((2, Box::new(act)));
    let args = remap(at(FIRST), len, at(NEW));
    let ended = catch_unwind(AssertUnwindSafe(|| mm.mremap(&mut cx, args)));
    let why = ended.expect_err("it panics");
    assert_eq!(why.downcast_ref(), Some(&"the bomb"));
    assert_eq!(mm.load(&mut cx, at(FIRST + 5)), Ok(7));
    let none = mm.load(&mut cx, at(NEW + 5));
    assert_eq!(none, Err(FaultError::NotMapped(at(NEW + 5))));
    assert!(
        reader.0.lock(&mut cx).store().get(&moved).is_none(),
        "stale"
    );
    assert_eq!(mm.unreachable_pages(&mut cx), []);
    reads.unregister(&mut cx);
    mm.exit(&mut cx);
    assert_eq!((machine.mem().in_use(), mm.tables()), (0, 0));
}
