//! userfaultfd: the kernel's own tests of it, by the names of their cases, and the rules that
//! recordings do not show: messages, events, waiting threads. The recordings are in `data/kinds`.

use crate::common::{
    BASE, PAGE, RW, World, at,
    objects::{shmem, swapping},
};
use emmu::{
    FaultError, Mm,
    error::{ByteRange, UserfaultError},
    mm::{
        Advice, FillMode, MapFlags, MoveMode, MremapArgs, MremapFlags, PageFaultFlags, Prot,
        ProtectMode, Pte, RegisterMode, UffdFeatures, UffdMessage, Userfault,
    },
};
use std::{sync::mpsc, thread, time::Duration};

const NONE: FillMode = FillMode::empty();
const MISSING: RegisterMode = RegisterMode::MISSING;
const WP: RegisterMode = RegisterMode::WP;

fn bytes(pages: u64, byte: u8) -> Vec<u8> {
    vec![byte; usize::try_from(pages * PAGE).unwrap()]
}
/// A world with pages `0..n` of private memory, registered.
fn world(n: u64, features: UffdFeatures, mode: RegisterMode) -> (World, Userfault) {
    let mut w = World::new();
    w.map(0, n, RW);
    let uffd = w.userfaultfd(features);
    w.register(&uffd, 0, n, mode);
    (w, uffd)
}
fn store(w: &mut World, n: u64, byte: u8) -> Result<(), FaultError> {
    w.mm.store(&mut w.thread.cx(), at(n), byte)
}
/// The pages of the world that are write-protected.
fn protected(w: &mut World, mm: &Mm) -> Vec<u64> {
    let pages = mm.protected_pages(&mut w.thread.cx(), World::pages(0, 4096));
    pages.iter().map(|p| p.0 - BASE / PAGE).collect()
}
fn own(w: &mut World) -> Vec<u64> {
    let mm = w.mm.clone();
    protected(w, &mm)
}
/// The page and the flags of the next message, which is of a fault.
fn fault(uffd: &Userfault) -> (u64, PageFaultFlags) {
    match uffd.read() {
        Some(UffdMessage::PageFault(fault)) => ((fault.addr - BASE) / PAGE, fault.flags),
        other => panic!("{other:?}"),
    }
}
fn move_to(w: &mut World, from: u64, to: u64, flags: MremapFlags) {
    let args = MremapArgs {
        addr: at(from),
        old_len: PAGE,
        new_len: PAGE,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED | flags,
        new_addr: at(to),
    };
    w.mm.mremap(&mut w.thread.cx(), args).unwrap();
}

/// `zeropage`: zeros, without a window; twice is an error.
#[test]
fn zeropage() {
    let (mut w, uffd) = world(4, UffdFeatures::empty(), MISSING);
    w.told();
    assert_eq!(w.get(1), Err(FaultError::Userfault(at(1))));
    assert_eq!(fault(&uffd), (1, PageFaultFlags::empty()));
    let cx = &mut w.thread.cx();
    assert_eq!(uffd.zeropage(cx, at(1), PAGE, NONE), Ok(PAGE));
    let again = uffd.zeropage(cx, at(1), PAGE, NONE);
    assert_eq!(again, Err(UserfaultError::Exists(at(1))));
    assert_eq!(w.get(1), Ok(0));
    assert_eq!(w.told(), "");
    w.end();
}

/// A message is read once, and stays unanswered until the page is there or the access is woken.
#[test]
fn an_access_has_one_message_until_it_is_woken() {
    let (mut w, uffd) = world(4, UffdFeatures::empty(), MISSING);
    for _ in 0..2 {
        assert_eq!(store(&mut w, 2, 7), Err(FaultError::Userfault(at(2))));
    }
    assert_eq!(fault(&uffd), (2, PageFaultFlags::WRITE));
    assert!(!uffd.has_message());
    assert_eq!(store(&mut w, 2, 7), Err(FaultError::Userfault(at(2))));
    assert!(uffd.read().is_none(), "it was read");
    uffd.wake(at(0), 4 * PAGE).unwrap();
    assert_eq!(store(&mut w, 2, 7), Err(FaultError::Userfault(at(2))));
    assert_eq!(
        fault(&uffd),
        (2, PageFaultFlags::WRITE),
        "woken for nothing"
    );
    let cx = &mut w.thread.cx();
    assert_eq!(uffd.copy(cx, at(2), &bytes(2, 9), NONE), Ok(2 * PAGE));
    assert_eq!((store(&mut w, 2, 7), w.get(3)), (Ok(()), Ok(9)));
    w.end();
}

