//! What an invalidation window costs by the number of external MMUs that are registered and have
//! nothing in it: beside the least that a check can cost, a relaxed load, and beside the least that
//! a chain can cost, an epoch pin and a walk over a list that calls somebody at each node.

mod chain;

use chain::{Driver, List};
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main, measurement::WallTime,
};

use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    mm::MmapArgs,
    notifier::Event,
};
use std::{
    hint::black_box,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

const BASE: u64 = 1 << 40;
/// Pages mapped; windows are opened over the first eight.
const PAGES: u64 = 1024;
const CHAINS: [usize; 3] = [1, 4, 16];

/// Opens and closes windows in a space with `drivers`, each of which translates `entries` pages
/// elsewhere.
fn window(g: &mut BenchmarkGroup<'_, WallTime>, id: BenchmarkId, drivers: usize, entries: u64) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 0,
            frames: 1 << 16,
            contents: Contents::None,
        },
        ..MachineConfig::default()
    });
    let mut thread = machine.enter().expect("no other thread of this process");
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(BASE);
    mm.mmap(&mut cx, &args).expect("the space is empty");
    for _ in 0..drivers {
        let (driver, registration) = mm.register(&mut cx, Driver::new);
        for n in PAGES - entries..PAGES {
            driver.translate(&mut cx, &mm, BASE, n);
        }
        drop(registration); // It stays until the space ends.
    }
    let first = Vpn::containing(BASE);
    let range = VpnRange::new(first, first.plus(8)).expect("not empty");
    let mut guard = mm.lock_exclusive(&mut cx);
    let mut lease = guard.lease();
    g.bench_function(id, |b| {
        b.iter(|| lease.window(black_box(range), Event::Clear).close());
    });
    drop(guard);
    mm.exit(&mut cx);
}

fn walk(g: &mut BenchmarkGroup<'_, WallTime>, len: usize) {
    let list = List::new(len);
    let local = list.register();
    let range = VpnRange::single(Vpn(1));
    g.bench_function(BenchmarkId::new("pin and walk", len), |b| {
        b.iter(|| list.walk(&local, black_box(range)));
    });
    // As a window does: everybody is told the beginning, and the end.
    g.bench_function(BenchmarkId::new("pin and walk, twice", len), |b| {
        b.iter(|| {
            list.walk(&local, black_box(range));
            list.walk(&local, black_box(range));
        });
    });
}

fn windows(c: &mut Criterion) {
    let mut g = c.benchmark_group("window");
    g.warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1000))
        .sample_size(50);
    let word = AtomicUsize::new(0);
    g.bench_function("relaxed load", |b| {
        b.iter(|| black_box(&word).load(Ordering::Relaxed) == 0);
    });
    window(&mut g, BenchmarkId::new("drivers", 0), 0, 0);
    for len in CHAINS {
        walk(&mut g, len);
        window(&mut g, BenchmarkId::new("drivers", len), len, 0);
        let id = BenchmarkId::new("drivers that translate 512 pages elsewhere", len);
        window(&mut g, id, len, 512);
    }
    g.finish();
}

criterion_group!(benches, windows);
criterion_main!(benches);
