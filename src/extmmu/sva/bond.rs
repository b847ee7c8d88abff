//! Binding devices to processes, and unbinding.

use super::{
    device::{Pasid, SvaDevice},
    domain::{Devices, Domain},
    error::SvaError,
    iommu::{Bound, Iommu, Space},
    mistake::SvaMistake,
};
use crate::{addr::VpnRange, ctx::CallCx, mm::Mm, notifier::SecondaryTlb};
use std::sync::Arc;

/// A binding of a device to a process (`struct iommu_sva`).
#[must_use = "a device stays bound until `SvaBond::unbind`"]
pub struct SvaBond {
    device: Arc<SvaDevice>,
    pasid: Pasid,
    domain: Arc<Domain>,
}

impl SvaBond {
    /// Returns the PASID of the process.
    pub fn pasid(&self) -> Pasid {
        self.pasid
    }
    /// Returns the translations of the process, for an [oracle](crate::oracle::Oracle::watch_tlb).
    pub fn tlb(&self) -> Arc<dyn SecondaryTlb> {
        Arc::clone(&self.domain) as Arc<dyn SecondaryTlb>
    }
    /// Unbinds the device from the process (`iommu_sva_unbind_device`). After the last binding of
    /// both the device has nothing of the process left, and all of its page requests are answered.
    pub fn unbind(self, cx: &mut CallCx<'_>) {
        let Self { device, domain, .. } = self;
        let iommu = device.iommu();
        let mut spaces = iommu.spaces.lock();
        let is = |space: &&mut Space| space.pasid == domain.pasid;
        let space = spaces.all.iter_mut().find(is).expect("it is bound");
        let bound = space.bound.as_mut().expect("it is bound");
        let nth = bound.devices.iter().position(|(id, _)| *id == device.id());
        let nth = nth.expect("it is bound");
        bound.devices[nth].1 -= 1;
        if bound.devices[nth].1 > 0 {
            return;
        }
        bound.devices.remove(nth);
        // No access begins; then the caches; then the requests.
        device.leave(domain.pasid);
        domain.gate.with(cx, |devices, _| {
            devices.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(&device.atc)));
            if !domain.made(SvaMistake::UnbindKeepsAtc) {
                let _gone = device.atc.flush(domain.pasid, VpnRange::ALL);
            }
        });
        if bound.devices.is_empty()
            && let Some(last) = space.bound.take()
        {
            last.registration.unregister(cx);
        }
        // The PASID is not given out again before this is over: the lock is held.
        iommu.requests.drain((device.id(), domain.pasid));
    }
}

impl std::fmt::Debug for SvaBond {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SvaBond({:?})", self.pasid)
    }
}

impl Iommu {
    /// Binds a device to a process (`iommu_sva_bind_device`). A second binding of both counts.
    ///
    /// Takes the mmap lock for the first binding of the process.
    ///
    /// # Errors
    ///
    /// [`SvaError`]: nothing is bound.
    pub fn bind(
        self: &Arc<Self>,
        cx: &mut CallCx<'_>,
        mm: &Arc<Mm>,
        device: &Arc<SvaDevice>,
    ) -> Result<SvaBond, SvaError> {
        if !Arc::ptr_eq(self, device.iommu()) {
            return Err(SvaError::OtherIommu);
        }
        let mut spaces = self.spaces.lock();
        let nth = spaces.of(mm)?;
        let space = &mut spaces.all[nth];
        let pasid = space.pasid;
        // The flushes come before the first walk.
        let bound = space.bound.get_or_insert_with(|| {
            let parts = (self.config, Arc::clone(&self.meter));
            let new = |seat| Domain::new(seat, Arc::downgrade(mm), pasid, parts);
            let (domain, registration) = mm.register_tlb(cx, new);
            Bound {
                domain,
                registration,
                devices: Vec::new(),
            }
        });
        let domain = Arc::clone(&bound.domain);
        match bound.devices.iter_mut().find(|(id, _)| *id == device.id()) {
            Some((_, times)) => *times += 1,
            None => {
                bound.devices.push((device.id(), 1));
                let attach = |devices: &mut Devices| devices.push(Arc::downgrade(&device.atc));
                domain.gate.with_state(cx, attach);
                device.enter(&domain);
            }
        }
        Ok(SvaBond {
            device: Arc::clone(device),
            pasid: Pasid(pasid),
            domain,
        })
    }
}
