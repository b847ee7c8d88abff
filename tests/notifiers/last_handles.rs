//! A driver drops the last handle on another address space inside a callback, while the reverse map
//! that leads to both is locked.

use crate::common::{BASE, PAGE, RW, at, ends_within, machine};
use emmu::{
    Mm,
    addr::VpnRange,
    ctx::{Atomic, AtomicCallbackCx, CallCx},
    driver::SpinningMmu,
    file::{File, FileMode, Shmem},
    mm::{Advice, MapFlags, MmapArgs},
    notifier::{Ack, Gate, Invalidation, OrderedStore, Seat},
};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// The callback in which the handle is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Begin,
    End,
}

/// Keeps an address space until it is told of the next window.
struct Keeper {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    kept: Mutex<Option<Arc<Mm>>>,
    drops: In,
}

impl Keeper {
    fn called(&self, callback: In) {
        if callback == self.drops {
            drop(self.kept.lock().unwrap().take());
        }
    }
}

impl SpinningMmu for Keeper {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.called(In::Begin);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, _: VpnRange) {
        self.called(In::End);
    }
}

const PAGES: u64 = 512;
/// A file of a few pages lies behind the private memory.
const FILE: u64 = PAGES + 8;

fn run(drops: In, work: fn(&mut CallCx<'_>, &Mm, &File)) {
    let machine = machine(4096);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let private = MmapArgs::anonymous(PAGES * PAGE).fixed(BASE).prot(RW);
    mm.mmap(&mut cx, &private).unwrap();
    let memory = Shmem::memfd(machine.host(), "shared", 4 * PAGE).unwrap();
    let file = File::open(memory, FileMode::ReadWrite);
    let args = MmapArgs::anonymous(4 * PAGE).fixed(at(FILE)).prot(RW);
    let mut args = args.file(&file, 0);
    args.flags = MapFlags::FIXED | MapFlags::SHARED;
    mm.mmap(&mut cx, &args).unwrap();
    drop(args);
    for n in (0..PAGES).chain(FILE..FILE + 4) {
        mm.store(&mut cx, at(n), 1).unwrap();
    }
    let kept = Mutex::new(Some(mm.fork(&mut cx).unwrap()));
    let (keeper, registration) = mm.register(&mut cx, |seat: Seat| {
        let gate = Gate::new(seat, OrderedStore::default(), ());
        Arc::new(Keeper { gate, kept, drops })
    });
    work(&mut cx, &mm, &file);
    assert!(keeper.kept.lock().unwrap().is_none(), "no window came");
    // The reverse maps have forgotten the child, and lead to all of the parent.
    assert_eq!(file.object().mapping().vmas(), 1);
    assert_eq!(mm.unreachable_pages(&mut cx), []);
    registration.unregister(&mut cx);
    mm.exit(&mut cx);
    assert_eq!(file.object().mapping().vmas(), 0);
    drop(file);
    assert_eq!(machine.mem().in_use(), 0);
}

fn ends(drops: In, work: fn(&mut CallCx<'_>, &Mm, &File)) {
    ends_within(Duration::from_secs(600), move || run(drops, work));
}

#[test]
fn a_migration_ends() {
    ends(In::Begin, |cx, mm, _| {
        mm.migrate(cx, at(3)).unwrap().expect("it moves");
    });
}

#[test]
fn a_truncation_ends() {
    ends(In::Begin, |cx, _, file| {
        file.truncate(cx.reborrow(), PAGE).unwrap();
    });
}

#[test]
fn a_migration_of_a_page_of_a_file_ends() {
    ends(In::Begin, |cx, mm, _| {
        mm.migrate(cx, at(FILE + 1)).unwrap().expect("it moves");
    });
}

/// The window of a collapse ends while walks over the private memory are kept out.
#[test]
fn a_collapse_ends() {
    ends(In::End, |cx, mm, _| {
        let (at, len) = (BASE, PAGES * PAGE);
        mm.madvise(cx, at, len, Advice::Collapse).unwrap();
    });
}
