//! Pages that the kernel's I/O holds, one test a rule: the cases of Linux's own self tests for
//! copy-on-write and long-term pins, for every kind of private memory, as far as they need no
//! hardware.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, READ, remap},
    objects::{disk, shmem, swapping},
};
use emmu::{
    Errno, FaultError, Mm,
    error::{ByteRange, PinError},
    mm::{Advice, ForkMode, HeldPages, MapFlags, PageState, PinKind},
    notifier::Access,
};
use std::sync::Arc;

const LEN: usize = PAGE as usize;
/// Pages of a huge page.
const HUGE: u64 = 512;

/// The kinds of private anonymous memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Small,
    Huge,
    /// A huge page, mapped by small entries.
    HugeInParts,
    /// The only part that is left of a huge page.
    LastPart,
    /// A huge page whose second half was moved.
    HalfMoved,
    /// A huge page whose second half a child has as well.
    HalfShared,
}

const KINDS: [Kind; 6] = [
    Kind::Small,
    Kind::Huge,
    Kind::HugeInParts,
    Kind::LastPart,
    Kind::HalfMoved,
    Kind::HalfShared,
];

/// Runs a test on memory of each kind, in memory and back from swap: with the pages to look at,
/// each of which shows 1.
fn with_each(test: impl Fn(&mut World, u64)) {
    for kind in KINDS {
        for swapped in [false, true] {
            for page in [0, 300] {
                let mut w = swapping(8192, 4096);
                let child = make(&mut w, kind);
                if w.get(page).is_err() {
                    continue;
                }
                if swapped {
                    w.advise(0, 2 * HUGE, Advice::PageOut).ok();
                }
                eprintln!("{kind:?}, page {page}, swapped {swapped}");
                test(&mut w, page);
                if let Some(child) = child {
                    w.reap(&child);
                }
                w.end();
            }
        }
    }
}

fn make(w: &mut World, kind: Kind) -> Option<Arc<Mm>> {
    if kind == Kind::Small {
        w.map(0, 1, RW);
        w.put(0, 1);
        return None;
    }
    w.map(0, HUGE, RW);
    w.advise(0, HUGE, Advice::HugePage).unwrap();
    w.fill(0, HUGE);
    match kind {
        Kind::HugeInParts => {
            w.protect(8, 1, READ).unwrap();
            w.protect(8, 1, RW).unwrap();
        }
        Kind::LastPart => w.munmap(1, HUGE - 1).unwrap(),
        Kind::HalfMoved => {
            assert_eq!(w.remap(256, 256, 256, FIXED, 2 * HUGE), 2 * HUGE);
            assert_eq!(w.remap(2 * HUGE, 256, 256, FIXED, 256), 256);
        }
        Kind::HalfShared => {
            w.advise(0, 256, Advice::DontFork).unwrap();
            let child = w.fork();
            w.advise(0, 256, Advice::DoFork).unwrap();
            return Some(child);
        }
        Kind::Small | Kind::Huge => {}
    }
    None
}

fn pin(w: &mut World, page: u64, access: Access, kind: PinKind) -> HeldPages {
    let pinned = w.mm.pin(&mut w.thread.cx(), at(page), LEN, access, kind);
    pinned.expect("the page can be pinned")
}
/// The page as a pipe gets it.
fn splice(w: &mut World, mm: &Mm, page: u64) -> HeldPages {
    let held = mm.get_pages(&mut w.thread.cx(), at(page), LEN);
    held.expect("the page can be read")
}
/// The first byte of a held page.
fn seen(held: &HeldPages) -> u8 {
    let mut byte = [0];
    assert_eq!(held.read_at(0, &mut byte), 1);
    byte[0]
}
/// Write-protects the page in the page table: the mapping stays as it is.
fn make_read_only(w: &mut World, page: u64) {
    w.protect(page, 1, READ).unwrap();
    w.protect(page, 1, RW).unwrap();
}

#[test]
fn a_child_keeps_what_its_parent_wrote_before_the_fork() {
    for protect in [false, true] {
        with_each(|w, page| {
            let child = w.fork();
            if protect {
                make_read_only(w, page);
            }
            w.put(page, 2);
            assert_eq!(w.inside(&child, |w| w.get(page)), Ok(1));
            w.reap(&child);
        });
    }
}

