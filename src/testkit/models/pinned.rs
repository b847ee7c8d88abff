//! The kit of a device behind an IOMMU that pins.

use super::bystander::Bystander;
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{FaultError, PinError},
    extmmu::{
        References,
        pinned::{
            AccessPages, DirtyRead, DmaFault, Domain, DomainConfig, Ioas, IoasAccess, IoasConfig,
            IoasError, IoasMap,
        },
    },
    mm::Mm,
    notifier::{Access, ExternalMmu},
    sync::{IdSource, Mutex, thread},
    testkit::{
        Kit,
        device::{Attached, Declared, Device, Holds, Refused},
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// Pages of which a report of written pages has one bit.
const REPORTED: u64 = 4 * PAGE_SIZE;

/// A device, and kernel code that uses its memory beside it. I/O addresses are the process's own.
struct Assigned {
    mm: Weak<Mm>,
    ioas: Arc<Ioas>,
    domain: Arc<Domain>,
    access: IoasAccess,
    /// Pages that the kernel code has in use. Locked as long as it does.
    held: Arc<Mutex<Option<AccessPages>>>,
    /// The areas by first byte; `None` once the process has ended.
    mapped: Mutex<Option<BTreeMap<u64, Area>>>,
    numbers: IdSource,
}

/// The length of an area in bytes, and a number that no other one has.
#[derive(Clone, Copy)]
struct Area {
    len: u64,
    number: u64,
}

/// Returns the kit of a device behind an IOMMU that pins, without a notifier.
pub fn pinned(config: DomainConfig) -> Kit {
    Kit::attaching(move |cx, mm| {
        let device = Arc::new(Assigned::new(cx, mm, config));
        let ending = Arc::clone(&device);
        let (mmu, registration) = mm.register(cx, |seat| {
            Bystander::new(seat, |_| true, move || ending.end())
        });
        Attached {
            mmu: mmu as Arc<dyn ExternalMmu>,
            device,
            registration,
        }
    })
}

impl Assigned {
    fn new(cx: &mut CallCx<'_>, mm: &Arc<Mm>, config: DomainConfig) -> Self {
        let ioas = Ioas::new(IoasConfig {
            mistake: config.mistake,
            ..IoasConfig::default()
        });
        let domain = ioas.attach(cx, config).expect("nothing is mapped");
        domain.track_dirty(true).expect("the domain can");
        let held = Arc::new(Mutex::new(None));
        let asked = Arc::clone(&held);
        // Waits for the end of the use.
        let access = ioas.access(move |_, _| drop(asked.lock().take()));
        Self {
            mm: Arc::downgrade(mm),
            ioas,
            domain,
            access,
            held,
            mapped: Mutex::new(Some(BTreeMap::new())),
            numbers: IdSource::starting_at(0),
        }
    }
    /// Unmaps everything, for good. What is being mapped is unmapped by those that map it.
    fn end(&self) {
        let mapped = self.mapped.lock().take();
        for (addr, area) in mapped.into_iter().flatten() {
            // Others may be unmapping it.
            let _done = self.ioas.unmap(addr, area.len);
        }
    }
    fn map_bytes(
        &self,
        cx: &mut CallCx<'_>,
        (addr, len): (u64, u64),
        access: Access,
    ) -> Result<(), IoasError> {
        let mm = self.mm.upgrade().ok_or(IoasError::NoProcess)?;
        if self.mapped.lock().is_none() {
            return Err(IoasError::NoProcess);
        }
        let map = IoasMap {
            iova: Some(addr),
            addr,
            len,
            access,
        };
        self.ioas.map(cx, &mm, map)?;
        if let Some(mapped) = &mut *self.mapped.lock() {
            let number = self.numbers.next();
            mapped.insert(addr, Area { len, number });
            return Ok(());
        }
        self.ioas.unmap(addr, len)?;
        Err(IoasError::NoProcess)
    }
    fn unmap_bytes(&self, addr: u64, len: u64) -> Result<(), IoasError> {
        let of_range = |mapped: &Option<BTreeMap<u64, Area>>| {
            let areas = mapped.iter().flat_map(|all| all.range(addr..addr + len));
            let areas = areas.map(|(at, area)| (*at, area.number));
            areas.collect::<Vec<_>>()
        };
        let gone = of_range(&self.mapped.lock());
        self.ioas.unmap(addr, len)?;
        // Others may have mapped more since.
        if let Some(mapped) = &mut *self.mapped.lock() {
            for (at, number) in gone {
                if mapped.get(&at).is_some_and(|area| area.number == number) {
                    mapped.remove(&at);
                }
            }
        }
        Ok(())
    }
    /// Makes an access, and maps its page if it is not mapped, or not for this access.
    fn transfer(
        &self,
        cx: &mut CallCx<'_>,
        (addr, access): (u64, Access),
        mut f: impl FnMut() -> Result<(), DmaFault>,
    ) -> Result<(), Refused> {
        let page = (addr - addr % PAGE_SIZE, PAGE_SIZE);
        loop {
            match f() {
                Ok(()) => return Ok(()),
                Err(DmaFault::NotMapped(_)) => {}
                Err(DmaFault::ReadOnly(_)) => match self.unmap_bytes(page.0, page.1) {
                    Ok(()) => {}
                    Err(IoasError::Busy(_)) => {
                        thread::yield_now();
                        continue;
                    }
                    // A part of what the user has mapped for reading.
                    Err(_) => return Err(Refused::Fault(FaultError::Denied(addr))),
                },
                Err(why) => return Err(Refused::Other(why.to_string())),
            }
            // A page that may be written is mapped for that, whatever asks first.
            let mapped = match self.map_bytes(cx, page, Access::Write) {
                Err(IoasError::Pin(_)) if access == Access::Read => {
                    self.map_bytes(cx, page, Access::Read)
                }
                done => done,
            };
            match mapped {
                Ok(()) => {}
                // Another access does.
                Err(IoasError::Mapped(_)) => thread::yield_now(),
                Err(why) => return Err(not_mapped(why)),
            }
        }
    }
}

fn not_mapped(why: IoasError) -> Refused {
    match why {
        IoasError::Pin(PinError::Fault(why)) => Refused::Fault(why),
        IoasError::ReadOnly(addr) => Refused::Fault(FaultError::Denied(addr)),
        IoasError::NoProcess => Refused::Gone,
        other => Refused::Other(other.to_string()),
    }
}

fn bytes(pages: VpnRange) -> (u64, u64) {
    (pages.start().addr(), pages.pages() * PAGE_SIZE)
}

impl Device for Assigned {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        self.transfer(cx, (addr, Access::Read), || {
            self.domain.read(addr, &mut byte)
        })?;
        Ok(byte[0])
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.transfer(cx, (addr, Access::Write), || {
            self.domain.write(addr, &[byte])
        })
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Nothing,
            references: References::Held,
            always_writes: true,
            coherent: false,
            maps: true,
            logs_writes: true,
            ..Declared::default()
        }
    }
    fn map(
        &self,
        cx: &mut CallCx<'_>,
        _mm: &Mm,
        pages: VpnRange,
        access: Access,
    ) -> Result<(), Refused> {
        self.map_bytes(cx, bytes(pages), access).map_err(not_mapped)
    }
    fn unmap(&self, _cx: &mut CallCx<'_>, _mm: &Mm, pages: VpnRange) -> Result<(), Refused> {
        let (addr, len) = bytes(pages);
        match self.unmap_bytes(addr, len) {
            Err(IoasError::NotMapped(_)) => Ok(()),
            done => done.map_err(not_mapped),
        }
    }
    fn hold(
        &self,
        cx: &mut CallCx<'_>,
        _mm: &Mm,
        addr: u64,
        f: &mut dyn FnMut(&mut CallCx<'_>),
    ) -> bool {
        let page = (addr - addr % PAGE_SIZE, PAGE_SIZE);
        let mut held = self.held.lock();
        *held = self.access.pin_pages(cx, page, Access::Read).ok();
        let uses = held.is_some();
        if uses {
            f(cx);
        }
        *held = None;
        uses
    }
    fn take_written(&self, _cx: &mut CallCx<'_>, _mm: &Mm, pages: VpnRange) -> Vec<VpnRange> {
        let report = self
            .ioas
            .dirty_bitmap(&self.domain, bytes(pages), REPORTED, DirtyRead::Clear);
        let report = report.expect("mapped, and aligned");
        let dirty = report.iter().filter_map(|addr| {
            let first = Vpn::containing(addr);
            VpnRange::new(first, first.plus(REPORTED / PAGE_SIZE))
        });
        dirty.collect()
    }
}
