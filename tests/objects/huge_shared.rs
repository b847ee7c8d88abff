//! Huge pages of shared memory: `MADV_COLLAPSE` makes them, faults map them, and operations on a
//! part split them.

use crate::common::{
    PAGE, World, at, machine,
    objects::{disk, shmem, swapping},
};
use emmu::{
    Errno, FaultError, Mm,
    file::File,
    mm::{Advice, MapFlags, MremapArgs, MremapFlags, PageState, Prot},
    testkit::{Failed, fail_each},
};
use std::sync::Arc;

const HUGE: u64 = 512;
const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

fn advise(w: &mut World, from: u64, n: u64, advice: Advice) -> Result<(), Errno> {
    let done = w.mm.madvise(&mut w.thread.cx(), at(from), n * PAGE, advice);
    done.map_err(|why| why.errno())
}
fn collapse(w: &mut World, from: u64) -> Result<(), Errno> {
    advise(w, from, HUGE, Advice::Collapse)
}
/// Counts the pages of `[from, from + 512)` that a process maps.
fn mapped(w: &mut World, mm: &Mm, from: u64) -> usize {
    let states = mm.pagemap(&mut w.thread.cx(), World::pages(from, from + HUGE));
    let there = |state| matches!(state, PageState::Object(_) | PageState::Anon(_));
    states.iter().filter(|(_, state)| there(*state)).count()
}
fn here(w: &mut World, from: u64) -> usize {
    let mm = Arc::clone(&w.mm);
    mapped(w, &mm, from)
}

/// Makes a file of 1024 pages, the first 600 of them filled with `page % 255 + 1`, and maps it
/// shared on pages 0 to 1024.
fn story_on(mut w: World) -> (World, Arc<File>) {
    let file = shmem(&mut w, 600);
    file.truncate(w.thread.cx(), 1024 * PAGE).unwrap();
    w.map_file(0, 1024, &file, 0, SHARED);
    (w, file)
}
fn story() -> (World, Arc<File>) {
    story_on(swapping(8192, 4096))
}
fn byte(page: u64) -> u8 {
    match page < 600 {
        true => u8::try_from(page % 255 + 1).unwrap(),
        false => 0,
    }
}
/// Checks the contents of the file page by page; `changed` lists pages with other contents.
fn check(w: &mut World, file: &File, changed: &[(u64, u8)]) {
    for page in 0..file.object().size() / PAGE {
        let mut got = [0];
        file.read_at(w.thread.cx(), page * PAGE, &mut got).unwrap();
        let new = changed.iter().rev().find(|(p, _)| *p == page);
        let wanted = new.map_or(byte(page), |(_, byte)| *byte);
        assert_eq!(got[0], wanted, "page {page} of the file");
    }
}
fn end(w: World, file: Arc<File>) {
    drop(file);
    w.end();
}

#[test]
fn small_pages_become_one_that_all_who_fault_map() {
    let (mut w, file) = story();
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    for page in [3, 5] {
        w.put(page, 200);
    }
    child.store(&mut w.thread.cx(), at(40), 41).unwrap();
    w.told();
    assert_eq!(collapse(&mut w, 0), Ok(()));
    // Only a window shows which processes map a page.
    assert_eq!(w.told(), "W3..4 W5..6 W40..41 W0..512");
    assert_eq!(here(&mut w, 0), 512);
    assert_eq!(mapped(&mut w, &child, 0), 0, "its table went");
    assert_eq!(child.load(&mut w.thread.cx(), at(5)), Ok(200));
    assert_eq!(mapped(&mut w, &child, 0), 512);
    child.store(&mut w.thread.cx(), at(511), 77).unwrap();
    assert_eq!((w.get(511), w.get(510)), (Ok(77), Ok(byte(510))));
    assert_eq!(collapse(&mut w, 0), Ok(()));
    assert_eq!(w.told(), "", "it is one already");
    // The rest of the file, holes among it, was never mapped.
    assert_eq!(collapse(&mut w, 512), Ok(()));
    assert_eq!(w.told(), "");
    assert_eq!((w.get(599), w.get(700)), (Ok(byte(599)), Ok(0)));
    check(&mut w, &file, &[(3, 200), (5, 200), (511, 77)]);
    w.check_rmap();
    child.exit(&mut w.thread.cx());
    end(w, file);
}

