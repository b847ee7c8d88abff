//! Which windows each operation opens: one test a rule, as Linux does it.

use crate::common::{PAGE, RW, World, at};
use emmu::mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot};

/// Runs an operation on a world with pages 0..16 mapped and pages 2..6 written, and shows its
/// windows.
fn windows_of(work: impl FnOnce(&mut World)) -> Vec<(u64, u64)> {
    let mut w = World::new();
    w.map(0, 16, RW);
    w.fill(2, 4);
    w.windows();
    work(&mut w);
    let windows = w.windows();
    w.end();
    windows
}

fn mremap(w: &mut World, (from, old, new): (u64, u64, u64), flags: MremapFlags, to: u64) {
    let args = MremapArgs {
        addr: at(from),
        old_len: old * PAGE,
        new_len: new * PAGE,
        flags,
        new_addr: at(to),
    };
    w.mm.mremap(&mut w.thread.cx(), args).expect("movable");
}

const MOVE: MremapFlags = MremapFlags::MAYMOVE.union(MremapFlags::FIXED);

#[test]
fn munmap_opens_one_over_the_requested_range_also_across_holes() {
    let seen = windows_of(|w| w.mm.munmap(&mut w.thread.cx(), at(14), 6 * PAGE).unwrap());
    assert_eq!(seen, [(14, 20)]);
}

#[test]
fn munmap_of_nothing_opens_none() {
    assert_eq!(
        windows_of(|w| w.mm.munmap(&mut w.thread.cx(), at(20), PAGE).unwrap()),
        []
    );
}

#[test]
fn a_fixed_mapping_opens_one_over_what_it_replaces_and_none_in_a_hole() {
    assert_eq!(windows_of(|w| w.map(3, 2, Prot::READ)), [(3, 5)]);
    assert_eq!(windows_of(|w| w.map(20, 2, Prot::READ)), []);
}

#[test]
fn mprotect_opens_one_a_vma_whose_rights_change() {
    let protect = |w: &mut World, prot| {
        w.mm.mprotect(&mut w.thread.cx(), at(0), 8 * PAGE, prot)
            .unwrap();
    };
    assert_eq!(windows_of(|w| protect(w, Prot::READ)), [(0, 8)]);
    assert_eq!(windows_of(|w| protect(w, RW)), []);
    let seen = windows_of(|w| {
        w.mm.mprotect(&mut w.thread.cx(), at(4), PAGE, Prot::empty())
            .unwrap();
        w.windows();
        protect(w, Prot::READ);
    });
    assert_eq!(seen, [(0, 4), (4, 5), (5, 8)]);
}

#[test]
fn mprotect_of_memory_without_tables_opens_none() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.mm.mprotect(&mut w.thread.cx(), at(0), 4 * PAGE, Prot::READ)
        .unwrap();
    assert_eq!(w.windows(), []);
    w.end();
}

#[test]
fn fork_opens_one_over_each_private_vma_that_has_pages() {
    let seen = windows_of(|w| {
        w.map(32, 4, RW);
        w.share(40, 4);
        w.put(40, 1);
        let child = w.mm.fork(&mut w.thread.cx()).unwrap();
        child.exit(&mut w.thread.cx());
    });
    assert_eq!(seen, [(0, 16)]);
}

#[test]
fn a_copied_page_opens_one_a_reused_page_none() {
    let seen = windows_of(|w| {
        let child = w.mm.fork(&mut w.thread.cx()).unwrap();
        w.windows();
        w.put(3, 9);
        child.exit(&mut w.thread.cx());
        w.put(4, 9);
    });
    assert_eq!(seen, [(3, 4)]);
}

#[test]
fn a_first_touch_opens_none_and_a_write_after_a_read_opens_one() {
    assert_eq!(windows_of(|w| w.put(10, 1)), []);
    let seen = windows_of(|w| {
        assert_eq!(w.get(10), Ok(0));
        w.put(10, 1);
    });
    assert_eq!(seen, [(10, 11)]);
}

#[test]
fn growing_opens_none_and_shrinking_one_over_the_tail() {
    assert_eq!(
        windows_of(|w| mremap(w, (0, 16, 20), MremapFlags::empty(), 0)),
        []
    );
    assert_eq!(
        windows_of(|w| mremap(w, (0, 16, 10), MremapFlags::empty(), 0)),
        [(10, 16)]
    );
}

#[test]
fn a_move_opens_its_window_twice() {
    let seen = windows_of(|w| mremap(w, (0, 16, 16), MOVE, 100));
    assert_eq!(seen, [(0, 16), (0, 16)]);
}

