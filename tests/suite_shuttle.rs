//! The scheduled form of the kit's suite: random scripts with devices on process 0, in schedules of
//! shuttle's.
//!
//! `EMMU_TESTKIT_CASES` says how many scripts, `EMMU_TESTKIT_SEED` which ones, in which schedules.
#![cfg(shuttle)]

use emmu::{
    extmmu::{
        gru::GruConfig,
        kvm::{KvmMistake, VmConfig},
        xpmem::{Manners, OwnerConfig},
    },
    testkit::{Suite, gru, kvm, xpmem},
};

#[test]
fn correct_devices_stay_silent_in_every_schedule() {
    let config = GruConfig {
        tlb_entries: 4,
        preload: 1,
        ..GruConfig::default()
    };
    let devices = [
        kvm(VmConfig::default()),
        gru(config, None),
        xpmem(OwnerConfig::default(), Manners::Prompt),
    ];
    match Suite::new(devices).cases(20).steps(12).scheduled(20) {
        Ok(scripts) => println!("{scripts} scripts"),
        Err(failure) => panic!("\n{failure}"),
    }
}

/// A race: a look-up that a window overtakes. The threads of the host would have to meet for it.
#[test]
fn a_race_is_found_made_short_and_found_again_by_its_seed() {
    let hasty = || {
        kvm(VmConfig {
            mistake: Some(KvmMistake::NoRetry),
            ..VmConfig::default()
        })
    };
    let suite = Suite::new([hasty()]).cases(200).steps(12);
    let failure = suite.scheduled(20).expect_err("nothing is asked again");
    println!("{failure}");
    let steps = failure.script.steps.len();
    assert!(steps <= 6, "{steps} steps are not short:\n{failure}");
    let again = Suite::new([hasty()])
        .cases(200)
        .steps(12)
        .seed(failure.seed);
    let again = again.scheduled(20).expect_err("the seed is the same");
    assert_eq!(
        format!("{:?}", again.script.steps),
        format!("{:?}", failure.script.steps)
    );
    assert_eq!(again.seen, failure.seen);
}
