//! The registration cache on trial: pinned and not, and each of its mistakes.

use emmu::{
    extmmu::regcache::{RegCacheConfig, RegMistake},
    testkit::{self, Kit, Property},
};

fn kit(pinned: bool, mistake: Option<RegMistake>) -> Kit {
    testkit::regcache(RegCacheConfig {
        pinned,
        mistake,
        ..RegCacheConfig::default()
    })
}

mod pinned {
    emmu::conformance_tests!(kit = super::kit(true, None));
}
mod unpinned {
    emmu::conformance_tests!(kit = super::kit(false, None).cases(16));
}

/// In each run: the properties play the races.
#[test]
fn each_mistake_is_caught_by_the_property_that_should() {
    for (mistake, by) in [
        (RegMistake::DeafMonitor, Property::DropsRange),
        (RegMistake::LateMonitor, Property::HoldsOff),
        (RegMistake::StartsOnly, Property::DropsRange),
        (RegMistake::InvalidatesTwice, Property::Pins),
        (RegMistake::UncheckedPins, Property::Pins),
        (RegMistake::LeaksOnFailure, Property::Pins),
        (RegMistake::DoublePin, Property::Pins),
        (RegMistake::LeaksOnEviction, Property::Pins),
        (RegMistake::EvictsPinsOnly, Property::Pins),
        (RegMistake::EvictsInUse, Property::Pins),
        (RegMistake::KeyByPage, Property::Pins),
        (RegMistake::KeepsRefusals, Property::Rights),
    ] {
        let verdict = kit(true, Some(mistake)).check(by);
        assert!(verdict.is_failed(), "{mistake:?}: {verdict}");
        println!("{verdict}");
    }
}
