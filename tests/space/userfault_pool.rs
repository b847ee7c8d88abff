//! userfaultfd over huge pages of a pool: what the recordings `uffd_huge_…` in `data/kinds` do not
//! show, which is events, waiting threads, and pages that return to the pool.

use crate::common::{PAGE, World, at, calls::private};
use emmu::{
    FaultError, HugeSize, MemConfig,
    error::{ObjectError, UserfaultError},
    file::{FallocateMode, File, FileMode, HugetlbFile, MemoryObject},
    mm::{
        Advice, FillMode, MapFlags, MmapArgs, ProtectMode, RegisterMode, UffdFeatures, UffdMessage,
        Userfault,
    },
};
use std::{sync::mpsc, thread};

const HUGE: u64 = 512;
const BYTES: u64 = HUGE * PAGE;
const NONE: FillMode = FillMode::empty();

/// A world with `n` private huge pages from `at(0)` on, registered.
fn world(n: u64, features: UffdFeatures, mode: RegisterMode) -> (World, Userfault) {
    let mut w = World::with_pool(
        MemConfig {
            frames: 8192,
            ..MemConfig::default()
        },
        6,
    );
    w.mmap(&huge(0, n)).unwrap();
    let uffd = w.userfaultfd(features);
    w.register(&uffd, 0, n * HUGE, mode);
    (w, uffd)
}
fn huge(from: u64, n: u64) -> MmapArgs {
    private(from * HUGE, n * HUGE).flags(MapFlags::HUGETLB | MapFlags::FIXED)
}
fn page(byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(BYTES).unwrap()]
}
fn free(w: &World) -> (u64, i64) {
    let pool = w.machine.mem().huge_pool(HugeSize::Mib2);
    (pool.free, pool.reserved)
}

/// `userfaultfd_unmap_prep`, in `mmap` with `MAP_FIXED`; `userfaultfd_remove` for the whole pages
/// of an advice.
#[test]
fn what_goes_with_a_new_mapping_or_an_advice_is_told() {
    let features = UffdFeatures::EVENT_UNMAP | UffdFeatures::EVENT_REMOVE;
    let (mut w, uffd) = world(3, features, RegisterMode::MISSING);
    w.mmap(&huge(0, 1)).unwrap();
    w.advise(HUGE, HUGE + 7, Advice::DontNeed).unwrap();
    w.advise(2 * HUGE, 7, Advice::DontNeed).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| uffd.read())
        .map(|message| match message {
            UffdMessage::Unmap { start, end } => ("unmap", start, end),
            UffdMessage::Remove { start, end } => ("remove", start, end),
            other => panic!("{other:?}"),
        })
        .collect();
    let (first, second) = (at(HUGE), at(2 * HUGE));
    assert_eq!(
        told,
        [("unmap", at(0), first), ("remove", first, second)],
        "an advice for less than a page drops nothing"
    );
}

#[test]
fn a_thread_waits_for_the_huge_page_around_its_byte() {
    let (mut w, uffd) = world(1, UffdFeatures::EXACT_ADDRESS, RegisterMode::MISSING);
    let byte = at(HUGE - 1) + 5;
    assert_eq!(
        w.mm.load(&mut w.thread.cx(), byte),
        Err(FaultError::Userfault(byte))
    );
    let (mm, machine) = (w.mm.clone(), w.machine.clone());
    let (waits, waiting) = mpsc::channel();
    thread::scope(|s| {
        let waiter = s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            let cx = &mut thread.cx();
            waits.send(()).unwrap();
            // Another page of the huge page waits for the same answer.
            mm.wait_for_answer(cx, at(3));
            mm.load(cx, byte)
        });
        waiting.recv().unwrap();
        let Some(UffdMessage::PageFault(fault)) = uffd.read() else {
            panic!("the load waits")
        };
        assert_eq!(fault.addr, byte);
        let cx = &mut w.thread.cx();
        uffd.copy(cx, at(0), &page(7), NONE).unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(7));
    });
}