#[test]
fn a_move_onto_something_clears_the_target_first_then_the_tail() {
    let seen = windows_of(|w| {
        w.map(100, 4, RW);
        mremap(w, (0, 16, 12), MOVE, 98);
    });
    assert_eq!(seen, [(98, 110), (12, 16), (0, 12), (0, 12)]);
}

#[test]
fn a_move_that_leaves_the_source_opens_one() {
    let flags = MOVE | MremapFlags::DONTUNMAP;
    assert_eq!(
        windows_of(|w| mremap(w, (0, 16, 16), flags, 100)),
        [(0, 16)]
    );
}

#[test]
fn several_vmas_move_one_after_the_other() {
    let seen = windows_of(|w| {
        w.map(18, 2, Prot::READ);
        mremap(w, (12, 8, 8), MOVE, 100);
    });
    assert_eq!(seen, [(12, 16), (12, 16), (18, 20), (18, 20)]);
}

#[test]
fn a_move_that_a_table_can_make_starts_at_its_boundary() {
    let mut w = World::new();
    // Both sides a page above a 2-MiB boundary, nothing mapped below, and past the next boundary.
    w.map(513, 1024, RW);
    w.put(600, 7);
    w.windows();
    mremap(&mut w, (513, 1024, 1024), MOVE, 8193);
    assert_eq!(w.windows(), [(512, 1537), (513, 1537)]);
    assert_eq!(w.get(8193 + 87), Ok(7));
    w.end();
}

#[test]
fn a_boundary_inside_two_mebibytes_opens_one_over_them_once_a_table_is_there() {
    let mut w = World::new();
    w.map(0, 2048, RW);
    w.mm.munmap(&mut w.thread.cx(), at(700), PAGE).unwrap();
    assert_eq!(w.windows(), [(700, 701)]);
    w.put(1600, 1);
    w.mm.munmap(&mut w.thread.cx(), at(1100), PAGE).unwrap();
    assert_eq!(w.windows(), [(1024, 1536), (1100, 1101)]);
    w.end();
}

#[test]
fn advice_that_drops_pages_opens_one_a_vma_each_time() {
    for advice in [Advice::DontNeed, Advice::DontNeedLocked, Advice::Free] {
        let seen = windows_of(|w| {
            for _ in 0..2 {
                w.mm.madvise(&mut w.thread.cx(), at(4), 4 * PAGE, advice)
                    .unwrap();
            }
        });
        assert_eq!(seen, [(4, 8), (4, 8)], "{advice:?}");
    }
}

#[test]
fn advice_that_only_changes_flags_or_fills_opens_none() {
    for advice in [
        Advice::Cold,
        Advice::DontFork,
        Advice::PopulateRead,
        Advice::PopulateWrite,
        Advice::GuardRemove,
        Advice::Sequential,
    ] {
        let advise = |w: &mut World| {
            w.mm.madvise(&mut w.thread.cx(), at(8), 4 * PAGE, advice)
                .unwrap();
        };
        assert_eq!(windows_of(advise), [], "{advice:?}");
    }
    let lock = |w: &mut World| {
        w.mm.mlock(&mut w.thread.cx(), at(0), 16 * PAGE).unwrap();
        w.mm.munlock(&mut w.thread.cx(), at(0), 16 * PAGE).unwrap();
    };
    assert_eq!(windows_of(lock), []);
}

#[test]
fn guards_open_one_only_where_they_discard() {
    let guard = |from: u64, n: u64| {
        windows_of(|w| {
            w.mm.madvise(&mut w.thread.cx(), at(from), n * PAGE, Advice::GuardInstall)
                .unwrap();
        })
    };
    assert_eq!(guard(8, 4), []);
    assert_eq!(guard(0, 4), [(0, 4)]);
}

#[test]
fn exit_is_silent() {
    assert_eq!(windows_of(|w| w.mm.exit(&mut w.thread.cx())), []);
}

#[test]
fn a_hint_that_is_free_opens_none() {
    let seen = windows_of(|w| {
        let args = MmapArgs {
            addr: at(40),
            ..MmapArgs::anonymous(PAGE)
        };
        assert_eq!(w.mm.mmap(&mut w.thread.cx(), &args), Ok(at(40)));
    });
    assert_eq!(seen, []);
}

#[test]
fn fork_passes_over_what_it_does_not_share() {
    let seen = windows_of(|w| {
        w.advise(0, 3, Advice::DontFork).unwrap();
        w.advise(3, 2, Advice::WipeOnFork).unwrap();
        w.protect(8, 8, Prot::READ).unwrap();
        w.map(32, 4, RW);
        w.windows();
        let child = w.fork();
        w.inside(&child, |w| w.put(5, 9));
        w.reap(&child);
    });
    // The unwritten part belongs to the family of the written one.
    assert_eq!(seen, [(5, 8), (8, 16)]);
}

