//! What threads use of devices behind an IOMMU.

use super::{
    PAGE, World,
    models::{Model, Turn, Use},
};
use emmu::{
    Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        pinned::{
            DirtyRead, Domain, DomainConfig, Ioas, IoasAccess, IoasConfig, IoasMap, LockedAccount,
        },
        sva::{Iommu, SvaBond, SvaConfig, SvaDevice},
    },
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

pub(super) fn attach_all(cx: &mut CallCx<'_>, w: &World) -> Vec<Box<dyn Model>> {
    let models: Vec<Box<dyn Model>> = vec![
        Box::new(Sharing::attach(cx, w)),
        Box::new(Pinning::attach(cx, w)),
    ];
    #[cfg(feature = "vm-memory")]
    let models = models
        .into_iter()
        .chain(slices::attach_all(cx, w))
        .collect();
    models
}

/// Devices that share the page table: each thread binds one of two, over and over.
struct Sharing {
    mm: Arc<Mm>,
    devices: [Arc<SvaDevice>; 2],
    /// Keeps the process bound.
    first: SvaBond,
    own: Mutex<Vec<Option<SvaBond>>>,
}

impl Sharing {
    fn attach(cx: &mut CallCx<'_>, w: &World) -> Self {
        let iommu = Iommu::new(SvaConfig {
            iotlb: 16,
            atc: 8,
            ..SvaConfig::default()
        });
        let devices = [SvaDevice::new(&iommu), SvaDevice::new(&iommu)];
        let first = iommu.bind(cx, &w.mm, &devices[0]).unwrap();
        w.oracle.watch_tlb(&w.mm, first.tlb());
        Self {
            mm: Arc::clone(&w.mm),
            devices,
            first,
            own: Mutex::default(),
        }
    }
    fn bind(&self, cx: &mut CallCx<'_>, device: &Arc<SvaDevice>) -> SvaBond {
        device.iommu().bind(cx, &self.mm, device).unwrap()
    }
    fn swap(&self, thread: usize, bond: Option<SvaBond>) -> Option<SvaBond> {
        std::mem::replace(&mut self.own.lock().unwrap()[thread], bond)
    }
}

impl Model for Sharing {
    fn name(&self) -> &'static str {
        "SVA"
    }
    fn user(&self, cx: &mut CallCx<'_>, thread: usize) -> Use<'_> {
        let device = &self.devices[thread % 2];
        let iommu = device.iommu();
        let bond = self.bind(cx, device);
        let pasid = bond.pasid();
        let mut own = self.own.lock().unwrap();
        own.push(Some(bond));
        let thread = own.len() - 1;
        Box::new(move |cx, turn| {
            if turn.is_one_in(16) {
                let old = self.swap(thread, None).expect("it is bound");
                old.unbind(cx);
                let new = self.bind(cx, device);
                assert_eq!(new.pasid(), pasid, "the process was bound all the time");
                self.swap(thread, Some(new));
            }
            if turn.is_one_in(5) {
                let first = Vpn::containing(turn.addr());
                let pages = VpnRange::new(first, first.plus(turn.pages)).expect("some");
                let group = device.send_requests(pasid, pages, turn.access());
                while iommu.serve_one(cx) {}
                // Another thread may be about to answer it.
                while device.take_response(pasid, group).is_none() {
                    std::thread::yield_now();
                }
            }
            match turn.writes() {
                true => device.write(cx, pasid, turn.addr(), &[turn.byte]).is_ok(),
                false => device.read(cx, pasid, turn.addr(), &mut [0]).is_ok(),
            }
        })
    }
    fn end(self: Box<Self>, cx: &mut CallCx<'_>) {
        let own = self.own.into_inner().unwrap().into_iter().flatten();
        own.chain([self.first]).for_each(|bond| bond.unbind(cx));
        let requests = self.devices[0].iommu().requests();
        assert_eq!((requests.waiting(), requests.stray), (0, 0), "{requests:?}");
        assert_eq!(self.devices.map(|device| device.atc_len()), [0, 0]);
    }
}

/// Devices whose pages are pinned: each thread maps some, and unmaps them after others.
struct Pinning {
    mm: Arc<Mm>,
    ioas: Arc<Ioas>,
    domain: Arc<Domain>,
    account: Arc<LockedAccount>,
}

/// Maps of a thread that exist at a time.
const MAPS: usize = 4;

