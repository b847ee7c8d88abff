//! A driver that has a frame by its number, and one that panics, against another thread on the same
//! page.

use crate::{
    run::{How, explore},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Pfn, Vpn, VpnRange},
    ctx::{Atomic, CallCx, CallbackCx, Cx, Sleepable, rank},
    mm::PageState,
    notifier::{
        Access, Ack, ExternalMmu, FirstPass, Gate, Invalidation, OrderedStore, Seat, SecondPass,
    },
    rmap::RmapNotifier,
};
use shuttle::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
};

fn world() -> (Arc<Machine>, Arc<Mm>) {
    one_page(MachineConfig {
        memory: MemConfig {
            frames: 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

/// Runs both at the same time.
fn race(
    machine: &Arc<Machine>,
    a: impl FnOnce(&mut CallCx<'_>) + Send + 'static,
    b: impl FnOnce(&mut CallCx<'_>) + Send + 'static,
) {
    let (ma, mb) = (Arc::clone(machine), Arc::clone(machine));
    let a = shuttle::thread::spawn(move || a(&mut ma.enter().unwrap().cx()));
    let b = shuttle::thread::spawn(move || b(&mut mb.enter().unwrap().cx()));
    b.join().unwrap();
    a.join().unwrap();
}

/// The frame that a driver uses.
#[derive(Default)]
struct Exporter(Mutex<Option<Pfn>>);

impl RmapNotifier for Exporter {
    fn invalidate_frame(&self, _: Cx<'_, rank::Folio, Sleepable>, pfn: Pfn) {
        let mut used = self.0.lock().unwrap();
        *used = used.filter(|used| *used != pfn);
    }
}

/// A page is exported while it is unmapped, and its frame used again: the driver does not use it
/// then.
fn export_and_remap() {
    let (machine, mm) = world();
    let exporter = Arc::new(Exporter::default());
    let registration = machine.register_exports(exporter.clone());
    let (exports, unmaps, driver) = (Arc::clone(&mm), Arc::clone(&mm), Arc::clone(&exporter));
    race(
        &machine,
        move |cx| {
            let _refused = exports.with_locked_frame(cx, BASE, Access::Write, |_, locked| {
                locked.export();
                *driver.0.lock().unwrap() = Some(locked.pfn());
            });
        },
        move |cx| unmaps.munmap(cx, BASE, PAGE).unwrap(),
    );
    let used = *exporter.0.lock().unwrap();
    assert_eq!(used, None, "it is used, and mapped nowhere");
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    machine.unregister_exports(&mut cx, registration);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// The same against a fork: what the driver may write to is not the child's.
fn export_and_fork() {
    let (machine, mm) = world();
    let exporter = Arc::new(Exporter::default());
    let registration = machine.register_exports(exporter.clone());
    let (exports, forks, driver) = (Arc::clone(&mm), Arc::clone(&mm), Arc::clone(&exporter));
    let born = Arc::new(Mutex::new(None));
    let bears = Arc::clone(&born);
    race(
        &machine,
        move |cx| {
            let exported = exports.with_locked_frame(cx, BASE, Access::Write, |_, locked| {
                locked.export();
                *driver.0.lock().unwrap() = Some(locked.pfn());
            });
            exported.unwrap();
        },
        move |cx| {
            *bears.lock().unwrap() = Some(forks.fork(cx).unwrap());
        },
    );
    let child = born.lock().unwrap().take().unwrap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let page = VpnRange::single(Vpn::containing(BASE));
    let used = *exporter.0.lock().unwrap();
    let theirs = child.pagemap(&mut cx, page);
    assert_ne!(
        Some(theirs[0].1),
        used.map(PageState::Anon),
        "the driver writes to the child's frame"
    );
    assert_eq!(child.load(&mut cx, BASE), Ok(1));
    child.exit(&mut cx);
    machine.unregister_exports(&mut cx, registration);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// Panics in the first window.
struct Bomb {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    armed: AtomicBool,
}

impl Bomb {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            armed: AtomicBool::new(true),
        })
    }
}

impl ExternalMmu for Bomb {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn invalidate_begin<'s, 'i>(
        &'s self,
        cx: CallbackCx<'_>,
        inv: Invalidation<'i>,
    ) -> FirstPass<'i, SecondPass<'s>> {
        assert!(!self.armed.swap(false, SeqCst), "a bomb");
        FirstPass::Done(self.invalidate_start(cx, inv))
    }
}

/// A munmap comes to nothing by a driver's panic while another thread stores to the page, and maps
/// what is free.
fn panic_and_store() {
    let (machine, mm) = world();
    {
        let mut thread = machine.enter().unwrap();
        let (_bomb, _stays) = mm.register(&mut thread.cx(), Bomb::new);
    }
    let (unmaps, stores) = (Arc::clone(&mm), Arc::clone(&mm));
    race(
        &machine,
        move |cx| {
            let unmap = AssertUnwindSafe(|| unmaps.munmap(cx, BASE, PAGE));
            catch_unwind(unmap).expect_err("a bomb");
        },
        move |cx| {
            stores.store(cx, BASE, 2).unwrap();
            let there = stores.load(cx, BASE);
            assert_eq!(there, Ok(2), "a lost page");
        },
    );
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    assert_eq!(mm.load(&mut cx, BASE), Ok(2), "it was not unmapped");
    assert_eq!(mm.map_count(&mut cx), 1, "its mapping is there");
    assert_eq!(mm.windows_open(), 0);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
    assert_eq!(machine.commit().pages(), 0, "promised memory is left");
}

#[test]
fn export_against_munmap() {
    explore(
        &[How::Sweep(2, 4), How::Random(100), How::Pct(100)],
        export_and_remap,
    );
}

#[test]
fn export_against_fork() {
    explore(
        &[How::Sweep(2, 8), How::Random(100), How::Pct(100)],
        export_and_fork,
    );
}

#[test]
fn panic_against_store() {
    explore(&[How::Random(100), How::Pct(100)], panic_and_store);
}
