//! Benchmarks that other systems are known by, under their names and with their parameters, as far
//! as two processors go: CortenMM's five, sv6's `mapbench`, NrOS's `unmaplat`. gVisor's are in
//! `ops` and `faults`.
//!
//! ```text
//! cargo bench --bench known
//! ```

mod floor;
mod world;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    addr::Vpn,
    ctx::CallCx,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    mm::MmapArgs,
};
use std::{
    sync::{Arc, Barrier, Mutex},
    time::{Duration, Instant},
};
use world::{group, number, with_world};

/// Pages a thread works on in one round of CortenMM's.
const PAGES: usize = 32;

fn machine() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 0,
            frames: 1 << 16,
            contents: Contents::None,
        },
        overcommit: Overcommit::Always,
        ..MachineConfig::default()
    })
}

/// One address space, and what each thread does to its pages.
struct Team {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    /// Addresses of each thread.
    pages: Vec<Vec<u64>>,
}

type Step = fn(&Mm, &mut CallCx<'_>, u64);

fn map(mm: &Mm, cx: &mut CallCx<'_>, at: u64) {
    let args = MmapArgs::anonymous(PAGE_SIZE).fixed(at);
    mm.mmap(cx, &args).expect("there is room");
}
fn touch(mm: &Mm, cx: &mut CallCx<'_>, at: u64) {
    mm.store(cx, at, 1).expect("mapped");
}
fn unmap(mm: &Mm, cx: &mut CallCx<'_>, at: u64) {
    mm.munmap(cx, at, PAGE_SIZE).expect("a sound range");
}
fn map_and_touch(mm: &Mm, cx: &mut CallCx<'_>, at: u64) {
    map(mm, cx, at);
    touch(mm, cx, at);
}
fn nothing(_: &Mm, _: &mut CallCx<'_>, _: u64) {}

impl Team {
    /// `shuffled`: the pages of all threads lie in one area, in no order ("high" contention); else
    /// each thread has a part of its own ("low").
    fn new(threads: usize, shuffled: bool) -> Self {
        let machine = machine();
        let mm = Mm::new(&machine);
        let own = |who: usize, n: usize| (1 << 40) + ((who as u64) << 32) + n as u64 * PAGE_SIZE;
        let mixed = |who: usize, n: usize| {
            // A step that has no factor in common with the number of pages meets each of them once.
            let all = threads * PAGES;
            own(0, (who * PAGES + n) * 11 % all)
        };
        let page = |who, n| if shuffled { mixed(who, n) } else { own(who, n) };
        let pages = (0..threads)
            .map(|who| (0..PAGES).map(|n| page(who, n)).collect())
            .collect();
        Self { machine, mm, pages }
    }
    /// Lets every thread do `work` on each of its pages, so many rounds; returns how long a request
    /// took, times `iters`. `before` and `after` are not in the time.
    fn run(&self, iters: u64, [before, work, after]: [Step; 3]) -> Duration {
        let rounds = iters.div_ceil(PAGES as u64);
        let start = Barrier::new(self.pages.len());
        let total = Mutex::new(Duration::ZERO);
        let (start, total) = (&start, &total);
        std::thread::scope(|scope| {
            for pages in &self.pages {
                scope.spawn(move || {
                    let mut thread = self.machine.enter().expect("a new thread");
                    let cx = &mut thread.cx();
                    for _ in 0..rounds {
                        pages.iter().for_each(|&at| before(&self.mm, cx, at));
                        start.wait();
                        let began = Instant::now();
                        pages.iter().for_each(|&at| work(&self.mm, cx, at));
                        *total.lock().expect("nobody panics") += began.elapsed();
                        start.wait();
                        pages.iter().for_each(|&at| after(&self.mm, cx, at));
                    }
                });
            }
        });
        let requests = rounds as f64 * (self.pages.len() * PAGES) as f64;
        let total = total.lock().expect("nobody panics").as_secs_f64();
        Duration::from_secs_f64(total / requests * iters as f64)
    }
}

/// CortenMM: the latency of a request for one page.
fn cortenmm(c: &mut Criterion) {
    let five: [(&str, [Step; 3]); 5] = [
        ("mmap", [nothing, map, unmap]),
        ("mmap_pf", [nothing, map_and_touch, unmap]),
        ("munmap_virt", [map, unmap, nothing]),
        ("munmap", [map_and_touch, unmap, nothing]),
        ("pf", [map, touch, unmap]),
    ];
    for (name, steps) in five {
        let mut g = group(c, &format!("CortenMM {name}"));
        for (id, threads, shuffled) in [
            ("1 thread", 1, false),
            ("2 threads, low", 2, false),
            ("2 threads, high", 2, true),
        ] {
            let team = Team::new(threads, shuffled);
            g.bench_function(id, |b| b.iter_custom(|iters| team.run(iters, steps)));
        }
        g.finish();
    }
}

/// Pages of a region of sv6's.
const REGION: u64 = 64;

/// What thread `who` of two does in one round of `mapbench`. Steps of one number run at the same
/// time in both.
type Mode = [fn(&Mm, &mut CallCx<'_>, usize); 3];

fn region(who: usize) -> u64 {
    (1 << 40) + who as u64 * REGION * PAGE_SIZE
}
fn map_own(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    let args = MmapArgs::anonymous(REGION * PAGE_SIZE).fixed(region(who));
    mm.mmap(cx, &args).expect("there is room");
}
fn touch_own(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    for n in 0..REGION {
        touch(mm, cx, region(who) + n * PAGE_SIZE);
    }
}
fn unmap_own(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    mm.munmap(cx, region(who), REGION * PAGE_SIZE)
        .expect("a sound range");
}
fn touch_all(mm: &Mm, cx: &mut CallCx<'_>, who: usize) {
    touch_own(mm, cx, who);
    touch_own(mm, cx, 1 - who);
}

/// sv6's `mapbench` with two threads: the time of a page.
fn mapbench(c: &mut Criterion) {
    let modes: [(&str, Mode); 3] = [
        ("local", [map_own, touch_own, unmap_own]),
        (
            "pipeline",
            [
                map_own,
                |mm, cx, who| touch_own(mm, cx, 1 - who),
                |mm, cx, who| unmap_own(mm, cx, 1 - who),
            ],
        ),
        ("global", [map_own, touch_all, unmap_own]),
    ];
    let mut g = group(c, "sv6 mapbench, two threads");
    g.throughput(Throughput::Elements(1));
    for (id, mode) in modes {
        let machine = machine();
        let mm = Mm::new(&machine);
        g.bench_function(id, |b| {
            b.iter_custom(|iters| {
                let rounds = iters.div_ceil(2 * REGION);
                let step = Barrier::new(2);
                let began = Instant::now();
                std::thread::scope(|scope| {
                    for who in [0, 1] {
                        let (machine, mm, step) = (&machine, &mm, &step);
                        scope.spawn(move || {
                            let mut thread = machine.enter().expect("a new thread");
                            for _ in 0..rounds {
                                for work in mode {
                                    work(mm, &mut thread.cx(), who);
                                    step.wait();
                                }
                            }
                        });
                    }
                });
                began
                    .elapsed()
                    .mul_f64(iters as f64 / (rounds * 2 * REGION) as f64)
            });
        });
    }
    g.finish();
}

/// NrOS: how long it takes to unmap a page that so many processors, here a guest's, have touched.
fn unmaplat(c: &mut Criterion) {
    let mut g = group(c, "NrOS unmaplat");
    for processors in [1, 2, 4] {
        g.bench_function(format!("{processors} vCPUs"), |b| {
            with_world(|w| {
                let (vm, registration) = Vm::create(&mut w.cx, &w.mm, VmConfig::default());
                let slot = MemSlot {
                    id: 0,
                    gfn: Gfn(0),
                    pages: 1,
                    hva: Vpn(number(0)),
                    flags: SlotFlags::empty(),
                };
                vm.set_memory(&mut w.cx, slot).expect("no window is open");
                let vcpus: Vec<_> = (0..processors).map(|_| vm.vcpu(&mut w.cx)).collect();
                b.iter_custom(|iters| {
                    let mut total = Duration::ZERO;
                    for _ in 0..iters {
                        w.map(0..1, |a| a);
                        for vcpu in &vcpus {
                            vcpu.store(&mut w.cx, 0, 1).expect("mapped");
                        }
                        let began = Instant::now();
                        w.unmap(0..1);
                        total += began.elapsed();
                    }
                    total
                });
                drop(vcpus);
                w.mm.unregister(&mut w.cx, registration);
            });
        });
    }
    g.finish();
}

criterion_group!(benches, cortenmm, mapbench, unmaplat);
criterion_main!(benches);
