//! One external MMU of each kind, attached to a recorded process.

use super::mmu_kind::MmuKind;
use crate::{
    addr::{TASK_PAGES, VpnRange},
    ctx::CallCx,
    extmmu::{
        Meter, References,
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{MemSlot, Vcpu, Vm, VmConfig},
        odp::{Adapter, Key, OdpConfig, Region},
        sva::{Iommu, IommuConfig, SvaBond, SvaDevice},
        xpmem::{Attachment, Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::Mm,
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::sync::Arc;

/// An RDMA adapter with a region of everything.
pub(super) struct Rdma {
    adapter: Arc<Adapter>,
    key: Key,
    region: Arc<Region>,
}

/// The state that each kind of device needs for its accesses.
pub(super) enum Device {
    Kvm(Arc<Vm>, Vcpu),
    Gru(Arc<GruSpace>, GruContext),
    Xpmem(Arc<Owner>, Attachment),
    Odp(Rdma),
    Sva(Arc<SvaDevice>, SvaBond),
}

impl Device {
    pub(super) fn new(cx: &mut CallCx<'_>, mm: &Arc<Mm>, kind: MmuKind) -> Self {
        match kind {
            MmuKind::Kvm => {
                let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
                vm.set_memory(cx, MemSlot::ALL_MEMORY)
                    .expect("all of memory fits");
                let vcpu = vm.vcpu(cx);
                Self::Kvm(vm, vcpu)
            }
            MmuKind::Gru => {
                let grus = Gru::several(1, GruConfig::default());
                let (space, _stays) = GruSpace::attach(cx, mm, &grus, None);
                let context = GruContext::new(&space, 0).expect("there is a GRU");
                Self::Gru(space, context)
            }
            MmuKind::Xpmem => {
                // References would show: Linux copies a page that has more of them than mappings.
                let config = OwnerConfig {
                    references: References::None,
                    ..OwnerConfig::default()
                };
                let (owner, _stays) = Owner::attach(cx, mm, config);
                let segment = owner.make(VpnRange::TASK, Access::Write);
                let partition = Partition::new(PartitionId(1));
                let attached = owner.import(&partition, segment, 0, TASK_PAGES);
                Self::Xpmem(owner, attached.expect("all of the segment"))
            }
            MmuKind::Odp => {
                let adapter = Adapter::new(OdpConfig::default());
                let (key, region, _stays) = adapter.register_everything(cx, mm);
                Self::Odp(Rdma {
                    adapter,
                    key,
                    region,
                })
            }
            MmuKind::Sva => {
                let iommu = Iommu::new(IommuConfig::default());
                let device = SvaDevice::new(&iommu);
                let bond = iommu.bind(cx, mm, &device).expect("the first PASID");
                Self::Sva(device, bond)
            }
        }
    }
    /// Has an oracle watch the device.
    pub(super) fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        match self {
            Self::Kvm(vm, _) => oracle.watch(mm, Arc::clone(vm) as Arc<dyn ExternalMmu>),
            Self::Gru(space, _) => oracle.watch(mm, Arc::clone(space) as Arc<dyn ExternalMmu>),
            Self::Xpmem(owner, _) => oracle.watch(mm, Arc::clone(owner) as Arc<dyn ExternalMmu>),
            Self::Odp(odp) => oracle.watch(mm, Arc::clone(&odp.region) as Arc<dyn ExternalMmu>),
            Self::Sva(_, bond) => oracle.watch_tlb(mm, bond.tlb()),
        }
    }
    pub(super) fn kind(&self) -> MmuKind {
        match self {
            Self::Kvm(..) => MmuKind::Kvm,
            Self::Gru(..) => MmuKind::Gru,
            Self::Xpmem(..) => MmuKind::Xpmem,
            Self::Odp(..) => MmuKind::Odp,
            Self::Sva(..) => MmuKind::Sva,
        }
    }
    pub(super) fn meter(&self) -> &Meter {
        match self {
            Self::Kvm(vm, _) => vm.meter(),
            Self::Gru(space, _) => space.meter(),
            Self::Xpmem(owner, _) => owner.meter(),
            Self::Odp(odp) => odp.adapter.meter(),
            Self::Sva(device, _) => device.iommu().meter(),
        }
    }
    pub(super) fn held(&self, cx: &mut CallCx<'_>) -> usize {
        match self {
            Self::Kvm(vm, _) => vm.entries(cx),
            Self::Gru(_, context) => context.gru().tlb_len(),
            Self::Xpmem(_, attached) => attached.partition().entries(),
            Self::Odp(odp) => odp.region.entries(cx),
            Self::Sva(device, _) => device.atc_len(),
        }
    }
    /// Reads a byte, and writes the byte back if the program wrote it. A refused access changes
    /// nothing.
    pub(super) fn touch(&self, cx: &mut CallCx<'_>, addr: u64, access: Access) {
        let mut byte = [0];
        let write = access == Access::Write;
        match self {
            Self::Kvm(_, vcpu) => {
                if vcpu.read(cx, addr, &mut byte).is_ok() && write {
                    let _refused = vcpu.write(cx, addr, &byte);
                }
            }
            Self::Gru(_, context) => {
                if context.read(cx, addr, &mut byte).is_ok() && write {
                    let _refused = context.write(cx, addr, &byte);
                }
            }
            Self::Xpmem(_, attached) => {
                if attached.read(cx, addr, &mut byte).is_ok() && write {
                    let _refused = attached.write(cx, addr, &byte);
                }
            }
            Self::Odp(Rdma { adapter, key, .. }) => {
                if adapter.read(cx, *key, addr, &mut byte).is_ok() && write {
                    let _refused = adapter.write(cx, *key, addr, &byte);
                }
            }
            Self::Sva(device, bond) => {
                let pasid = bond.pasid();
                if device.read(cx, pasid, addr, &mut byte).is_ok() && write {
                    let _refused = device.write(cx, pasid, addr, &byte);
                }
            }
        }
    }
}
