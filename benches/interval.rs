//! The tree in which drivers of ranges are found, beside other interval containers, among 100,000
//! ranges: the query of a window, and a driver that comes and goes. Then the same through the
//! public interface.

// The tree is no public type: its source is compiled into this benchmark.
#[allow(dead_code, unreachable_pub, clippy::all)]
#[path = "../src/interval/mod.rs"]
mod interval;
mod ratio;

use criterion::{Criterion, criterion_group, criterion_main};
use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{Atomic, CallbackCx},
    notifier::{Ack, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use interval::{IntervalTree, Key};
use ratio::{Ratio, duel, timed};
use rust_lapper::{Interval, Lapper};
use std::{collections::HashSet, hint::black_box, sync::Arc, time::Duration};

const MANY: u32 = 100_000;
/// Pages of a query.
const QUERY: u64 = 16;
/// Pages over which the ranges are strewn: a query meets about six.
const SPACE: u64 = 1 << 21;

/// A generator of numbers that are the same in each run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Ranges of 1 to 200 pages, no two the same, as iset has a range once.
fn ranges() -> Vec<(u64, u64)> {
    let mut numbers = Numbers(1);
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    while all.len() < MANY as usize {
        let start = numbers.next() % SPACE;
        let range = (start, start + 1 + numbers.next() % 200);
        if seen.insert(range) {
            all.push(range);
        }
    }
    all
}

fn tree_of(all: &[(u64, u64)]) -> IntervalTree<u32> {
    let mut tree = IntervalTree::new();
    for (seq, &(start, end)) in (0_u64..).zip(all) {
        let value = u32::try_from(seq).expect("small");
        tree.insert(Key { start, seq }, end, value);
    }
    tree
}

fn iset_of(all: &[(u64, u64)]) -> iset::IntervalMap<u64, u32> {
    (0_u32..)
        .zip(all)
        .map(|(n, &(start, end))| (start..end, n))
        .collect()
}

/// How many queries, or ranges that come and go, a turn has.
const TURN: usize = 2000;

/// A turn of queries, where `sum` adds up what one meets: the same places on both sides.
fn queries(numbers: &mut Numbers, mut sum: impl FnMut(u64) -> u64) -> Duration {
    timed(|| {
        let mut total = 0_u64;
        for _ in 0..TURN {
            total = total.wrapping_add(sum(numbers.next() % SPACE));
        }
        total
    })
}

fn query(c: &mut Criterion<Ratio>) {
    let all = ranges();
    let tree = tree_of(&all);
    let iset = iset_of(&all);
    let lapper = Lapper::new(
        (0_u32..)
            .zip(&all)
            .map(|(val, &(start, stop))| Interval { start, stop, val })
            .collect(),
    );
    let ours = |at| {
        let hits = tree.overlapping(at, at + QUERY);
        hits.fold(0, |sum, hit| sum + u64::from(*hit.2))
    };
    let in_lapper = |at| {
        let hits = lapper.find(at, at + QUERY);
        hits.fold(0, |sum, hit| sum + u64::from(hit.val))
    };
    let in_iset = |at| {
        let hits = iset.iter(at..at + QUERY);
        hits.fold(0, |sum, hit| sum + u64::from(*hit.1))
    };
    let mut check = Numbers(7);
    for _ in 0..1000 {
        let at = check.next() % SPACE;
        assert_eq!(ours(at), in_lapper(at), "the peers agree");
    }
    let name = "interval query among 100,000";
    let (mut mine, mut other) = (Numbers(2), Numbers(2));
    duel(
        c,
        name,
        "iset",
        &mut || queries(&mut mine, ours),
        &mut || queries(&mut other, in_iset),
    );
    duel(
        c,
        name,
        "rust-lapper",
        &mut || queries(&mut mine, ours),
        &mut || queries(&mut other, in_lapper),
    );
}

fn come_and_go(c: &mut Criterion<Ratio>) {
    let all = ranges();
    let mut tree = tree_of(&all);
    let mut iset = iset_of(&all);
    let picks = |numbers: &mut Numbers| -> Vec<usize> {
        let pick = |_| usize::try_from(numbers.next() % u64::from(MANY)).expect("small");
        (0..TURN).map(pick).collect()
    };
    let (mut mine, mut other) = (Numbers(3), Numbers(3));
    duel(
        c,
        "interval remove+insert among 100,000",
        "iset",
        &mut || {
            let picks = picks(&mut mine);
            timed(|| {
                for n in picks {
                    let key = Key {
                        start: all[n].0,
                        seq: n as u64,
                    };
                    let (end, value) = tree.remove(key).expect("there");
                    tree.insert(key, end, value);
                }
            })
        },
        &mut || {
            let picks = picks(&mut other);
            timed(|| {
                for n in picks {
                    let (start, end) = all[n];
                    let value = iset.remove(start..end);
                    iset.insert(start..end, black_box(value).unwrap_or(0));
                }
            })
        },
    );
}

/// A driver with nothing in it.
struct Driver(Gate<OrderedStore<u64>, (), Atomic>);

impl Driver {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
}

impl ExternalMmu for Driver {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

fn windows(c: &mut Criterion) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().expect("no other thread of this process");
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let base: u64 = 1 << 20;
    let range = |start, end| VpnRange::new(Vpn(base + start), Vpn(base + end)).expect("not empty");
    for (start, end) in ranges() {
        // It stays until the space ends.
        drop(mm.subscribe(&mut cx, range(start, end), Driver::new));
    }
    let mut g = c.benchmark_group("interval: drivers among 100,000");
    let mut numbers = Numbers(4);
    g.bench_function("a window that calls six", |b| {
        b.iter(|| {
            let at = numbers.next() % SPACE;
            let mut held = mm.lock_shared(&mut cx);
            let mut lease = held.lease();
            lease.with_window(range(at, at + QUERY), Event::Clear, |_| ());
        });
    });
    g.bench_function("a window that calls none", |b| {
        b.iter(|| {
            let mut held = mm.lock_shared(&mut cx);
            let mut lease = held.lease();
            let beyond = range(SPACE + 1000, SPACE + 1000 + QUERY);
            lease.with_window(beyond, Event::Clear, |_| ());
        });
    });
    g.bench_function("subscribe and unregister", |b| {
        b.iter(|| {
            let at = numbers.next() % SPACE;
            let (_driver, registration) = mm.subscribe(&mut cx, range(at, at + 8), Driver::new);
            registration.unregister(&mut cx);
        });
    });
    g.finish();
    mm.exit(&mut cx);
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = windows
}
criterion_group! {
    name = duels;
    config = ratio::criterion();
    targets = query, come_and_go
}
criterion_main!(duels, benches);
