//! Instructions that the hottest paths take, counted by callgrind: the same on every run, where
//! times are not.
//!
//! ```text
//! cargo install --locked gungraun-runner --version 0.20.0
//! cargo bench --bench instructions
//! ```
//!
//! Fails where a path takes more than `instructions.txt` says and a twentieth of it. Where a path
//! has become longer for a reason, or shorter, `.ci/run baseline` writes the file anew.

#![allow(missing_docs)] // What the macros write has none.

mod chain;
mod floor;
mod world;

use chain::Driver;
use emmu::{
    PAGE_SIZE,
    addr::{Vpn, VpnRange},
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vcpu, Vm, VmConfig},
    mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
    notifier::Event,
};
use gungraun::{
    Callgrind, EntryPoint, EventKind, LibraryBenchmarkConfig, library_benchmark,
    library_benchmark_group, main,
};
use std::hint::black_box;
use world::{World, addr, number, with_world};

/// Pages of those paths that take a range: one leaf table.
const PAGES: u64 = 512;
/// Turns of those paths that are short, after one that is not counted.
const TURNS: u64 = 16;

/// How each path is counted: in [`counted`] alone, and not more than what is on record for `name`.
fn config(name: &str) -> LibraryBenchmarkConfig {
    let record = include_str!("instructions.txt")
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
    let mut callgrind = Callgrind::with_args(["--cache-sim=no", "--dump-instr=yes"]);
    callgrind.entry_point(EntryPoint::Custom("*counted*".to_owned()));
    if let Some(record) = record {
        callgrind.hard_limits([(EventKind::Ir, record + record / 20)]);
    }
    let mut config = LibraryBenchmarkConfig::default();
    config.tool(callgrind);
    config
}

/// What is counted: all that happens in here.
#[inline(never)]
fn counted(w: &mut World<'_>, work: impl FnOnce(&mut World<'_>)) {
    work(black_box(w));
}

/// Prepares a world, then counts `work` in it.
fn count(prepare: impl FnOnce(&mut World<'_>), work: impl FnOnce(&mut World<'_>)) {
    with_world(|w| {
        prepare(w);
        counted(w, work);
    });
}

/// `turn` so many times, after once that is not counted.
fn turns(prepare: impl FnOnce(&mut World<'_>), turn: impl Fn(&mut World<'_>, u64)) {
    count(
        |w| {
            prepare(w);
            turn(w, 0);
        },
        |w| (1..=TURNS).for_each(|n| turn(w, n)),
    );
}

fn touched(w: &mut World<'_>) {
    w.map(0..PAGES, |a| a);
    w.store(0..PAGES);
}

