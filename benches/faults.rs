//! Faults, one page each: per group, what a plain table takes to set the same entries.

mod common;

use common::{BASE, Floor, Idle, PAGES, machine, space, touch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use emmu::{
    Mm, PAGE_SIZE,
    mm::{MapFlags, MmapArgs},
};
use std::time::{Duration, Instant};

fn floor(iters: u64) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..iters {
        let mut table = Floor::default();
        let start = Instant::now();
        table.map(BASE >> 12, PAGES);
        total += start.elapsed();
    }
    total
}

/// Times `work` on a fresh space, made outside the time by `prepare`; what that returns lives until after the work.
fn timed<T>(
    iters: u64,
    prepare: impl Fn(&mut Idle<'_>, &Mm) -> T,
    work: impl Fn(&mut Idle<'_>, &Mm),
) -> Duration {
    let machine = machine();
    let mut thread = machine.enter().expect("the first here");
    let mut cx = thread.cx();
    let mut total = Duration::ZERO;
    for _ in 0..iters {
        let mm = space(&mut cx, &machine, PAGES);
        let kept = prepare(&mut cx, &mm);
        let start = Instant::now();
        work(&mut cx, &mm);
        total += start.elapsed();
        drop(kept);
        mm.exit(&mut cx);
    }
    total
}

fn read_all(cx: &mut Idle<'_>, mm: &Mm) {
    for n in 0..PAGES {
        mm.load(cx, BASE + n * PAGE_SIZE).expect("mapped");
    }
}

fn populate(cx: &mut Idle<'_>, mm: &Mm) {
    let args = MmapArgs::anonymous(PAGES * PAGE_SIZE)
        .fixed(BASE)
        .with(MapFlags::POPULATE);
    mm.mmap(cx, &args).expect("there is room");
}

fn faults(c: &mut Criterion) {
    let mut g = c.benchmark_group("fault");
    g.throughput(Throughput::Elements(PAGES)).sample_size(10);
    g.bench_function(BenchmarkId::new("floor", "map"), |b| b.iter_custom(floor));
    g.bench_function(BenchmarkId::new("emmu", "zero page"), |b| {
        b.iter_custom(|n| timed(n, |_, _| (), read_all));
    });
    g.bench_function(BenchmarkId::new("emmu", "anonymous"), |b| {
        b.iter_custom(|n| timed(n, |_, _| (), |cx, mm| touch(cx, mm, PAGES)));
    });
    g.bench_function(BenchmarkId::new("emmu", "populate"), |b| {
        b.iter_custom(|n| timed(n, |_, _| (), populate));
    });
    g.bench_function(BenchmarkId::new("emmu", "copy on write"), |b| {
        b.iter_custom(|n| {
            timed(
                n,
                |cx, mm| {
                    touch(cx, mm, PAGES);
                    mm.fork(cx).expect("enough memory")
                },
                |cx, mm| touch(cx, mm, PAGES),
            )
        });
    });
    g.bench_function(BenchmarkId::new("emmu", "shared anonymous"), |b| {
        let prepare = |cx: &mut Idle<'_>, mm: &Mm| {
            let args = MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(BASE).shared();
            mm.mmap(cx, &args).expect("there is room");
        };
        b.iter_custom(|n| timed(n, prepare, |cx, mm| touch(cx, mm, PAGES)));
    });
    g.finish();
}

criterion_group!(benches, faults);
criterion_main!(benches);
