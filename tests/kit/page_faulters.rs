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
mod odp_implicit {
    emmu::conformance_tests!(kit = super::implicit(None));
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

fn implicit(mistake: Option<OdpMistake>) -> Kit {
    // A child for each few pages: children come and go in every property.
    testkit::odp_implicit(OdpConfig {
        child_pages: 4,
        mistake,
        ..OdpConfig::default()
    })
}

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
    for (mistake, by) in [
        (OdpMistake::EndsLinked, Property::DropsRange),
        (OdpMistake::NeverReaps, Property::Subscriptions),
    ] {
        caught(&implicit(Some(mistake)), by);
    }
}

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
        (SvaMistake::LosesOverflow, Property::PageFaults),
        (SvaMistake::UnbindKeepsAtc, Property::Unregister),
        (SvaMistake::NoDrain, Property::PageFaults),
    ] {
        caught(&sva(Some(mistake)), by);
    }
}