#[library_benchmark(config = config("load_hit"))]
fn load_hit() {
    turns(touched, |w, n| w.load(n..n + 1));
}
#[library_benchmark(config = config("fault_zero_page"))]
fn fault_zero_page() {
    turns(|w| w.map(0..PAGES, |a| a), |w, n| w.load(n..n + 1));
}
#[library_benchmark(config = config("fault_anonymous"))]
fn fault_anonymous() {
    turns(|w| w.map(0..PAGES, |a| a), |w, n| w.store(n..n + 1));
}
#[library_benchmark(config = config("fault_copy_on_write"))]
fn fault_copy_on_write() {
    let forked = |w: &mut World<'_>| {
        touched(w);
        w.fork();
    };
    turns(forked, |w, n| w.store(n..n + 1));
}
#[library_benchmark(config = config("populate_512"))]
fn populate_512() {
    let args = |a: MmapArgs| a.flags(MapFlags::POPULATE);
    // The first frame of many has their metadata made.
    let mapped = |w: &mut World<'_>| {
        w.map(0..PAGES + 1, |a| a);
        w.store(PAGES..PAGES + 1);
    };
    count(mapped, |w| w.map(0..PAGES, args));
}
#[library_benchmark(config = config("munmap_512"))]
fn munmap_512() {
    count(touched, |w| w.unmap(0..PAGES));
}
#[library_benchmark(config = config("pair_among_1000"))]
fn pair_among_1000() {
    let striped = |w: &mut World<'_>| {
        for n in 0..1000 {
            w.map(2 * n..2 * n + 1, |a| a);
        }
    };
    turns(striped, |w, n| {
        w.unmap(2 * n..2 * n + 1);
        w.map(2 * n..2 * n + 1, |a| a);
    });
}
#[library_benchmark(config = config("fork_512"))]
fn fork_512() {
    count(touched, |w| w.fork());
}
#[library_benchmark(config = config("mprotect_512"))]
fn mprotect_512() {
    count(touched, |w| {
        w.mm.mprotect(&mut w.cx, addr(0), PAGES * PAGE_SIZE, Prot::READ)
            .expect("mapped");
    });
}
#[library_benchmark(config = config("mremap_1_gib"))]
fn mremap_1_gib() {
    const PAGES: u64 = 1 << 18;
    let remap = |w: &mut World<'_>, from, to| {
        let len = PAGES * PAGE_SIZE;
        let args = MremapArgs {
            addr: addr(from),
            old_len: len,
            new_len: len,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: addr(to),
        };
        w.mm.mremap(&mut w.cx, args).expect("there is room");
    };
    // The first move also has the dynamic linker look functions up.
    let sparse = |w: &mut World<'_>| {
        w.map(0..PAGES, |a| a);
        (0..PAGES).step_by(512).for_each(|n| w.store(n..n + 1));
        remap(w, 0, 8 * PAGES);
    };
    count(sparse, |w| remap(w, 8 * PAGES, 4 * PAGES));
}

fn windows(drivers: usize) {
    with_world(|w| {
        w.map(0..8, |a| a);
        let kept: Vec<_> = (0..drivers)
            .map(|_| w.mm.register(&mut w.cx, Driver::new))
            .collect();
        let range = VpnRange::new(Vpn(number(0)), Vpn(number(8))).expect("not empty");
        counted(w, |w| {
            let mut guard = w.mm.lock_shared(&mut w.cx);
            let mut lease = guard.lease();
            (0..TURNS).for_each(|_| lease.window(range, Event::Clear).close());
        });
        for (_, registration) in kept {
            w.mm.unregister(&mut w.cx, registration);
        }
    });
}
#[library_benchmark(config = config("window_nobody"))]
fn window_nobody() {
    windows(0);
}
#[library_benchmark(config = config("window_4_drivers"))]
fn window_4_drivers() {
    windows(4);
}

/// A processor of a guest with the measured pages as its memory.
fn guest(w: &mut World<'_>) -> Vcpu {
    touched(w);
    let (vm, _stays) = Vm::create(&mut w.cx, &w.mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(addr(0)),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut w.cx, slot).expect("it fits");
    vm.vcpu(&mut w.cx)
}
#[library_benchmark(config = config("kvm_miss"))]
fn kvm_miss() {
    with_world(|w| {
        let vcpu = guest(w);
        counted(w, |w| {
            for n in 0..TURNS {
                vcpu.read(&mut w.cx, n * PAGE_SIZE, &mut [0])
                    .expect("in the slot");
            }
        });
    });
}
#[library_benchmark(config = config("kvm_zap_512"))]
fn kvm_zap_512() {
    with_world(|w| {
        let vcpu = guest(w);
        for n in 0..PAGES {
            vcpu.read(&mut w.cx, n * PAGE_SIZE, &mut [0])
                .expect("in the slot");
        }
        counted(w, |w| {
            w.mm.madvise(&mut w.cx, addr(0), PAGES * PAGE_SIZE, Advice::DontNeed)
                .expect("mapped");
        });
    });
}

library_benchmark_group!(
    name = paths;
    benchmarks = load_hit, fault_zero_page, fault_anonymous, fault_copy_on_write, populate_512, munmap_512,
        pair_among_1000, fork_512, mprotect_512, mremap_1_gib, window_nobody, window_4_drivers, kvm_miss, kvm_zap_512
);
main!(library_benchmark_groups = paths);
