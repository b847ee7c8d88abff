//! Drivers that subscribe to ranges: who is called, what makes their tickets stale, how they come
//! and go under windows.

use crate::common::{
    BASE, PAGE, World, at,
    driver::{Driver, Refuser},
    machine,
};
use emmu::{
    FaultError, Mm,
    addr::{Vpn, VpnRange},
    mm::{Advice, MmapArgs},
    notifier::{Access, Event, Registration, Retry, WouldBlock},
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
    mpsc,
};

const fn vpn(n: u64) -> Vpn {
    Vpn(BASE / PAGE + n)
}
fn pages(from: u64, to: u64) -> VpnRange {
    World::pages(from, to)
}

/// A space of 64 pages, and the machine's one thread here.
macro_rules! with_space {
    ($cx:ident, $mm:ident) => {
        let machine = machine(4096);
        let mut thread = machine.enter().unwrap();
        let mut $cx = thread.cx();
        let $mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(64 * PAGE).fixed(BASE);
        $mm.mmap(&mut $cx, &args).unwrap();
    };
}

/// Opens a window on a thread of its own, runs `f`, and closes it then.
fn under_window<T>(mm: &Mm, range: VpnRange, f: impl FnOnce(&mpsc::Sender<()>) -> T) -> T {
    let (opened, wait_open) = mpsc::channel();
    let (close, wait_close) = mpsc::channel::<()>();
    std::thread::scope(|s| {
        s.spawn(move || {
            let mut thread = mm.machine().enter().unwrap();
            let mut cx = thread.cx();
            let mut g = mm.lock_shared(&mut cx);
            let mut lease = g.lease();
            let window = lease.window(range, Event::Clear);
            opened.send(()).unwrap();
            let _closed_or_gone = wait_close.recv();
            window.close();
        });
        wait_open.recv().unwrap();
        let out = f(&close);
        drop(close);
        out
    })
}

#[test]
fn a_window_calls_the_subscriptions_that_it_overlaps_and_no_others() {
    with_space!(cx, mm);
    let (all, whole) = mm.register(&mut cx, Driver::new);
    let ranges = [(0, 4), (2, 6), (4, 8), (0, 64), (9, 10)];
    let (ds, regs): (Vec<Arc<Driver>>, Vec<Registration>) = ranges
        .iter()
        .map(|&(a, b)| mm.subscribe(&mut cx, pages(a, b), Driver::new))
        .unzip();
    assert_eq!(mm.subscriptions(), 5);
    mm.madvise(&mut cx, at(4), PAGE, Advice::DontNeed).unwrap();
    let told: Vec<_> = ds.iter().map(|d| d.told().0).collect();
    assert_eq!(told, [0, 1, 1, 1, 0]);
    assert!(ds.iter().all(|d| d.told().0 == d.told().1));
    assert_eq!(all.told(), (1, 1));
    assert_eq!(regs[4].range(), pages(9, 10));
    for reg in regs {
        mm.unregister(&mut cx, reg);
    }
    assert_eq!(mm.subscriptions(), 0);
    mm.unregister(&mut cx, whole);
    assert!(ds.iter().all(|d| d.releases.load(SeqCst) == 1));
}

#[test]
fn among_a_hundred_thousand_a_window_finds_the_few() {
    with_space!(cx, mm);
    // Two-page ranges, each page in two of them.
    let n: u64 = if cfg!(miri) { 100 } else { 100_000 };
    let first = BASE / PAGE;
    let range = |k: u64| VpnRange::new(Vpn(first + k), Vpn(first + k + 2)).unwrap();
    let (ds, regs): (Vec<Arc<Driver>>, Vec<Registration>) = (0..n)
        .map(|k| mm.subscribe(&mut cx, range(k), Driver::new))
        .unzip();
    mm.madvise(&mut cx, at(10), 2 * PAGE, Advice::DontNeed)
        .unwrap();
    let told: Vec<usize> = (0..ds.len()).filter(|&k| ds[k].told() != (0, 0)).collect();
    assert_eq!(told, [9, 10, 11]);
    for reg in regs.into_iter().rev() {
        reg.unregister(&mut cx);
    }
    assert_eq!(mm.subscriptions(), 0);
}

