//! The models on trial: correct ones pass every property, each of their mistakes is caught by the
//! one that should.

use emmu::{
    extmmu::{
        References,
        gru::{self, GruConfig},
        kvm::{self, AccessedBits, VmConfig},
        xpmem::{self, Manners, OwnerConfig},
    },
    testkit,
    testkit::{Kit, Property},
};
use std::time::Duration;

mod kvm_today {
    emmu::conformance_tests!(
        kit = super::kept(super::testkit::kvm(super::VmConfig::default()), "kvm")
    );
}
mod kvm_of_2008 {
    emmu::conformance_tests!(kit = super::kept(super::old_kvm(), "kvm_of_2008"));
}
mod kvm_pfn_caches {
    emmu::conformance_tests!(
        kit = super::kept(
            super::testkit::pfn_caches(super::VmConfig::default()),
            "pfn_caches"
        )
    );
}
mod gru_model {
    emmu::conformance_tests!(kit = super::kept(super::preloading_gru(None), "gru"));
}
mod xpmem_model {
    emmu::conformance_tests!(
        kit = super::kept(
            super::testkit::xpmem(super::OwnerConfig::default(), super::Manners::Prompt),
            "xpmem"
        )
    );
}
mod xpmem_slow {
    emmu::conformance_tests!(kit = super::slow_xpmem());
}
/// Partitions that die of the question, that answer twice, and that never do: the deadline is for
/// them.
mod xpmem_dying {
    emmu::conformance_tests!(kit = super::partitions(super::Manners::Dies));
}
mod xpmem_answering_twice {
    emmu::conformance_tests!(kit = super::partitions(super::Manners::Twice));
}
mod xpmem_hanging {
    emmu::conformance_tests!(kit = super::partitions(super::Manners::Hangs));
}

/// Its scripts that once failed are run first.
fn kept(kit: Kit, name: &str) -> Kit {
    kit.regressions(crate::drawn::kept(name))
}
fn partitions(manners: Manners) -> Kit {
    let config = OwnerConfig {
        deadline: Duration::from_millis(20),
        ..OwnerConfig::default()
    };
    testkit::xpmem(config, manners)
}
fn old_kvm() -> Kit {
    testkit::kvm(VmConfig {
        references: References::Held,
        accessed: AccessedBits::Absent,
        ..VmConfig::default()
    })
}
fn preloading_gru(mistake: Option<gru::GruMistake>) -> Kit {
    let config = GruConfig {
        preload: 4,
        ..GruConfig::default()
    };
    testkit::gru(config, mistake)
}
fn slow_xpmem() -> Kit {
    let config = OwnerConfig {
        references: References::None,
        ..OwnerConfig::default()
    };
    testkit::xpmem(config, Manners::Slow(Duration::from_micros(300)))
}

#[track_caller]
pub(super) fn caught(kit: &Kit, by: Property) {
    let verdict = kit.check(by);
    assert!(verdict.is_failed(), "{verdict}");
    println!("{verdict}");
}

#[test]
fn mistakes_of_kvm() {
    use kvm::KvmMistake;
    for (mistake, by) in [
        (KvmMistake::NoFlush, Property::DropsRange),
        (KvmMistake::LateFlush, Property::DropsRange),
        (KvmMistake::ShortFlush, Property::DropsRange),
        (KvmMistake::NoRetry, Property::Retry),
        (KvmMistake::LostDirty, Property::Dirty),
    ] {
        let config = VmConfig {
            mistake: Some(mistake),
            ..VmConfig::default()
        };
        caught(&testkit::kvm(config), by);
    }
    for (mistake, by) in [
        (KvmMistake::EarlyValid, Property::Retry),
        (KvmMistake::DeafCache, Property::DropsRange),
    ] {
        let config = VmConfig {
            mistake: Some(mistake),
            ..VmConfig::default()
        };
        caught(&testkit::pfn_caches(config), by);
    }
}

#[test]
fn mistakes_of_grus() {
    use gru::GruMistake;
    for (mistake, by) in [
        (GruMistake::NoPurge, Property::DropsRange),
        (GruMistake::LatePurge, Property::DropsRange),
        (GruMistake::NoDisarm, Property::Retry),
        (GruMistake::BlindPreload, Property::Retry),
        (GruMistake::EarlyEnd, Property::HoldsOff),
    ] {
        caught(&preloading_gru(Some(mistake)), by);
    }
    // A few instructions wide: nothing can be played in between, threads have to meet there.
    let late = preloading_gru(Some(GruMistake::LateActive));
    let found = (0..50).any(|_| late.check(Property::Progress).is_failed());
    assert!(found, "a window that counts itself in after its purge");
}

#[test]
fn mistakes_of_xpmem() {
    use xpmem::XpmemMistake;
    for (mistake, by) in [
        (XpmemMistake::NoRecall, Property::DropsRange),
        (XpmemMistake::ShortRecall, Property::DropsRange),
        (XpmemMistake::LateRecall, Property::DropsRange),
        (XpmemMistake::NoRetry, Property::Retry),
    ] {
        let config = OwnerConfig {
            mistake: Some(mistake),
            ..OwnerConfig::default()
        };
        caught(&testkit::xpmem(config, Manners::Prompt), by);
    }
    let impatient = OwnerConfig {
        mistake: Some(XpmemMistake::NoWait),
        ..OwnerConfig::default()
    };
    let slow = Manners::Slow(Duration::from_millis(5));
    caught(&testkit::xpmem(impatient, slow), Property::DropsRange);
    let lies = testkit::xpmem(OwnerConfig::default(), Manners::Lies);
    caught(&lies, Property::DropsRange);
}

/// The macro has its own list of names, as macros cannot see types.
#[test]
fn each_property_is_a_test_of_the_macro() {
    let text = include_str!("../../src/testkit/conformance.rs");
    let (_, list) = text.split_once("conformance_tests!(@ $kit;").unwrap();
    let (list, _) = list.split_once(");").unwrap();
    let names: Vec<_> = list.split_whitespace().collect();
    let all: Vec<_> = Property::ALL.iter().map(|p| p.name()).collect();
    assert_eq!(names, all);
}
