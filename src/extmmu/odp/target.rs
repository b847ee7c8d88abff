//! The regions that a key may stand for: an explicit one, or an implicit one with its children.

use super::{implicit::ImplicitRegion, region::Region};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    notifier::Access,
};
use std::sync::Arc;

/// A region of either kind.
#[derive(Clone)]
pub(super) enum Target {
    Explicit(Arc<Region>),
    Implicit(Arc<ImplicitRegion>),
}

impl Target {
    /// Returns the region of a page, if it is there.
    pub(super) fn find(&self, at: Vpn) -> Option<Arc<Region>> {
        match self {
            Self::Explicit(region) => Some(Arc::clone(region)),
            Self::Implicit(implicit) => implicit.child(at),
        }
    }
    /// Returns the region of a page, made if need be.
    pub(super) fn make(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Arc<Region>> {
        match self {
            Self::Explicit(region) => Some(Arc::clone(region)),
            Self::Implicit(implicit) => implicit.child_for(cx, at),
        }
    }
    pub(super) fn pages(&self) -> VpnRange {
        match self {
            Self::Explicit(region) => region.pages,
            Self::Implicit(_) => VpnRange::TASK,
        }
    }
    pub(super) fn allows(&self, access: Access) -> bool {
        let most = match self {
            Self::Explicit(region) => region.parts.access,
            Self::Implicit(implicit) => implicit.parts.access,
        };
        access == Access::Read || most == Access::Write
    }
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Explicit(region) => region.has_ended(),
            Self::Implicit(implicit) => implicit.parts.mm.strong_count() == 0,
        }
    }
}
