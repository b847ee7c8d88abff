//! Pages of shared memory that come in together, by the mount option of their file system: their
//! number, their mappings, and the ones that stay together when a part goes.

use crate::common::{PAGE, World, at, objects::swapping};
use emmu::{
    FaultError,
    file::{File, FileMode, HugePolicy, Shmem},
    mm::{Advice, MapFlags, PageState},
};
use std::sync::Arc;

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

/// Makes a file of `pages` holes, and maps it shared from page 0 on.
fn story(policy: HugePolicy, pages: u64) -> (World, Arc<File>) {
    let mut w = swapping(8192, 4096);
    let object = Shmem::tmpfs(w.machine.host(), "/dev/shm/t", pages * PAGE, policy).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    w.map_file(0, 1024, &file, 0, SHARED);
    (w, file)
}
fn always() -> (World, Arc<File>) {
    story(HugePolicy::Always, 1024)
}
/// Returns the pages of `[from, from + n)` that are mapped.
fn mapped(w: &mut World, from: u64, n: u64) -> Vec<u64> {
    let first = World::pages(from, from + n);
    let states = w.mm.pagemap(&mut w.thread.cx(), first);
    let there = |state| matches!(state, PageState::Object(_) | PageState::Anon(_));
    let pages = states.iter().filter(|(_, state)| there(*state));
    pages.map(|(page, _)| page.0 - at(0) / PAGE).collect()
}
fn frames(w: &World) -> u32 {
    w.machine.mem().in_use()
}
fn advise(w: &mut World, from: u64, n: u64, advice: Advice) {
    let cx = &mut w.thread.cx();
    w.mm.madvise(cx, at(from), n * PAGE, advice).unwrap();
}
fn punch(w: &mut World, file: &File, from: u64, n: u64) {
    let cx = w.thread.cx();
    file.punch_hole(cx, from * PAGE, n * PAGE).unwrap();
}
fn end(mut w: World, file: Arc<File>) {
    w.check_rmap();
    drop(file);
    w.end();
}

#[test]
fn as_many_come_as_the_policy_says() {
    use HugePolicy::{Advise, Always, Never, WithinSize};
    // A file of 700 pages: the pages that faults on pages 3 and 600 bring in, without and with an
    // advice.
    let table = [
        (Never, (1, 1), (1, 1)),
        (Always, (512, 512), (512, 512)),
        (WithinSize, (512, 1), (512, 512)),
        (Advise, (1, 1), (512, 512)),
    ];
    for (policy, before, after) in table {
        for (advised, (low, high)) in [(false, before), (true, after)] {
            let (mut w, file) = story(policy, 700);
            if advised {
                advise(&mut w, 0, 1024, Advice::HugePage);
            }
            w.put(3, 1);
            assert_eq!(frames(&w), low, "{policy:?}, {advised}");
            assert_eq!(mapped(&mut w, 0, 512).len(), low as usize);
            w.put(600, 2);
            assert_eq!(frames(&w), low + high, "{policy:?}, {advised}");
            assert_eq!(mapped(&mut w, 512, 512).len(), high as usize);
            assert_eq!((w.get(3), w.get(4)), (Ok(1), Ok(0)));
            end(w, file);
        }
    }
}

/// The end of the file may lie in a huge page; the mapped pages beyond are memory, and go with a
/// cut.
#[test]
fn it_is_mapped_across_the_end_of_the_file() {
    let (mut w, file) = story(HugePolicy::Always, 700);
    assert_eq!(w.get(800), Err(FaultError::Beyond(at(800))));
    w.put(600, 2);
    w.put(800, 7);
    file.truncate(w.thread.cx(), 699 * PAGE).unwrap();
    assert_eq!(w.get(800), Err(FaultError::Beyond(at(800))));
    file.truncate(w.thread.cx(), 1024 * PAGE).unwrap();
    assert_eq!((w.get(800), w.get(600)), (Ok(0), Ok(2)));
    end(w, file);
}

#[test]
fn what_is_written_brings_in_as_many_as_fit() {
    use HugePolicy::{Advise, Always, Never, WithinSize};
    // A file of 700 pages: page 3, page 600, and page 3 where pages 40 to 300 exist.
    let table = [
        (Never, (1, 1, 1)),
        (Always, (512, 512, 32)),
        (WithinSize, (512, 128, 32)),
        (Advise, (1, 1, 1)),
    ];
    for (policy, wanted) in table {
        let (mut w, file) = story(policy, 700);
        let write = |w: &mut World, page: u64| {
            let before = frames(w);
            file.write_at(w.thread.cx(), page * PAGE, &[5]).unwrap();
            frames(w) - before
        };
        let (low, high) = (write(&mut w, 3), write(&mut w, 600));
        file.punch_hole(w.thread.cx(), 0, 40 * PAGE).unwrap();
        let again = write(&mut w, 3);
        assert_eq!((low, high, again), wanted, "{policy:?}");
        end(w, file);
    }
}

