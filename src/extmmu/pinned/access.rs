//! Pins and transfers by kernel code, as for a mediated device (`struct iommufd_access`).

use super::{
    areas::{AreaState, last_of},
    error::IoasError,
    ioas::Ioas,
    pages::Pages,
};
use crate::{ctx::CallCx, mm::HeldPages, notifier::Access};
use std::{ops::Range, sync::Arc};

/// Kernel code that uses the memory of an I/O address space.
///
/// Dropping it ends the calls of its function; pages that it pinned stay so until they are dropped.
#[derive(Debug)]
pub struct IoasAccess {
    ioas: Arc<Ioas>,
    id: u64,
}

impl Ioas {
    /// Creates an access. An unmapping calls `unmap` with the first byte address and the length of
    /// each area that has pins, and it must drop its [`AccessPages`] there. The function holds no
    /// lock when it is called, and may be called more than once.
    pub fn access(
        self: &Arc<Self>,
        unmap: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> IoasAccess {
        let id = self.accesses.add(Arc::new(unmap));
        IoasAccess {
            ioas: Arc::clone(self),
            id,
        }
    }
}

impl Drop for IoasAccess {
    fn drop(&mut self) {
        self.ioas.accesses.remove(self.id);
    }
}

/// Pages that were pinned through an access. Dropping this gives them up.
#[derive(Debug)]
pub struct AccessPages {
    ioas: Arc<Ioas>,
    parts: Vec<Part>,
    pages: Vec<Arc<HeldPages>>,
}

/// The pages of one area.
#[derive(Debug)]
struct Part {
    iova: u64,
    id: u64,
    pages: Arc<Pages>,
    indices: Range<u64>,
}

impl IoasAccess {
    /// Pins the pages of `[iova, iova + len)`, for writing if `access` says so
    /// (`iommufd_access_pin_pages`).
    ///
    /// # Errors
    ///
    /// [`IoasError::NotMapped`], [`IoasError::ReadOnly`], [`IoasError::Leaving`]; the errors of
    /// pinning. Nothing is pinned then.
    pub fn pin_pages(
        &self,
        cx: &mut CallCx<'_>,
        (iova, len): (u64, u64),
        access: Access,
    ) -> Result<AccessPages, IoasError> {
        let parts = self.begin(iova, len, access)?;
        let mut held = AccessPages {
            ioas: Arc::clone(&self.ioas),
            parts: Vec::new(),
            pages: Vec::new(),
        };
        let mut failed = None;
        for part in parts {
            let added = match failed {
                None => part.pages.add_user(cx, part.indices.clone()),
                Some(why) => Err(why),
            };
            let mut areas = self.ioas.areas.lock();
            let area = areas.get_mut(part.iova).filter(|area| area.id == part.id);
            let area = area.expect("an area stays while pages of it are being pinned");
            area.pinning -= 1;
            match added {
                Ok(pages) => {
                    area.accesses += 1;
                    held.pages.extend(pages);
                    held.parts.push(part);
                }
                Err(why) => failed = Some(why),
            }
        }
        match failed {
            None => Ok(held),
            Some(why) => Err(why),
        }
    }
    /// Finds the areas, and keeps them from going until the pages are pinned.
    fn begin(&self, iova: u64, len: u64, access: Access) -> Result<Vec<Part>, IoasError> {
        let last = last_of(iova, len)?;
        let mut areas = self.ioas.areas.lock();
        let mut parts = Vec::new();
        for area in areas.covering(iova, last)? {
            if area.state != AreaState::Ready {
                return Err(IoasError::Leaving(area.iova));
            }
            if access == Access::Write && !area.pages.writable {
                return Err(IoasError::ReadOnly(area.iova));
            }
            let (offset, len) = area.part(iova, last);
            parts.push(Part {
                iova: area.iova,
                id: area.id,
                pages: Arc::clone(&area.pages),
                indices: area.pages.indices(offset, len),
            });
        }
        for part in &parts {
            let area = areas.get_mut(part.iova).expect("found under this lock");
            area.pinning += 1;
        }
        Ok(parts)
    }
    /// Reads bytes from an I/O address on (`iommufd_access_rw`).
    ///
    /// # Errors
    ///
    /// [`IoasError::NotMapped`], [`IoasError::NoProcess`], [`IoasError::Pin`]. Bytes before the
    /// page that fails have been read.
    pub fn read(&self, cx: &mut CallCx<'_>, iova: u64, out: &mut [u8]) -> Result<(), IoasError> {
        let mut done = 0;
        self.each_page(cx, (iova, out.len()), false, |page, offset| {
            done += page.read_at(offset, &mut out[done..]);
        })
    }
    /// Writes bytes from an I/O address on (`iommufd_access_rw`).
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); [`IoasError::ReadOnly`]. Bytes before the page that fails have been
    /// written.
    pub fn write(&self, cx: &mut CallCx<'_>, iova: u64, bytes: &[u8]) -> Result<(), IoasError> {
        let mut done = 0;
        self.each_page(cx, (iova, bytes.len()), true, |page, offset| {
            done += page.write_at(offset, &bytes[done..]);
        })
    }
    /// Runs `f` on each page of a range, with the offset of the first byte in it.
    fn each_page(
        &self,
        cx: &mut CallCx<'_>,
        (iova, len): (u64, usize),
        write: bool,
        mut f: impl FnMut(&HeldPages, usize),
    ) -> Result<(), IoasError> {
        let last = last_of(iova, len as u64)?;
        let mut places = Vec::new();
        for area in self.ioas.areas.lock().covering(iova, last)? {
            if write && !area.pages.writable {
                return Err(IoasError::ReadOnly(area.iova));
            }
            places.push((Arc::clone(&area.pages), area.part(iova, last)));
        }
        for (pages, (offset, len)) in places {
            let (first, in_page) = pages.place(offset);
            for index in pages.indices(offset, len) {
                let page = pages.page_now(cx, index)?;
                f(&page, if index == first { in_page } else { 0 });
            }
        }
        Ok(())
    }
}

impl AccessPages {
    /// Returns the pages, in the order of the I/O addresses.
    pub fn pages(&self) -> impl Iterator<Item = &HeldPages> {
        self.pages.iter().map(|page| &**page)
    }
}

impl Drop for AccessPages {
    fn drop(&mut self) {
        self.pages.clear();
        for part in &self.parts {
            part.pages.remove_user(part.indices.clone());
            let mut areas = self.ioas.areas.lock();
            // A driver that unpins in use has removed the area.
            let area = areas.get_mut(part.iova).filter(|area| area.id == part.id);
            if let Some(area) = area {
                area.accesses -= 1;
            }
        }
    }
}