#[test]
fn a_pipe_of_a_child_that_unmapped_the_page_keeps_the_old_bytes() {
    for protect in [false, true] {
        with_each(|w, page| {
            let child = w.fork();
            let pipe = splice(w, &child, page);
            w.inside(&child, |w| w.munmap(page, 1)).unwrap();
            if protect {
                make_read_only(w, page);
            }
            w.put(page, 2);
            assert_eq!(seen(&pipe), 1);
            w.reap(&child);
        });
    }
}

#[test]
fn a_pipe_of_a_parent_does_not_show_what_a_child_writes() {
    for before in [true, false] {
        with_each(|w, page| {
            let mm = Arc::clone(&w.mm);
            let early = before.then(|| splice(w, &mm, page));
            let child = w.fork();
            let pipe = early.unwrap_or_else(|| splice(w, &mm, page));
            w.inside(&child, |w| w.put(page, 3));
            assert_eq!((seen(&pipe), w.get(page)), (1, Ok(1)));
            w.reap(&child);
        });
    }
}

#[test]
fn a_buffer_shows_later_writes_to_a_page_that_was_read_only_for_a_time() {
    with_each(|w, page| {
        let buffer = pin(w, page, Access::Write, PinKind::LongTerm);
        make_read_only(w, page);
        w.put(page, 4);
        assert_eq!(seen(&buffer), 4);
    });
}

#[test]
fn a_buffer_stays_with_the_parent() {
    with_each(|w, page| {
        let buffer = pin(w, page, Access::Write, PinKind::LongTerm);
        let child = w.fork();
        w.put(page, 5);
        w.inside(&child, |w| w.put(page, 6));
        assert_eq!(seen(&buffer), 5);
        assert_eq!(buffer.write_at(0, &[7]), 1);
        assert_eq!(w.get(page), Ok(7));
        assert_eq!(w.inside(&child, |w| w.get(page)), Ok(6));
        let grandchild = w.fork();
        assert_eq!(buffer.write_at(0, &[8]), 1);
        assert_eq!(w.inside(&grandchild, |w| w.get(page)), Ok(7));
        w.reap(&grandchild);
        w.reap(&child);
    });
}

#[test]
fn a_page_pinned_for_reading_shows_later_writes_whoever_shared_it() {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Had {
        Alone,
        Shared,
        Before,
    }
    for had in [Had::Alone, Had::Shared, Had::Before] {
        for kind in [PinKind::Short, PinKind::LongTerm] {
            with_each(|w, page| {
                let child = (had != Had::Alone).then(|| w.fork());
                let child = child.filter(|child| {
                    let stays = had == Had::Shared;
                    if !stays {
                        child.exit(&mut w.thread.cx());
                    }
                    stays
                });
                let pinned = pin(w, page, Access::Read, kind);
                w.put(page, 8);
                assert_eq!(seen(&pinned), 8);
                assert_eq!(pinned.write_at(0, &[9]), 0, "it is for reading");
                if let Some(child) = child {
                    assert_eq!(w.inside(&child, |w| w.get(page)), Ok(1));
                    w.reap(&child);
                }
            });
        }
    }
}

#[test]
fn collapsed_memory_does_not_leak_into_a_child() {
    for shared in [None, Some((0, HUGE)), Some((0, 256)), Some((256, 256))] {
        let mut w = swapping(8192, 0);
        w.map(0, HUGE, RW);
        w.fill(0, HUGE);
        w.advise(0, HUGE, Advice::DontFork).unwrap();
        let (from, n) = shared.unwrap_or((0, 0));
        if n > 0 {
            w.advise(from, n, Advice::DoFork).unwrap();
        }
        let child = w.fork();
        w.advise(0, HUGE, Advice::DoFork).unwrap();
        w.advise(0, HUGE, Advice::Collapse).unwrap();
        (0..HUGE).for_each(|page| w.put(page, 2));
        for page in from..from + n {
            assert_eq!(w.inside(&child, |w| w.get(page)), Ok(1));
        }
        w.reap(&child);
        w.end();
    }
}

#[test]
fn a_pinned_page_is_not_collapsed() {
    let mut w = swapping(8192, 0);
    w.map(0, HUGE, RW);
    w.fill(0, HUGE);
    let pinned = pin(&mut w, 9, Access::Write, PinKind::LongTerm);
    assert_eq!(w.advise(0, HUGE, Advice::Collapse), Err(Errno::EAGAIN));
    w.put(9, 3);
    assert_eq!(seen(&pinned), 3);
    drop(pinned);
    assert_eq!(w.advise(0, HUGE, Advice::Collapse), Ok(()));
    w.end();
}

