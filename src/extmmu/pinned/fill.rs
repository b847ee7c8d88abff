//! Areas come into domains and leave them.

use super::{areas::Area, domain::Domain, error::IoasError};
use crate::{addr::PAGE_SIZE, ctx::CallCx};
use std::{ops::Range, sync::Arc};

/// Returns the pages of the I/O addresses of an area that domains translate.
fn io_pages(area: &Area) -> Range<u64> {
    area.iova / PAGE_SIZE..area.last / PAGE_SIZE + 1
}

/// Pins the pages of an area and translates them in every domain, or does nothing.
pub(super) fn fill_domains(
    cx: &mut CallCx<'_>,
    domains: &[Arc<Domain>],
    area: &Area,
) -> Result<(), IoasError> {
    for (nth, domain) in domains.iter().enumerate() {
        if let Err(why) = fill_domain(cx, domain, area) {
            empty_domains(&domains[..nth], area);
            return Err(why);
        }
    }
    Ok(())
}

/// Pins the pages of an area and translates them in a domain, or does nothing.
pub(super) fn fill_domain(
    cx: &mut CallCx<'_>,
    domain: &Domain,
    area: &Area,
) -> Result<(), IoasError> {
    let pages = area.pages.add_user(cx, area.indices())?;
    domain.map(io_pages(area).start, &pages, area.writable);
    Ok(())
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
