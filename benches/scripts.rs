//! All shipped scripts, replayed and compared with what Linux did, on one core: steps a second, alone and with all three
//! external MMUs, which the oracle watches.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use emmu::replay::{MmuKind, replay_with, shipped};

fn scripts(c: &mut Criterion) {
    let scripts = shipped().expect("they are here");
    let steps: usize = scripts.iter().map(|s| s.steps.len()).sum();
    let mut group = c.benchmark_group("replay, a step");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(steps as u64));
    for (name, mmus) in [
        ("alone", &[][..]),
        (
            "kvm,gru,xpmem",
            &[MmuKind::Kvm, MmuKind::Gru, MmuKind::Xpmem],
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                for script in &scripts {
                    replay_with(script, mmus).expect("no other machine");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scripts);
criterion_main!(benches);
