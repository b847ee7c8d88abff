//! emmu beside other crates at the same work, turn by turn; what is measured is the ratio of the
//! times, ours by theirs.
//!
//! ```text
//! cargo bench --features internals --bench peers
//! ```

mod floor;
mod peer;
mod ratio;
mod world;

use arc_swap::ArcSwap;
use criterion::{Criterion, criterion_group, criterion_main};
use emmu::{
    PAGE_SIZE,
    addr::{Vpn, VpnRange},
    extmmu::{
        Recorder,
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    },
    mm::{MapFlags, Prot, Pte, raw::RawTable},
    notifier::ExternalMmu,
};
use peer::{ByHand, Multiarch, Table, X64};
use rangemap::RangeMap;
use ratio::{Ratio, criterion, duel, scattered, timed};
use std::{cell::RefCell, sync::Arc};
use world::{RW, World, addr, number, with_world};

/// 256 MiB of pages.
const PAGES: u64 = 64 << 10;
/// One page in so many bytes is mapped in the sparse layout.
const SPARSE: u64 = 2 << 20;

/// Addresses of the pages that are mapped.
fn pages(stride: u64) -> Vec<usize> {
    (0..PAGES)
        .map(|n| (addr(0) + n * stride) as usize)
        .collect()
}

/// The same in an order without order.
fn shuffled(pages: &[usize]) -> Vec<usize> {
    let mut out = pages.to_vec();
    let mut random = scattered(u64::MAX >> 34);
    for i in (1..out.len()).rev() {
        let other = random.next().expect("endless") % (i as u64 + 1);
        out.swap(i, other as usize);
    }
    out
}

fn range(first: u64, count: u64) -> VpnRange {
    VpnRange::new(Vpn(number(first)), Vpn(number(first + count))).expect("not empty")
}

fn translate_ours(table: &RawTable, pages: &[usize]) -> u64 {
    let walk = table.walk();
    let found = |&at: &usize| match walk.pte(Vpn::containing(at as u64)) {
        Pte::Present { pfn, .. } => u64::from(pfn.number()),
        other => panic!("{at:x} is {other:?}"),
    };
    pages.iter().map(found).fold(0, u64::wrapping_add)
}

fn translate_against<T: Table>(c: &mut Criterion<Ratio>, work: &str, against: &str, stride: u64) {
    let pages = pages(stride);
    let asked = shuffled(&pages);
    let ours = RawTable::default();
    for (n, &at) in pages.iter().enumerate() {
        let page = VpnRange::single(Vpn::containing(at as u64));
        ours.map(page, 1 + n as u32).expect("there is memory");
    }
    peer::reset();
    let mut theirs = T::new();
    theirs.map(&pages);
    duel(
        c,
        work,
        against,
        &mut || timed(|| translate_ours(&ours, &asked)),
        &mut || timed(|| theirs.translate(&asked)),
    );
}

fn translate(c: &mut Criterion<Ratio>) {
    for (work, stride) in [
        ("translate, dense", PAGE_SIZE),
        ("translate, one page per 2 MiB", SPARSE),
    ] {
        translate_against::<Multiarch>(c, work, "page_table_multiarch", stride);
        translate_against::<X64>(c, work, "x86_64 MappedPageTable", stride);
        translate_against::<ByHand>(c, work, "floor", stride);
    }
}

/// Maps and unmaps 64 Ki pages; both tables keep their nodes.
fn raw_against<T: Table>(c: &mut Criterion<Ratio>, against: &str) {
    let pages = pages(PAGE_SIZE);
    let ours = RawTable::default();
    peer::reset();
    let theirs = RefCell::new(T::new());
    duel(
        c,
        "raw map, 64 Ki pages in a range",
        against,
        &mut || {
            let time = timed(|| ours.map(range(0, PAGES), 1));
            ours.unmap(range(0, PAGES));
            time
        },
        &mut || {
            let mut theirs = theirs.borrow_mut();
            let time = timed(|| theirs.map(&pages));
            theirs.unmap(&pages);
            time
        },
    );
    duel(
        c,
        "raw unmap, 64 Ki pages in a range",
        against,
        &mut || {
            ours.map(range(0, PAGES), 1).expect("there is memory");
            timed(|| ours.unmap(range(0, PAGES)))
        },
        &mut || {
            let mut theirs = theirs.borrow_mut();
            theirs.map(&pages);
            timed(|| theirs.unmap(&pages))
        },
    );
}

fn raw(c: &mut Criterion<Ratio>) {
    raw_against::<Multiarch>(c, "page_table_multiarch");
    raw_against::<X64>(c, "x86_64 MappedPageTable");
}

/// What one thing of ours costs by the peer's raw map or unmap of as many pages.
fn beside<T: Table>(
    c: &mut Criterion<Ratio>,
    work: &str,
    against: &str,
    unmap: bool,
    mut ours: impl FnMut() -> std::time::Duration,
) {
    let pages = pages(PAGE_SIZE);
    peer::reset();
    let mut theirs = T::new();
    duel(c, work, against, &mut ours, &mut || {
        let mapping = timed(|| theirs.map(&pages));
        let unmapping = timed(|| theirs.unmap(&pages));
        if unmap { unmapping } else { mapping }
    });
}

fn populated(w: &mut World<'_>) {
    w.map(0..PAGES, |a| a.flags(MapFlags::POPULATE));
}