/// A thread that waits holds nothing that the answer needs.
#[test]
fn a_waiting_thread_is_woken_by_the_answer() {
    let (mut w, uffd) = world(2, UffdFeatures::empty(), MISSING);
    let (mm, machine) = (w.mm.clone(), w.machine.clone());
    let (waits, waiting) = mpsc::channel();
    thread::scope(|s| {
        let waiter = s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            let cx = &mut thread.cx();
            assert_eq!(mm.load(cx, at(1)), Err(FaultError::Userfault(at(1))));
            waits.send(()).unwrap();
            mm.wait_for_answer(cx, at(1));
            mm.load(cx, at(1))
        });
        waiting.recv().unwrap();
        assert_eq!(fault(&uffd).0, 1);
        w.mm.mprotect(&mut w.thread.cx(), at(0), PAGE, Prot::READ)
            .unwrap();
        let cx = &mut w.thread.cx();
        uffd.copy(cx, at(1), &bytes(1, 5), NONE).unwrap();
        assert_eq!(waiter.join().unwrap(), Ok(5));
    });
    w.end();
}

/// Also one whose memory was unmapped while it waited, whatever its handler does.
#[test]
fn an_exit_wakes_every_thread_that_waits() {
    for _ in 0..20 {
        let (mut w, _uffd) = world(2, UffdFeatures::empty(), MISSING);
        let (mm, machine) = (w.mm.clone(), w.machine.clone());
        let (waits, waiting) = mpsc::channel();
        let (ends, ended) = mpsc::channel();
        thread::spawn(move || {
            let mut thread = machine.enter().unwrap();
            let cx = &mut thread.cx();
            assert_eq!(mm.load(cx, at(1)), Err(FaultError::Userfault(at(1))));
            waits.send(()).unwrap();
            mm.wait_for_answer(cx, at(1));
            ends.send(mm.load(cx, at(1))).unwrap();
        });
        waiting.recv().unwrap();
        thread::yield_now();
        let cx = &mut w.thread.cx();
        w.mm.munmap(cx, at(0), 2 * PAGE).unwrap();
        w.mm.exit(cx);
        let end = ended.recv_timeout(Duration::from_secs(60));
        assert_eq!(end, Ok(Err(FaultError::NotMapped(at(1)))));
        w.end();
    }
}

/// `sigbus`, `sigbus-wp`: a signal, and no message.
#[test]
fn sigbus() {
    let (mut w, uffd) = world(4, UffdFeatures::SIGBUS, MISSING | WP);
    assert_eq!(w.get(0), Err(FaultError::Unhandled(at(0))));
    let cx = &mut w.thread.cx();
    uffd.copy(cx, at(0), &bytes(1, 1), FillMode::WP).unwrap();
    assert_eq!(
        (w.get(0), store(&mut w, 0, 2)),
        (Ok(1), Err(FaultError::Unhandled(at(0))))
    );
    assert!(!uffd.has_message());
    w.end();
}

/// `poison`: every other page is SIGBUS, the others have data; a copy takes the poison away.
#[test]
fn poison() {
    let (mut w, uffd) = world(4, UffdFeatures::POISON, MISSING);
    for page in 0..4 {
        let cx = &mut w.thread.cx();
        match page % 2 {
            0 => uffd.poison(cx, at(page), PAGE, NONE),
            _ => uffd.copy(cx, at(page), &bytes(1, 3), NONE),
        }
        .unwrap();
    }
    assert_eq!(
        [w.get(0), w.get(2)],
        [0, 2].map(|p| Err(FaultError::Poisoned(at(p))))
    );
    assert_eq!([w.get(1), w.get(3)], [Ok(3); 2]);
    assert_eq!(w.pte(0), Pte::Poisoned);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    assert_eq!(
        w.inside(&child, |w| w.get(0)),
        Err(FaultError::Poisoned(at(0))),
        "kept by fork"
    );
    w.reap(&child);
    let cx = &mut w.thread.cx();
    uffd.copy(cx, at(0), &bytes(1, 8), NONE).unwrap();
    assert_eq!(w.get(0), Ok(8));
    w.advise(2, 1, Advice::DontNeed).unwrap();
    assert_eq!(
        w.get(2),
        Err(FaultError::Userfault(at(2))),
        "dropped with the page"
    );
    w.end();
}

