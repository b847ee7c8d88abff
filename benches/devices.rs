//! The devices beside the least that the same work can cost with the same structure, written by
//! hand, turn by turn; and what a device notices of windows that are none of its business. What is
//! measured is the ratio of the times.

mod device;
mod floor;
mod ratio;
mod tlb;
mod world;

use criterion::{Criterion, criterion_group, criterion_main};
use device::{attachment, context, guest};
use emmu::{
    Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    extmmu::{
        gru::GruConfig,
        odp::{Adapter, OdpConfig},
        sva::{Iommu, SvaConfig, SvaDevice},
    },
    mm::Prot,
    notifier::{Access, Event},
};
use ratio::{Ratio, criterion, duel, timed};
use std::{
    cell::RefCell,
    sync::{Arc, mpsc::channel},
};
use tlb::{Attached, Shadowing};
use world::{RW, World, addr, number, with_world};

const FLOOR: &str = "hand-written floor";
/// Pages of a turn of misses.
const PAGES: u64 = 4096;
/// Pages that hits go around in: they fit into the TLB, of which the real one has 1536.
const HOT: u64 = 512;
/// Accesses of a turn of hits.
const TURN: u64 = 20_000;
const TLB: usize = 2048;

fn mapped(w: &mut World<'_>) {
    w.map(0..PAGES, |a| a);
    w.store(0..PAGES);
}

/// A window over the first pages that leaves them where they are: nobody has a translation
/// afterwards.
fn window(w: &mut World<'_>, pages: u64) {
    for prot in [Prot::READ, RW] {
        let len = pages * PAGE_SIZE;
        let changed = w.mm.mprotect(&mut w.cx, addr(0), len, prot);
        changed.expect("mapped");
    }
}

fn kvm(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        mapped(w);
        let (_vm, vcpu) = guest(w, PAGES);
        let theirs = Shadowing::new(PAGES, TLB);
        let touch = |w: &mut World<'_>, n: u64| {
            vcpu.read(&mut w.cx, n * PAGE_SIZE, &mut [0])
                .expect("in the slot");
        };
        let hits = |f: &mut dyn FnMut(u64)| timed(|| (0..TURN).for_each(|n| f(n % HOT)));
        duel(
            c,
            "KVM: vCPU hit",
            FLOOR,
            &mut || hits(&mut |n| touch(w, n)),
            &mut || hits(&mut |n| theirs.access(n, Shadowing::fault)),
        );
        duel(
            c,
            "KVM: vCPU miss",
            FLOOR,
            &mut || {
                window(w, PAGES);
                timed(|| (0..PAGES).for_each(|n| touch(w, n)))
            },
            &mut || {
                *theirs.shadow.lock().expect("no panic") = floor::Floor::new();
                *theirs.tlb.lock().expect("no panic") = tlb::Tlb::new(TLB);
                timed(|| (0..PAGES).for_each(|n| theirs.access(n, Shadowing::fault)))
            },
        );
    });
}

fn gru(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        mapped(w);
        let context = context(w);
        let entries = GruConfig::default().tlb_entries;
        let theirs = Shadowing::new(PAGES, entries);
        let hot = (entries as u64 / 2).min(HOT);
        let touch = |w: &mut World<'_>, n: u64| {
            context.read(&mut w.cx, addr(n), &mut [0]).expect("mapped");
        };
        let hits = |f: &mut dyn FnMut(u64)| timed(|| (0..TURN).for_each(|n| f(n % hot)));
        duel(
            c,
            "GRU: hit",
            FLOOR,
            &mut || hits(&mut |n| touch(w, n)),
            &mut || hits(&mut |n| theirs.access(n, Shadowing::drop_in)),
        );
        duel(
            c,
            "GRU: drop-in",
            FLOOR,
            &mut || {
                window(w, PAGES);
                timed(|| (0..PAGES).for_each(|n| touch(w, n)))
            },
            &mut || timed(|| (0..PAGES).for_each(|n| theirs.access(n, Shadowing::drop_in))),
        );
        // A purge beside what it makes necessary: two windows, the second over nothing, and the
        // entries page by page.
        let purged = hot;
        let loaded = |w: &mut World<'_>| (0..purged).for_each(|n| touch(w, n));
        let w = RefCell::new(w);
        duel(
            c,
            "GRU: purge of a full TLB",
            "loading it again",
            &mut || {
                let w = &mut **w.borrow_mut();
                loaded(w);
                timed(|| window(w, purged))
            },
            &mut || timed(|| loaded(&mut w.borrow_mut())),
        );
    });
}

