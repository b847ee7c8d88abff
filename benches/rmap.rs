//! Reverse maps: what it costs to find and drop one page among many mappings of a file, and through
//! a deep chain of forks.
//!
//! Ten times as many mappings, or a chain eight times as deep, must cost about as much for a page
//! that one of them maps.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    file::{File, FileMode, Shmem},
    mm::{Advice, MapFlags, MmapArgs},
};
use std::{hint::black_box, sync::Arc};

const BASE: u64 = 1 << 40;

fn machine() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1 << 18,
            swap: 1 << 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

/// One page of a file of many pages is punched; each page of the file is mapped by its own VMA.
fn holes(c: &mut Criterion) {
    let mut group = c.benchmark_group("punch a hole, VMAs of the file");
    for vmas in [100_u64, 1_000, 10_000] {
        let machine = machine();
        let mut thread = machine.enter().expect("one machine a thread");
        let mm = Mm::new(&machine);
        let object = Shmem::memfd(machine.host(), "b", vmas * PAGE_SIZE).expect("small");
        let file = File::open(object, FileMode::ReadWrite);
        for n in 0..vmas {
            let mut args = MmapArgs::anonymous(PAGE_SIZE)
                .fixed(BASE + 2 * n * PAGE_SIZE)
                .file(&file, n * PAGE_SIZE);
            args.flags = MapFlags::FIXED | MapFlags::SHARED;
            mm.mmap(&mut thread.cx(), &args).expect("mappable");
        }
        let at = vmas / 2;
        group.bench_function(BenchmarkId::from_parameter(vmas), |b| {
            b.iter(|| {
                mm.store(&mut thread.cx(), BASE + 2 * at * PAGE_SIZE, 1)
                    .expect("mapped");
                file.punch_hole(thread.cx(), at * PAGE_SIZE, PAGE_SIZE)
                    .expect("possible");
            });
        });
        mm.exit(&mut thread.cx());
    }
    group.finish();
}

/// The last of a chain of forks pages out a page of its own, and faults it in again.
fn chains(c: &mut Criterion) {
    let mut group = c.benchmark_group("page out and in, forks deep");
    for depth in [1_usize, 8, 64] {
        let machine = machine();
        let mut thread = machine.enter().expect("one machine a thread");
        let mut chain = vec![Mm::new(&machine)];
        let args = MmapArgs::anonymous(16 * PAGE_SIZE).fixed(BASE);
        chain[0].mmap(&mut thread.cx(), &args).expect("mappable");
        chain[0].store(&mut thread.cx(), BASE, 1).expect("mapped");
        for n in 1..=depth {
            let child = chain[n - 1].fork(&mut thread.cx()).expect("enough memory");
            child.store(&mut thread.cx(), BASE, 2).expect("mapped");
            chain.push(child);
        }
        let last = Arc::clone(&chain[depth]);
        group.bench_function(BenchmarkId::from_parameter(depth), |b| {
            b.iter(|| {
                last.madvise(&mut thread.cx(), BASE, PAGE_SIZE, Advice::PageOut)
                    .expect("fits");
                black_box(last.load(&mut thread.cx(), BASE).expect("mapped"));
            });
        });
        for mm in chain {
            mm.exit(&mut thread.cx());
        }
    }
    group.finish();
}

criterion_group!(benches, holes, chains);
criterion_main!(benches);
