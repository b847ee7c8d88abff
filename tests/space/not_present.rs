//! What an entry says while its page is on its way, whatever goes over it meanwhile:
//! `docs/entries.md` has the table, and each of its cells names a test.

use crate::common::{
    PAGE, RW, World, at,
    moving::{BOTH, Comes},
    objects::{shmem, swapping},
};
use emmu::{
    FaultError,
    mm::{Advice, ForkMode, MapFlags, MremapFlags, Prot, Pte, RemapMode},
    notifier::AgeKind,
};
use std::sync::Arc;

/// Page `n` of the world is `n + 1`, in pages 0..4; the machine has swap.
fn world() -> World {
    let mut w = swapping(256, 64);
    w.map(0, 4, RW);
    (0..4).for_each(|n| w.put(n, n as u8 + 1));
    w.told();
    w
}
/// Whether the next store to the page copies it: opens a window.
fn copies(w: &mut World, page: u64) -> bool {
    w.told();
    w.put(page, 77);
    !w.told().is_empty()
}
fn is_young(w: &mut World, page: u64) -> bool {
    let page = World::pages(page, page + 1);
    w.mm.age(&mut w.thread.cx(), page, AgeKind::Test)
}
fn is_writable(w: &mut World, page: u64) -> bool {
    matches!(w.pte(page), Pte::Present { write: true, .. })
}

/// Of a page that was nobody else's nothing is lost: it is written in place, and is as old and as
/// dirty as before.
#[test]
fn a_move_keeps_what_the_entry_said() {
    for comes in BOTH {
        for used in [true, false] {
            let mut w = world();
            if !used {
                let page = World::pages(1, 2);
                w.mm.age(&mut w.thread.cx(), page, AgeKind::ClearFlush);
            }
            // Read to be exported, so used: but for the entry itself.
            w.while_moving(1, comes, |w| assert_eq!(w.pte(1), Pte::None));
            assert_eq!(is_young(&mut w, 1), used, "{comes:?}");
            assert!(is_writable(&mut w, 1), "{comes:?}");
            assert!(!copies(&mut w, 1), "{comes:?}");
            w.end();
        }
    }
}

/// `copy_nonpresent_pte`, `try_to_migrate_one`: the frame forgets that it is exclusive when the
/// mark is made, and a fork makes the marks of parent and child forget it. So both copy.
#[test]
fn forked_on_its_way_a_page_is_nobody_s_own() {
    for (comes, mode) in [
        (Comes::Through, ForkMode::Copy),
        (Comes::Through, ForkMode::Share),
        (Comes::ToNothing, ForkMode::Copy),
        (Comes::ToNothing, ForkMode::Share),
    ] {
        for child_first in [true, false] {
            let mut w = world();
            let child = w.while_moving(1, comes, |w| {
                w.mm.fork_with(&mut w.thread.cx(), mode).unwrap()
            });
            let parent = Arc::clone(&w.mm);
            let (first, then) = match child_first {
                true => (&child, &parent),
                false => (&parent, &child),
            };
            w.inside(first, |w| w.put(1, 0xee));
            assert_eq!(w.inside(then, |w| w.get(1)), Ok(2), "{comes:?} {mode:?}");
            w.inside(then, |w| w.put(1, 0xdd));
            assert_eq!(
                w.inside(first, |w| w.get(1)),
                Ok(0xee),
                "{comes:?} {mode:?}"
            );
            w.check_rmap();
            w.reap(&child);
            w.end();
        }
    }
}

/// `change_pte_range`: the mark loses the right to write, and stays exclusive, also when the right
/// comes back meanwhile.
#[test]
fn rights_change_on_its_way() {
    for comes in BOTH {
        let mut w = world();
        w.while_moving(1, comes, |w| w.protect(1, 1, Prot::READ).unwrap());
        let denied = w.mm.store(&mut w.thread.cx(), at(1), 9);
        assert_eq!(denied, Err(FaultError::Denied(at(1))));
        w.protect(1, 1, RW).unwrap();
        assert!(is_writable(&mut w, 1) && !copies(&mut w, 1));
        w.while_moving(2, comes, |w| {
            w.protect(2, 1, Prot::READ).unwrap();
            w.protect(2, 1, RW).unwrap();
        });
        assert!(!is_writable(&mut w, 2), "a protection check is difficult");
        assert!(!copies(&mut w, 2));
        w.while_moving(3, comes, |w| w.protect(3, 1, Prot::empty()).unwrap());
        assert_eq!(w.get(3), Err(FaultError::Denied(at(3))));
        w.protect(3, 1, Prot::READ).unwrap();
        assert_eq!(w.get(3), Ok(4));
        w.end();
    }
}

