//! A slice of guest memory that a device holds without its iterator, while another thread changes
//! the page.

use crate::{
    run::{How, explore, mistake, must_fail},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    extmmu::{
        iommu::{IommuConfig, IommuMistake, LeasedMemory, OnWindow, ProcessIommu},
        vm_memory::GuestRegion,
    },
    mm::Advice,
    oracle::Oracle,
};
use shuttle::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, atomic::Ordering::Relaxed};
use vm_memory::{Bytes, GuestAddress, GuestMemory, IommuMemory, Permissions};

type Memory = IommuMemory<LeasedMemory, ProcessIommu>;

const AT: GuestAddress = GuestAddress(0);

/// Stores 3 to the page by a slice, and looks at it again before the slice is dropped. Returns what
/// it found. `progress` is the number of operations that have begun and ended.
fn store(memory: &Memory, progress: &[AtomicUsize; 2]) -> u8 {
    let before = progress[1].load(SeqCst);
    let mut slices = memory.get_slices(AT, 8, Permissions::Write).unwrap();
    let slice = slices.next().unwrap().unwrap();
    drop(slices);
    slice.store(3_u8, 0, Relaxed).unwrap();
    let found = slice.load::<u8>(0, Relaxed).unwrap();
    // A window that begins and ends meanwhile revoked the slice.
    let waited_for = memory.iommu().stale_use().is_none();
    if waited_for && before == progress[1].load(SeqCst) {
        assert_eq!(found, 3, "a slice is not the page");
    }
    found
}

/// A device that has a slice twice, and an operation. `then` looks at the process.
fn race<T: Send + 'static>(
    on_window: OnWindow,
    operation: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>) -> T + Send + 'static,
    then: impl FnOnce(&Arc<Mm>, &mut CallCx<'_>, T),
) {
    let (machine, mm) = one_page(MachineConfig {
        memory: MemConfig {
            frames: 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let oracle = Oracle::new(&machine);
    oracle.set_deadline(std::time::Duration::MAX);
    let config = IommuConfig {
        on_window,
        mistake: mistake().map(|_| IommuMistake::IgnoresSlices),
    };
    let whole = GuestRegion {
        guest: AT,
        len: PAGE,
        process: BASE,
    };
    let mut thread = machine.enter().unwrap();
    let (iommu, _stays) = ProcessIommu::attach(&mut thread.cx(), &mm, &[whole], config);
    drop(thread);
    oracle.watch(&mm, iommu.driver());
    let memory = Arc::new(iommu.memory());
    let progress = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
    let (device, seen) = (Arc::clone(&memory), Arc::clone(&progress));
    let storing = shuttle::thread::spawn(move || {
        // The first lease fills the slot of the page, the second finds it.
        [store(&device, &seen), store(&device, &seen)]
    });
    let operates = Arc::clone(&mm);
    let operating = shuttle::thread::spawn(move || {
        let mut thread = operates.machine().enter().unwrap();
        progress[0].fetch_add(1, SeqCst);
        let made = operation(&operates, &mut thread.cx());
        progress[1].fetch_add(1, SeqCst);
        made
    });
    let made = operating.join().unwrap();
    storing.join().unwrap();
    assert_eq!(iommu.leases(), 0, "a lease is left");
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    then(&mm, &mut cx, made);
    oracle.audit();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
    oracle.assert_silent();
}

/// The device has the page that was discarded, or the one that came after.
fn discarded(on_window: OnWindow) {
    race(
        on_window,
        |mm, cx| mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap(),
        |mm, cx, ()| assert!(matches!(mm.load(cx, BASE), Ok(0 | 3))),
    );
}
/// What the child has stays as it is.
fn forked(on_window: OnWindow) {
    race(
        on_window,
        |mm, cx| {
            let child = mm.fork(cx).unwrap();
            let had = child.load(cx, BASE).unwrap();
            (child, had)
        },
        |_, cx, (child, had)| {
            assert_eq!(child.load(cx, BASE), Ok(had), "the device wrote to it");
            child.exit(cx);
        },
    );
}
/// No store is lost that a window waited for.
fn moved() {
    race(
        OnWindow::Wait,
        |mm, cx| {
            let _moved = mm.migrate(cx, BASE).unwrap();
        },
        |mm, cx, ()| assert_eq!(mm.load(cx, BASE), Ok(3), "the device lost its page"),
    );
}

const SMALL: [How; 3] = [How::Sweep(2, 1), How::Random(100), How::Pct(100)];

#[test]
fn slice_against_discard() {
    explore(&SMALL, || discarded(OnWindow::Wait));
}
#[test]
fn slice_that_a_discard_revokes() {
    explore(&SMALL, || discarded(OnWindow::Revoke));
}
#[test]
fn slice_against_fork() {
    // A fork looks at tables entry by entry: it is not held up at each.
    const FORK: [How; 3] = [How::Sweep(2, 16), How::Random(100), How::Pct(100)];
    explore(&FORK, || forked(OnWindow::Wait));
}
#[test]
fn slice_that_a_fork_revokes() {
    const FORK: [How; 3] = [How::Sweep(2, 16), How::Random(100), How::Pct(100)];
    explore(&FORK, || forked(OnWindow::Revoke));
}
#[test]
fn slice_against_move() {
    explore(&SMALL, moved);
}
/// The twin: windows ignore slices.
#[test]
fn slice_that_windows_ignore() {
    must_fail("slices::slice_against_discard", "ignores-slices", "iommu");
}
