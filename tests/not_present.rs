//! What an entry says while its page is on its way, whatever goes over it meanwhile: `docs/entries.md` has the table, and
//! each of its cells names a test.

mod common;

use common::{
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

/// Of a page that was nobody else's nothing is lost: it is written in place, and is as old and as dirty as before.
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

/// `copy_nonpresent_pte`, `try_to_migrate_one`: the frame forgets that it is exclusive when the mark is made, and a fork
/// makes the marks of parent and child forget it. So both copy.
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