/// Where a huge page cannot be mapped as one, or a page of it exists already, a fault brings in its
/// page alone.
#[test]
fn a_fault_brings_in_a_huge_page_or_one_alone() {
    let (mut w, file) = always();
    w.map_file(2048 + 6, 600, &file, 4, SHARED);
    w.put(2060, 1);
    assert_eq!((frames(&w), mapped(&mut w, 2048, 512)), (1, vec![2060]));
    w.map_file(4097, 1, &file, 513, SHARED);
    w.put(4097, 1);
    assert_eq!(frames(&w), 2, "a mapping of one page");
    w.put(300, 1);
    assert_eq!((frames(&w), mapped(&mut w, 0, 512)), (3, vec![300]));
    end(w, file);
}

/// When a page goes, the others stay together in halves, quarters, …, which are mapped together.
#[test]
fn what_is_left_of_it_stays_together() {
    let (mut w, file) = always();
    w.put(4, 1);
    w.told();
    punch(&mut w, &file, 4, 1);
    assert_eq!(w.told(), "W4..5 W0..512 W0..512");
    assert_eq!((frames(&w), mapped(&mut w, 0, 512).len()), (511, 0));
    w.put(300, 2);
    assert_eq!(mapped(&mut w, 0, 512), (256..512).collect::<Vec<u64>>());
    w.get(6).unwrap();
    assert_eq!(
        mapped(&mut w, 0, 256),
        [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    );
    // Pages 21 and 22: both in parts of [16, 32).
    w.put(16, 3);
    assert_eq!(mapped(&mut w, 16, 16).len(), 16);
    w.told();
    punch(&mut w, &file, 21, 2);
    assert_eq!(w.told(), "W21..23 W16..32 W22..24");
    assert!(mapped(&mut w, 16, 16).is_empty());
    // A fault brings in its page alone where other pages exist already.
    let before = frames(&w);
    w.put(22, 9);
    assert_eq!(frames(&w) - before, 1);
    assert_eq!((w.get(21), w.get(16), w.get(300)), (Ok(0), Ok(3), Ok(2)));
    end(w, file);
}

#[test]
fn a_private_copy_stands_among_pages_that_came_together() {
    let (mut w, file) = always();
    w.map_file(2048, 1024, &file, 0, PRIVATE);
    w.put(2048 + 7, 1);
    assert_eq!(mapped(&mut w, 2048, 512), [2055]);
    // A new huge page: the table is not empty, so only its page is mapped. An old one: all are.
    assert_eq!(frames(&w), 513);
    punch(&mut w, &file, 0, 512);
    w.get(2048 + 9).unwrap();
    assert_eq!(mapped(&mut w, 2048, 512), [2055, 2057]);
    w.get(2048 + 100).unwrap();
    assert_eq!(mapped(&mut w, 2048, 512).len(), 512);
    assert_eq!((w.get(2055), w.get(7)), (Ok(1), Ok(0)));
    end(w, file);
}

#[test]
fn what_came_together_goes_to_swap_and_is_collapsed_again() {
    let (mut w, file) = always();
    for page in [0, 5, 511] {
        w.put(page, 7);
    }
    punch(&mut w, &file, 100, 1);
    w.put(300, 8);
    w.get(5).unwrap();
    advise(&mut w, 0, 64, Advice::PageOut);
    w.told();
    advise(&mut w, 0, 512, Advice::Collapse);
    assert_eq!(w.told(), "W256..512 W0..512");
    assert_eq!(mapped(&mut w, 0, 512).len(), 512);
    let bytes = [0, 5, 511, 300, 100].map(|page| w.get(page).unwrap());
    assert_eq!(bytes, [7, 7, 7, 8, 0]);
    w.machine.reclaim_all(&mut w.thread.cx());
    w.machine.reclaim_all(&mut w.thread.cx());
    let bytes = [0, 5, 511, 300, 100].map(|page| w.get(page).unwrap());
    assert_eq!(bytes, [7, 7, 7, 8, 0]);
    end(w, file);
}

/// Without memory for many, few come; without any, none.
#[test]
fn less_comes_where_memory_is_short() {
    for nth in 1..12 {
        let (mut w, file) = always();
        w.put(600, 1);
        let inject = w.machine.mem().inject();
        inject.arm(nth);
        let done = w.mm.store(&mut w.thread.cx(), at(3), 1);
        inject.disarm();
        if done.is_err() {
            w.put(3, 1);
        }
        assert_eq!((w.get(3), w.get(4), w.get(600)), (Ok(1), Ok(0), Ok(1)));
        end(w, file);
    }
}
