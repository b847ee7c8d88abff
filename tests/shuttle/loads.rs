//! Devices of every kind on a few pages, each behind the same calls.

use crate::{
    run::mistake,
    world::{BASE, PAGE},
};
use emmu::{
    Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        gpu::{self, Engine, Gpu, GpuConfig},
        gru::{self, Gru, GruConfig, GruContext, GruSpace},
        kvm::{self, Gfn, MemSlot, PfnCache, SlotFlags, Vcpu, Vm, VmConfig},
        odp::{self, Adapter, Key, OdpConfig},
        regcache::{RegCache, RegCacheConfig},
        sva::{self, Iommu, SvaBond, SvaConfig, SvaDevice},
        xpmem::{self, Attachment, Owner, OwnerConfig, Partition, PartitionId},
    },
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::sync::Arc;

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Vcpu,
    Cache,
    Gru,
    Importer,
    Gpu,
    Odp,
    RegCache,
    Sva,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Vcpu,
        Self::Cache,
        Self::Gru,
        Self::Importer,
        Self::Gpu,
        Self::Odp,
        Self::RegCache,
        Self::Sva,
    ];
}

/// What loads and stores.
enum Uses {
    /// A processor of a virtual machine.
    Vcpu(Vcpu),
    /// A machine's gfn-to-pfn cache of the first page, and a processor for loads from others.
    Cache(PfnCache, Vcpu),
    Gru(GruContext),
    Importer(Attachment),
    Engine(Engine),
    /// An adapter, and the key of its region.
    Region(Arc<Adapter>, Key),
    RegCache(Arc<RegCache>),
    /// A device that shares the page table.
    Bound(Arc<SvaDevice>, SvaBond),
}

/// A device on the first pages from [`BASE`] on.
pub(crate) struct Device {
    uses: Uses,
    /// `None` for a device that gets no windows.
    driver: Option<Arc<dyn ExternalMmu>>,
}

fn range(pages: u64) -> VpnRange {
    VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + pages * PAGE)).expect("some")
}

/// The mistake that was asked for, of those that the device can make.
fn one_of<M: Copy>(known: &[(&str, M)]) -> Option<M> {
    let name = mistake()?;
    let found = known.iter().find(|(known, _)| *known == name);
    Some(
        found
            .unwrap_or_else(|| panic!("no mistake of this device: {name}"))
            .1,
    )
}