/// A block of holes does not become a huge page.
#[test]
fn a_hole_is_not_collapsed() {
    let mut w = World::new();
    w.share(0, 1024);
    assert_eq!(collapse(&mut w, 0), Err(Errno::EINVAL));
    w.put(7, 1);
    w.told();
    // The first 2 MiB are done, the others are not.
    assert_eq!(
        advise(&mut w, 0, 1024, Advice::Collapse),
        Err(Errno::EINVAL)
    );
    assert_eq!(w.told(), "W7..8 W0..512");
    assert_eq!((w.get(7), w.get(8), here(&mut w, 512)), (Ok(1), Ok(0), 0));
    w.end();
}

#[test]
fn only_what_could_be_mapped_as_one_is_collapsed() {
    let (mut w, file) = story();
    w.map_file(2048, 1024, &file, 1, SHARED);
    assert_eq!(collapse(&mut w, 2048), Err(Errno::EINVAL), "not aligned");
    advise(&mut w, 0, HUGE, Advice::NoHugePage).unwrap();
    assert_eq!(collapse(&mut w, 0), Err(Errno::EINVAL), "not wanted");
    w.map_file(4096, 500, &file, 0, SHARED);
    assert_eq!(
        advise(&mut w, 4096, 500, Advice::Collapse),
        Err(Errno::EINVAL),
        "too short"
    );
    let (_, on_disk) = disk(&mut w, 600);
    w.map_file(8192, 512, &on_disk, 0, SHARED);
    assert_eq!(collapse(&mut w, 8192), Err(Errno::EINVAL), "not of memory");
    drop(on_disk);
    end(w, file);
}

/// A mapping that does not fit, or that refused huge pages, maps the huge page by small entries.
#[test]
fn a_huge_page_is_mapped_small_where_it_must_be() {
    let (mut w, file) = story();
    collapse(&mut w, 0).unwrap();
    w.map_file(2048, 300, &file, 3, SHARED);
    assert_eq!(w.get(2050), Ok(byte(5)));
    assert!(here(&mut w, 2048) < 300);
    w.put(2300, 9);
    assert_eq!(w.get(300), Ok(byte(300)));
    w.map_file(4096, 512, &file, 0, SHARED);
    advise(&mut w, 4096, HUGE, Advice::NoHugePage).unwrap();
    w.put(4096 + 9, 44);
    assert_eq!(here(&mut w, 4096), 512, "all of it at once");
    w.told();
    advise(&mut w, 4096 + 20, 1, Advice::DontNeed).unwrap();
    assert_eq!(w.told(), "W4116..4117", "there is nothing to split");
    assert_eq!((here(&mut w, 4096), w.get(9)), (511, Ok(44)));
    w.check_rmap();
    end(w, file);
}

#[test]
fn a_private_mapping_splits_for_itself_alone() {
    let (mut w, file) = story();
    collapse(&mut w, 0).unwrap();
    w.map_file(2048, 1024, &file, 0, PRIVATE);
    assert_eq!(w.get(2048), Ok(1));
    assert_eq!(here(&mut w, 2048), 512);
    w.told();
    w.put(2048 + 1, 90);
    assert_eq!(w.told(), "W2048..2560");
    assert_eq!(here(&mut w, 2048), 1);
    assert_eq!((w.get(2049), w.get(1)), (Ok(90), Ok(2)));
    assert_eq!(here(&mut w, 0), 512);
    // Private pages among the object's keep the table, in whichever process the collapse is.
    assert_eq!(collapse(&mut w, 2048), Err(Errno::EINVAL));
    w.put(2048 + 600, 91);
    w.told();
    assert_eq!(collapse(&mut w, 512), Ok(()));
    assert_eq!(w.get(2648), Ok(91));
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    assert_eq!(child.load(&mut w.thread.cx(), at(2049)), Ok(90));
    child.exit(&mut w.thread.cx());
    check(&mut w, &file, &[]);
    w.check_rmap();
    end(w, file);
}

/// A VMA in which a private page was written keeps its tables; another VMA of the same file loses
/// them.
#[test]
fn tables_of_written_private_memory_are_not_retracted() {
    let (mut w, file) = story();
    w.map_file(2048, 1024, &file, 0, PRIVATE);
    w.map_file(4096, 512, &file, 0, PRIVATE);
    for page in [0, 2048, 4096] {
        w.get(page).unwrap();
    }
    w.told();
    w.put(2048 + 700, 1);
    w.told();
    assert_eq!(collapse(&mut w, 0), Ok(()));
    let seen = w.told();
    assert!(seen.ends_with("W0..512 W4096..4608"), "{seen}");
    assert!(!seen.contains("W2048..2560"), "{seen}");
    end(w, file);
}

