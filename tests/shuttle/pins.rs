//! A page that is pinned for a device, while another thread forks, unmaps, discards or moves it.

use crate::{
    run::{How, explore},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    mm::{Advice, HeldPages, MmapArgs, PinKind},
    notifier::Access,
};
use std::sync::Arc;

fn pin(mm: &Mm, cx: &mut CallCx<'_>) -> Option<HeldPages> {
    mm.pin(cx, BASE, 1, Access::Write, PinKind::LongTerm).ok()
}

/// Pins the page while `operation` runs; then the device stores 3. `then` looks at the process, at
/// what the operation returned, and at whether the page was pinned.
fn race<T: Send + 'static>(
    operation: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>) -> T + Send + 'static,
    then: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>, T, bool),
) {
    let (machine, mm) = one_page(MachineConfig {
        memory: MemConfig {
            frames: 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let (pins, operates) = (Arc::clone(&mm), Arc::clone(&mm));
    let pinning = shuttle::thread::spawn(move || {
        let mut thread = pins.machine().enter().unwrap();
        pin(&pins, &mut thread.cx())
    });
    let operating = shuttle::thread::spawn(move || {
        let mut thread = operates.machine().enter().unwrap();
        operation(&operates, &mut thread.cx())
    });
    let made = operating.join().unwrap();
    let pinned = pinning.join().unwrap();
    let stored = pinned.as_ref().map_or(0, |pages| pages.write_at(0, &[3]));
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    then(&mm, &mut cx, made, stored == 1);
    mm.exit(&mut cx);
    drop(pinned);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// What the device stores is the parent's, and not the child's.
fn forked() {
    race(
        |mm, cx| mm.fork(cx).unwrap(),
        |mm, cx, child, pinned| {
            assert!(pinned, "it is mapped all the time");
            assert_eq!(child.load(cx, BASE), Ok(1), "the device wrote to the child");
            assert_eq!(mm.load(cx, BASE), Ok(3), "the device lost its page");
            child.exit(cx);
        },
    );
}
/// The frame stays the device's, and becomes nobody else's.
fn unmapped() {
    race(
        |mm, cx| {
            mm.munmap(cx, BASE, PAGE).unwrap();
            let args = MmapArgs::anonymous(2 * PAGE).fixed(BASE + PAGE);
            mm.mmap(cx, &args).unwrap();
            mm.store(cx, BASE + PAGE, 2).unwrap();
        },
        |mm, cx, (), _| {
            assert_eq!(mm.load(cx, BASE + PAGE), Ok(2), "the device wrote to it");
        },
    );
}
/// The device has the page that was discarded, or the one that came after.
fn discarded() {
    race(
        |mm, cx| mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap(),
        |mm, cx, (), pinned| {
            assert!(pinned, "it is mapped all the time");
            assert!(matches!(mm.load(cx, BASE), Ok(0 | 3)));
        },
    );
}
/// The page moves before it is pinned, or stays.
fn moved() {
    race(
        |mm, cx| {
            let _moved = mm.migrate(cx, BASE).unwrap();
        },
        |mm, cx, (), pinned| {
            assert!(pinned, "it is mapped all the time");
            assert_eq!(mm.load(cx, BASE), Ok(3), "the device lost its page");
        },
    );
}

const SMALL: [How; 3] = [How::Sweep(2, 1), How::Random(100), How::Pct(100)];

#[test]
fn pin_against_fork() {
    // A fork looks at tables entry by entry: it is not held up at each.
    explore(
        &[How::Sweep(2, 16), How::Random(100), How::Pct(100)],
        forked,
    );
}
#[test]
fn pin_against_munmap() {
    explore(&SMALL, unmapped);
}
#[test]
fn pin_against_discard() {
    explore(&SMALL, discarded);
}
#[test]
fn pin_against_move() {
    explore(&SMALL, moved);
}