fn populate(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        let mut ours = || {
            let time = timed(|| populated(w));
            w.unmap(0..PAGES);
            time
        };
        let work = "populate, 64 Ki pages";
        beside::<Multiarch>(c, work, "page_table_multiarch raw map", false, &mut ours);
        beside::<X64>(c, work, "x86_64 raw map", false, &mut ours);
    });
}

fn munmap(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        let mut ours = || {
            populated(w);
            timed(|| w.unmap(0..PAGES))
        };
        let work = "munmap, 64 Ki pages, nobody registered";
        beside::<Multiarch>(c, work, "page_table_multiarch raw unmap", true, &mut ours);
        beside::<X64>(c, work, "x86_64 raw unmap", true, &mut ours);
    });
}

/// Every page is in the shadow page table when it goes.
fn munmap_kvm(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        let (vm, registration) = Vm::create(&mut w.cx, &w.mm, VmConfig::default());
        let slot = MemSlot {
            id: 0,
            gfn: Gfn(0),
            pages: PAGES,
            hva: Vpn(number(0)),
            flags: SlotFlags::empty(),
        };
        vm.set_memory(&mut w.cx, slot).expect("no window is open");
        let vcpu = vm.vcpu(&mut w.cx);
        let mut ours = || {
            populated(w);
            for n in 0..PAGES {
                vcpu.store(&mut w.cx, n * PAGE_SIZE, 1).expect("mapped");
            }
            timed(|| w.unmap(0..PAGES))
        };
        let work = "munmap, 64 Ki pages, in KVM's tables";
        beside::<Multiarch>(c, work, "page_table_multiarch raw unmap", true, &mut ours);
        beside::<X64>(c, work, "x86_64 raw unmap", true, &mut ours);
        w.mm.unregister(&mut w.cx, registration);
    });
}

/// VMAs of one page, neighbours of which differ in their rights.
fn one_vma(w: &mut World<'_>, n: u64) {
    let prot = if n.is_multiple_of(2) { Prot::READ } else { RW };
    w.map(n..n + 1, |a| a.prot(prot));
}

/// The same in a map of ranges: the value says what would keep neighbours apart.
fn range_map(count: u64) -> RangeMap<u64, bool> {
    (0..count)
        .map(|n| (addr(n)..addr(n + 1), n.is_multiple_of(2)))
        .collect()
}

/// Turns of so many pairs or lookups.
const TURN: usize = 2_000;

/// A page in the middle is unmapped and mapped again, at random.
fn pairs(c: &mut Criterion<Ratio>) {
    for count in [1, 10_000, 100_000] {
        with_world(|w| {
            (0..count).for_each(|n| one_vma(w, n));
            let mut theirs = range_map(count);
            let (mut mine, mut other) = (scattered(count), scattered(count));
            duel(
                c,
                &format!("munmap+mmap pair, {count} VMAs"),
                "rangemap remove+insert",
                &mut || {
                    timed(|| {
                        for n in mine.by_ref().take(TURN) {
                            w.unmap(n..n + 1);
                            one_vma(w, n);
                        }
                    })
                },
                &mut || {
                    timed(|| {
                        for n in other.by_ref().take(TURN) {
                            theirs.remove(addr(n)..addr(n + 1));
                            theirs.insert(addr(n)..addr(n + 1), n.is_multiple_of(2));
                        }
                    })
                },
            );
        });
    }
}

fn lookup(c: &mut Criterion<Ratio>) {
    const COUNT: u64 = 100_000;
    with_world(|w| {
        (0..COUNT).for_each(|n| one_vma(w, n));
        let theirs = range_map(COUNT);
        let asked: Vec<u64> = scattered(COUNT).take(TURN * 4).map(addr).collect();
        let guard = w.mm.lock_shared(&mut w.cx);
        let found = |at: &u64| guard.vma_at(Vpn::containing(*at)).is_some();
        duel(
            c,
            "VMA lookup among 100,000",
            "rangemap get",
            &mut || timed(|| asked.iter().filter(|at| found(at)).count()),
            &mut || timed(|| asked.iter().filter(|at| theirs.get(at).is_some()).count()),
        );
    });
}

/// One more comes and goes while 16 are there.
fn register(c: &mut Criterion<Ratio>) {
    with_world(|w| {
        let kept: Vec<_> = (0..16)
            .map(|_| w.mm.register(&mut w.cx, Recorder::new))
            .collect();
        let chain: Vec<Arc<dyn ExternalMmu>> = kept
            .iter()
            .map(|(mmu, _)| Arc::clone(mmu) as Arc<dyn ExternalMmu>)
            .collect();
        let theirs = ArcSwap::from_pointee(chain);
        let one_more = Arc::clone(&kept[0].0);
        duel(
            c,
            "register+unregister, 16 present",
            "ArcSwap copy on write",
            &mut || {
                timed(|| {
                    for _ in 0..TURN {
                        let (_, registration) = w.mm.register(&mut w.cx, Recorder::new);
                        w.mm.unregister(&mut w.cx, registration);
                    }
                })
            },
            &mut || {
                timed(|| {
                    for _ in 0..TURN {
                        theirs.rcu(|now| {
                            let mut next = Vec::clone(now);
                            next.push(Arc::clone(&one_more) as Arc<dyn ExternalMmu>);
                            next
                        });
                        theirs.rcu(|now| {
                            let mut next = Vec::clone(now);
                            next.pop();
                            next
                        });
                    }
                })
            },
        );
    });
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = translate, raw, populate, munmap, munmap_kvm, lookup, pairs, register
}
criterion_main!(benches);
