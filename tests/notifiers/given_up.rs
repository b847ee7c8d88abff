//! A driver that gives up a reference of its own accord, and goes on using the page, is found out,
//! in each of the ways in which references are given up.

use crate::common::{BASE, PAGE, at};
use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallCx, CallbackCx},
    mm::{Advice, MmapArgs},
    notifier::{
        Access, Ack, Cached, Event, ExternalMmu, Gate, GateGuard, Invalidation, OrderedStore, Seat,
        Ticket, Translation,
    },
    oracle::{Finding, Oracle},
};
use std::sync::{Arc, Mutex};

type Slots = Gate<OrderedStore<u64>, (), Atomic>;

/// Slots that hold pinned pages, and a TLB that whoever gives a page up must flush.
struct Cache {
    gate: Slots,
    tlb: Mutex<Vec<Cached>>,
}

impl Cache {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            tlb: Mutex::default(),
        })
    }
    /// Pins a page in a slot.
    fn pin(&self, cx: &mut CallCx<'_>, mm: &Mm, slot: u64, page: u64) {
        let ticket = self.gate.ticket(Vpn::containing(at(page)), Access::Write);
        self.pin_with(cx, mm, slot, ticket);
    }
    fn pin_with(&self, cx: &mut CallCx<'_>, mm: &Mm, slot: u64, ticket: Ticket<'_, Slots>) {
        let pending = mm.resolve(cx, ticket).unwrap();
        let permit = pending.admit(cx).ok().unwrap();
        self.tlb.lock().unwrap().push(permit.cached());
        drop(permit.establish_held(slot));
    }
    fn flush(&self, page: u64) {
        let page = Vpn::containing(at(page));
        let mut tlb = self.tlb.lock().unwrap();
        tlb.retain(|cached| !cached.range().contains(page));
    }
}

impl ExternalMmu for Cache {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude(cx, inv, |(), range, _| {
            let mut tlb = self.tlb.lock().unwrap();
            tlb.retain(|cached| !cached.range().overlaps(range));
        })
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        for cached in &*self.tlb.lock().unwrap() {
            visit(cached.translation());
        }
        self.gate.audit(visit)
    }
}

type Guard<'g> = GateGuard<'g, OrderedStore<u64>, (), Atomic>;

