//! The models whose devices raise page faults on trial: sound ones pass every property, each of
//! their mistakes is caught by the one that should.

use emmu::{
    extmmu::{
        odp::{OdpConfig, OdpMistake},
        sva::{IommuConfig, SvaMistake},
    },
    testkit,
    testkit::Kit,
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

const NARROW: IommuConfig = IommuConfig {
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
    testkit::sva(IommuConfig {
        mistake,
        ..IommuConfig::default()
    })
}