#[test]
fn windows_elsewhere_make_no_ticket_stale_however_many() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    let pending = mm
        .resolve(&mut cx, d.gate.ticket(vpn(0), Access::Read))
        .unwrap();
    for _ in 0..1000 {
        mm.madvise(&mut cx, at(4), PAGE, Advice::DontNeed).unwrap();
    }
    assert!(pending.admit(&mut cx).is_ok());
    let stale = mm
        .resolve(&mut cx, d.gate.ticket(vpn(0), Access::Read))
        .unwrap();
    mm.madvise(&mut cx, at(3), PAGE, Advice::DontNeed).unwrap();
    assert_eq!(stale.admit(&mut cx).err(), Some(Retry::Stale));
    mm.unregister(&mut cx, reg);
}

#[test]
fn a_window_drops_the_entries_of_a_subscription() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    mm.store(&mut cx, at(1), 7).unwrap();
    assert_eq!(d.try_read(&mut cx, &mm, at(1)), Ok(7));
    mm.madvise(&mut cx, at(1), PAGE, Advice::DontNeed).unwrap();
    assert_eq!(d.entries(&mut cx), 0);
    assert_eq!(d.try_read(&mut cx, &mm, at(1)), Ok(0));
    mm.unregister(&mut cx, reg);
    assert_eq!(d.entries(&mut cx), 0);
}

#[test]
fn a_ticket_outside_of_the_range_is_refused() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    let outside = mm.resolve(&mut cx, d.gate.ticket(vpn(4), Access::Read));
    assert_eq!(outside.err(), Some(FaultError::Unsubscribed(at(4))));
    let outside = mm.try_resolve(&mut cx, d.gate.ticket(vpn(4), Access::Read));
    assert_eq!(outside.err(), Some(FaultError::Unsubscribed(at(4))));
    mm.unregister(&mut cx, reg);
}

#[test]
fn a_huge_page_that_reaches_beyond_the_range_is_given_by_the_page() {
    with_space!(cx, mm);
    let args = MmapArgs::anonymous(512 * PAGE).fixed(at(512));
    mm.mmap(&mut cx, &args).unwrap();
    mm.madvise(&mut cx, at(512), 512 * PAGE, Advice::HugePage)
        .unwrap();
    mm.store(&mut cx, at(512), 1).unwrap();
    for (range, pages_given) in [(pages(512, 1024), 512), (pages(512, 1023), 1)] {
        let (d, reg) = mm.subscribe(&mut cx, range, Driver::new);
        let ticket = d.gate.ticket(vpn(600), Access::Read).allow_huge();
        let permit = mm.resolve(&mut cx, ticket).unwrap();
        assert_eq!(permit.range().pages(), pages_given);
        drop(permit.admit(&mut cx).unwrap());
        mm.unregister(&mut cx, reg);
    }
}

#[test]
fn who_subscribes_under_an_open_window_waits_for_its_end_and_is_not_called_for_it() {
    with_space!(cx, mm);
    let (_first, reg) = mm.subscribe(&mut cx, pages(0, 64), Driver::new);
    let (d, late) = under_window(&mm, pages(0, 4), |_| {
        // None of this waits for the window.
        let (d, late) = mm.subscribe(&mut cx, pages(2, 8), Driver::new);
        assert_eq!(d.try_read(&mut cx, &mm, at(3)), Err(Retry::Busy));
        assert_eq!(d.try_read(&mut cx, &mm, at(7)), Err(Retry::Busy));
        let look = mm.try_resolve(&mut cx, d.gate.ticket(vpn(7), Access::Read));
        assert!(look.unwrap().is_none());
        let (elsewhere, reg) = mm.subscribe(&mut cx, pages(4, 8), Driver::new);
        assert_eq!(elsewhere.try_read(&mut cx, &mm, at(7)), Ok(0));
        mm.unregister(&mut cx, reg);
        (d, late)
    });
    assert_eq!(d.told(), (0, 0));
    assert_eq!(d.try_read(&mut cx, &mm, at(3)), Ok(0));
    mm.unregister(&mut cx, late);
    mm.unregister(&mut cx, reg);
}

