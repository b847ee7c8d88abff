//! How cost grows with size: VMAs, pages, drivers, ten times as many at each step. `bench_report`
//! draws it.

mod chain;
mod floor;
mod world;

use chain::Driver;
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use emmu::{
    PAGE_SIZE,
    addr::{Vpn, VpnRange},
    mm::{Advice, Prot},
    notifier::Event,
};
use std::{hint::black_box, time::Duration};
use world::{RW, World, addr, number, timed, with_world};

const SIZES: [u64; 5] = [10, 100, 1_000, 10_000, 100_000];

/// VMAs of one page each.
fn vmas(w: &mut World<'_>, count: u64) {
    for n in 0..count {
        let prot = if n.is_multiple_of(2) { Prot::READ } else { RW };
        w.map(n..n + 1, |a| a.prot(prot));
    }
}

/// Measures `work` at every size in a world that `first` furnishes; `prepare` is not in the time.
fn grow(
    c: &mut Criterion,
    (name, sizes): (&str, &[u64]),
    first: impl Fn(&mut World<'_>, u64),
    prepare: impl Fn(&mut World<'_>, u64),
    work: impl Fn(&mut World<'_>, u64),
) {
    let mut g = c.benchmark_group(format!("growth: {name}"));
    g.warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .sample_size(10);
    for &size in sizes {
        g.bench_function(BenchmarkId::from_parameter(size), |b| {
            with_world(|w| {
                first(w, size);
                b.iter_custom(|iters| {
                    timed(w, (iters, 1), |w| prepare(w, size), |w, _| work(w, size))
                });
            });
        });
    }
    g.finish();
}

fn by_vmas(c: &mut Criterion) {
    grow(
        c,
        ("lookup, VMAs", &SIZES),
        vmas,
        |_, _| (),
        |w, n| {
            let guard = w.mm.lock_shared(&mut w.cx);
            black_box(guard.vma_at(Vpn(number(n / 2))));
        },
    );
    grow(
        c,
        ("munmap of one page, VMAs", &SIZES),
        vmas,
        |w, n| {
            let mid = n / 2;
            let prot = if mid.is_multiple_of(2) {
                Prot::READ
            } else {
                RW
            };
            w.map(mid..mid + 1, |a| a.prot(prot));
        },
        |w, n| w.unmap(n / 2..n / 2 + 1),
    );
    grow(
        c,
        ("fork, VMAs", &SIZES[..4]),
        vmas,
        |w, _| w.bury(),
        |w, _| w.fork(),
    );
}

fn by_pages(c: &mut Criterion) {
    let mapped = |w: &mut World<'_>, n: u64| {
        w.map(0..n, |a| a);
        w.store(0..n);
    };
    grow(
        c,
        ("munmap, pages", &SIZES),
        |_, _| (),
        mapped,
        |w, n| w.unmap(0..n),
    );
    grow(
        c,
        ("fork, pages", &SIZES),
        mapped,
        |w, n| {
            w.bury();
            w.store(0..n);
        },
        |w, _| w.fork(),
    );
    grow(
        c,
        ("DONTNEED of one page, pages", &SIZES),
        mapped,
        |w, n| w.store(n / 2..n / 2 + 1),
        |w, n| {
            let done =
                w.mm.madvise(&mut w.cx, addr(n / 2), PAGE_SIZE, Advice::DontNeed);
            done.expect("mapped");
        },
    );
}

fn by_drivers(c: &mut Criterion) {
    let registered = |w: &mut World<'_>, n: u64| {
        w.map(0..8, |a| a);
        for _ in 0..n {
            // It stays until the space ends.
            drop(w.mm.register(&mut w.cx, Driver::new));
        }
    };
    grow(
        c,
        ("window, drivers", &SIZES[..3]),
        registered,
        |_, _| (),
        |w, _| {
            let range = VpnRange::new(Vpn(number(0)), Vpn(number(8))).expect("not empty");
            w.mm.lock_shared(&mut w.cx)
                .lease()
                .window(range, Event::Clear)
                .close();
        },
    );
}

criterion_group!(benches, by_vmas, by_pages, by_drivers);
criterion_main!(benches);
