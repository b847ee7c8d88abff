//! The models whose devices raise page faults on trial: sound ones pass every property, each of
//! their mistakes is caught by the one that should.

use crate::conformance::caught;
use emmu::{
    extmmu::{
        odp::{OdpConfig, OdpMistake},
        sva::{SvaConfig, SvaMistake},
    },
    testkit,
    testkit::{Kit, Property},
};

mod odp_model {
    emmu::conformance_tests!(kit = super::odp(None));
}
mod sva_model {
    emmu::conformance_tests!(kit = super::sva(None));
}
/// A queue for one page request, and TLBs that are always full.
mod sva_narrow {
    emmu::conformance_tests!(kit = super::testkit::sva(super::NARROW));
}

const NARROW: SvaConfig = SvaConfig {
    pasids: 8,
    iotlb: 2,
    atc: 4,
    queue: 1,
    most_by_page: 2,
    mistake: None,
};

fn odp(mistake: Option<OdpMistake>) -> Kit {
    testkit::odp(OdpConfig {
        mistake,
        ..OdpConfig::default()
    })
}

fn sva(mistake: Option<SvaMistake>) -> Kit {
    testkit::sva(SvaConfig {
        mistake,
        ..SvaConfig::default()
    })
}

/// Mistakes of implicit regions have tests of their own: a region of
/// everything has no children.
#[test]
fn mistakes_of_odp() {
    for (mistake, by) in [
        (OdpMistake::NoZap, Property::Auditable),
        (OdpMistake::NoWait, Property::Auditable),
        (OdpMistake::ShortZap, Property::Pairing),
        (OdpMistake::PartKeepsHuge, Property::HugePages),
        (OdpMistake::FillsLate, Property::Reuse),
        (OdpMistake::UsesUnlocked, Property::Reuse),
        (OdpMistake::NeverUpgrades, Property::Pairing),
        (OdpMistake::LostDirty, Property::Pairing),
        (OdpMistake::KeepsRefusals, Property::Retry),
        (OdpMistake::AnswersTwice, Property::Pairing),
    ] {
        caught(&odp(Some(mistake)), by);
    }
}

/// What is lost of a queue that overflows, or at an unbinding, has tests
/// of its own.
#[test]
fn mistakes_of_sva() {
    for (mistake, by) in [
        (SvaMistake::NoAtcFlush, Property::Auditable),
        (SvaMistake::AtcFirst, Property::Retry),
        (SvaMistake::ShortFlush, Property::Pairing),
        (SvaMistake::WholeMissed, Property::Auditable),
        (SvaMistake::FirstDeviceOnly, Property::Pairing),
        (SvaMistake::NoWait, Property::Auditable),
        (SvaMistake::UsesUnlocked, Property::Reuse),
        (SvaMistake::KeepsRefusals, Property::Rights),
        (SvaMistake::AnswersTwice, Property::Pairing),
        (SvaMistake::UnbindKeepsAtc, Property::Unregister),
    ] {
        caught(&sva(Some(mistake)), by);
    }
}