impl Device {
    /// Attaches it, with the mistake that was asked for, under the watch of the oracle.
    pub(crate) fn attach(
        kind: Kind,
        cx: &mut CallCx<'_>,
        (mm, oracle): (&Arc<Mm>, &Arc<Oracle>),
        pages: u64,
    ) -> Self {
        let (uses, driver): (Uses, Option<Arc<dyn ExternalMmu>>) = match kind {
            Kind::Vcpu | Kind::Cache => {
                let vm = machine(cx, mm, pages);
                let uses = match kind {
                    Kind::Vcpu => Uses::Vcpu(vm.vcpu(cx)),
                    _ => Uses::Cache(vm.pfn_cache(0), vm.vcpu(cx)),
                };
                (uses, Some(vm))
            }
            Kind::Gru => {
                let (context, space) = context(cx, mm, pages);
                (Uses::Gru(context), Some(space))
            }
            Kind::Importer => {
                let (importer, owner) = importer(cx, mm, pages);
                (Uses::Importer(importer), Some(owner))
            }
            Kind::Gpu => {
                let config = GpuConfig {
                    mistake: one_of(&[("late-flush", gpu::GpuMistake::LateFlush)]),
                    ..GpuConfig::default()
                };
                let (gpu, _stays) = Gpu::attach(cx, mm, None, config);
                (Uses::Engine(gpu.engine(0)), Some(gpu))
            }
            Kind::Odp => {
                let mistake = one_of(&[("fills-late", odp::OdpMistake::FillsLate)]);
                let adapter = Adapter::new(OdpConfig {
                    mistake,
                    ..OdpConfig::default()
                });
                let key = adapter.register(cx, mm, (BASE, pages * PAGE), Access::Write);
                let key = key.unwrap();
                let region = adapter.region(key, BASE).expect("just registered");
                (Uses::Region(adapter, key), Some(region))
            }
            Kind::RegCache => {
                let config = RegCacheConfig {
                    block: 1,
                    mistake: one_of(&[]),
                    ..RegCacheConfig::default()
                };
                let (cache, _stays) = RegCache::attach(cx, mm, config);
                (Uses::RegCache(Arc::clone(&cache)), Some(cache))
            }
            Kind::Sva => {
                let device = SvaDevice::new(&Iommu::new(SvaConfig {
                    mistake: one_of(&[("uses-unlocked", sva::SvaMistake::UsesUnlocked)]),
                    ..SvaConfig::default()
                }));
                let bond = device.iommu().bind(cx, mm, &device).unwrap();
                oracle.watch_tlb(mm, bond.tlb());
                (Uses::Bound(device, bond), None)
            }
        };
        if let Some(driver) = &driver {
            oracle.watch(mm, Arc::clone(driver));
        }
        Self { uses, driver }
    }
    /// Loads the first byte of a page; `None` if nothing is mapped there.
    pub(crate) fn load(&self, cx: &mut CallCx<'_>, page: u64) -> Option<u8> {
        let (mut byte, at) = ([0], page * PAGE);
        let done = match &self.uses {
            Uses::Cache(cache, _) if page == 0 => cache.read(cx, 0, &mut byte).is_ok(),
            Uses::Vcpu(vcpu) | Uses::Cache(_, vcpu) => vcpu.read(cx, at, &mut byte).is_ok(),
            Uses::Gru(context) => context.read(cx, BASE + at, &mut byte).is_ok(),
            Uses::Importer(importer) => importer.read(cx, at, &mut byte).is_ok(),
            Uses::Engine(engine) => engine.read(cx, BASE + at, &mut byte).is_ok(),
            Uses::Region(adapter, key) => adapter.read(cx, *key, BASE + at, &mut byte).is_ok(),
            Uses::RegCache(cache) => cache.read(cx, BASE + at, &mut byte).is_ok(),
            Uses::Bound(device, bond) => {
                device.read(cx, bond.pasid(), BASE + at, &mut byte).is_ok()
            }
        };
        done.then_some(byte[0])
    }
    /// Stores to the first byte of a page, if the process may.
    pub(crate) fn store(&self, cx: &mut CallCx<'_>, page: u64, byte: u8) {
        let (byte, at) = ([byte], page * PAGE);
        let _refused = match &self.uses {
            Uses::Vcpu(vcpu) => vcpu.write(cx, at, &byte).is_ok(),
            Uses::Cache(cache, _) => cache.write(cx, 0, &byte).is_ok(),
            Uses::Gru(context) => context.write(cx, BASE + at, &byte).is_ok(),
            Uses::Importer(importer) => importer.write(cx, at, &byte).is_ok(),
            Uses::Engine(engine) => engine.write(cx, BASE + at, &byte).is_ok(),
            Uses::Region(adapter, key) => adapter.write(cx, *key, BASE + at, &byte).is_ok(),
            Uses::RegCache(cache) => cache.write(cx, BASE + at, &byte).is_ok(),
            Uses::Bound(device, bond) => device.write(cx, bond.pasid(), BASE + at, &byte).is_ok(),
        };
    }
    /// Ends it, after the process: it counts no window, and has given its regions up.
    pub(crate) fn end(self, cx: &mut CallCx<'_>) {
        assert_eq!(self.driver.map_or(0, |driver| driver.windows()), 0);
        match self.uses {
            Uses::Region(adapter, key) => {
                adapter.deregister(cx, key).unwrap();
                assert_eq!((adapter.faults().waiting(), adapter.faults().stray), (0, 0));
            }
            Uses::Bound(device, bond) => {
                bond.unbind(cx);
                let requests = device.iommu().requests();
                assert_eq!((requests.waiting(), requests.stray), (0, 0));
            }
            Uses::RegCache(cache) => {
                let _deregistered = cache.collect(cx);
            }
            _ => {}
        }
    }
}

fn machine(cx: &mut CallCx<'_>, mm: &Arc<Mm>, pages: u64) -> Arc<Vm> {
    let mistake = one_of(&[
        ("no-retry", kvm::KvmMistake::NoRetry),
        ("early-valid", kvm::KvmMistake::EarlyValid),
    ]);
    let config = VmConfig {
        mistake,
        ..VmConfig::default()
    };
    let (vm, _stays) = Vm::create(cx, mm, config);
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(cx, slot).unwrap();
    vm
}
fn context(cx: &mut CallCx<'_>, mm: &Arc<Mm>, pages: u64) -> (GruContext, Arc<GruSpace>) {
    let size = GruConfig {
        tlb_entries: 4,
        preload: pages - 1,
        ..GruConfig::default()
    };
    let mistake = one_of(&[("no-disarm", gru::GruMistake::NoDisarm)]);
    let (space, _stays) = GruSpace::attach(cx, mm, &Gru::several(1, size), mistake);
    (GruContext::new(&space, 0).unwrap(), space)
}
fn importer(cx: &mut CallCx<'_>, mm: &Arc<Mm>, pages: u64) -> (Attachment, Arc<Owner>) {
    let config = OwnerConfig {
        mistake: one_of(&[("no-retry", xpmem::XpmemMistake::NoRetry)]),
        ..OwnerConfig::default()
    };
    let (owner, _stays) = Owner::attach(cx, mm, config);
    let segment = owner.make(range(pages), Access::Write);
    let partition = Partition::new(PartitionId(1));
    let importer = owner.import(&partition, segment, 0, pages).unwrap();
    (importer, owner)
}