/// Shared memory may be written wherever the VMA says so, whatever the mark kept (`vm_page_prot`).
#[test]
fn rights_of_shared_memory_come_from_its_vma() {
    for comes in BOTH {
        let mut w = swapping(256, 64);
        w.share(0, 2);
        w.fill(0, 2);
        w.while_moving(0, comes, |w| {
            w.protect(0, 1, Prot::READ).unwrap();
            w.protect(0, 1, RW).unwrap();
        });
        assert!(is_writable(&mut w, 0));
        w.while_moving(1, comes, |w| w.protect(1, 1, Prot::READ).unwrap());
        assert!(!is_writable(&mut w, 1));
        w.end();
    }
}

/// `move_ptes`: a mark moves as it is, and is found where it went.
#[test]
fn moved_on_its_way_it_arrives_at_the_new_place() {
    for comes in BOTH {
        for flags in [MremapFlags::empty(), MremapFlags::DONTUNMAP] {
            let mut w = world();
            let how = MremapFlags::MAYMOVE | MremapFlags::FIXED | flags;
            w.while_moving(1, comes, |w| w.remap(1, 1, 1, how, 9));
            assert_eq!(w.get(9), Ok(2));
            assert!(is_writable(&mut w, 9) && !copies(&mut w, 9));
            let left = w.get(1);
            match flags.is_empty() {
                true => assert_eq!(left, Err(FaultError::NotMapped(at(1)))),
                false => assert_eq!(left, Ok(0)),
            }
            w.check_rmap();
            w.end();
        }
    }
}

#[test]
fn its_vma_is_cut_and_merged_on_its_way() {
    for comes in BOTH {
        let mut w = world();
        w.while_moving(1, comes, |w| {
            w.protect(0, 1, Prot::READ).unwrap();
            w.advise(2, 1, Advice::DontFork).unwrap();
        });
        assert_eq!(w.spans(), [(0, 1), (1, 2), (2, 3), (3, 4)]);
        assert!(w.get(1) == Ok(2) && !copies(&mut w, 1));
        w.while_moving(1, comes, |w| {
            w.protect(0, 1, RW).unwrap();
            w.advise(2, 1, Advice::DoFork).unwrap();
        });
        assert_eq!(w.spans(), [(0, 4)]);
        assert!(w.get(1) == Ok(77) && !copies(&mut w, 1));
        w.check_rmap();
        w.end();
    }
}

/// `zap_nonpresent_ptes`: a mark that is gone does not come back, and its page neither.
#[test]
fn what_is_given_up_on_its_way_does_not_arrive() {
    type GivesUp = fn(&mut World);
    let ways: [(GivesUp, Result<u8, FaultError>); 4] = [
        (|w| w.advise(1, 1, Advice::DontNeed).unwrap(), Ok(0)),
        (
            |w| w.mm.munmap(&mut w.thread.cx(), at(1), PAGE).unwrap(),
            Err(FaultError::NotMapped(at(1))),
        ),
        (|w| w.map(1, 1, RW), Ok(0)),
        (
            |w| w.advise(1, 1, Advice::GuardInstall).unwrap(),
            Err(FaultError::Guarded(at(1))),
        ),
    ];
    for comes in BOTH {
        for (gives_up, then) in ways {
            let mut w = world();
            w.while_moving(1, comes, gives_up);
            assert_eq!(w.pfn(1), None);
            assert_eq!(w.get(1), then);
            assert_eq!((w.get(0), w.get(2)), (Ok(1), Ok(3)));
            assert!(w.machine.mem().in_use() <= 3, "its frame is free");
            w.end();
        }
    }
}

