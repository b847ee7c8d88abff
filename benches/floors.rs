//! emmu beside the least that the same work can cost, written by hand, turn by turn; what is
//! measured is the ratio of the times.

mod chain;
mod floor;
mod ratio;
mod world;

use chain::{Driver, List};
use criterion::{Criterion, criterion_group, criterion_main};
use emmu::{
    addr::{Vpn, VpnRange},
    mm::ForkMode,
    notifier::Event,
};
use ratio::{Ratio, criterion, duel, timed};
use std::{
    cell::RefCell,
    hint::black_box,
    sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
};
use world::{number, with_world};

fn range(first: u64, count: u64) -> VpnRange {
    VpnRange::new(Vpn(number(first)), Vpn(number(first + count))).expect("not empty")
}

/// A window over eight pages, opened and closed, in a space with so many drivers that have nothing
/// there.
fn window(
    c: &mut Criterion<Ratio>,
    drivers: usize,
    against: &str,
    mut theirs: impl FnMut(VpnRange),
) {
    const TURN: usize = 20_000;
    with_world(|w| {
        w.map(0..8, |a| a);
        let kept: Vec<_> = (0..drivers)
            .map(|_| w.mm.register(&mut w.cx, Driver::new))
            .collect();
        let range = range(0, 8);
        let mut guard = w.mm.lock_shared(&mut w.cx);
        let mut lease = guard.lease();
        duel(
            c,
            &format!("window, {drivers} registered"),
            against,
            &mut || {
                timed(|| {
                    (0..TURN).for_each(|_| lease.window(black_box(range), Event::Clear).close())
                })
            },
            &mut || timed(|| (0..TURN).for_each(|_| theirs(black_box(range)))),
        );
        drop(guard);
        for (_, registration) in kept {
            w.mm.unregister(&mut w.cx, registration);
        }
    });
}

fn windows(c: &mut Criterion<Ratio>) {
    let word = AtomicUsize::new(0);
    window(c, 0, "relaxed load and branch", |range| {
        if black_box(&word).load(Ordering::Relaxed) != 0 {
            black_box(range);
        }
    });
    for drivers in [1, 4, 16] {
        let list = List::new(drivers);
        let local = list.register();
        window(c, drivers, "epoch list walk, twice", |range| {
            list.walk(&local, range);
            list.walk(&local, range);
        });
    }
}

/// 256 MiB of pages.
const PAGES: u64 = 64 << 10;

/// Entries of a parent and of a child, and two counts for each frame: what no fork that copies
/// tables can do without.
struct Copied {
    parent: Vec<AtomicU64>,
    child: Vec<AtomicU64>,
    counts: Vec<[AtomicU32; 2]>,
}

impl Copied {
    fn new() -> Self {
        Self {
            parent: (0..PAGES).map(|n| AtomicU64::new(n << 12 | 3)).collect(),
            child: (0..PAGES).map(|_| AtomicU64::new(0)).collect(),
            counts: (0..PAGES)
                .map(|_| [const { AtomicU32::new(1) }; 2])
                .collect(),
        }
    }
    /// Write-protects, copies, and counts the frame's references and mappings up.
    fn fork(&self) {
        for (from, to) in self.parent.iter().zip(&self.child) {
            let entry = from.load(Ordering::Relaxed) & !2;
            from.store(entry, Ordering::Release);
            for count in &self.counts[(entry >> 12) as usize] {
                count.fetch_add(1, Ordering::Relaxed);
            }
            to.store(entry, Ordering::Release);
        }
    }
}

fn fork(c: &mut Criterion<Ratio>) {
    let theirs = Copied::new();
    with_world(|w| {
        w.map(0..PAGES, |a| a);
        duel(
            c,
            "fork of 64 Ki anonymous pages",
            "entries and counts",
            &mut || {
                w.store(0..PAGES);
                let time = timed(|| w.fork());
                w.bury();
                time
            },
            &mut || timed(|| theirs.fork()),
        );
    });
}

/// Every page was written since the last fork, whichever it was.
fn fork_shared(c: &mut Criterion<Ratio>) {
    const GIB: u64 = 1 << 18;
    with_world(|w| {
        w.map(0..GIB, |a| a);
        let w = RefCell::new(w);
        let fork = |mode| {
            let w = &mut *w.borrow_mut();
            w.store(0..GIB);
            let time = timed(|| w.fork_with(mode));
            w.bury();
            time
        };
        duel(
            c,
            "fork of 1 GiB, tables shared",
            "fork that copies",
            &mut || fork(ForkMode::Share),
            &mut || fork(ForkMode::Copy),
        );
    });
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = windows, fork, fork_shared
}
criterion_main!(benches);
