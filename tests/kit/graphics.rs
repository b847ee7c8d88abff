//! The GPU on trial: without memory, and with memory of either kind; and each of its mistakes.

use crate::conformance::caught;
use emmu::{
    extmmu::{
        gpu::{GpuConfig, GpuMistake},
        regcache::RegCacheConfig,
    },
    frame::DeviceKind,
    testkit::{self, Disturbances, Kit, Property, Suite},
};

fn mirror(mistake: Option<GpuMistake>) -> Kit {
    let config = GpuConfig {
        mistake,
        ..GpuConfig::default()
    };
    testkit::gpu(config, None)
}
/// Pages migrate at every third fault.
fn board(kind: DeviceKind, mistake: Option<GpuMistake>) -> Kit {
    let config = GpuConfig {
        migrate_after: Some(3),
        mistake,
        ..GpuConfig::default()
    };
    testkit::gpu(config, Some(kind)).cases(16)
}

mod without_memory {
    emmu::conformance_tests!(kit = super::mirror(None));
}
mod private_memory {
    emmu::conformance_tests!(kit = super::board(super::DeviceKind::Private, None));
}
mod coherent_memory {
    emmu::conformance_tests!(kit = super::board(super::DeviceKind::Coherent, None));
}

/// Pages that one pins do not move to the other; each sees the stores of the other and of the
/// process.
#[test]
fn a_gpu_and_a_registration_cache_share_a_process() {
    let cache = testkit::regcache(RegCacheConfig::default());
    let devices = [board(DeviceKind::Private, None), cache];
    for threads in [0, 2] {
        let disturbed = Disturbances {
            windows: true,
            threads,
            ..Disturbances::default()
        };
        let suite = Suite::new(devices.clone()).cases(16).disturbed(disturbed);
        suite.run().unwrap_or_else(|failure| panic!("\n{failure}"));
    }
}

/// In each run: the properties play the races.
#[test]
fn each_mistake_is_caught_by_the_property_that_should() {
    for (mistake, by) in [
        (GpuMistake::NoFlush, Property::DropsRange),
        (GpuMistake::FirstEngineOnly, Property::DropsRange),
        (GpuMistake::FirstPageOnly, Property::DropsRange),
        (GpuMistake::LateFlush, Property::DropsRange),
        (GpuMistake::SmallFlush, Property::HugePages),
        (GpuMistake::BatchVouched, Property::Retry),
        (GpuMistake::ReplacesDirty, Property::Forks),
        (GpuMistake::LostDirty, Property::Dirty),
        (GpuMistake::AgesSmallOnly, Property::Aging),
        (GpuMistake::KeepsRefusals, Property::Rights),
        (GpuMistake::SharedAtomics, Property::Atomics),
        (GpuMistake::KeepsAlone, Property::Atomics),
    ] {
        caught(&mirror(Some(mistake)), by);
    }
    let filters = board(DeviceKind::Private, Some(GpuMistake::FiltersOwn));
    caught(&filters, Property::Rights);
}