impl Pinning {
    fn attach(cx: &mut CallCx<'_>, w: &World) -> Self {
        let account = Arc::new(LockedAccount::new(u64::MAX));
        let ioas = Ioas::new(IoasConfig {
            account: Some(Arc::clone(&account)),
            mistake: None,
        });
        let domain = ioas.attach(cx, DomainConfig::default()).unwrap();
        domain.track_dirty(true).unwrap();
        Self {
            mm: Arc::clone(&w.mm),
            ioas,
            domain,
            account,
        }
    }
    /// Transfers bytes by the domain and by kernel code.
    fn transfer(
        &self,
        cx: &mut CallCx<'_>,
        access: &IoasAccess,
        (iova, len): (u64, u64),
        turn: &Turn,
    ) {
        for page in 0..len / PAGE {
            let at = iova + page * PAGE;
            self.domain.read(at, &mut [0]).expect("it is mapped");
            if turn.writes() {
                self.domain.write(at, &[turn.byte]).expect("it is mapped");
            }
        }
        access.read(cx, iova, &mut [0; 8]).expect("it is mapped");
        let pinned = access.pin_pages(cx, (iova, PAGE), turn.access());
        drop(pinned.expect("it is mapped, and not asked for"));
        let dirty = self
            .ioas
            .dirty_bitmap(&self.domain, (iova, len), PAGE, DirtyRead::Clear);
        let dirty = dirty.expect("it is mapped");
        assert_eq!(dirty.is_clean(), !turn.writes(), "{dirty:?}");
    }
}

impl Model for Pinning {
    fn name(&self) -> &'static str {
        "pinned"
    }
    fn user(&self, _: &mut CallCx<'_>, _: usize) -> Use<'_> {
        let access = self.ioas.access(|_, _| ());
        let mut maps = VecDeque::new();
        Box::new(move |cx, turn| {
            if maps.len() == MAPS {
                let (iova, len) = maps.pop_front().expect("some");
                assert_eq!(self.ioas.unmap(iova, len), Ok(len));
            }
            let (addr, len) = turn.bytes();
            let map = IoasMap {
                iova: None,
                addr,
                len,
                access: turn.access(),
            };
            let Ok(iova) = self.ioas.map(cx, &self.mm, map) else {
                return false;
            };
            self.transfer(cx, &access, (iova, len), turn);
            maps.push_back((iova, len));
            true
        })
    }
    fn end(self: Box<Self>, _: &mut CallCx<'_>) {
        assert!(
            self.ioas.pinned() > 0,
            "the process has ended, and the pins are the device's"
        );
        self.ioas.unmap_all().unwrap();
        let left = (
            self.ioas.pinned(),
            self.account.pages(),
            self.domain.entries(),
        );
        assert_eq!(left, (0, 0, 0));
    }
}

/// Slices of guest memory.
#[cfg(feature = "vm-memory")]
mod slices {
    use crate::stress::{
        BASE, PAGE, PAGES, World,
        models::{Model, Use},
    };
    use emmu::{
        ctx::CallCx,
        extmmu::{
            iommu::{IommuConfig, OnWindow, ProcessIommu},
            vm_memory::GuestRegion,
        },
    };
    use std::sync::atomic::Ordering::Relaxed;
    use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};

    /// An IOMMU whose windows wait for slices, or revoke them.
    struct Slices {
        iommu: ProcessIommu,
        on_window: OnWindow,
    }

    pub(super) fn attach_all(cx: &mut CallCx<'_>, w: &World) -> [Box<dyn Model>; 2] {
        [OnWindow::Wait, OnWindow::Revoke].map(|on_window| {
            let whole = GuestRegion {
                guest: GuestAddress(0),
                len: PAGES * PAGE,
                process: BASE,
            };
            let config = IommuConfig {
                on_window,
                mistake: None,
            };
            let (iommu, _stays) = ProcessIommu::attach(cx, &w.mm, &[whole], config);
            w.oracle.watch(&w.mm, iommu.driver());
            Box::new(Slices { iommu, on_window }) as Box<dyn Model>
        })
    }

    impl Model for Slices {
        fn name(&self) -> &'static str {
            match self.on_window {
                OnWindow::Wait => "slices that windows wait for",
                _ => "slices that windows revoke",
            }
        }
        fn user(&self, _: &mut CallCx<'_>, _: usize) -> Use<'_> {
            let memory = self.iommu.memory();
            Box::new(move |cx, turn| {
                let (at, byte) = (GuestAddress(turn.at), turn.byte);
                // Copies of `vm_memory` are volatile, which a checker of races takes for one with
                // other devices.
                cx.lend(|| match turn.luck % 4 {
                    0 => memory.store(byte, at, Relaxed).is_ok(),
                    1 => memory.load::<u8>(at, Relaxed).is_ok(),
                    // Slices of two pages, held at once, without their iterator.
                    _ => {
                        let len = PAGE as usize;
                        let Ok(slices) = memory.get_slices(at, len, Permissions::ReadWrite) else {
                            return false;
                        };
                        let slices: Vec<_> = slices.flatten().collect();
                        slices
                            .iter()
                            .all(|slice| slice.store(byte, 0, Relaxed).is_ok())
                    }
                })
            })
        }
        fn end(self: Box<Self>, _: &mut CallCx<'_>) {
            assert_eq!(self.iommu.leases(), 0);
        }
    }
}
