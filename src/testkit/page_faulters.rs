//! The models whose devices raise page faults, as devices of the kit.

use super::{
    Kit,
    device::{Attached, AttachedTlb, Declared, Device, Holds, Refused},
    models::bystander::Bystander,
};
use crate::{
    addr::Vpn,
    ctx::CallCx,
    extmmu::{
        odp::{Adapter, Key, OdpConfig, OdpFault},
        sva::{Iommu, Pasid, SvaConfig, SvaDevice, SvaFault},
    },
    mm::Mm,
    notifier::{Access, ExternalMmu},
    sync::Mutex,
};
use std::sync::{Arc, Weak};

/// An RDMA adapter with a region of all of memory.
struct Rdma {
    adapter: Arc<Adapter>,
    key: Key,
}

/// Returns the kit of an RDMA adapter that pages on demand.
pub fn odp(config: OdpConfig) -> Kit {
    Kit::attaching(move |cx, mm| {
        let adapter = Adapter::new(config);
        let (key, region, registration) = adapter.register_everything(cx, mm);
        Attached {
            mmu: region as Arc<dyn ExternalMmu>,
            device: Arc::new(Rdma { adapter, key }),
            registration,
        }
    })
}

/// Returns the kit of an RDMA adapter with an implicit region of all of memory: children that come
/// and go have its translations.
pub fn odp_implicit(config: OdpConfig) -> Kit {
    Kit::attaching(move |cx, mm| {
        let adapter = Adapter::new(config);
        let key = adapter.register_implicit(mm, Access::Write);
        let region = adapter.implicit(key).expect("it was just registered");
        let (mmu, registration) = mm.register(cx, |seat| {
            Bystander::new(seat, move |visit| region.translations(visit), || ())
        });
        Attached {
            mmu: mmu as Arc<dyn ExternalMmu>,
            device: Arc::new(Rdma { adapter, key }),
            registration,
        }
    })
}

fn not_transferred(fault: OdpFault) -> Refused {
    match fault {
        // The regions are of everything: there is none any more.
        OdpFault::Gone(_) | OdpFault::Access(_) => Refused::Gone,
        OdpFault::Refused { why, .. } => why.into(),
    }
}

impl Device for Rdma {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        let done = self.adapter.read(cx, self.key, addr, &mut byte);
        done.map(|()| byte[0]).map_err(not_transferred)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let done = self.adapter.write(cx, self.key, addr, &[byte]);
        done.map_err(not_transferred)
    }
    fn declares(&self) -> Declared {
        Declared {
            sleeps: true,
            raises_faults: true,
            ..Declared::default()
        }
    }
    fn retire(&self, cx: &mut CallCx<'_>) {
        // Another call may have done it.
        let _gone = self.adapter.deregister(cx, self.key);
    }
    fn raise_fault(&self, _cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, access: Access) {
        let page = Vpn::containing(addr).into();
        self.adapter.raise(self.key, page, access);
    }
    fn unsettled(&self) -> Option<String> {
        let faults = self.adapter.faults();
        unanswered(faults.waiting(), faults.stray)
    }
}

/// Two devices behind an IOMMU: one reads, one writes.
struct Sharing {
    reader: Arc<SvaDevice>,
    writer: Arc<SvaDevice>,
    pasid: Pasid,
}

/// An IOMMU with its devices, which stay when they are unbound from a process.
#[derive(Clone)]
struct Hardware {
    mm: Weak<Mm>,
    iommu: Arc<Iommu>,
    devices: [Arc<SvaDevice>; 2],
}

/// Returns the kit of devices that share the page table of the process.
pub fn sva(config: SvaConfig) -> Kit {
    let last: Mutex<Option<Hardware>> = Mutex::default();
    Kit::walking(move |cx, mm| {
        let hardware = {
            let mut last = last.lock();
            let same = last
                .take()
                .filter(|of| std::ptr::eq(of.mm.as_ptr(), Arc::as_ptr(mm)));
            last.insert(same.unwrap_or_else(|| Hardware::new(config, mm)))
                .clone()
        };
        let Hardware { iommu, devices, .. } = hardware;
        let bind = |device| iommu.bind(cx, mm, device).expect("PASIDs are left");
        let bonds = devices.each_ref().map(bind);
        let [reader, writer] = devices;
        AttachedTlb {
            tlb: bonds[0].tlb(),
            device: Arc::new(Sharing {
                reader,
                writer,
                pasid: bonds[0].pasid(),
            }),
            leave: Box::new(move |cx| bonds.into_iter().for_each(|bond| bond.unbind(cx))),
        }
    })
}

impl Hardware {
    fn new(config: SvaConfig, mm: &Arc<Mm>) -> Self {
        let iommu = Iommu::new(config);
        Self {
            mm: Arc::downgrade(mm),
            devices: [SvaDevice::new(&iommu), SvaDevice::new(&iommu)],
            iommu,
        }
    }
}

fn not_accessed(fault: SvaFault) -> Refused {
    match fault {
        SvaFault::Refused { why, .. } => Refused::Fault(why),
        SvaFault::Gone(_) | SvaFault::NotBound(_) => Refused::Gone,
        other => Refused::Other(other.to_string()),
    }
}

impl Device for Sharing {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        let done = self.reader.read(cx, self.pasid, addr, &mut byte);
        done.map(|()| byte[0]).map_err(not_accessed)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let done = self.writer.write(cx, self.pasid, addr, &[byte]);
        done.map_err(not_accessed)
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Tlb,
            walks: true,
            raises_faults: true,
            ..Declared::default()
        }
    }
    fn raise_fault(&self, _cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, access: Access) {
        let page = Vpn::containing(addr).into();
        self.reader.send_requests(self.pasid, page, access);
    }
    fn unsettled(&self) -> Option<String> {
        let requests = self.reader.iommu().requests();
        unanswered(requests.waiting(), requests.stray)
    }
}

fn unanswered(waiting: u64, stray: u64) -> Option<String> {
    let unsettled = waiting > 0 || stray > 0;
    unsettled.then(|| format!("{waiting} page faults have no answer, and {stray} more than one"))
}