/// Private memory that shows something else: the zero page, pages of files.
fn with_each_source(test: impl Fn(&mut World, u8)) {
    for source in 0..4 {
        let mut w = swapping(8192, 64);
        match source {
            0 => w.map(0, 1, RW),
            1 => {
                w.map(0, HUGE, RW);
                w.advise(0, HUGE, Advice::HugePage).unwrap();
            }
            2 => {
                let file = shmem(&mut w, 1);
                w.map_file(0, 1, &file, 0, MapFlags::PRIVATE);
            }
            _ => {
                let (_, file) = disk(&mut w, 1);
                w.map_file(0, 1, &file, 0, MapFlags::PRIVATE);
            }
        }
        let first = u8::from(source > 1);
        assert_eq!(w.get(0), Ok(first));
        test(&mut w, first);
        w.mm.exit(&mut w.thread.cx());
    }
}

#[test]
fn a_long_term_pin_for_reading_replaces_what_is_not_private_yet() {
    with_each_source(|w, first| {
        let pinned = pin(w, 0, Access::Read, PinKind::LongTerm);
        assert_eq!(seen(&pinned), first);
        w.put(0, 7);
        assert_eq!(seen(&pinned), 7);
    });
}

#[test]
fn a_short_pin_for_reading_keeps_what_is_not_private_yet() {
    with_each_source(|w, first| {
        let pinned = pin(w, 0, Access::Read, PinKind::Short);
        w.put(0, 7);
        assert_eq!((seen(&pinned), w.get(0)), (first, Ok(7)));
    });
}

#[test]
fn files_are_pinned_for_any_time_unless_they_must_know_of_writes() {
    let mut w = swapping(8192, 64);
    let (_, on_disk) = disk(&mut w, 1);
    let in_memory = shmem(&mut w, 1);
    for access in [Access::Read, Access::Write] {
        for sharing in [MapFlags::SHARED, MapFlags::PRIVATE] {
            for (file, tracks) in [(&in_memory, false), (&on_disk, true)] {
                w.map_file(0, 1, file, 0, sharing);
                let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
                let long = mm.pin(cx, at(0), LEN, access, PinKind::LongTerm);
                let short = mm.pin(cx, at(0), LEN, access, PinKind::Short);
                assert!(short.is_ok());
                let refused = tracks && access == Access::Write && sharing == MapFlags::SHARED;
                let denied = PinError::Fault(FaultError::Denied(at(0)));
                assert_eq!(long.err(), refused.then_some(denied));
            }
        }
    }
    w.mm.exit(&mut w.thread.cx());
}

#[test]
fn a_page_never_written_in_a_read_only_mapping_is_pinned_for_reading() {
    let mut w = World::new();
    w.map(0, 1, READ);
    let pinned = pin(&mut w, 0, Access::Read, PinKind::LongTerm);
    assert_eq!(seen(&pinned), 0);
    w.protect(0, 1, RW).unwrap();
    w.put(0, 3);
    assert_eq!(seen(&pinned), 3);
    drop(pinned);
    w.end();
}

#[test]
fn a_hold_outlives_the_mapping_and_the_process() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.fill(0, 4);
    let cx = &mut w.thread.cx();
    let buffer =
        w.mm.pin(cx, at(0) + 8, 3 * LEN, Access::Write, PinKind::LongTerm);
    let buffer = buffer.unwrap();
    assert_eq!((buffer.len(), buffer.pfns().len()), (3 * LEN, 4));
    w.advise(0, 1, Advice::DontNeed).unwrap();
    w.munmap(1, 1).unwrap();
    w.put(0, 9);
    assert_eq!(buffer.write_at(LEN - 9, &[5, 6, 7]), 3);
    assert_eq!(buffer.write_at(3 * LEN - 1, &[5, 6]), 1, "the end");
    assert_eq!(w.get(0), Ok(9), "a new page");
    w.mm.exit(&mut w.thread.cx());
    let mem = w.machine.mem();
    assert_eq!(mem.in_use(), 4, "the pages that are held");
    assert_eq!(mem.pins(buffer.pfns()[0]), 1);
    let mut bytes = [0; 3];
    assert_eq!(buffer.read_at(LEN - 9, &mut bytes), 3);
    assert_eq!(bytes, [5, 6, 7]);
    drop(buffer);
    w.end();
}