type Way = fn(&mut Guard<'_>);

/// Pins page 0 in slot 0, gives it up, with or without a flush before; what was found.
fn found(give_up: Way, flushes: bool) -> Vec<Finding> {
    watched(|cx, mm, cache| {
        cache.pin(cx, mm, 0, 0);
        let mut guard = cache.gate.lock(cx);
        if flushes {
            cache.flush(0);
        }
        give_up(&mut guard);
    })
}

fn watched(work: impl FnOnce(&mut CallCx<'_>, &Arc<Mm>, &Cache)) -> Vec<Finding> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(std::time::Duration::MAX);
    mm.mmap(&mut cx, &MmapArgs::anonymous(16 * PAGE).fixed(BASE))
        .unwrap();
    let (cache, _stays) = mm.register(&mut cx, Cache::new);
    oracle.watch(&mm, Arc::clone(&cache) as Arc<dyn ExternalMmu>);
    work(&mut cx, &mm, &cache);
    let found = oracle.take();
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0, "a reference is left");
    found
}

fn names_page_0(found: &[Finding]) -> bool {
    let page = VpnRange::single(Vpn::containing(at(0)));
    matches!(found, [Finding::GivenUpWhileTranslated { range, .. }] if *range == page)
}

#[test]
fn whoever_gives_a_reference_up_must_not_use_the_page() {
    let ways: [(&str, Way); 2] = [
        ("forget", |guard| guard.forget(&0)),
        ("forget_range", |guard| {
            let page = VpnRange::single(Vpn::containing(at(0)));
            assert!(guard.forget_range(page, |()| ()));
        }),
    ];
    for (way, give_up) in ways {
        let late = found(give_up, false);
        assert!(names_page_0(&late), "{way}: {late:?}");
        assert_eq!(found(give_up, true), [], "{way}");
    }
}

#[test]
fn so_must_whoever_puts_another_page_in_its_place() {
    for flushes in [false, true] {
        let found = watched(|cx, mm, cache| {
            cache.pin(cx, mm, 0, 0);
            if flushes {
                cache.flush(0);
            }
            cache.pin(cx, mm, 0, 1);
        });
        assert_eq!(names_page_0(&found), !flushes, "{found:?}");
        assert!(!flushes || found.is_empty(), "{found:?}");
    }
}

/// A page that is pinned twice is still somebody's when it is given up once; and one that is pinned
/// anew has a reference of its own.
#[test]
fn another_reference_on_the_page_is_as_good() {
    let found = watched(|cx, mm, cache| {
        cache.pin(cx, mm, 0, 0);
        cache.pin(cx, mm, 1, 0);
        cache.gate.lock(cx).forget(&1);
        cache.pin(cx, mm, 0, 0);
    });
    assert_eq!(found, []);
}

/// A huge page that a window takes, and a page of it beside the window that has an entry of its
/// own.
#[test]
fn a_page_beside_a_window_needs_a_reference_of_its_own_and_no_other() {
    const HUGE: u64 = 1 << 31;
    const LEN: u64 = 512 * PAGE;
    for pinned in [true, false] {
        let found = watched(|cx, mm, cache| {
            mm.mmap(cx, &MmapArgs::anonymous(LEN).fixed(HUGE)).unwrap();
            mm.madvise(cx, HUGE, LEN, Advice::HugePage).unwrap();
            mm.store(cx, HUGE, 1).unwrap();
            let (first, beside) = (Vpn::containing(HUGE), Vpn::containing(HUGE + 5 * PAGE));
            let ticket = cache.gate.ticket(first, Access::Write).allow_huge();
            cache.pin_with(cx, mm, 0, ticket);
            cache.pin_with(cx, mm, 1, cache.gate.ticket(beside, Access::Write));
            if !pinned {
                cache.gate.lock(cx).forget(&1);
            }
            let window = VpnRange::single(first);
            mm.lock_shared(cx)
                .lease()
                .with_window(window, Event::Clear, |_| ());
            cache.tlb.lock().unwrap().clear();
            mm.munmap(cx, HUGE, LEN).unwrap();
        });
        let late = matches!(&found[..], [Finding::GivenUpWhileTranslated { range, .. }]
            if range.pages() == 1);
        assert_eq!(late, !pinned, "{found:?}");
        assert!(!pinned || found.is_empty(), "{found:?}");
    }
}

/// A window takes a huge page with references, and leaves a page of it that has an entry without.
#[test]
fn an_entry_without_a_reference_needs_none() {
    const HUGE: u64 = 1 << 31;
    const LEN: u64 = 512 * PAGE;
    let found = watched(|cx, mm, cache| {
        mm.mmap(cx, &MmapArgs::anonymous(LEN).fixed(HUGE)).unwrap();
        mm.madvise(cx, HUGE, LEN, Advice::HugePage).unwrap();
        mm.store(cx, HUGE, 1).unwrap();
        let (first, beside) = (Vpn::containing(HUGE), Vpn::containing(HUGE + 5 * PAGE));
        let ticket = cache.gate.ticket(first, Access::Write).allow_huge();
        cache.pin_with(cx, mm, 0, ticket);
        let ticket = cache.gate.ticket(beside, Access::Write);
        let pending = mm.resolve(cx, ticket).unwrap();
        drop(pending.admit(cx).ok().unwrap().establish(1));
        let window = VpnRange::single(first);
        mm.lock_shared(cx)
            .lease()
            .with_window(window, Event::Clear, |_| ());
        assert!(cache.gate.lock(cx).lookup(&1).is_some());
        mm.munmap(cx, HUGE, LEN).unwrap();
    });
    assert_eq!(found, []);
}
