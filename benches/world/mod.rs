//! What the benchmarks of address spaces have in common: a machine, one space on it, and a stop
//! watch.
#![allow(dead_code)] // Each benchmark uses a part of it.

use crate::floor::Floor;
use criterion::{BenchmarkGroup, Criterion, measurement::WallTime};
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm, Overcommit, PAGE_SIZE,
    ctx::CallCx,
    mm::{ForkMode, MmapArgs, Prot},
};
use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

/// Where measured memory lies: a multiple of 512 GiB.
pub(crate) const BASE: u64 = 1 << 40;
/// Readable and writable.
pub(crate) const RW: Prot = Prot::READ.union(Prot::WRITE);

/// Address of page `n` of the measured memory.
pub(crate) const fn addr(n: u64) -> u64 {
    BASE + n * PAGE_SIZE
}

/// Number of page `n` of the measured memory, as the floor takes it.
pub(crate) const fn number(n: u64) -> u64 {
    addr(n) / PAGE_SIZE
}

/// Numbers of `pages` of the measured memory.
pub(crate) const fn numbers(pages: Range<u64>) -> Range<u64> {
    number(pages.start)..number(pages.end)
}

/// An entry that maps page `n` to a frame.
pub(crate) const fn entry(n: u64) -> u64 {
    addr(n) | 1
}

/// One address space, on a machine whose frames have no contents, and perhaps a child of it.
pub(crate) struct World<'t> {
    pub(crate) cx: CallCx<'t>,
    pub(crate) mm: Arc<Mm>,
    child: Option<Arc<Mm>>,
}

/// Runs `f` in a world of its own.
pub(crate) fn with_world<T>(f: impl FnOnce(&mut World<'_>) -> T) -> T {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 0,
            frames: 1 << 22,
            contents: Contents::None,
        },
        overcommit: Overcommit::Always,
        max_map_count: 1 << 20,
        ..MachineConfig::default()
    });
    let mut thread = machine.enter().expect("no other thread of this process");
    let mut world = World {
        mm: Mm::new(&machine),
        cx: thread.cx(),
        child: None,
    };
    let out = f(&mut world);
    world.bury();
    world.mm.exit(&mut world.cx);
    assert_eq!(machine.mem().in_use(), 0, "a benchmark lost frames");
    out
}

impl World<'_> {
    /// Maps what `args` say at exactly `pages`, instead of what is there.
    pub(crate) fn map(&mut self, pages: Range<u64>, args: impl FnOnce(MmapArgs) -> MmapArgs) {
        let len = (pages.end - pages.start) * PAGE_SIZE;
        let args = args(MmapArgs::anonymous(len)).fixed(addr(pages.start));
        self.mm.mmap(&mut self.cx, &args).expect("there is room");
    }
    pub(crate) fn unmap(&mut self, pages: Range<u64>) {
        let len = (pages.end - pages.start) * PAGE_SIZE;
        self.mm
            .munmap(&mut self.cx, addr(pages.start), len)
            .expect("the range is sound");
    }
    /// Loads a byte of each page.
    pub(crate) fn load(&mut self, pages: Range<u64>) {
        for n in pages {
            self.mm.load(&mut self.cx, addr(n)).expect("mapped");
        }
    }
    /// Stores a byte into each page.
    pub(crate) fn store(&mut self, pages: Range<u64>) {
        for n in pages {
            self.mm.store(&mut self.cx, addr(n), 1).expect("mapped");
        }
    }
    /// Forks; the child lives until [`bury`](Self::bury).
    pub(crate) fn fork(&mut self) {
        self.fork_with(ForkMode::Copy);
    }
    /// The same in the way given.
    pub(crate) fn fork_with(&mut self, mode: ForkMode) {
        let child = self.mm.fork_with(&mut self.cx, mode);
        let child = child.expect("there is memory");
        self.child = Some(child);
    }
    /// Ends the child.
    pub(crate) fn bury(&mut self) {
        if let Some(child) = self.child.take() {
            child.exit(&mut self.cx);
        }
    }
}

/// Times `iters` units of work in batches of at most `most`: `prepare` makes the next batch ready,
/// unmeasured; `work` does as many units as it is told.
pub(crate) fn timed<S>(
    state: &mut S,
    (iters, most): (u64, u64),
    mut prepare: impl FnMut(&mut S),
    mut work: impl FnMut(&mut S, u64),
) -> Duration {
    let mut total = Duration::ZERO;
    let mut left = iters;
    while left > 0 {
        let batch = left.min(most);
        prepare(state);
        let start = Instant::now();
        work(state, batch);
        total += start.elapsed();
        left -= batch;
    }
    total
}

/// A group, and how long its members are measured: preparing takes longer than the work, so not
/// very long.
pub(crate) fn group<'c>(c: &'c mut Criterion, name: &str) -> BenchmarkGroup<'c, WallTime> {
    let mut group = c.benchmark_group(name);
    group
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20);
    group
}

/// Adds `floor/<id>` to a group: the same stop watch on a plain table.
pub(crate) fn floor(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    most: u64,
    prepare: impl Fn(&mut Floor),
    work: impl Fn(&mut Floor, u64),
) {
    group.bench_function(id, |b| {
        let mut table = Floor::new();
        b.iter_custom(|iters| timed(&mut table, (iters, most), &prepare, &work));
    });
}

/// Adds `emmu/<id>` to a group: in a world of its own, which `first` furnishes.
pub(crate) fn emmu(
    group: &mut BenchmarkGroup<'_, WallTime>,
    id: &str,
    most: u64,
    first: impl Fn(&mut World<'_>),
    prepare: impl Fn(&mut World<'_>),
    work: impl Fn(&mut World<'_>, u64),
) {
    group.bench_function(id, |b| {
        with_world(|world| {
            first(world);
            b.iter_custom(|iters| timed(world, (iters, most), &prepare, &work));
        });
    });
}