/// The same for a driver of the whole space: without a lock, without waiting.
#[test]
fn who_registers_under_an_open_window_waits_for_its_end_and_is_not_called_for_it() {
    with_space!(cx, mm);
    let (_first, reg) = mm.register(&mut cx, Driver::new);
    let (d, late) = under_window(&mm, pages(0, 4), |_| {
        let (d, late) = mm.register(&mut cx, Driver::new);
        assert_eq!(d.try_read(&mut cx, &mm, at(3)), Err(Retry::Busy));
        let look = mm.try_resolve(&mut cx, d.gate.ticket(vpn(3), Access::Read));
        assert!(look.unwrap().is_none());
        assert_eq!(d.try_read(&mut cx, &mm, at(4)), Ok(0));
        (d, late)
    });
    assert_eq!(d.told(), (0, 0));
    assert_eq!(d.try_read(&mut cx, &mm, at(3)), Ok(0));
    mm.unregister(&mut cx, late);
    mm.unregister(&mut cx, reg);
}

#[test]
fn waiting_for_a_subscription_ends_with_the_windows_over_it() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    under_window(&mm, pages(8, 12), |_| {
        d.gate.wait_idle(&mut cx, pages(0, 4));
    });
    under_window(&mm, pages(0, 1), |close| {
        assert_eq!(d.try_read(&mut cx, &mm, at(3)), Err(Retry::Busy));
        close.send(()).unwrap();
        d.gate.wait_idle(&mut cx, pages(3, 4));
        assert_eq!(d.try_read(&mut cx, &mm, at(3)), Ok(0));
    });
    mm.unregister(&mut cx, reg);
}

#[test]
fn removal_waits_for_the_windows_that_called_the_driver_and_for_no_others() {
    with_space!(cx, mm);
    let (called, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    let (other, elsewhere) = mm.subscribe(&mut cx, pages(4, 8), Driver::new);
    let closed = AtomicBool::new(false);
    under_window(&mm, pages(0, 2), |close| {
        mm.unregister(&mut cx, elsewhere);
        assert_eq!((other.told(), other.releases.load(SeqCst)), ((0, 0), 1));
        std::thread::scope(|s| {
            let (mm, called, closed) = (&mm, &called, &closed);
            let remover = s.spawn(move || {
                let mut thread = mm.machine().enter().unwrap();
                mm.unregister(&mut thread.cx(), reg);
                assert!(closed.load(SeqCst), "the window is open");
                assert_eq!((called.told(), called.releases.load(SeqCst)), ((1, 1), 1));
            });
            // It is still called while it waits, but gives no more permits.
            while called.try_read(&mut cx, mm, at(3)) != Err(Retry::Detached) {
                std::thread::yield_now();
            }
            closed.store(true, SeqCst);
            close.send(()).unwrap();
            remover.join().unwrap();
        });
    });
}

/// Where a refusal was not told to those who had agreed, their sequence stayed odd for ever (Linux,
/// intervals before lists).
#[test]
fn a_refused_window_leaves_no_subscription_waiting() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    let (_refuser, refusing) = mm.register(&mut cx, Refuser::new);
    let mut g = mm.lock_shared(&mut cx);
    let refused = g.lease().try_window(pages(0, 2), Event::Clear).err();
    assert_eq!(refused, Some(WouldBlock));
    drop(g);
    assert_eq!(d.told(), (1, 1));
    d.gate.wait_idle(&mut cx, pages(0, 4));
    assert_eq!(d.try_read(&mut cx, &mm, at(0)), Ok(0));
    mm.unregister(&mut cx, refusing);
    let mut g = mm.lock_shared(&mut cx);
    assert!(g.lease().try_window(pages(0, 2), Event::Clear).is_ok());
    drop(g);
    assert_eq!(d.told(), (2, 2));
    mm.unregister(&mut cx, reg);
}

