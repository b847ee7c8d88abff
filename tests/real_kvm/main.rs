//! A real guest in a real virtual machine, and the KVM model on emmu, under the same operations of
//! the host.
//!
//! A scenario is data: a list of [`Step`]s. Two engines execute it, [`host`] on this kernel with
//! `/dev/kvm` and [`model`] on emmu, and after every step both must have come to the same: the
//! result of the call, what the guest reads on every page of its memory, what a forked child reads,
//! what the file behind it holds, which windows the notifier saw.
//!
//! # What a guest proves
//!
//! Where KVM runs guests on hardware, the guest's loads go through shadow entries that only the
//! notifier keeps true, and equal bytes are the proof of both. Where it emulates every instruction
//! (`KVM_PVM` and a guest that does not speak its interface: no VMX or SVM on the machine), it
//! reads through the host address, nothing can go stale, and the real side is only the truth about
//! *contents*: the model still has shadow entries and TLBs, and they are what is tested. A hole is
//! an MMIO exit on such a machine, `EFAULT` elsewhere; both count as refused.
//!
//! The clock is different: KVM writes the guest's clock page through a gfn-to-pfn cache, a kernel
//! mapping that on any kind of machine only the notifier keeps true (active count and sequence). So
//! [`Step::Tick`] holds the model's [`PfnCache`](emmu::extmmu::kvm::PfnCache) against the real one:
//! each tick must land in the page that is there now, and nowhere else.
//!
//! Without `/dev/kvm` the tests say `skipped` and pass.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(unreachable_pub)]

mod guest;
mod host;
#[cfg(feature = "host-mapping")]
mod mapped;
mod model;
mod steps;
mod stories;

#[path = "../common/drawn.rs"]
mod drawn;
#[path = "../common/long_mode.rs"]
mod long_mode;
#[path = "../common/skipped.rs"]
mod skipped;

use emmu::extmmu::kvm::KvmMistake;
use host::Host;
use model::Model;
use proptest::{prelude::*, test_runner::TestCaseError};
use skipped::skipped;
use steps::{Engine, Seen, Step, scenario};

/// Random scenarios a run; more with `PROPTEST_CASES`.
const CASES: u32 = 48;

/// Executes steps on both engines; the first difference is the error.
fn compare(steps: &[Step], mistake: Option<KvmMistake>) -> Result<Vec<Seen>, String> {
    let machine = Model::machine();
    let mut thread = machine.enter().expect("one world a thread");
    let mut host = Host::new();
    let mut model = Model::new(&machine, thread.cx(), mistake);
    let mut all = Vec::new();
    for (nth, step) in steps.iter().enumerate() {
        let (linux, emmu) = (host.step(step), model.step(step));
        if linux != emmu {
            return Err(format!(
                "step {nth}, {step:?} of {steps:#?}\n  Linux {linux}\n  emmu  {emmu}"
            ));
        }
        all.push(linux);
    }
    model.end();
    Ok(all)
}

/// The same, again where it differs: what the kernel does only now and then is nobody's bug.
fn compare_steadily(steps: &[Step]) -> Result<Vec<Seen>, String> {
    let first = compare(steps, None);
    let Err(why) = &first else { return first };
    for _ in 0..2 {
        let again = compare(steps, None);
        if again.as_ref().err() != Some(why) {
            skipped(why, "the kernel does it differently each time");
            return again.or(Ok(Vec::new()));
        }
    }
    first
}

/// Whether there is a KVM to run on.
fn has_kvm() -> bool {
    let there = kvm_ioctls::Kvm::new().is_ok();
    if !there {
        skipped("a real guest", "no /dev/kvm");
    }
    there
}

#[test]
fn a_guest_reads_the_same_bytes_at_the_same_steps() {
    if !has_kvm() {
        return;
    }
    for story in [
        stories::MEMORY,
        stories::FORKS,
        stories::FILES,
        stories::RIGHTS,
    ] {
        compare_steadily(story).unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn a_clock_lands_in_the_page_that_is_there_now() {
    if !has_kvm() {
        return;
    }
    let seen = compare_steadily(stories::CLOCK).unwrap_or_else(|why| panic!("{why}"));
    if seen.is_empty() {
        return;
    }
    let ticks: Vec<_> = seen.iter().filter_map(|s| s.fresh.clone()).collect();
    // The real cache alone, as the story says it: a tick that lands nowhere would be no proof.
    let landed = |t: &steps::Fresh| {
        (
            t.guest,
            t.file.iter().position(|f| *f),
            t.child.unwrap_or(false),
        )
    };
    let landed: Vec<_> = ticks.iter().map(landed).collect();
    assert_eq!(landed, stories::LANDED);
}

#[test]
fn random_scenarios_agree() {
    if !has_kvm() {
        return;
    }
    let config = ProptestConfig {
        failure_persistence: None,
        ..drawn::config(CASES)
    };
    proptest!(config, |(steps in scenario(24))| {
        compare_steadily(&steps).map_err(TestCaseError::fail)?;
    });
}

/// A model that does not flush, and a cache that is not told, do not read what the real ones read.
#[test]
fn a_model_with_a_mistake_is_seen() {
    if !has_kvm() {
        return;
    }
    for (story, mistake) in [
        (stories::MEMORY, KvmMistake::NoFlush),
        (stories::FORKS, KvmMistake::NoFlush),
        (stories::CLOCK, KvmMistake::DeafCache),
    ] {
        // Looking at a frame that was given back is a panic: as good as another byte.
        let compared = std::panic::catch_unwind(|| compare(story, Some(mistake)));
        assert!(!matches!(compared, Ok(Ok(_))), "{mistake:?}");
    }
}