#[test]
fn nothing_is_behind_what_is_held_however_far() {
    let mut w = swapping(64, 16);
    w.map(0, 2, RW);
    let mm = Arc::clone(&w.mm);
    let held = mm.pin(
        &mut w.thread.cx(),
        at(0) + 5,
        100,
        Access::Write,
        PinKind::Short,
    );
    let held = held.unwrap();
    for place in [100, 101, usize::MAX - 4, usize::MAX] {
        let came = (
            held.read_at(place, &mut [0; 8]),
            held.write_at(place, &[1; 8]),
        );
        assert_eq!(came, (0, 0), "at {place}");
    }
    drop(held);
    w.end();
}

#[test]
fn a_page_may_be_pinned_often_and_each_pin_counts() {
    let mut w = World::new();
    w.map(0, 1, RW);
    let mut pins: Vec<_> = (0..3)
        .map(|_| pin(&mut w, 0, Access::Write, PinKind::LongTerm))
        .collect();
    let pfn = pins[0].pfns()[0];
    while !pins.is_empty() {
        assert_eq!(w.machine.mem().pins(pfn), pins.len() as u64);
        let child = w.fork();
        w.told();
        w.put(0, 2);
        assert_eq!(w.told(), "", "the page was copied for the child");
        w.reap(&child);
        pins.pop();
    }
    assert_eq!(w.machine.mem().pins(pfn), 0);
    let child = w.fork();
    w.told();
    w.put(0, 2);
    assert_eq!(w.told(), "W0..1", "no pin is left: the page was shared");
    w.reap(&child);
    w.end();
}

#[test]
fn a_fork_copies_pinned_pages_also_where_it_shares_tables() {
    for mode in [ForkMode::Copy, ForkMode::Share] {
        let mut w = World::new();
        w.map(0, 4, RW);
        w.fill(0, 4);
        let buffer = pin(&mut w, 2, Access::Write, PinKind::LongTerm);
        w.told();
        let child = w.mm.fork_with(&mut w.thread.cx(), mode).unwrap();
        assert_eq!(w.told(), "W0..4");
        w.put(2, 7);
        assert_eq!(w.told(), "", "{mode:?}");
        assert_eq!(seen(&buffer), 7);
        assert_eq!(w.inside(&child, |w| w.get(2)), Ok(1));
        w.put(1, 7);
        assert_eq!(w.told(), "W1..2");
        w.reap(&child);
        drop(buffer);
        w.end();
    }
}

#[test]
fn reclaim_leaves_a_pinned_page_without_a_window_and_unmaps_a_referenced_one() {
    let mut w = swapping(64, 64);
    w.map(0, 2, RW);
    w.fill(0, 2);
    let pinned = pin(&mut w, 0, Access::Write, PinKind::Short);
    let mm = Arc::clone(&w.mm);
    let pipe = splice(&mut w, &mm, 1);
    w.told();
    w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(w.told(), "W1..2");
    w.put(0, 4);
    assert_eq!(seen(&pinned), 4);
    assert_eq!((w.get(1), seen(&pipe)), (Ok(1), 1));
    drop((pinned, pipe));
    w.told();
    w.advise(0, 2, Advice::PageOut).unwrap();
    assert_eq!(w.machine.mem().in_use(), 0);
    w.end();
}

#[test]
fn a_page_of_a_file_that_is_pinned_stays_in_the_file() {
    let mut w = swapping(64, 64);
    let file = shmem(&mut w, 1);
    w.map_file(0, 1, &file, 0, MapFlags::SHARED);
    let pinned = pin(&mut w, 0, Access::Write, PinKind::LongTerm);
    w.advise(0, 1, Advice::PageOut).unwrap();
    assert_eq!(pinned.write_at(0, &[9]), 1);
    assert_eq!(w.get(0), Ok(9));
    file.truncate(w.thread.cx(), 0).unwrap();
    assert_eq!(seen(&pinned), 9, "the holder has the page alone");
    assert_eq!(w.get(0), Err(FaultError::Beyond(at(0))));
    w.mm.exit(&mut w.thread.cx());
}