#[test]
fn exit_releases_subscribers_once_and_their_registrations_outlive_it() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    mm.exit(&mut cx);
    assert_eq!((d.releases.load(SeqCst), mm.subscriptions()), (1, 0));
    drop(mm);
    reg.unregister(&mut cx);
    assert_eq!((d.releases.load(SeqCst), d.late.load(SeqCst)), (1, false));
}

#[test]
fn release_comes_once_when_unregistration_races_with_exit() {
    let machine = machine(64);
    for round in 0..200 {
        let mm = Mm::new(&machine);
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let (a, ra) = mm.register(&mut cx, Driver::new);
        let (b, rb) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
        let go = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| {
                let mut thread = machine.enter().unwrap();
                let mut cx = thread.cx();
                go.store(true, SeqCst);
                ra.unregister(&mut cx);
                assert_eq!(a.releases.load(SeqCst), 1, "{round}");
                rb.unregister(&mut cx);
                assert_eq!(b.releases.load(SeqCst), 1, "{round}");
            });
            while !go.load(SeqCst) {
                std::thread::yield_now();
            }
            mm.exit(&mut cx);
            // The other has not come in between: both are done.
            assert_eq!(
                (a.releases.load(SeqCst), b.releases.load(SeqCst)),
                (1, 1),
                "{round}"
            );
        });
        assert!(!a.late.load(SeqCst) && !b.late.load(SeqCst));
    }
    assert_eq!(machine.mem().in_use(), 0);
}

/// A driver is freed once it is off the chain and nobody who walked past it is left.
#[test]
fn a_driver_that_left_is_freed() {
    with_space!(cx, mm);
    let (d, reg) = mm.subscribe(&mut cx, pages(0, 4), Driver::new);
    let (e, whole) = mm.register(&mut cx, Driver::new);
    let weak = (Arc::downgrade(&d), Arc::downgrade(&e));
    drop((d, e));
    assert!(weak.0.upgrade().is_some() && weak.1.upgrade().is_some());
    reg.unregister(&mut cx);
    whole.unregister(&mut cx);
    assert!(weak.0.upgrade().is_none());
    for _ in 0..10_000 {
        drop(cx.pin());
    }
    assert!(weak.1.upgrade().is_none());
}

#[test]
fn subscriptions_come_and_go_while_windows_open_and_readers_meet_no_stale_frame() {
    with_space!(cx, mm);
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        for lane in 0..2_u64 {
            let (mm, stop) = (&mm, &stop);
            s.spawn(move || {
                let mut thread = mm.machine().enter().unwrap();
                let mut cx = thread.cx();
                let mut n = 0;
                while !stop.load(SeqCst) {
                    let to = at(lane * 32 + n % 30);
                    mm.store(&mut cx, to, 1).unwrap();
                    mm.madvise(&mut cx, to, 2 * PAGE, Advice::DontNeed).unwrap();
                    n += 1;
                }
            });
        }
        for round in 0..300_u64 {
            let from = round * 7 % 56;
            let (d, reg) = mm.subscribe(&mut cx, pages(from, from + 8), Driver::new);
            for n in 0..8 {
                d.read(&mut cx, &mm, at(from + n)).unwrap();
            }
            reg.unregister(&mut cx);
            assert_eq!(d.told().0, d.told().1, "{round}");
            assert_eq!((d.releases.load(SeqCst), d.late.load(SeqCst)), (1, false));
            assert_eq!(d.entries(&mut cx), 0);
        }
        stop.store(true, SeqCst);
    });
    assert_eq!(mm.windows_open(), 0);
    mm.exit(&mut cx);
    assert_eq!(mm.machine().mem().in_use(), 0);
}