/// Pages that an answer cannot place are in the pool again, with their reservations.
#[test]
fn a_refused_answer_takes_nothing_from_the_pool() {
    let (mut w, uffd) = world(2, UffdFeatures::empty(), RegisterMode::MISSING);
    assert_eq!(free(&w), (6, 2));
    let cx = &mut w.thread.cx();
    let (half, whole) = (at(HUGE / 2), at(0));
    assert_eq!(
        uffd.copy(cx, half, &page(1), NONE),
        Err(UserfaultError::InsideHugePage(half))
    );
    assert_eq!(
        uffd.zeropage(cx, whole, BYTES, NONE),
        Err(UserfaultError::Unsuitable(whole))
    );
    assert_eq!(uffd.copy(cx, whole, &page(1), NONE), Ok(BYTES));
    assert_eq!(
        uffd.copy(cx, whole, &page(2), NONE),
        Err(UserfaultError::Exists(whole))
    );
    assert_eq!(uffd.poison(cx, at(HUGE), BYTES, NONE), Ok(BYTES));
    assert_eq!(
        w.mm.load(cx, at(HUGE) + 9),
        Err(FaultError::Poisoned(at(HUGE) + 9))
    );
    assert_eq!(free(&w), (5, 1));
    let mm = w.mm.clone();
    mm.exit(&mut w.thread.cx());
    assert_eq!(free(&w), (6, 0));
}

/// One window a change of protection, none for an answer that brings a page.
#[test]
fn windows_cover_whole_huge_pages() {
    let (mut w, uffd) = world(2, UffdFeatures::empty(), RegisterMode::WP);
    w.put(5, 1);
    w.windows();
    let both = ProtectMode::WP;
    w.write_protect(&uffd, 0, 2 * HUGE, both);
    assert_eq!(w.windows(), [(0, 2 * HUGE)]);
    assert_eq!(
        w.mm.store(&mut w.thread.cx(), at(5), 2),
        Err(FaultError::Userfault(at(5)))
    );
    // An absent page has the mark from the beginning.
    assert_eq!(w.get(HUGE + 3), Ok(0));
    assert_eq!(
        w.mm.store(&mut w.thread.cx(), at(HUGE + 3), 2),
        Err(FaultError::Userfault(at(HUGE + 3)))
    );
    assert!(w.windows().is_empty());
    let pages = World::pages(0, 2 * HUGE);
    let marked = w.mm.protected_pages(&mut w.thread.cx(), pages);
    assert_eq!(marked.len() as u64, 2 * HUGE);
    w.advise(0, 2 * HUGE, Advice::DontNeed).unwrap();
    let marked = w.mm.protected_pages(&mut w.thread.cx(), pages);
    assert_eq!(marked.len() as u64, 2 * HUGE, "markers stay");
    w.write_protect(&uffd, 0, 2 * HUGE, ProtectMode::empty());
    w.put(5, 3);
    assert_eq!(w.get(5), Ok(3));
}

#[test]
fn fallocate_of_an_empty_pool_keeps_what_it_took() {
    let (mut w, _uffd) = world(1, UffdFeatures::empty(), RegisterMode::MISSING);
    let object = HugetlbFile::memfd(w.machine.host(), "h", 0, HugeSize::Mib2).unwrap();
    let file = File::open(object.clone(), FileMode::ReadWrite);
    let none = FallocateMode::empty();
    let cx = &mut w.thread.cx();
    assert_eq!(
        file.fallocate(cx.reborrow(), none, 0, 6 * BYTES),
        Err(ObjectError::NoHugePage)
    );
    assert_eq!((object.size(), free(&w)), (0, (1, 1)));
    let cx = &mut w.thread.cx();
    file.fallocate(cx.reborrow(), none, BYTES + 1, 10).unwrap();
    assert_eq!(object.size(), BYTES + 11);
    file.truncate(cx.reborrow(), 0).unwrap();
    assert_eq!(free(&w), (6, 1));
}
