//! Pins and transfers by kernel code, as for a mediated device (`struct iommufd_access`).

use super::{
    areas::{Area, AreaState, Areas, last_of},
    error::IoasError,
    ioas::Ioas,
    pages::Pages,
};
use crate::{
    addr::{PAGE_SIZE, chunks},
    ctx::CallCx,
    mm::HeldPages,
    notifier::Access,
};
use std::{collections::VecDeque, ops::Range, sync::Arc};

/// Kernel code that uses the memory of an I/O address space.
///
/// Dropping it ends the calls of its function; pages that it pinned stay so until they are dropped.
#[derive(Debug)]
pub struct IoasAccess {
    ioas: Arc<Ioas>,
    id: u64,
}

impl Ioas {
    /// Creates an access: a user of the mapped pages inside the kernel. An unmapping calls `unmap`
    /// with the first byte address and the length of each area that has pins, and it must drop its
    /// [`AccessPages`] there. The function holds no lock when it is called, and may be called more
    /// than once.
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

/// The bytes of one area.
#[derive(Debug)]
struct Part {
    iova: u64,
    id: u64,
    pages: Arc<Pages>,
    /// The first byte among those of the map.
    offset: u64,
    len: u64,
}

impl IoasAccess {
    /// Pins the pages of `[iova, iova + len)`, for writing if `access` says so
    /// (`iommufd_access_pin_pages`). The bytes begin with a page of the process, and areas among
    /// them join between pages.
    ///
    /// # Errors
    ///
    /// [`IoasError::NotMapped`], [`IoasError::ReadOnly`], [`IoasError::Leaving`],
    /// [`IoasError::Unaligned`]; the errors of pinning. Nothing is pinned then.
    pub fn pin_pages(
        &self,
        cx: &mut CallCx<'_>,
        (iova, len): (u64, u64),
        access: Access,
    ) -> Result<AccessPages, IoasError> {
        let mut begun = self.begin(iova, len, access)?;
        if !begun.is_of_pages() {
            return Err(IoasError::Unaligned { iova, len });
        }
        let mut held = AccessPages {
            ioas: Arc::clone(&self.ioas),
            parts: Vec::new(),
            pages: Vec::new(),
        };
        while let Some(part) = begun.parts.front() {
            let pages = part.pages.add_user(cx, part.indices())?;
            let part = begun.parts.pop_front().expect("the one that was pinned");
            held.pages.extend(pages);
            let mut areas = self.ioas.areas.lock();
            let area = part.area(&mut areas);
            area.pinning -= 1;
            area.accesses += 1;
            drop(areas);
            held.parts.push(part);
        }
        Ok(held)
    }
    /// Finds the areas, and keeps them from going until the result is dropped.
    fn begin(&self, iova: u64, len: u64, access: Access) -> Result<Begun<'_>, IoasError> {
        let last = last_of(iova, len)?;
        let mut areas = self.ioas.areas.lock();
        let mut parts = VecDeque::new();
        for area in areas.covering(iova, last)? {
            if area.state != AreaState::Ready {
                return Err(IoasError::Leaving(area.iova));
            }
            if access == Access::Write && !area.writable {
                return Err(IoasError::ReadOnly(area.iova));
            }
            let (offset, len) = area.part(iova, last);
            parts.push_back(Part {
                iova: area.iova,
                id: area.id,
                pages: Arc::clone(&area.pages),
                offset,
                len,
            });
        }
        for part in &parts {
            part.area(&mut areas).pinning += 1;
        }
        let ioas = &self.ioas;
        Ok(Begun { ioas, parts })
    }
    /// Reads bytes from an I/O address on (`iommufd_access_rw`).
    ///
    /// # Errors
    ///
    /// [`IoasError::NotMapped`], [`IoasError::Leaving`], [`IoasError::NoProcess`],
    /// [`IoasError::Pin`]. Bytes before the page that fails have been read.
    pub fn read(&self, cx: &mut CallCx<'_>, iova: u64, out: &mut [u8]) -> Result<(), IoasError> {
        let mut done = 0;
        self.each_page(cx, (iova, out.len()), Access::Read, |page, offset, len| {
            done += page.read_at(offset, &mut out[done..done + len]);
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
        self.each_page(
            cx,
            (iova, bytes.len()),
            Access::Write,
            |page, offset, len| {
                done += page.write_at(offset, &bytes[done..done + len]);
            },
        )
    }
    /// Runs `f` on each page of a range, with the offset of the first byte in it and the number of
    /// bytes there. The areas stay until all is done.
    fn each_page(
        &self,
        cx: &mut CallCx<'_>,
        (iova, len): (u64, usize),
        access: Access,
        mut f: impl FnMut(&HeldPages, usize, usize),
    ) -> Result<(), IoasError> {
        let begun = self.begin(iova, len as u64, access)?;
        for part in &begun.parts {
            let len = usize::try_from(part.len).expect("at most the caller's bytes");
            for (page, offset, len) in chunks(part.pages.byte_in_pages(part.offset), len) {
                f(&*part.pages.page_now(cx, page.0)?, offset, len);
            }
        }
        Ok(())
    }
}

/// Areas that stay until this is dropped, the next one to be pinned first.
struct Begun<'a> {
    ioas: &'a Ioas,
    parts: VecDeque<Part>,
}

impl Begun<'_> {
    /// Returns true if the bytes begin with a page, and the areas join between pages
    /// (`iopt_area_contig_is_aligned`).
    fn is_of_pages(&self) -> bool {
        let first = |part: &Part| part.pages.byte_in_pages(part.offset);
        let last = self.parts.len().saturating_sub(1);
        let mut parts = self.parts.iter().enumerate();
        parts.all(|(nth, part)| {
            let behind = first(part) + part.len;
            first(part).is_multiple_of(PAGE_SIZE)
                && (nth == last || behind.is_multiple_of(PAGE_SIZE))
        })
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut areas = self.ioas.areas.lock();
        for part in &self.parts {
            part.area(&mut areas).pinning -= 1;
        }
    }
}

impl Part {
    /// The indices of the pages among those of the map.
    fn indices(&self) -> Range<u64> {
        self.pages.indices(self.offset, self.len)
    }
    /// The area, which stays while pages of it are being pinned.
    fn area<'a>(&self, areas: &'a mut Areas) -> &'a mut Area {
        let area = areas.get_mut(self.iova).filter(|area| area.id == self.id);
        area.expect("an area stays while pages of it are being pinned")
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
            part.pages.remove_user(part.indices());
            let mut areas = self.ioas.areas.lock();
            // A driver that unpins in use has removed the area.
            let area = areas.get_mut(part.iova).filter(|area| area.id == part.id);
            if let Some(area) = area {
                area.accesses -= 1;
            }
        }
    }
}