/// A change to the mapping of a part leaves the rest of the page as it is.
#[test]
fn a_part_goes_and_the_file_keeps_all() {
    let parts: [fn(&mut World); 4] = [
        |w| {
            w.mm.munmap(&mut w.thread.cx(), at(4), 2 * PAGE).unwrap();
        },
        |w| {
            w.mm.mprotect(&mut w.thread.cx(), at(4), 2 * PAGE, Prot::READ)
                .unwrap();
        },
        |w| advise(w, 4, 2, Advice::DontNeed).unwrap(),
        |w| advise(w, 4, 2, Advice::GuardInstall).unwrap(),
    ];
    for (nth, part) in parts.iter().enumerate() {
        let (mut w, file) = story();
        collapse(&mut w, 0).unwrap();
        w.told();
        part(&mut w);
        let seen = w.told();
        let outer = seen.contains("W0..512") && seen.contains("W4..6");
        assert!(outer, "{nth}: {seen}");
        assert_eq!(here(&mut w, 0), 0, "{nth}");
        assert_eq!((w.get(3), w.get(6)), (Ok(4), Ok(7)), "{nth}");
        check(&mut w, &file, &[]);
        w.check_rmap();
        end(w, file);
    }
}

#[test]
fn it_moves_as_a_whole_or_is_faulted_in_again() {
    let (mut w, file) = story();
    collapse(&mut w, 0).unwrap();
    for (from, to, stays) in [(0, 2048, 512), (2048, 4097, 0)] {
        let args = MremapArgs {
            addr: at(from),
            old_len: HUGE * PAGE,
            new_len: HUGE * PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(to),
        };
        w.mm.mremap(&mut w.thread.cx(), args).unwrap();
        assert_eq!(here(&mut w, to), stays);
        assert_eq!(w.get(to + 9), Ok(10));
        w.check_rmap();
    }
    end(w, file);
}

/// A hole, an end, or both in one huge page: bytes, mappings and frames are right.
#[test]
fn what_is_cut_out_of_it_is_gone_and_the_rest_stays() {
    for (from, to) in [(4, 5), (0, 1), (511, 512), (100, 600), (0, 512), (4, 1024)] {
        let (mut w, file) = story();
        advise(&mut w, 0, 1024, Advice::Collapse).unwrap();
        w.map_file(2048, 1024, &file, 0, PRIVATE);
        w.get(2048).unwrap();
        let before = w.machine.mem().in_use();
        let len = (to - from) * PAGE;
        file.punch_hole(w.thread.cx(), from * PAGE, len).unwrap();
        assert_eq!(u64::from(before - w.machine.mem().in_use()), to - from);
        let gone: Vec<_> = (from..to).map(|p| (p, 0)).collect();
        check(&mut w, &file, &gone);
        for page in [from, to - 1] {
            assert_eq!((w.get(page), w.get(2048 + page)), (Ok(0), Ok(0)));
        }
        w.put(from, 5);
        assert_eq!(w.get(2048 + from), Ok(5));
        w.check_rmap();
        end(w, file);
    }
    for size in [1, 100 * PAGE, 512 * PAGE, 700 * PAGE + 9] {
        let (mut w, file) = story();
        advise(&mut w, 0, 1024, Advice::Collapse).unwrap();
        file.truncate(w.thread.cx(), size).unwrap();
        let pages = size.div_ceil(PAGE);
        assert_eq!(u64::from(w.machine.mem().in_use()), pages);
        assert_eq!(w.get(pages), Err(FaultError::Beyond(at(pages))));
        file.truncate(w.thread.cx(), 1024 * PAGE).unwrap();
        let gone: Vec<_> = (pages..1024).map(|p| (p, 0)).collect();
        check(&mut w, &file, &gone);
        end(w, file);
    }
}

/// A hole in a huge page opens a window over the hole, with a nested one that splits the mapping,
/// and one more over the first mapping, which splits the page itself.
#[test]
fn a_hole_splits_it_in_the_windows_of_linux() {
    let (mut w, file) = story();
    w.map_file(2048, 1024, &file, 0, PRIVATE);
    collapse(&mut w, 0).unwrap();
    w.told();
    file.punch_hole(w.thread.cx(), 4 * PAGE, PAGE).unwrap();
    assert_eq!(w.told(), "W4..5 W0..512 W2052..2053 W0..512");
    file.punch_hole(w.thread.cx(), 4 * PAGE, PAGE).unwrap();
    assert_eq!(w.told(), "W4..5 W2052..2053", "it is split for good");
    end(w, file);
}