fn xpmem(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        mapped(w);
        let attached = attachment(w, PAGES);
        let theirs = Attached::new(PAGES);
        let hits = |f: &mut dyn FnMut(u64)| timed(|| (0..TURN).for_each(|n| f(n % HOT)));
        duel(
            c,
            "XPmem: hit",
            FLOOR,
            &mut || {
                hits(&mut |n| {
                    let read = attached.read(&mut w.cx, n * PAGE_SIZE, &mut [0]);
                    read.expect("attached");
                })
            },
            &mut || hits(&mut |n| theirs.access(n)),
        );
    });
}

/// A window and the faults that it makes necessary, beside the same with a hand-written table.
fn window_and_faults(
    c: &mut Criterion<Ratio>,
    name: &str,
    w: &mut World<'_>,
    touch: impl Fn(&mut World<'_>, u64),
) {
    const HELD: u64 = 64;
    let theirs = Shadowing::new(PAGES, TLB);
    duel(
        c,
        name,
        FLOOR,
        &mut || {
            (0..HELD).for_each(|n| touch(w, n));
            timed(|| {
                window(w, HELD);
                (0..HELD).for_each(|n| touch(w, n));
            })
        },
        &mut || {
            *theirs.shadow.lock().expect("no panic") = floor::Floor::new();
            *theirs.tlb.lock().expect("no panic") = tlb::Tlb::new(TLB);
            timed(|| (0..HELD).for_each(|n| theirs.access(n, Shadowing::fault)))
        },
    );
}

/// An adapter that pages on demand, and a device that shares the page table.
fn page_faulters(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        mapped(w);
        let adapter = Adapter::new(OdpConfig::default());
        let bytes = (addr(0), PAGES * PAGE_SIZE);
        let key = adapter.register(&mut w.cx, &w.mm, bytes, Access::Write);
        let key = key.expect("a range");
        window_and_faults(c, "ODP: window and page faults", w, |w, n| {
            let read = adapter.read(&mut w.cx, key, addr(n), &mut [0]);
            read.expect("mapped");
        });
        adapter.deregister(&mut w.cx, key).expect("registered");
        let iommu = Iommu::new(SvaConfig::default());
        let device = SvaDevice::new(&iommu);
        let bond = iommu.bind(&mut w.cx, &w.mm, &device).expect("a PASID");
        window_and_faults(c, "SVA: flush and walks", w, |w, n| {
            let read = device.read(&mut w.cx, bond.pasid(), addr(n), &mut [0]);
            read.expect("mapped");
        });
        bond.unbind(&mut w.cx);
    });
}

/// Runs `f` while another thread has a window open over the first pages.
fn while_open<T>(mm: &Mm, f: impl FnOnce() -> T) -> T {
    let (opened, is_open) = channel();
    let (done, is_done) = channel::<()>();
    std::thread::scope(|s| {
        s.spawn(move || {
            let mut thread = mm.machine().enter().expect("a thread of its own");
            let mut cx = thread.cx();
            let mut guard = mm.lock_shared(&mut cx);
            let range = VpnRange::new(Vpn(number(0)), Vpn(number(1024))).expect("some");
            let mut lease = guard.lease();
            let window = lease.window(range, Event::Clear);
            opened.send(()).expect("it is waited for");
            let _the_other_end_is_dropped = is_done.recv();
            window.close();
        });
        is_open.recv().expect("the window opens");
        let out = f();
        drop(done);
        out
    })
}

/// Faults while a window is open over other pages, beside the same without. None may try again for
/// it.
fn elsewhere(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        mapped(w);
        let (vm, vcpu) = guest(w, PAGES);
        let w = RefCell::new(w);
        let faults = || {
            let mut w = w.borrow_mut();
            let cx = &mut w.cx;
            timed(|| {
                for n in 1024..PAGES {
                    let read = vcpu.read(cx, n * PAGE_SIZE, &mut [0]);
                    read.expect("in the slot");
                }
            })
        };
        duel(
            c,
            "KVM: vCPU faults, a window open elsewhere",
            "no window open",
            &mut || {
                window(&mut w.borrow_mut(), PAGES);
                let retries = vm.bill().retries;
                let mm = Arc::clone(&w.borrow().mm);
                let took = while_open(&mm, faults);
                assert_eq!(vm.bill().retries, retries, "somebody tried again");
                took
            },
            &mut || {
                window(&mut w.borrow_mut(), PAGES);
                faults()
            },
        );
    });
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = kvm, gru, xpmem, page_faulters, elsewhere
}
criterion_main!(benches);
