//! Areas come into domains and leave them. What is begun here is undone when it is dropped, so that
//! an error leaves nothing behind, nor does a panic of a memory object that was asked for a page.

use super::{
    areas::{Area, AreaState, Areas},
    domain::Domain,
    error::IoasError,
};
use crate::{addr::PAGE_SIZE, ctx::CallCx, sync::Mutex};
use std::{ops::Range, sync::Arc};

/// Returns the pages of the I/O addresses of an area that domains translate.
fn io_pages(area: &Area) -> Range<u64> {
    area.iova / PAGE_SIZE..area.last / PAGE_SIZE + 1
}

/// New areas, whose ranges are taken. Dropped before they are [ready](Self::ready), they give them
/// up.
pub(super) struct NewAreas<'i> {
    pub(super) areas: Vec<Area>,
    pub(super) all: &'i Mutex<Areas>,
}

impl NewAreas<'_> {
    /// Makes the areas usable, and returns the first address.
    pub(super) fn ready(mut self) -> u64 {
        let mut all = self.all.lock();
        let first = self.areas[0].iova;
        for area in self.areas.drain(..) {
            all.set_state(area.iova, AreaState::Ready);
        }
        first
    }
}

impl Drop for NewAreas<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        for area in &self.areas {
            all.remove(area.iova);
        }
    }
}

/// The addresses that a domain reserves. Dropping this frees them, unless they are
/// [kept](Self::keep).
pub(super) struct Reservation<'i> {
    pub(super) owner: u64,
    pub(super) all: &'i Mutex<Areas>,
}

impl Reservation<'_> {
    /// Leaves the reservation to the domain.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.all.lock().unreserve(self.owner);
    }
}

/// Areas that have come into domains. Dropping this takes them out, unless they are
/// [kept](Self::keep).
#[derive(Default)]
pub(super) struct Filled<'f>(Vec<(&'f Arc<Domain>, &'f Area)>);

impl<'f> Filled<'f> {
    /// Pins the pages of an area and translates them in a domain.
    ///
    /// # Errors
    ///
    /// Those of pinning; nothing is done then.
    pub(super) fn fill(
        &mut self,
        cx: &mut CallCx<'_>,
        domain: &'f Arc<Domain>,
        area: &'f Area,
    ) -> Result<(), IoasError> {
        let pages = area.pages.add_user(cx, area.indices())?;
        domain.map(io_pages(area).start, &pages, area.writable);
        self.0.push((domain, area));
        Ok(())
    }
    /// Leaves the areas in the domains.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Filled<'_> {
    fn drop(&mut self) {
        for (domain, area) in self.0.drain(..) {
            empty_domain(domain, area);
        }
    }
}

/// Takes an area out of the domains, and then gives up the pins that were for them. The pages are
/// pinned until no domain translates them.
pub(super) fn empty_domains(domains: &[Arc<Domain>], area: &Area) {
    for domain in domains {
        domain.unmap(io_pages(area));
    }
    for _ in domains {
        area.pages.remove_user(area.indices());
    }
}

/// Takes an area out of one domain.
pub(super) fn empty_domain(domain: &Arc<Domain>, area: &Area) {
    empty_domains(std::slice::from_ref(domain), area);
}
