//! Range tickets: pieces with a stamp each, requests by page, prefixes, and windows in the way at
//! fixed moments.

use crate::{
    beside::{other, window},
    common::{BASE, PAGE, World, at, numbered::page},
};
use emmu::{
    Errno, FaultError, Machine,
    driver::*,
    mm::{Advice, MmapArgs, Prot},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

/// Pages in a piece.
const PIECE: u64 = 512;

struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);

impl Device {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
    fn entries(&self) -> Vec<VpnRange> {
        let mut all = Vec::new();
        assert!(self.0.audit(&mut |t| all.push(t.range())));
        all
    }
}

impl SpinningMmu for Device {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.0.audit(visit)
    }
}

fn pages(from: u64, to: u64) -> VpnRange {
    World::pages(from, to)
}
fn key(found: &Translation) -> Vpn {
    found.range().start()
}

/// Three blocks of private memory, the last of which cannot be written.
fn world() -> (Arc<Machine>, Arc<Mm>) {
    let machine = crate::common::machine(8192);
    let mm = Mm::new(&machine);
    other(&machine, |cx| {
        let args = MmapArgs::anonymous(3 * PIECE * PAGE).fixed(BASE);
        mm.mmap(cx, &args).unwrap();
        mm.mprotect(cx, at(2 * PIECE), PIECE * PAGE, Prot::READ)
            .unwrap();
    });
    (machine, mm)
}

#[test]
fn a_window_makes_only_the_pieces_stale_that_it_touches() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.register(&mut cx, Device::new);
    let gate = &device.0;
    for n in [500, 530] {
        mm.store(&mut cx, at(n), 1).unwrap();
    }
    let range = pages(500, 1100);
    let drop_page = |n| {
        other(&machine, |cx| {
            mm.madvise(cx, at(n), PAGE, Advice::DontNeed).unwrap();
        });
    };

    let ticket = gate.range_ticket(range, FaultRequest::Snapshot);
    let pending = mm.resolve_range(&mut cx, ticket).unwrap();
    drop_page(530);
    let refused = pending.admit(&mut cx).expect_err("530 has gone");
    assert_eq!(refused.reason(), Retry::Stale);
    assert_eq!(refused.pages(), pages(512, 1024), "the piece of page 530");

    // The second look-up reads that piece alone: page 500 still has its first stamp, so a window
    // over it makes the ticket stale, though the window closed before the look-up.
    drop_page(500);
    let pending = mm.resolve_range(&mut cx, refused.into_ticket()).unwrap();
    let refused = pending.admit(&mut cx).expect_err("500 has gone");
    assert_eq!(refused.pages(), pages(500, 512));

    let pending = mm.resolve_range(&mut cx, refused.into_ticket()).unwrap();
    drop_page(499);
    drop_page(1100);
    let permit = pending.admit(&mut cx).expect("windows beside the range");
    assert!(
        range
            .iter()
            .all(|at| permit.slot(at) == Some(Slot::Missing))
    );
    drop(permit);
    mm.exit(&mut cx);
}

#[test]
fn the_pieces_below_the_first_stale_one_are_a_prefix() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.register(&mut cx, Device::new);
    let gate = &device.0;
    let find = |cx: &mut CallCx<'_>| {
        let ticket = gate.range_ticket(pages(508, 1028), FaultRequest::Read);
        mm.resolve_range(cx, ticket).unwrap()
    };
    let touch = |n| {
        other(&machine, |cx| {
            mm.madvise(cx, at(n), PAGE, Advice::DontNeed).unwrap();
        });
    };
    let pending = find(&mut cx);
    touch(1000);
    let permit = pending.admit_prefix(&mut cx).unwrap();
    assert_eq!(permit.range(), pages(508, 512));
    drop(permit.establish(key));
    assert_eq!(device.entries().len(), 4);

    let pending = find(&mut cx);
    touch(510);
    let refused = pending.admit_prefix(&mut cx).expect_err("no prefix");
    assert_eq!(
        (refused.reason(), refused.pages()),
        (Retry::Stale, pages(508, 512))
    );
    let pending = mm.resolve_range(&mut cx, refused.into_ticket()).unwrap();
    let permit = pending.admit_prefix(&mut cx).unwrap();
    assert_eq!(permit.range(), pages(508, 1028), "all of them");
    // Slots are given up, never added.
    let permit = permit.only(pages(0, 510)).expect("two pages are left");
    drop(permit.establish_held(key));
    // The window over page 510 had dropped it, and page 511 is from the first permit.
    let entries = [508, 509, 511].map(|n| VpnRange::single(page(n)));
    assert_eq!(device.entries(), entries);
    assert!(
        find(&mut cx)
            .admit(&mut cx)
            .unwrap()
            .only(pages(0, 508))
            .is_none()
    );
    mm.exit(&mut cx);
}

#[test]
fn a_permit_without_its_last_pages_has_no_error_behind_them() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.register(&mut cx, Device::new);
    let end = 2 * PIECE;
    let mut stopped = |only| {
        let ticket = device
            .0
            .range_ticket(pages(end - 4, end + 4), FaultRequest::Write);
        let permit = mm.resolve_range(&mut cx, ticket).unwrap().admit(&mut cx);
        let permit = permit.unwrap().only(only).expect("pages are left");
        permit.stopped().map(|fault| (permit.range(), fault.at))
    };
    assert_eq!(
        stopped(pages(end - 2, end + 4)),
        Some((pages(end - 2, end), page(end)))
    );
    assert_eq!(stopped(pages(end - 4, end - 1)), None);
    mm.exit(&mut cx);
}

