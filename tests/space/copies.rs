//! Copies between two address spaces, as `process_vm_readv` and `process_vm_writev` make them.

use crate::common::{PAGE, RW, World, at, calls::READ};
use emmu::{
    FaultError, Mm, TASK_SIZE,
    error::{CopyError, Errno},
    mm::{Advice, MapFlags, MmapArgs, PageState, Prot},
};
use std::sync::Arc;

const LEN: usize = PAGE as usize;

/// A world with memory on pages `[0, 4)`, and another address space on its machine with the same.
fn two() -> (World, Arc<Mm>) {
    let mut w = World::new();
    w.map(0, 4, RW);
    let other = Mm::new(&w.machine);
    let args = MmapArgs::anonymous(4 * PAGE).fixed(at(0));
    other.mmap(&mut w.thread.cx(), &args).unwrap();
    (w, other)
}
/// How many pages of `[0, 8)` are there.
fn pages(w: &mut World, mm: &Mm) -> usize {
    mm.pagemap(&mut w.thread.cx(), World::pages(0, 8)).len()
}

#[test]
fn bytes_go_over_page_borders_on_both_sides() {
    let (mut w, other) = two();
    let cx = &mut w.thread.cx();
    let bytes: Vec<u8> = (0..2 * LEN + 100).map(|n| (n % 251) as u8).collect();
    w.mm.write_bytes(cx, at(0) + 300, &bytes).unwrap();
    let copied =
        w.mm.copy_to(cx, at(0) + 300, (&other, at(0) + 4000), bytes.len());
    assert_eq!(copied, Ok(bytes.len()));
    let mut copy = vec![0; bytes.len()];
    other.read_bytes(cx, at(0) + 4000, &mut copy).unwrap();
    assert_eq!(copy, bytes);
    let back =
        w.mm.copy_from(cx, at(0) + 7, (&other, at(0) + 4000), bytes.len());
    assert_eq!(back, Ok(bytes.len()));
    w.mm.read_bytes(cx, at(0) + 7, &mut copy).unwrap();
    assert_eq!(copy, bytes);
    other.exit(cx);
}

#[test]
fn a_copy_writes_to_its_own_side_alone() {
    let (mut w, other) = two();
    w.fill(0, 4);
    let cx = &mut w.thread.cx();
    w.mm.copy_to(cx, at(0), (&other, at(0)), 4 * LEN).unwrap();
    let child = other.fork(cx).unwrap();
    w.mm.store(cx, at(1), 9).unwrap();
    w.mm.copy_to(cx, at(1), (&other, at(1)), LEN).unwrap();
    assert_eq!(
        (other.load(cx, at(1)), child.load(cx, at(1))),
        (Ok(9), Ok(1))
    );
    child.exit(cx);
    other.exit(cx);
}

#[test]
fn an_error_says_which_side_and_what_was_copied_before_it_counts() {
    let (mut w, other) = two();
    w.map(8, 1, Prot::empty());
    let cx = &mut w.thread.cx();
    let e = w.mm.copy_to(cx, at(8), (&other, at(0)), 1).unwrap_err();
    assert_eq!(e, CopyError::Own(FaultError::Denied(at(8))));
    let e = w.mm.copy_to(cx, at(0), (&other, at(4)), 1).unwrap_err();
    assert_eq!(
        (e, e.errno()),
        (
            CopyError::Other(FaultError::NotMapped(at(4))),
            Errno::EFAULT
        )
    );
    // The other side ends after a page, this one after a page and a half.
    assert_eq!(w.mm.copy_to(cx, at(0), (&other, at(3)), 2 * LEN), Ok(LEN));
    let (half, there) = (at(2) + PAGE / 2, at(0) + 1);
    let own = w.mm.copy_to(cx, half, (&other, there), 3 * LEN);
    assert_eq!(own, Ok(LEN + LEN / 2));
    let own = w.mm.copy_from(cx, half, (&other, there), 3 * LEN);
    assert_eq!(own, Ok(LEN + LEN / 2));
    for nothing in [at(0), at(100), 0, TASK_SIZE] {
        assert_eq!(w.mm.copy_to(cx, nothing, (&other, nothing), 0), Ok(0));
    }
    for end in [TASK_SIZE, u64::MAX] {
        assert!(w.mm.copy_to(cx, end, (&other, at(0)), 1).is_err());
        assert!(w.mm.copy_to(cx, at(0), (&other, end), 1).is_err());
        assert!(
            w.mm.copy_from(cx, at(0), (&other, end), usize::MAX)
                .is_err()
        );
    }
    other.exit(cx);
}

/// What the other side lacks leaves this side as it was; what this side lacks, the other's pages
/// are there for.
#[test]
fn the_other_sides_pages_come_first() {
    let (mut w, other) = two();
    other.munmap(&mut w.thread.cx(), at(2), PAGE).unwrap();
    let mm = w.mm.clone();
    let copy = mm.copy_from(&mut w.thread.cx(), at(0), (&other, at(2)), LEN);
    assert!(copy.is_err());
    assert_eq!((pages(&mut w, &mm), pages(&mut w, &other)), (0, 0));
    let copy = mm.copy_to(&mut w.thread.cx(), at(50), (&other, at(0)), 2 * LEN);
    assert!(copy.is_err());
    assert_eq!((pages(&mut w, &mm), pages(&mut w, &other)), (0, 2));
    // Both pages, though only one byte of the second is missing.
    let copy = mm.copy_to(&mut w.thread.cx(), at(3), (&other, at(3) - PAGE / 2), LEN);
    assert!(copy.is_err());
    assert_eq!((pages(&mut w, &mm), pages(&mut w, &other)), (0, 2));
    other.exit(&mut w.thread.cx());
}

