//! The models on trial: correct ones pass every property.

use emmu::{
    extmmu::{
        References,
        gru::GruConfig,
        kvm::{AccessedBits, VmConfig},
        xpmem::{Manners, OwnerConfig},
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
    emmu::conformance_tests!(kit = super::kept(super::preloading_gru(), "gru"));
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
fn preloading_gru() -> Kit {
    let config = GruConfig {
        preload: 4,
        ..GruConfig::default()
    };
    testkit::gru(config, None)
}
fn slow_xpmem() -> Kit {
    let config = OwnerConfig {
        references: References::None,
        ..OwnerConfig::default()
    };
    testkit::xpmem(config, Manners::Slow(Duration::from_micros(300)))
}

/// A partition that says it has cleared what it has not.
#[test]
fn a_partition_that_lies_is_found() {
    let lies = testkit::xpmem(OwnerConfig::default(), Manners::Lies);
    let verdict = lies.check(Property::DropsRange);
    assert!(verdict.is_failed(), "{verdict}");
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