/// Pages beyond the end that came with a huge page go with the next cut, also with one to the
/// present size.
#[test]
fn what_lies_beyond_the_end_goes_with_a_cut_to_the_same_size() {
    let (mut w, file) = story();
    file.truncate(w.thread.cx(), 600 * PAGE).unwrap();
    collapse(&mut w, 512).unwrap();
    let mem = Arc::clone(w.machine.mem());
    assert_eq!(mem.in_use(), 1024);
    // Linux maps it across the end.
    w.put(700, 9);
    file.truncate(w.thread.cx(), 600 * PAGE).unwrap();
    assert_eq!(mem.in_use(), 600);
    assert_eq!(w.get(700), Err(FaultError::Beyond(at(700))));
    file.truncate(w.thread.cx(), 1024 * PAGE).unwrap();
    assert_eq!(w.get(700), Ok(0));
    check(&mut w, &file, &[]);
    end(w, file);
}

#[test]
fn it_goes_to_swap_and_comes_back_in_small_pages() {
    for all in [true, false] {
        let (mut w, file) = story();
        collapse(&mut w, 0).unwrap();
        w.told();
        let mem = Arc::clone(w.machine.mem());
        if all {
            w.machine.reclaim_all(&mut w.thread.cx());
        } else {
            advise(&mut w, 0, HUGE, Advice::PageOut).unwrap();
            // Unmapped as a whole, then split.
            assert_eq!(w.told(), "W0..512 W0..512");
        }
        assert!(mem.swap().used() >= 512);
        check(&mut w, &file, &[]);
        // Pages in swap come back first.
        advise(&mut w, 0, HUGE, Advice::PageOut).unwrap();
        assert_eq!(collapse(&mut w, 0), Ok(()));
        assert_eq!(here(&mut w, 0), 512);
        check(&mut w, &file, &[]);
        w.check_rmap();
        end(w, file);
    }
}

#[test]
fn what_is_locked_in_memory_is_collapsed_and_stays() {
    let (mut w, file) = story();
    w.mm.mlock(&mut w.thread.cx(), at(0), 2 * PAGE).unwrap();
    w.mm.mlock(&mut w.thread.cx(), at(0), HUGE * PAGE).unwrap();
    w.told();
    assert_eq!(collapse(&mut w, 0), Ok(()));
    let before = w.machine.mem().swap().used();
    w.machine.reclaim_all(&mut w.thread.cx());
    assert_eq!(here(&mut w, 0), 512, "nothing of it went");
    w.mm.munlock(&mut w.thread.cx(), at(0), HUGE * PAGE)
        .unwrap();
    w.machine.reclaim_all(&mut w.thread.cx());
    w.machine.reclaim_all(&mut w.thread.cx());
    assert!(w.machine.mem().swap().used() > before + 500);
    check(&mut w, &file, &[]);
    end(w, file);
}

/// A reference to a page beside its mappings keeps the page where it is.
#[test]
fn a_page_in_use_is_not_collapsed() {
    let (mut w, file) = story();
    w.put(9, 50);
    let frame = file.object().resident(9).unwrap();
    assert_eq!(collapse(&mut w, 0), Err(Errno::EAGAIN));
    // The next 2 MiB are done all the same.
    assert_eq!(
        advise(&mut w, 0, 1024, Advice::Collapse),
        Err(Errno::EAGAIN)
    );
    assert_eq!((here(&mut w, 512), w.get(9)), (512, Ok(50)));
    drop(frame);
    assert_eq!(collapse(&mut w, 0), Ok(()));
    check(&mut w, &file, &[(9, 50)]);
    end(w, file);
}

#[test]
fn without_a_huge_page_nothing_is_lost() {
    let (mut w, file) = story_on(World::on(machine(1023)));
    w.put(3, 200);
    assert_eq!(collapse(&mut w, 0), Err(Errno::ENOMEM));
    check(&mut w, &file, &[(3, 200)]);
    end(w, file);
}

#[test]
fn an_allocation_that_fails_loses_nothing() {
    let prepare = || {
        let (mut w, file) = story();
        w.put(3, 200);
        advise(&mut w, 20, 10, Advice::PageOut).unwrap();
        let args = MremapArgs {
            addr: at(0),
            old_len: 1024 * PAGE,
            new_len: 1024 * PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: at(1 << 20),
        };
        w.mm.mremap(&mut w.thread.cx(), args).unwrap();
        (w, file)
    };
    let tried = fail_each(
        prepare,
        |(w, _)| Arc::clone(&w.machine),
        |(w, _)| advise(w, 1 << 20, 1024, Advice::Collapse),
        |(mut w, file), came| {
            if let Failed::Reported(errno) = came {
                let known = matches!(errno, Errno::ENOMEM | Errno::EINVAL);
                assert!(known, "{errno}");
            }
            check(&mut w, &file, &[(3, 200)]);
            w.check_rmap();
            end(w, file);
        },
    );
    assert!(tried > 2, "{tried} allocations");
}