/// `minor`: the object's page, changed through another mapping, is mapped by the answer.
#[test]
fn minor() {
    let mut w = World::new();
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, MapFlags::SHARED);
    w.map_file(8, 4, &file, 0, MapFlags::SHARED);
    let uffd = w.userfaultfd(UffdFeatures::MINOR_SHMEM);
    w.register(&uffd, 0, 4, RegisterMode::MINOR);
    assert_eq!(w.get(1), Err(FaultError::Userfault(at(1))));
    assert_eq!(fault(&uffd), (1, PageFaultFlags::MINOR));
    w.put(9, 77);
    let cx = &mut w.thread.cx();
    assert_eq!(uffd.map_present(cx, at(1), PAGE, NONE), Ok(PAGE));
    assert_eq!(w.get(1), Ok(77));
    w.advise(10, 1, Advice::Remove).unwrap();
    let cx = &mut w.thread.cx();
    let hole = uffd.map_present(cx, at(2), PAGE, NONE);
    assert_eq!(hole, Err(UserfaultError::NoPage(at(2))));
    assert_eq!(w.get(2), Ok(0), "a hole is no minor fault");
    drop(file);
    w.end();
}

/// `wp-unpopulated`: holes are protected by markers, a read keeps the protection, a write faults,
/// and dropping private memory drops its markers.
#[test]
fn wp_unpopulated() {
    let (mut w, uffd) = world(4, UffdFeatures::WP_UNPOPULATED, WP);
    w.write_protect(&uffd, 0, 4, ProtectMode::WP);
    assert_eq!(own(&mut w), [0, 1, 2, 3]);
    assert_eq!((w.pte(0), w.get(0)), (Pte::Protected, Ok(0)));
    assert_eq!(own(&mut w), [0, 1, 2, 3], "a read keeps it");
    for page in [0, 1] {
        assert_eq!(store(&mut w, page, 1), Err(FaultError::Userfault(at(page))));
        assert_eq!(
            fault(&uffd),
            (page, PageFaultFlags::WRITE | PageFaultFlags::WP)
        );
    }
    w.write_protect(&uffd, 0, 2, ProtectMode::empty());
    assert_eq!([store(&mut w, 0, 1), store(&mut w, 1, 1)], [Ok(()); 2]);
    w.advise(2, 2, Advice::DontNeed).unwrap();
    assert!(own(&mut w).is_empty());
    w.end();
}

/// `wp-fork`: the child inherits no protection; `wp-fork-with-event`: it does, with a userfaultfd
/// of its own.
#[test]
fn wp_fork() {
    for with_event in [false, true] {
        let event = match with_event {
            true => UffdFeatures::EVENT_FORK,
            false => UffdFeatures::empty(),
        };
        let (mut w, uffd) = world(4, event | UffdFeatures::WP_UNPOPULATED, WP);
        w.put(0, 1);
        w.write_protect(&uffd, 0, 2, ProtectMode::WP);
        let child = w.mm.fork(&mut w.thread.cx()).unwrap();
        let inherited = protected(&mut w, &child);
        assert_eq!(inherited, if with_event { vec![0, 1] } else { vec![] });
        assert_eq!(own(&mut w), [0, 1]);
        if with_event {
            let early = uffd.write_protect(&mut w.thread.cx(), at(0), PAGE, ProtectMode::WP);
            assert_eq!(early, Err(UserfaultError::Changing));
            let Some(UffdMessage::Fork(of_child)) = uffd.read() else {
                panic!("no event")
            };
            let result = w.inside(&child, |w| w.mm.store(&mut w.thread.cx(), at(0), 2));
            assert_eq!(result, Err(FaultError::Userfault(at(0))));
            assert!(!uffd.has_message());
            assert_eq!(fault(&of_child).0, 0);
            w.write_protect(&of_child, 0, 1, ProtectMode::empty());
            w.inside(&child, |w| w.put(0, 2));
        } else {
            w.inside(&child, |w| w.put(0, 2));
        }
        w.reap(&child);
        w.end();
    }
}

