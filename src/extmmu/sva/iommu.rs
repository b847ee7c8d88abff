//! The IOMMU: its processes, and the page requests of its devices.

use super::{
    config::SvaConfig,
    domain::Domain,
    error::SvaError,
    pasids::Pasids,
    requests::{Group, PageRequest, RequestStats, Requests, Response},
};
use crate::{
    ctx::CallCx,
    error::FaultError,
    extmmu::bill::{Bill, Meter},
    mm::Mm,
    notifier::TlbRegistration,
    sync::Mutex,
};
use std::sync::{Arc, Weak};

/// A process that devices are or were bound to. Its PASID is its own as long as it exists, or is
/// bound (`struct iommu_mm_data`).
pub(super) struct Space {
    mm: Weak<Mm>,
    pub(super) pasid: u32,
    pub(super) bound: Option<Bound>,
}

/// The domain of a process, and the number of bindings of each device.
pub(super) struct Bound {
    pub(super) domain: Arc<Domain>,
    pub(super) registration: TlbRegistration,
    pub(super) devices: Vec<(u64, usize)>,
}

pub(super) struct Spaces {
    pasids: Pasids,
    pub(super) all: Vec<Space>,
}

/// An IOMMU whose devices use addresses of processes.
///
/// # Examples
///
/// ```
/// use emmu::{PAGE_SIZE, extmmu::sva::{Iommu, SvaConfig, SvaDevice}, mm::{Advice, MmapArgs}};
/// # let machine = emmu::Machine::new(Default::default());
/// # let mut thread = machine.enter()?;
/// # let mut cx = thread.cx();
/// # let mm = emmu::Mm::new(&machine);
///
/// let iommu = Iommu::new(SvaConfig::default());
/// let device = SvaDevice::new(&iommu);
/// let bond = iommu.bind(&mut cx, &mm, &device)?;
///
/// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
/// device.write(&mut cx, bond.pasid(), at, b"D")?; // a page request, a walk, an ATC entry
/// assert_eq!((mm.load(&mut cx, at)?, device.atc_len()), (b'D', 1));
///
/// mm.madvise(&mut cx, at, PAGE_SIZE, Advice::DontNeed)?; // IOTLB and ATC are flushed
/// assert_eq!(device.atc_len(), 0);
/// bond.unbind(&mut cx);
/// # mm.exit(&mut cx);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Iommu {
    pub(super) config: SvaConfig,
    pub(super) spaces: Mutex<Spaces>,
    pub(super) requests: Requests,
    pub(super) meter: Arc<Meter>,
}

impl Spaces {
    /// Returns the place of a process, with a PASID.
    pub(super) fn of(&mut self, mm: &Arc<Mm>) -> Result<usize, SvaError> {
        let is = |space: &Space| std::ptr::eq(space.mm.as_ptr(), Arc::as_ptr(mm));
        if let Some(nth) = self.all.iter().position(is) {
            return Ok(nth);
        }
        // The PASID of a process that has gone is free, unless a device is still bound to it.
        let Self { pasids, all } = self;
        all.retain(|space| {
            let stays = space.bound.is_some() || space.mm.strong_count() > 0;
            if !stays {
                pasids.put(space.pasid);
            }
            stays
        });
        let pasid = pasids.take().ok_or(SvaError::NoPasid)?;
        all.push(Space {
            mm: Arc::downgrade(mm),
            pasid,
            bound: None,
        });
        Ok(all.len() - 1)
    }
}

impl Iommu {
    /// Creates an IOMMU without devices.
    pub fn new(config: SvaConfig) -> Arc<Self> {
        let spaces = Spaces {
            pasids: Pasids::new(config.pasids),
            all: Vec::new(),
        };
        Arc::new(Self {
            config,
            spaces: Mutex::new(spaces),
            requests: Requests::new(config.queue, config.mistake),
            meter: Arc::default(),
        })
    }
    /// Serves one group of page requests (`iommu_sva_handle_iopf`), and returns true if one was
    /// waiting.
    pub fn serve_one(&self, cx: &mut CallCx<'_>) -> bool {
        let Some(group) = self.requests.groups.take() else {
            return false;
        };
        let response = response_to(cx, &group);
        self.requests.groups.answer(group.id, response);
        true
    }
    /// Returns the counts of page requests.
    pub fn requests(&self) -> RequestStats {
        self.requests.stats()
    }
    /// Returns the bill of all processes: its windows are flushes, its acknowledgements those of
    /// devices.
    pub fn bill(&self) -> Bill {
        self.meter.bill()
    }
    /// Returns the meter that keeps the [`Bill`].
    pub fn meter(&self) -> &Meter {
        &self.meter
    }
}

/// Makes the pages of a group present.
fn response_to(cx: &mut CallCx<'_>, group: &Group) -> Response {
    let mm = group.mm.upgrade();
    for &PageRequest { page, access, .. } in &group.requests {
        let served = match &mm {
            Some(mm) => mm.serve_page_request(cx, page, access),
            None => Err(FaultError::NotMapped(page.addr())),
        };
        if let Err(why) = served {
            return Response::Invalid(why);
        }
    }
    Response::Success
}

impl std::fmt::Debug for Iommu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Iommu")
            .field("config", &self.config)
            .field("requests", &self.requests())
            .finish_non_exhaustive()
    }
}