#[test]
fn a_held_page_does_not_move() {
    for referenced in [false, true] {
        let mut w = World::new();
        w.map(0, 1, RW);
        w.put(0, 1);
        let mm = Arc::clone(&w.mm);
        let held = match referenced {
            false => pin(&mut w, 0, Access::Write, PinKind::LongTerm),
            true => splice(&mut w, &mm, 0),
        };
        assert_eq!(mm.migrate(&mut w.thread.cx(), at(0)), Ok(None));
        w.put(0, 2);
        assert_eq!(seen(&held), 2);
        let pinned = mm.pagemap(&mut w.thread.cx(), World::pages(0, 1));
        assert!(matches!(pinned[0].1, PageState::Anon(pfn) if pfn == held.pfns()[0]));
        drop(held);
        assert!(mm.migrate(&mut w.thread.cx(), at(0)).unwrap().is_some());
        w.end();
    }
}

/// `can_split_folio`: a page that holds only zeros as yet is not replaced by the zero page.
#[test]
fn a_huge_page_with_a_pinned_page_is_not_split() {
    let moves = |w: &mut World| {
        let mm = Arc::clone(&w.mm);
        let moved = mm.migrate(&mut w.thread.cx(), at(0));
        assert_eq!(moved, Ok(None));
    };
    let splits = |w: &mut World| {
        assert_eq!(w.machine.split_deferred(&mut w.thread.cx()), 0);
    };
    for what in [&moves as &dyn Fn(&mut World), &splits] {
        let mut w = swapping(8192, 0);
        make(&mut w, Kind::Huge);
        w.advise(9, 1, Advice::DontNeed).unwrap();
        let held = pin(&mut w, 5, Access::Write, PinKind::LongTerm);
        assert_eq!(held.write_at(0, &[0]), 1);
        what(&mut w);
        assert_eq!(held.write_at(0, &[7]), 1);
        assert_eq!(w.get(5), Ok(7));
        drop(held);
        assert_eq!(w.machine.split_deferred(&mut w.thread.cx()), 1);
        w.end();
    }
}

#[test]
fn a_moved_mapping_takes_its_pinned_page_along() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.fill(0, 2);
    let buffer = pin(&mut w, 0, Access::Write, PinKind::LongTerm);
    w.mremap(remap(0, 2, 2, FIXED, 8)).unwrap();
    let child = w.fork();
    w.put(8, 3);
    assert_eq!(seen(&buffer), 3);
    w.reap(&child);
    drop(buffer);
    w.end();
}

#[test]
fn what_cannot_be_pinned_leaves_nothing_pinned() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.map(2, 1, READ);
    let (mm, cx) = (Arc::clone(&w.mm), &mut w.thread.cx());
    let mut pin = |addr, len| mm.pin(cx, addr, len, Access::Write, PinKind::LongTerm);
    let denied = pin(at(0), 3 * LEN).unwrap_err();
    assert_eq!(denied, PinError::Fault(FaultError::Denied(at(2))));
    let hole = pin(at(3) + 7, 1).unwrap_err();
    assert_eq!(hole, PinError::Fault(FaultError::NotMapped(at(3) + 7)));
    assert_eq!(hole.errno(), Errno::EFAULT);
    let (addr, len) = (u64::MAX, 2);
    let range = PinError::Range(ByteRange { addr, len });
    assert_eq!(pin(addr, 2).unwrap_err(), range);
    assert!(pin(at(0), 0).unwrap().is_empty());
    let partly = mm.get_pages(cx, at(1), 5 * LEN).unwrap();
    assert_eq!(partly.len(), 2 * LEN, "references: up to the first hole");
    drop(partly);
    assert_eq!(w.machine.mem().in_use(), 2, "the pages were faulted in");
    let child = w.fork();
    w.told();
    w.put(0, 1);
    assert_eq!(w.told(), "W0..1", "none is pinned");
    w.reap(&child);
    w.end();
}

#[test]
fn a_pin_of_a_huge_page_splits_it_at_a_fork() {
    let mut w = swapping(8192, 0);
    w.map(0, HUGE, RW);
    w.advise(0, HUGE, Advice::HugePage).unwrap();
    w.put(0, 1);
    let buffer = pin(&mut w, 5, Access::Write, PinKind::LongTerm);
    w.told();
    let child = w.fork();
    assert_eq!(w.told(), "W0..512 W0..512");
    w.put(500, 2);
    assert_eq!(w.told(), "", "all of it was copied");
    drop(buffer);
    w.reap(&child);
    w.end();
}