/// `events`: moves, drops and ends of mappings are told in their order, and nothing is answered
/// before that was read (`mmap-changing`).
#[test]
fn events() {
    let all = UffdFeatures::EVENT_REMAP | UffdFeatures::EVENT_REMOVE | UffdFeatures::EVENT_UNMAP;
    let (mut w, uffd) = world(8, all, MISSING);
    let cx = &mut w.thread.cx();
    uffd.copy(cx, at(0), &bytes(1, 6), NONE).unwrap();
    move_to(&mut w, 0, 20, MremapFlags::empty());
    let cx = &mut w.thread.cx();
    let changing = Err(UserfaultError::Changing);
    assert_eq!(uffd.copy(cx, at(1), &bytes(1, 1), NONE), changing);
    assert_eq!(uffd.zeropage(cx, at(1), PAGE, NONE), changing);
    assert_eq!(uffd.poison(cx, at(1), PAGE, NONE), changing);
    assert_eq!(uffd.map_present(cx, at(1), PAGE, NONE), changing);
    let moved = uffd.move_pages(cx, at(1), (at(20), PAGE), MoveMode::empty());
    assert_eq!(moved, changing);
    w.advise(1, 1, Advice::DontNeed).unwrap();
    w.mm.munmap(&mut w.thread.cx(), at(2), PAGE).unwrap();
    let told: Vec<String> = std::iter::from_fn(|| uffd.read())
        .map(|message| match message {
            UffdMessage::Remap { from, to, len } => {
                format!("remap {from:x} {to:x} {len:x}")
            }
            UffdMessage::Remove { start, end } => format!("remove {start:x} {end:x}"),
            UffdMessage::Unmap { start, end } => format!("unmap {start:x} {end:x}"),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            format!("remap {:x} {:x} 1000", at(0), at(20)),
            format!("unmap {:x} {:x}", at(0), at(1)),
            format!("remove {:x} {:x}", at(1), at(2)),
            format!("unmap {:x} {:x}", at(2), at(3)),
        ]
    );
    assert_eq!(w.get(20), Ok(6));
    w.advise(20, 1, Advice::DontNeed).unwrap();
    assert!(uffd.read().is_some(), "the new place is registered");
    assert_eq!(w.get(20), Err(FaultError::Userfault(at(20))));
    w.end();
}

/// Without the event a moved mapping is registered no longer, and loses its protection (C46).
/// `userfaultfd_event_wait_completion`: no handler will come to know the children's userfaultfds.
#[test]
fn a_close_takes_along_the_children_that_were_not_read_about() {
    let (mut w, uffd) = world(2, UffdFeatures::EVENT_FORK, MISSING);
    let child = w.fork();
    let grandchild = child.fork(&mut w.thread.cx()).unwrap();
    uffd.close(&mut w.thread.cx());
    for mm in [&child, &grandchild] {
        assert_eq!(mm.load(&mut w.thread.cx(), at(0)), Ok(0));
        w.reap(mm);
    }
    assert_eq!(w.get(0), Ok(0));
    w.end();
}

#[test]
fn a_move_without_its_event_ends_registration_and_protection() {
    for event in [UffdFeatures::empty(), UffdFeatures::EVENT_REMAP] {
        let (mut w, uffd) = world(2, event | UffdFeatures::WP_UNPOPULATED, WP);
        w.put(0, 1);
        w.write_protect(&uffd, 0, 2, ProtectMode::WP);
        move_to(&mut w, 0, 8, MremapFlags::empty());
        move_to(&mut w, 1, 9, MremapFlags::empty());
        let stays = event == UffdFeatures::EVENT_REMAP;
        assert_eq!(own(&mut w), if stays { vec![8, 9] } else { vec![] });
        assert_eq!(store(&mut w, 8, 2).is_err(), stays);
        w.end();
    }
}