#[test]
fn an_open_window_refuses_all_and_is_waited_for() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.register(&mut cx, Device::new);
    let closed = AtomicBool::new(false);
    thread::scope(|s| {
        let close = window(s, &mm, 520, &closed);
        let ticket = device
            .0
            .range_ticket(pages(500, 530), FaultRequest::Snapshot);
        let refused = mm.resolve_range(&mut cx, ticket).unwrap().admit(&mut cx);
        let refused = refused.expect_err("a window is open");
        assert_eq!(
            (refused.reason(), refused.pages()),
            (Retry::Busy, pages(512, 530))
        );
        close.send(()).unwrap();
        let all = device
            .0
            .translate_ticket(&mut cx, &mm, refused.into_ticket(), |permit| {
                (closed.load(SeqCst), permit.range())
            });
        assert_eq!(all, Ok((true, pages(500, 530))));
    });
    mm.exit(&mut cx);
}

#[test]
fn a_request_is_for_a_page_and_the_higher_one_counts() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.register(&mut cx, Device::new);
    let ticket = device
        .0
        .range_ticket(pages(0, 8), FaultRequest::Snapshot)
        .request(pages(2, 6), FaultRequest::Write)
        .request(pages(4, 7), FaultRequest::Read);
    let requests: Vec<_> = pages(0, 8).iter().map(|at| ticket.request_of(at)).collect();
    let (none, read, write) = (
        FaultRequest::Snapshot,
        FaultRequest::Read,
        FaultRequest::Write,
    );
    assert_eq!(
        requests,
        [none, none, write, write, write, write, read, none]
    );
    let pending = mm.resolve_range(&mut cx, ticket).unwrap();
    let permit = pending.admit(&mut cx).unwrap();
    let got: Vec<_> = permit
        .slots()
        .map(|(_, slot)| slot.translation().map(Translation::is_writable))
        .collect();
    let (absent, r, w) = (None, Some(false), Some(true));
    assert_eq!(got, [absent, absent, w, w, w, w, r, absent]);
    drop(permit.establish(key));
    assert_eq!(device.entries().len(), 5);
    mm.exit(&mut cx);
}

#[test]
fn an_error_cuts_the_range_short_and_is_an_error_at_the_first_page() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.register(&mut cx, Device::new);
    let first = 2 * PIECE;
    let write = |cx: &mut CallCx<'_>, range, request| {
        device.0.translate_range(cx, &mm, range, request, |permit| {
            (permit.range(), permit.stopped())
        })
    };
    let read_only = RangeFault {
        at: page(first),
        why: FaultError::Denied(at(first)),
        read_only: true,
    };
    let cut = write(&mut cx, pages(1020, 1030), FaultRequest::Write);
    assert_eq!(cut, Ok((pages(1020, first), Some(read_only))));
    let none = write(&mut cx, pages(first, 1030), FaultRequest::Write).unwrap_err();
    assert_eq!(none, TranslateError::Range(read_only));
    assert_eq!(none.errno(), Errno::EPERM);
    // It can be read; behind it there is nothing.
    let cut = write(&mut cx, pages(1530, 1540), FaultRequest::Read).unwrap();
    let errno = cut.1.map(RangeFault::errno);
    assert_eq!((cut.0, errno), (pages(1530, 1536), Some(Errno::EFAULT)));
    assert_eq!(
        write(&mut cx, pages(1530, 1540), FaultRequest::Snapshot),
        Ok((pages(1530, 1540), None))
    );
    mm.exit(&mut cx);
}

#[test]
fn a_driver_of_a_range_has_one_sequence_for_all_pieces() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, _r) = mm.subscribe(&mut cx, pages(500, 1000), Device::new);
    let gate = &device.0;
    let beyond = gate.range_ticket(pages(500, 1001), FaultRequest::Read);
    let beyond = mm
        .resolve_range(&mut cx, beyond)
        .err()
        .map(|fault| fault.why);
    assert_eq!(beyond, Some(FaultError::Unsubscribed(at(500))));

    let ticket = gate.range_ticket(pages(500, 600), FaultRequest::Read);
    let pending = mm.resolve_range(&mut cx, ticket).unwrap();
    let drop_page = |n| {
        other(&machine, |cx| {
            mm.madvise(cx, at(n), PAGE, Advice::DontNeed).unwrap();
        });
    };
    drop_page(499);
    drop_page(900);
    // As `mmu_interval_read_retry`: a window anywhere in the range that was subscribed.
    let refused = pending.admit(&mut cx).expect_err("900 is in the range");
    assert_eq!(
        (refused.reason(), refused.pages()),
        (Retry::Stale, pages(500, 512))
    );
    let pending = mm.resolve_range(&mut cx, refused.into_ticket()).unwrap();
    drop_page(499);
    assert_eq!(pending.admit(&mut cx).unwrap().range(), pages(500, 600));
    mm.exit(&mut cx);
}

#[test]
fn tickets_of_others_are_refused() {
    let (machine, mm) = world();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (device, registration) = mm.register(&mut cx, Device::new);
    let another = Mm::new(&machine);
    let ticket = |n| device.0.range_ticket(pages(0, n), FaultRequest::Snapshot);
    let wrong = another.resolve_range(&mut cx, ticket(1)).err();
    assert_eq!(wrong.map(|w| w.why), Some(FaultError::WrongAddressSpace));
    let pending = mm.resolve_range(&mut cx, ticket(1)).unwrap();
    mm.unregister(&mut cx, registration);
    let refused = pending.admit(&mut cx).expect_err("not registered");
    assert_eq!(refused.reason(), Retry::Detached);
    let gone = device.0.translate_ticket(&mut cx, &mm, ticket(1), |_| ());
    assert_eq!(gone, Err(TranslateError::Detached { at: page(0) }));
    another.exit(&mut cx);
    mm.exit(&mut cx);
}
