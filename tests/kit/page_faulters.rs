//! The models whose devices raise page faults on trial.

use emmu::{
    extmmu::{odp::OdpConfig, sva::SvaConfig},
    testkit,
};

mod odp_model {
    emmu::conformance_tests!(kit = super::testkit::odp(super::OdpConfig::default()));
}
mod odp_implicit {
    emmu::conformance_tests!(kit = super::testkit::odp_implicit(super::OdpConfig::default()));
}
/// A child for each few pages: children come and go in every property.
mod odp_small_children {
    emmu::conformance_tests!(kit = super::testkit::odp_implicit(super::SMALL));
}
mod sva_model {
    emmu::conformance_tests!(kit = super::testkit::sva(super::SvaConfig::default()));
}
/// A queue for one page request, and TLBs that are always full.
mod sva_narrow {
    emmu::conformance_tests!(kit = super::testkit::sva(super::NARROW));
}

const SMALL: OdpConfig = OdpConfig {
    huge: true,
    child_pages: 4,
    mistake: None,
};

const NARROW: SvaConfig = SvaConfig {
    pasids: 8,
    iotlb: 2,
    atc: 4,
    queue: 1,
    most_by_page: 2,
    mistake: None,
};
