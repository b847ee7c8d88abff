//! The GPU on trial: without memory, and with memory of either kind.

use emmu::{
    extmmu::{gpu::GpuConfig, regcache::RegCacheConfig},
    frame::DeviceKind,
    testkit::{self, Disturbances, Kit, Suite},
};

/// Pages migrate at every third fault.
fn board(kind: DeviceKind) -> Kit {
    let config = GpuConfig {
        migrate_after: Some(3),
        ..GpuConfig::default()
    };
    testkit::gpu(config, Some(kind)).cases(16)
}

mod without_memory {
    emmu::conformance_tests!(kit = super::testkit::gpu(super::GpuConfig::default(), None));
}
mod private_memory {
    emmu::conformance_tests!(kit = super::board(super::DeviceKind::Private));
}
mod coherent_memory {
    emmu::conformance_tests!(kit = super::board(super::DeviceKind::Coherent));
}

/// Pages that one pins do not move to the other; each sees the stores of the other and of the
/// process.
#[test]
fn a_gpu_and_a_registration_cache_share_a_process() {
    let cache = testkit::regcache(RegCacheConfig::default());
    let devices = [board(DeviceKind::Private), cache];
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
