//! Whole operations on 64 Ki pages, and the munmap+mmap pair among many mappings.

mod common;

use common::{BASE, Floor, Idle, PAGES, machine, map, space, touch};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use emmu::{
    Mm, PAGE_SIZE,
    mm::{MremapArgs, MremapFlags, Prot},
};
use std::time::{Duration, Instant};

const FAR: u64 = BASE + (1 << 39);
const GIB: u64 = 1 << 30;

fn floor(iters: u64, work: impl Fn(&mut Floor)) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..iters {
        let mut table = Floor::default();
        table.map(BASE >> 12, PAGES);
        let start = Instant::now();
        work(&mut table);
        total += start.elapsed();
    }
    total
}

/// Times `work` on a fresh space of `pages` pages, every `step`th touched before; what it returns is dropped after.
fn timed<T>(
    iters: u64,
    (pages, step): (u64, u64),
    work: impl Fn(&mut Idle<'_>, &Mm) -> T,
) -> Duration {
    let machine = machine();
    let mut thread = machine.enter().expect("the first here");
    let mut cx = thread.cx();
    let mut total = Duration::ZERO;
    for _ in 0..iters {
        let mm = space(&mut cx, &machine, pages);
        if step == 1 {
            touch(&mut cx, &mm, pages);
        } else {
            for n in (0..pages).step_by(step as usize) {
                mm.store(&mut cx, BASE + n * PAGE_SIZE, 1).expect("mapped");
            }
        }
        let start = Instant::now();
        let kept = work(&mut cx, &mm);
        total += start.elapsed();
        drop(kept);
        mm.exit(&mut cx);
    }
    total
}

fn move_to(cx: &mut Idle<'_>, mm: &Mm, len: u64, to: u64) {
    let args = MremapArgs {
        addr: BASE,
        old_len: len,
        new_len: len,
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: to,
    };
    mm.mremap(cx, args).expect("free there");
}

fn ranges(c: &mut Criterion) {
    let mut g = c.benchmark_group("range");
    g.throughput(Throughput::Elements(PAGES)).sample_size(10);
    g.bench_function(BenchmarkId::new("floor", "unmap"), |b| {
        b.iter_custom(|n| floor(n, |t| t.unmap(BASE >> 12, PAGES)));
    });
    g.bench_function(BenchmarkId::new("emmu", "munmap"), |b| {
        b.iter_custom(|n| {
            timed(n, (PAGES, 1), |cx, mm| {
                mm.munmap(cx, BASE, PAGES * PAGE_SIZE).expect("mapped");
            })
        });
    });
    g.bench_function(BenchmarkId::new("emmu", "mprotect"), |b| {
        b.iter_custom(|n| {
            timed(n, (PAGES, 1), |cx, mm| {
                mm.mprotect(cx, BASE, PAGES * PAGE_SIZE, Prot::READ)
                    .expect("mapped");
            })
        });
    });
    g.bench_function(BenchmarkId::new("floor", "copy"), |b| {
        b.iter_custom(|n| floor(n, |t| t.copy(&mut Floor::default(), BASE >> 12, PAGES)));
    });
    g.bench_function(BenchmarkId::new("emmu", "fork"), |b| {
        b.iter_custom(|n| timed(n, (PAGES, 1), |cx, mm| mm.fork(cx).expect("enough memory")));
    });
    g.finish();
}

fn moves(c: &mut Criterion) {
    let mut g = c.benchmark_group("mremap");
    g.sample_size(10);
    g.bench_function("1 GiB aligned", |b| {
        b.iter_custom(|n| timed(n, (GIB / PAGE_SIZE, 64), |cx, mm| move_to(cx, mm, GIB, FAR)));
    });
    g.bench_function("64 MiB off by a page", |b| {
        b.iter_custom(|n| {
            timed(n, (16384, 1), |cx, mm| {
                move_to(cx, mm, 64 << 20, FAR + PAGE_SIZE);
            })
        });
    });
    g.finish();
}

/// gVisor's name for it: one page unmapped and mapped again.
fn pairs(c: &mut Criterion) {
    let mut g = c.benchmark_group("BM_MapUnmap");
    for count in [1_u64, 10_000, 65_530] {
        let machine = machine();
        let mut thread = machine.enter().expect("the first here");
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let prot = |n: u64| Prot::from_bits_retain(1 + 2 * (n % 2) as u32);
        for n in 0..count {
            map(&mut cx, &mm, n, 1, prot(n));
        }
        let mut n = 1;
        g.bench_function(BenchmarkId::from_parameter(count), |b| {
            b.iter(|| {
                n = (n * 48_271 + 11) % count;
                mm.munmap(&mut cx, BASE + n * PAGE_SIZE, PAGE_SIZE)
                    .expect("mapped");
                map(&mut cx, &mm, n, 1, prot(n));
            });
        });
    }
    g.finish();
}

criterion_group!(benches, ranges, moves, pairs);
criterion_main!(benches);
