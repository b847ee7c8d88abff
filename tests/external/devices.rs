//! Recorded scripts and programs with all external MMUs attached: nothing changes, and the
//! oracle is silent.

use emmu::replay::{MmuKind, Summary, replay, replay_with, shipped};

#[test]
fn scripts_go_the_same_way_with_devices() {
    let scripts = shipped().unwrap();
    let mut differing = Vec::new();
    let (mut alone, mut with) = (Vec::new(), Vec::new());
    for script in &scripts {
        let a = replay(script).unwrap();
        let b = replay_with(script, &MmuKind::ALL).unwrap();
        // What devices use is used: memory pressure finds other pages first.
        let pressure = script.header.profile == "reclaim";
        if a.agreed != b.agreed && !pressure {
            differing.push(format!(
                "{}: {} of {} steps, alone {}",
                b.name, b.agreed, b.steps, a.agreed
            ));
        }
        for finding in &b.presented.findings {
            differing.push(format!("{}: {finding}", b.name));
        }
        alone.push(a);
        with.push(b);
    }
    println!(
        "{}\n{}",
        Summary::of(&alone).line(),
        Summary::of(&with).line()
    );
    assert!(
        differing.is_empty(),
        "{}\n{}",
        differing.len(),
        differing.join("\n")
    );
}