/// The mark goes along with a page that goes to swap or to another frame.
#[test]
fn protection_survives_swap_and_migration() {
    let mut w = swapping(256, 64);
    w.map(0, 2, RW);
    w.fill(0, 2);
    let uffd = w.userfaultfd(UffdFeatures::empty());
    w.register(&uffd, 0, 2, WP);
    w.write_protect(&uffd, 0, 2, ProtectMode::WP);
    w.advise(0, 1, Advice::PageOut).unwrap();
    assert!(matches!(w.pte(0), Pte::Swap(_)));
    assert!(w.mm.migrate(&mut w.thread.cx(), at(1)).unwrap().is_some());
    assert_eq!(own(&mut w), [0, 1]);
    assert_eq!(w.get(0), Ok(1));
    for page in [0, 1] {
        assert_eq!(store(&mut w, page, 9), Err(FaultError::Userfault(at(page))));
    }
    w.end();
}

/// A protected page of an object leaves a marker when its mapping is dropped; unregistering clears
/// it.
#[test]
fn protection_of_shared_memory_survives_its_mapping() {
    let mut w = World::new();
    w.share(0, 4);
    let uffd = w.userfaultfd(UffdFeatures::WP_HUGETLBFS_SHMEM);
    w.register(&uffd, 0, 4, WP);
    w.put(0, 5);
    w.write_protect(&uffd, 0, 2, ProtectMode::WP);
    w.advise(0, 4, Advice::DontNeed).unwrap();
    assert_eq!((own(&mut w), w.pte(0)), (vec![0, 1], Pte::Protected));
    assert_eq!(w.get(0), Ok(5));
    assert_eq!(store(&mut w, 0, 6), Err(FaultError::Userfault(at(0))));
    // A guard takes the place of the marker, where Linux would try for ever.
    w.advise(0, 4, Advice::DontNeed).unwrap();
    w.advise(1, 1, Advice::GuardInstall).unwrap();
    assert_eq!(w.pte(1), Pte::Guard);
    w.told();
    uffd.unregister(&mut w.thread.cx(), at(0), 4 * PAGE)
        .unwrap();
    assert_eq!((w.told().as_str(), own(&mut w)), ("W0..4", vec![]));
    w.put(0, 6);
    w.end();
}

/// Memory of different userfaultfds does not merge, and is registered with one.
#[test]
fn registrations_keep_neighbours_apart() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let first = w.userfaultfd(UffdFeatures::empty());
    let second = w.userfaultfd(UffdFeatures::empty());
    w.register(&first, 0, 2, MISSING);
    w.register(&second, 2, 2, MISSING);
    assert_eq!(w.spans(), [(0, 2), (2, 4)]);
    let cx = &mut w.thread.cx();
    let taken = second.register(cx, at(0), PAGE, MISSING);
    assert_eq!(taken, Err(UserfaultError::Taken(at(0))));
    let other = second.unregister(cx, at(0), PAGE);
    assert_eq!(other, Err(UserfaultError::Unsuitable(at(0))));
    first.close(cx);
    second.close(cx);
    assert_eq!(w.spans(), [(0, 4)]);
    assert_eq!(w.get(0), Ok(0));
    w.end();
}

