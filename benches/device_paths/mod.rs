//! The paths of devices whose instructions are counted, and beside them the floors of the ratios.

use crate::{
    PAGES, TURNS, counted,
    device::{attachment, context, guest},
    tlb::{Attached, Shadowing},
    touched,
    world::{World, addr, with_world},
};
use emmu::{PAGE_SIZE, mm::Advice};

/// Counts misses of a guest's processor on pages `first..`, after others that are not counted.
fn kvm_misses(before: u64) {
    with_world(|w| {
        touched(w);
        let (_vm, vcpu) = guest(w, PAGES);
        let touch = |w: &mut World<'_>, n: u64| {
            let read = vcpu.read(&mut w.cx, n * PAGE_SIZE, &mut [0]);
            read.expect("in the slot");
        };
        (0..before).for_each(|n| touch(w, n));
        counted(w, |w| (before..before + TURNS).for_each(|n| touch(w, n)));
    });
}
/// The first one makes the tables.
pub(crate) fn kvm_miss() {
    kvm_misses(0);
}
pub(crate) fn kvm_miss_again() {
    kvm_misses(TURNS);
}
pub(crate) fn kvm_hit() {
    with_world(|w| {
        touched(w);
        let (_vm, vcpu) = guest(w, PAGES);
        let turn = |w: &mut World<'_>| {
            for n in 0..TURNS {
                let read = vcpu.read(&mut w.cx, n * PAGE_SIZE, &mut [0]);
                read.expect("in the slot");
            }
        };
        turn(w);
        counted(w, turn);
    });
}
pub(crate) fn kvm_zap_512() {
    with_world(|w| {
        touched(w);
        let (_vm, vcpu) = guest(w, PAGES);
        for n in 0..PAGES {
            vcpu.read(&mut w.cx, n * PAGE_SIZE, &mut [0])
                .expect("in the slot");
        }
        counted(w, |w| {
            w.mm.madvise(&mut w.cx, addr(0), PAGES * PAGE_SIZE, Advice::DontNeed)
                .expect("mapped");
        });
    });
}
/// Counts one turn of loads by a context, the `nth`.
fn gru_loads(nth: u64) {
    with_world(|w| {
        touched(w);
        let context = context(w);
        let turn = |w: &mut World<'_>| {
            for n in 0..TURNS {
                let read = context.read(&mut w.cx, addr(n), &mut [0]);
                read.expect("mapped");
            }
        };
        // The first instruction loads the context.
        context
            .read(&mut w.cx, addr(TURNS), &mut [0])
            .expect("mapped");
        (0..nth).for_each(|_| turn(w));
        counted(w, turn);
    });
}
pub(crate) fn gru_drop_in() {
    gru_loads(0);
}
pub(crate) fn gru_hit() {
    gru_loads(1);
}
pub(crate) fn xpmem_hit() {
    with_world(|w| {
        touched(w);
        let attached = attachment(w, PAGES);
        let turn = |w: &mut World<'_>| {
            for n in 0..TURNS {
                let read = attached.read(&mut w.cx, n * PAGE_SIZE, &mut [0]);
                read.expect("attached");
            }
        };
        turn(w);
        counted(w, turn);
    });
}

/// The floors of the devices, which the ratios are taken against.
pub(crate) fn floor_miss() {
    with_world(|w| {
        let theirs = Shadowing::new(PAGES, 2048);
        (0..TURNS).for_each(|n| theirs.access(n, Shadowing::fault));
        counted(w, |_| {
            (TURNS..2 * TURNS).for_each(|n| theirs.access(n, Shadowing::fault));
        });
    });
}
pub(crate) fn floor_drop_in() {
    with_world(|w| {
        let theirs = Shadowing::new(PAGES, 2048);
        counted(w, |_| {
            (0..TURNS).for_each(|n| theirs.access(n, Shadowing::drop_in))
        });
    });
}
pub(crate) fn floor_hit() {
    with_world(|w| {
        let theirs = Shadowing::new(PAGES, 2048);
        let turn = || (0..TURNS).for_each(|n| theirs.access(n, Shadowing::drop_in));
        turn();
        counted(w, |_| turn());
    });
}
pub(crate) fn floor_xpmem_hit() {
    with_world(|w| {
        let theirs = Attached::new(PAGES);
        counted(w, |_| (0..TURNS).for_each(|n| theirs.access(n)));
    });
}
