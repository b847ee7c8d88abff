//! Opening and closing an invalidation window, by the number of registered MMUs that have nothing in it.

mod common;

use common::{BASE, machine, space};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use emmu::{
    addr::{Vpn, VpnRange},
    ctx::{Atomic, Cx, Sleepable, rank},
    notifier::{Ack, Event, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicPtr, Ordering::Relaxed},
    },
};

/// Has nothing, and says so through its gate.
struct Nothing(Gate<OrderedStore<u64>, (), Atomic>);

impl Nothing {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self(Gate::new(seat, OrderedStore::default(), ())))
    }
}

impl ExternalMmu for Nothing {
    fn invalidate_start<'i>(
        &self,
        cx: Cx<'_, rank::Callback, Sleepable>,
        inv: Invalidation<'i>,
    ) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

fn windows(c: &mut Criterion) {
    let mut g = c.benchmark_group("window");
    let nobody = AtomicPtr::<u8>::default();
    g.bench_function("floor/load and branch", |b| {
        b.iter(|| black_box(&nobody).load(Relaxed).is_null());
    });
    for count in [0, 1, 4, 16] {
        let machine = machine();
        let mut thread = machine.enter().expect("the first here");
        let mut cx = thread.cx();
        let mm = space(&mut cx, &machine, 16);
        for _ in 0..count {
            drop(mm.register(&mut cx, Nothing::new));
        }
        let at = Vpn::containing(BASE);
        let range = VpnRange::new(at, at.plus(8)).expect("not empty");
        let mut guard = mm.read(&mut cx);
        let mut lease = guard.lease();
        g.bench_function(BenchmarkId::new("emmu", count), |b| {
            b.iter(|| lease.window(black_box(range), Event::Clear).close());
        });
        drop(guard);
        mm.exit(&mut cx);
    }
    g.finish();
}

/// What the walk alone costs: a pin, and a list of that length, twice.
fn walks(c: &mut Criterion) {
    use crossbeam_epoch::{Atomic, Collector, Owned};
    struct Node(u64, Atomic<Node>);
    let mut g = c.benchmark_group("window");
    for count in [1_u64, 4, 16] {
        let local = Collector::new().register();
        let head = Atomic::<Node>::null();
        for n in 0..count {
            let next = Atomic::null();
            next.store(head.load(Relaxed, &local.pin()), Relaxed);
            head.store(Owned::new(Node(n, next)), Relaxed);
        }
        g.bench_function(BenchmarkId::new("floor/epoch walk twice", count), |b| {
            b.iter(|| {
                for _ in 0..2 {
                    let guard = local.pin();
                    let mut at = head.load(std::sync::atomic::Ordering::Acquire, &guard);
                    // SAFETY: nothing is ever removed from this list.
                    while let Some(node) = unsafe { at.as_ref() } {
                        black_box(node.0);
                        at = node.1.load(std::sync::atomic::Ordering::Acquire, &guard);
                    }
                }
            });
        });
    }
    g.finish();
}

criterion_group!(benches, windows, walks);
criterion_main!(benches);