#[test]
fn an_unwritten_mapping_moves_with_the_same_windows() {
    let mut w = World::new();
    w.map(0, 4, RW);
    mremap(&mut w, (0, 4, 4), MOVE, 100);
    assert_eq!(w.windows(), [(0, 4), (0, 4)]);
    w.end();
}

#[test]
fn each_piece_of_a_move_clears_its_own_target() {
    let seen = windows_of(|w| {
        w.map(18, 2, Prot::READ);
        w.map(100, 8, RW);
        w.windows();
        mremap(w, (12, 8, 8), MOVE, 100);
    });
    assert_eq!(
        seen,
        [
            (100, 104),
            (12, 16),
            (12, 16),
            (106, 108),
            (18, 20),
            (18, 20)
        ]
    );
}

#[test]
fn a_move_that_leaves_the_source_clears_the_target_first() {
    let seen = windows_of(|w| {
        w.map(104, 1, RW);
        mremap(w, (0, 16, 16), MOVE | MremapFlags::DONTUNMAP, 100);
    });
    assert_eq!(seen, [(100, 116), (0, 16)]);
}

#[test]
fn duplicating_shared_memory_opens_none() {
    let seen = windows_of(|w| {
        w.share(40, 4);
        w.put(40, 1);
        mremap(w, (40, 0, 4), MOVE, 60);
        assert_eq!(w.get(60), Ok(1));
    });
    assert_eq!(seen, []);
}

#[test]
fn shared_memory_is_written_and_protected_without_copies() {
    let seen = windows_of(|w| {
        w.share(40, 4);
        assert_eq!(w.get(40), Ok(0));
        w.put(40, 1);
        w.protect(40, 4, Prot::READ).unwrap();
        w.protect(40, 4, RW).unwrap();
        w.put(40, 2);
    });
    assert_eq!(seen, [(40, 44), (40, 44)]);
}

#[test]
fn the_heap_opens_one_over_what_it_gives_back() {
    let seen = windows_of(|w| {
        let cx = &mut w.thread.cx();
        w.mm.set_start_brk(cx, at(40)).unwrap();
        w.mm.brk(cx, at(48));
        w.mm.brk(cx, at(45) + 1);
        w.mm.brk(cx, at(45) + 2);
    });
    assert_eq!(seen, [(46, 48)]);
}

#[test]
fn a_growing_stack_opens_none() {
    let seen = windows_of(|w| {
        w.map_with(1000, 1, RW, MapFlags::GROWSDOWN);
        w.put(900, 1);
    });
    assert_eq!(seen, []);
}

#[test]
fn populating_opens_one_only_where_it_copies() {
    let populate = |w: &mut World| w.advise(0, 8, Advice::PopulateWrite).unwrap();
    assert_eq!(windows_of(populate), []);
    let seen = windows_of(|w| {
        assert_eq!(w.get(1), Ok(0));
        let child = w.fork();
        w.windows();
        populate(w);
        w.reap(&child);
    });
    assert_eq!(seen, [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6)]);
}

#[test]
fn what_is_refused_opens_none() {
    let seen = windows_of(|w| {
        w.seal(8, 1).unwrap();
        w.windows();
        w.munmap(0, 16).unwrap_err();
        w.protect(8, 1, Prot::READ).unwrap_err();
        w.mmap(&crate::common::calls::private(0, 16)).unwrap_err();
        w.advise(40, 1, Advice::DontNeed).unwrap_err();
        w.protect(40, 1, Prot::READ).unwrap_err();
    });
    assert_eq!(seen, []);
}

#[test]
fn a_change_that_meets_a_hole_opens_those_before_it() {
    let seen = windows_of(|w| {
        w.munmap(6, 2).unwrap();
        w.windows();
        w.protect(4, 6, Prot::READ).unwrap_err();
        w.advise(4, 6, Advice::DontNeed).unwrap_err();
    });
    assert_eq!(seen, [(4, 6), (4, 6), (8, 10)]);
}

#[test]
fn a_read_beyond_the_end_maps_what_lies_around_before_it_fails() {
    let mut w = World::new();
    w.share(0, 4);
    w.put(1, 5);
    mremap(&mut w, (0, 0, 6), MOVE, 32);
    let end = emmu::FaultError::Beyond(at(37));
    assert_eq!(w.get(37), Err(end));
    let cx = &mut w.thread.cx();
    let seen = w.mm.pagemap(cx, World::pages(32, 38));
    assert_eq!(seen.len(), 1, "page 33");
    w.end();
}
