//! All shipped scripts, replayed and compared with what Linux did, on one core, alone and with all
//! three external MMUs: time for a step beside 5 µs, of which 200,000 make a second.

mod ratio;

use criterion::{Criterion, criterion_group, criterion_main};
use emmu::replay::{MmuKind, replay_with, shipped};
use ratio::{Ratio, duel, timed};
use std::time::Duration;

const STEP: Duration = Duration::from_micros(5);

fn scripts(c: &mut Criterion<Ratio>) {
    let scripts = shipped().expect("they are here");
    let steps = u32::try_from(scripts.iter().map(|s| s.steps.len()).sum::<usize>());
    let steps = steps.expect("some thousands");
    let all = [MmuKind::Kvm, MmuKind::Gru, MmuKind::Xpmem];
    for (name, mmus) in [
        ("a step of a script", &[][..]),
        ("a step of a script with three MMUs", &all),
    ] {
        let mut replayed = || {
            timed(|| {
                for script in &scripts {
                    replay_with(script, mmus).expect("no other machine");
                }
            })
        };
        duel(c, name, "5 µs", &mut replayed, &mut || STEP * steps);
    }
}

criterion_group! {
    name = benches;
    config = ratio::criterion().sample_size(10);
    targets = scripts
}
criterion_main!(benches);