/// `gup_must_unshare`.
#[test]
fn a_page_read_by_another_process_becomes_its_own_and_stays_read_only() {
    let (mut w, other) = two();
    w.fill(0, 2);
    let child = w.fork();
    w.told();
    let read = |w: &mut World, page| {
        other.copy_from(&mut w.thread.cx(), at(3), (&w.mm.clone(), at(page)), 1)
    };
    assert_eq!(read(&mut w, 0), Ok(1));
    assert_eq!(w.told(), "W0..1", "a copy takes its place");
    assert_eq!((w.get(0), w.get(1)), (Ok(1), Ok(1)));
    assert_eq!(read(&mut w, 0), Ok(1));
    w.put(0, 5);
    assert_eq!(w.told(), "", "it is its own");
    assert_eq!(child.load(&mut w.thread.cx(), at(0)), Ok(1));
    w.reap(&child);
    assert_eq!(read(&mut w, 1), Ok(1));
    assert_eq!(w.told(), "", "nobody else has it any more");
    // Neither the zero page nor a page of an object is anybody's.
    assert_eq!(w.get(2), Ok(0));
    w.share(20, 1);
    w.put(20, 3);
    assert_eq!((read(&mut w, 2), read(&mut w, 20)), (Ok(1), Ok(1)));
    let state = w.mm.pagemap(&mut w.thread.cx(), World::pages(2, 3));
    assert!(matches!(state[..], [(_, PageState::Zero)]));
    assert_eq!(w.told(), "");
    w.check_rmap();
    other.exit(&mut w.thread.cx());
    w.end();
}

/// `check_vma_flags`: what a processor would do does not matter.
#[test]
fn a_reader_needs_the_right_to_read_and_a_writer_to_write() {
    let (mut w, other) = two();
    w.map(8, 1, Prot::WRITE);
    w.map(9, 1, Prot::EXEC);
    w.map(10, 1, READ);
    w.map(11, 1, RW);
    w.put(11, 1);
    w.advise(11, 1, Advice::GuardInstall).unwrap();
    let mm = w.mm.clone();
    let cx = &mut w.thread.cx();
    assert_eq!((mm.load(cx, at(8)), mm.load(cx, at(9))), (Ok(0), Ok(0)));
    for (page, readable, writable) in [
        (8, false, true),
        (9, false, false),
        (10, true, false),
        (11, false, false),
    ] {
        let read = other.copy_from(cx, at(0), (&mm, at(page)), 1);
        let written = other.copy_to(cx, at(0), (&mm, at(page)), 1);
        assert_eq!(
            (read.is_ok(), written.is_ok()),
            (readable, writable),
            "{page}"
        );
    }
    other.exit(cx);
}

#[test]
fn an_address_space_may_copy_within_itself() {
    let (mut w, other) = two();
    w.fill(0, 1);
    let mm = w.mm.clone();
    let cx = &mut w.thread.cx();
    assert_eq!(mm.copy_to(cx, at(0), (&mm, at(2)), LEN), Ok(LEN));
    assert_eq!(mm.copy_from(cx, at(3), (&mm, at(2)), LEN), Ok(LEN));
    assert_eq!(mm.load(cx, at(3)), Ok(1));
    other.exit(cx);
}

/// A huge page whose parts are held cannot be taken over in place: of one that a child had, all
/// parts but the first are copied.
#[test]
fn pages_that_are_held_keep_their_huge_page_from_being_reused() {
    let (mut w, other) = two();
    w.map(0, 1024, RW);
    w.advise(0, 1024, Advice::HugePage).unwrap();
    w.put(5, 1);
    let child = w.fork();
    // The mapping is split, and most parts are mapped once again.
    child.store(&mut w.thread.cx(), at(5), 2).unwrap();
    w.mm.mprotect(&mut w.thread.cx(), at(0), PAGE, READ)
        .unwrap();
    w.mm.mprotect(&mut w.thread.cx(), at(0), PAGE, RW).unwrap();
    w.reap(&child);
    w.told();
    let mm = w.mm.clone();
    let copied = other.copy_to(&mut w.thread.cx(), at(0), (&mm, at(8)), 3 * LEN);
    assert_eq!(copied, Ok(3 * LEN));
    assert_eq!(w.told(), "W9..10 W10..11");
    other.exit(&mut w.thread.cx());
    w.end();
}

/// Both directions at once, with writers waiting for both locks: no copy holds one while it waits
/// for the other.
#[test]
fn opposite_copies_do_not_wait_for_each_other() {
    const ROUNDS: usize = 300;
    let (mut w, other) = two();
    std::thread::scope(|s| {
        let (machine, mm, other) = (&w.machine, &w.mm, &other);
        for (from, to) in [(mm, other), (other, mm)] {
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                for _ in 0..ROUNDS {
                    let cx = &mut thread.cx();
                    from.copy_to(cx, at(0), (to, at(2)), LEN).unwrap();
                    from.copy_from(cx, at(1), (to, at(0)), LEN).unwrap();
                }
            });
            s.spawn(move || {
                let mut thread = machine.enter().unwrap();
                for _ in 0..ROUNDS {
                    let args = MmapArgs::anonymous(PAGE).fixed(at(3));
                    let args = args.flags(MapFlags::NORESERVE);
                    from.mmap(&mut thread.cx(), &args).unwrap();
                }
            });
        }
    });
    other.exit(&mut w.thread.cx());
}
