//! The registration cache on trial: pinned and not.

use emmu::{
    extmmu::regcache::RegCacheConfig,
    testkit::{self, Kit},
};

fn kit(pinned: bool) -> Kit {
    testkit::regcache(RegCacheConfig {
        pinned,
        ..RegCacheConfig::default()
    })
}

mod pinned {
    emmu::conformance_tests!(kit = super::kit(true));
}
mod unpinned {
    emmu::conformance_tests!(kit = super::kit(false).cases(16));
}
