//! The models of this library with each of their seeded mistakes, as devices on trial.

use super::{Kit, gpu, gru, kvm, odp, odp_implicit, pfn_caches, pinned, regcache, sva, xpmem};
use crate::{
    extmmu::{
        gpu::{GpuConfig, GpuMistake},
        gru::{GruConfig, GruMistake},
        kvm::{KvmMistake, VmConfig},
        odp::{OdpConfig, OdpMistake},
        pinned::{DomainConfig, PinMistake},
        regcache::{RegCacheConfig, RegMistake},
        sva::{SvaConfig, SvaMistake},
        xpmem::{Manners, OwnerConfig, XpmemMistake},
    },
    frame::DeviceKind,
};
use std::time::Duration;

/// A model of this library with one of its mistakes.
#[derive(Clone, Debug)]
pub struct Seeded {
    /// The module of the model.
    pub model: &'static str,
    /// The name of the mistake.
    pub mistake: String,
    /// The device.
    pub kit: Kit,
}

/// Returns each model with each of its mistakes, in an arrangement where the mistake can show.
///
/// # Examples
///
/// ```
/// use emmu::testkit::{Property, seeded};
///
/// let all = seeded();
/// let keeps = all.iter().find(|s| (s.model, &*s.mistake) == ("regcache", "StartsOnly"));
/// assert!(keeps.unwrap().kit.check(Property::DropsRange).is_failed());
/// ```
pub fn seeded() -> Vec<Seeded> {
    let mut all = of("kvm", KvmMistake::ALL, kvm_with);
    all.extend(of("gru", GruMistake::ALL, gru_with));
    all.extend(of("xpmem", XpmemMistake::ALL, xpmem_with));
    all.extend(of("pinned", PinMistake::ALL, pinned_with));
    all.extend(of("gpu", GpuMistake::ALL, gpu_with));
    all.extend(of("regcache", RegMistake::ALL, regcache_with));
    all.extend(of("odp", OdpMistake::ALL, odp_with));
    all.extend(of("sva", SvaMistake::ALL, sva_with));
    all
}

fn of<M: Copy + std::fmt::Debug>(
    model: &'static str,
    all: &[M],
    kit: impl Fn(M) -> Kit,
) -> Vec<Seeded> {
    let seeded = all.iter().map(|&mistake| Seeded {
        model,
        mistake: format!("{mistake:?}"),
        kit: kit(mistake),
    });
    seeded.collect()
}

fn kvm_with(mistake: KvmMistake) -> Kit {
    let config = VmConfig {
        mistake: Some(mistake),
        ..VmConfig::default()
    };
    match mistake {
        KvmMistake::EarlyValid | KvmMistake::DeafCache => pfn_caches(config),
        _ => kvm(config),
    }
}

fn gru_with(mistake: GruMistake) -> Kit {
    let config = GruConfig {
        preload: 4,
        ..GruConfig::default()
    };
    gru(config, Some(mistake))
}

/// Partitions that take a while for their answers, if the mistake is not to wait for them.
fn xpmem_with(mistake: XpmemMistake) -> Kit {
    let config = OwnerConfig {
        mistake: Some(mistake),
        ..OwnerConfig::default()
    };
    let manners = match mistake {
        XpmemMistake::NoWait => Manners::Slow(Duration::from_millis(5)),
        _ => Manners::Prompt,
    };
    xpmem(config, manners)
}

fn pinned_with(mistake: PinMistake) -> Kit {
    pinned(DomainConfig {
        mistake: Some(mistake),
        ..DomainConfig::default()
    })
}

/// Pages migrate at every third fault, if the mistake is one of migrations.
fn gpu_with(mistake: GpuMistake) -> Kit {
    let migrates = mistake == GpuMistake::FiltersOwn;
    let config = GpuConfig {
        migrate_after: migrates.then_some(3),
        mistake: Some(mistake),
        ..GpuConfig::default()
    };
    gpu(config, migrates.then_some(DeviceKind::Private))
}

fn regcache_with(mistake: RegMistake) -> Kit {
    regcache(RegCacheConfig {
        mistake: Some(mistake),
        ..RegCacheConfig::default()
    })
}

fn odp_with(mistake: OdpMistake) -> Kit {
    let config = OdpConfig {
        mistake: Some(mistake),
        ..OdpConfig::default()
    };
    match mistake {
        OdpMistake::EndsLinked | OdpMistake::NeverReaps => odp_implicit(config),
        _ => odp(config),
    }
}

fn sva_with(mistake: SvaMistake) -> Kit {
    sva(SvaConfig {
        mistake: Some(mistake),
        ..SvaConfig::default()
    })
}