/// `madvise_free_pte_range` and its like: whatever looks for pages in memory passes a mark by.
#[test]
fn advice_passes_it_by() {
    for comes in BOTH {
        for advice in [Advice::Free, Advice::Cold, Advice::PageOut] {
            let mut w = world();
            w.while_moving(1, comes, |w| w.advise(1, 1, advice).unwrap());
            assert!(w.pfn(1).is_some() && is_young(&mut w, 1));
            // Nobody gave it up lazily.
            w.advise(1, 1, Advice::PageOut).unwrap();
            assert_eq!(w.get(1), Ok(2), "{advice:?}");
            w.end();
        }
    }
}

/// What makes reclaim drop a page that was given up is that it is clean: it stays so.
#[test]
fn given_up_lazily_before_it_is_dropped_after() {
    for comes in BOTH {
        let mut w = world();
        w.advise(1, 2, Advice::Free).unwrap();
        w.put(2, 9);
        w.while_moving(1, comes, |_| ());
        w.while_moving(2, comes, |_| ());
        w.advise(1, 2, Advice::PageOut).unwrap();
        assert_eq!(
            (w.get(1), w.get(2)),
            (Ok(0), Ok(9)),
            "written since, it stays"
        );
        w.end();
    }
}

#[test]
fn it_is_no_page_to_merge_and_one_in_memory() {
    for comes in BOTH {
        let mut w = world();
        w.put(0, 2);
        w.while_moving(1, comes, |w| {
            let mm = Arc::clone(&w.mm);
            let pages = [(&*mm, at(0)), (&*mm, at(1))];
            assert_eq!(w.machine.merge_same_pages(&mut w.thread.cx(), &pages), 0);
            let resident = w.mm.mincore(&mut w.thread.cx(), at(0), 4 * PAGE);
            assert_eq!(resident.unwrap(), [true; 4]);
        });
        assert!(!copies(&mut w, 1));
        w.end();
    }
}

#[test]
fn a_child_that_ends_on_its_way_leaves_it_to_its_parent() {
    for comes in BOTH {
        for mode in [ForkMode::Copy, ForkMode::Share] {
            let mut w = world();
            w.while_moving(1, comes, |w| {
                let child = w.mm.fork_with(&mut w.thread.cx(), mode).unwrap();
                w.reap(&child);
            });
            assert_eq!(w.get(1), Ok(2));
            assert!(!copies(&mut w, 1), "nobody else has it by now");
            w.end();
        }
    }
}

/// `migration_entry_wait`: a fault waits for the page, and takes no reference that would keep it
/// where it is.
#[test]
fn a_fault_waits_for_it() {
    let mut w = world();
    assert_eq!(
        w.waits_for_moving(1, Comes::Through, |mm, cx| mm.load(cx, at(1))),
        Ok(2)
    );
    assert_eq!(
        w.waits_for_moving(1, Comes::Through, |mm, cx| mm.store(cx, at(1), 9)),
        Ok(())
    );
    assert_eq!(w.get(1), Ok(9));
    w.end();
}

/// `folio_add_anon_rmap_pte`: what arrives in locked memory is locked, whatever it was when it
/// left; populating waits for it.
#[test]
fn locked_or_unlocked_on_its_way() {
    let mut w = world();
    w.waits_for_moving(1, Comes::Through, |mm, cx| {
        mm.mlock(cx, at(1), PAGE).unwrap()
    });
    assert_eq!(w.machine.reclaim_all(&mut w.thread.cx()), 3);
    assert!(w.pfn(1).is_some(), "locked");
    for comes in BOTH {
        w.while_moving(1, comes, |w| w.unlock(1, 1).unwrap());
        w.lock(1, 1).unwrap();
        w.while_moving(1, comes, |_| ());
        assert_eq!(w.machine.reclaim_all(&mut w.thread.cx()), 0, "{comes:?}");
        w.while_moving(1, comes, |w| w.unlock(1, 1).unwrap());
        w.advise(1, 1, Advice::PageOut).unwrap();
        assert!(matches!(w.pte(1), Pte::Swap(_)), "{comes:?}");
        assert_eq!(w.get(1), Ok(2));
        w.lock(1, 1).unwrap();
    }
    w.end();
}