/// The handshake comes first, and once; modes and ranges are checked as Linux does.
#[test]
fn arguments() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let uffd = w.mm.userfaultfd();
    let cx = &mut w.thread.cx();
    let handshake = Err(UserfaultError::Handshake);
    assert_eq!(uffd.register(cx, at(0), PAGE, MISSING), handshake);
    assert_eq!(uffd.api(1, UffdFeatures::empty()).map(drop), handshake);
    let unknown = UffdFeatures::from_bits_retain(1 << 40);
    assert_eq!(uffd.api(Userfault::VERSION, unknown).map(drop), handshake);
    uffd.api(Userfault::VERSION, UffdFeatures::empty()).unwrap();
    assert_eq!(
        uffd.api(Userfault::VERSION, UffdFeatures::empty())
            .map(drop),
        handshake
    );
    for (addr, len) in [
        (at(0) + 1, PAGE),
        (at(0), 0),
        (at(0), 1),
        (0, PAGE),
        (1 << 47, PAGE),
    ] {
        let range = Err(UserfaultError::Range(ByteRange { addr, len }));
        assert_eq!(uffd.register(cx, addr, len, MISSING), range);
    }
    let empty = uffd.register(cx, at(0), PAGE, RegisterMode::empty());
    assert_eq!(empty, Err(UserfaultError::Mode(0)));
    let private = uffd.register(cx, at(0), PAGE, RegisterMode::MINOR);
    assert_eq!(private, Err(UserfaultError::Unsuitable(at(0))));
    let hole = uffd.register(cx, at(9), PAGE, MISSING);
    assert_eq!(hole, Err(UserfaultError::NothingMapped(at(9))));
    let both = ProtectMode::WP | ProtectMode::DONTWAKE;
    let both = uffd.write_protect(cx, at(0), PAGE, both);
    assert_eq!(both, Err(UserfaultError::Mode(3)));
    let unregistered = uffd.copy(cx, at(0), &bytes(1, 1), NONE);
    assert_eq!(unregistered, Err(UserfaultError::NotRegistered(at(0))));
    uffd.register(cx, at(0), PAGE, MISSING).unwrap();
    let across = uffd.copy(cx, at(0), &bytes(2, 1), NONE);
    assert_eq!(across, Err(UserfaultError::NotRegistered(at(0))));
    let unprotected = uffd.copy(cx, at(0), &bytes(1, 1), FillMode::WP);
    assert_eq!(unprotected, Err(UserfaultError::Mode(2)));
    w.mm.exit(&mut w.thread.cx());
    drop(w);
    assert_eq!(uffd.wake(at(0), PAGE), Err(UserfaultError::Ended));
}

/// `move`: data and page move, and the source is missing then; a shared page stays.
#[test]
fn pages_move() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.map(8, 4, RW);
    let uffd = w.userfaultfd(UffdFeatures::MOVE);
    w.register(&uffd, 0, 4, MISSING);
    for page in 8..11 {
        w.put(page, page as u8);
    }
    let before = w.pte(8);
    w.told();
    let cx = &mut w.thread.cx();
    let moved = uffd.move_pages(cx, at(0), (at(8), 4 * PAGE), MoveMode::empty());
    assert_eq!(moved, Ok(3 * PAGE), "up to the hole");
    assert_eq!(w.told(), "W8..12 W11..12");
    assert_eq!(w.pte(0), before, "the same frame");
    assert_eq!([w.get(0), w.get(2), w.get(8)], [Ok(8), Ok(10), Ok(0)]);
    w.check_rmap();
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    w.put(9, 1);
    let cx = &mut w.thread.cx();
    let shared = uffd.move_pages(cx, at(3), (at(8), PAGE), MoveMode::empty());
    assert_eq!(shared, Ok(PAGE), "the zero page is nobody's");
    let hole = uffd.move_pages(cx, at(1), (at(10), PAGE), MoveMode::ALLOW_SRC_HOLES);
    assert_eq!(hole, Err(UserfaultError::Exists(at(1))));
    w.reap(&child);
    w.end();
}

/// Every answer that runs out of memory half-way keeps what it did, and loses nothing.
#[test]
fn an_answer_without_memory_loses_nothing() {
    for nth in 1.. {
        let (mut w, uffd) = world(4, UffdFeatures::empty(), MISSING);
        w.machine.mem().inject().arm(nth);
        let cx = &mut w.thread.cx();
        let done = uffd.copy(cx, at(0), &bytes(3, 4), NONE);
        let refused = w.machine.mem().inject().count() >= nth;
        w.machine.mem().inject().disarm();
        let pages = done.unwrap_or(0) / PAGE;
        for page in 0..3 {
            let expected = match page < pages {
                true => Ok(4),
                false => Err(FaultError::Userfault(at(page))),
            };
            assert_eq!(w.get(page), expected, "{nth}");
        }
        w.end();
        if !refused {
            assert_eq!(done, Ok(3 * PAGE));
            return;
        }
    }
}