/// `__collapse_huge_page_swapin`: a collapse waits for it, and takes it in.
#[test]
fn a_collapse_waits_for_it() {
    let mut w = swapping(2048, 64);
    w.map(0, 512, RW);
    w.fill(0, 4);
    let collapsed = w.waits_for_moving(1, Comes::Through, |mm, cx| {
        mm.madvise(cx, at(0), 512 * PAGE, Advice::Collapse)
    });
    assert_eq!(collapsed, Ok(()));
    assert!(w.get(1) == Ok(1) && w.get(5) == Ok(0));
    w.end();
}

/// Reverse maps of an object lead to all marks of a page, shared and private.
#[test]
fn a_page_of_an_object_arrives_everywhere() {
    for comes in BOTH {
        let mut w = swapping(256, 64);
        let file = shmem(&mut w, 4);
        w.map_file(0, 4, &file, 0, MapFlags::SHARED);
        w.map_file(8, 4, &file, 0, MapFlags::PRIVATE);
        let child = w.fork();
        assert!((w.get(1), w.get(9)) == (Ok(2), Ok(2)));
        w.inside(&child, |w| assert_eq!((w.get(1), w.get(9)), (Ok(2), Ok(2))));
        w.while_moving(1, comes, |_| ());
        let there = w.pfn(1);
        assert!(there.is_some() && w.pfn(9) == there);
        w.inside(&child, |w| assert_eq!((w.pfn(1), w.pfn(9)), (there, there)));
        w.put(1, 7);
        assert_eq!(w.inside(&child, |w| w.get(9)), Ok(7));
        w.inside(&child, |w| w.put(9, 8));
        assert_eq!((w.get(1), w.get(9)), (Ok(7), Ok(7)));
        w.reap(&child);
        drop(file);
        w.end();
    }
}

/// `should_zap_folio`: a hole and a cut take the marks at once, and wait for the page alone; it
/// comes back nowhere.
#[test]
fn a_page_of_an_object_is_cut_off_on_its_way() {
    for cut in [true, false] {
        let mut w = swapping(256, 64);
        let file = shmem(&mut w, 4);
        w.map_file(0, 4, &file, 0, MapFlags::SHARED);
        assert_eq!(w.get(1), Ok(2));
        w.told();
        if cut {
            w.waits_for_moving(1, Comes::ToNothingByThat, |_, cx| {
                file.truncate(cx.reborrow(), PAGE).unwrap()
            });
            assert_eq!(w.get(1), Err(FaultError::Beyond(at(1))));
        } else {
            w.waits_for_moving(1, Comes::ToNothingByThat, |mm, cx| {
                mm.madvise(cx, at(1), PAGE, Advice::Remove).unwrap()
            });
            assert_eq!(
                w.told(),
                "W1..2 W1..2",
                "the move, the hole, and nothing to be taken again"
            );
            assert_eq!(w.get(1), Ok(0));
        }
        drop(file);
        w.end();
    }
}

/// A VMA that becomes nonlinear meanwhile has the mark at its old place, and its page is brought
/// back there.
#[test]
fn its_vma_becomes_nonlinear_on_its_way() {
    for comes in BOTH {
        let mut w = swapping(256, 64);
        let file = shmem(&mut w, 4);
        w.map_file(0, 4, &file, 0, MapFlags::SHARED);
        w.mm.set_remap_mode(&mut w.thread.cx(), RemapMode::Nonlinear);
        assert_eq!((w.get(1), w.get(2)), (Ok(2), Ok(3)));
        w.while_moving(1, comes, |w| {
            let (mm, none) = (Arc::clone(&w.mm), (Prot::empty(), MapFlags::NONBLOCK));
            mm.remap_file_pages(&mut w.thread.cx(), at(3), PAGE, none.0, 0, none.1)
                .unwrap();
        });
        // Looked at first: who faults on a mark that nobody brings back waits for ever.
        assert!(w.pfn(1).is_some(), "{comes:?}: the mark is still there");
        assert_eq!([1, 2, 3].map(|n| w.get(n).unwrap()), [2, 3, 1]);
        w.while_moving(2, Comes::ToNothing, |_| ());
        assert_eq!([1, 2, 3].map(|n| w.get(n).unwrap()), [2, 3, 1]);
        drop(file);
        w.end();
    }
}
