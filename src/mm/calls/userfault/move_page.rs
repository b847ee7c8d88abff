//! The move of one page by `UFFDIO_MOVE`, under the locks of both leaves.

use crate::mm::{
    entry::pte::{RawPte, Rights},
    page_table::LockedLeaf,
};
use crate::{
    addr::{Pfn, Vpn},
    error::UserfaultError,
    frame::{FrameFlags, FrameLock, Owner, PhysMem},
    rmap::AnonVma,
};
use std::sync::Arc;

/// Mappings between which pages move.
pub(super) struct Sides {
    /// The anonymous family of the target.
    pub(super) node: Arc<AnonVma>,
    /// Page offset of page 0 in the target's VMA, wrapping.
    pub(super) pgoff: u64,
    pub(super) rights: Rights,
    pub(super) holes: bool,
}

impl Sides {
    /// The owner of a page that is mapped at `at` in the target.
    pub(super) fn owner(&self, at: Vpn) -> Owner {
        self.node.owner(at.0.wrapping_add(self.pgoff))
    }
    /// The entry that takes the place of `pte` at the target. A moved page is its process's own,
    /// so it may be written at once.
    fn arrives(&self, mem: &PhysMem, pte: RawPte) -> RawPte {
        if pte.is_zero_page() {
            let write = false;
            RawPte::zero(
                mem.zero_pfn(),
                Rights {
                    write,
                    ..self.rights
                },
            )
        } else if pte.is_present() {
            pte.clear_uffd_wp().with_rights(self.rights)
        } else {
            pte
        }
    }
}

/// The reason why a page does not move now.
pub(super) enum Stop {
    /// This frame is part of a huge page, which must be split for good first.
    Split(Pfn),
    /// Another operation uses it: wait for its lock.
    Locked(Pfn),
    Failed(UserfaultError),
}

impl From<UserfaultError> for Stop {
    fn from(why: UserfaultError) -> Self {
        Self::Failed(why)
    }
}

/// Moves one page. Returns true if it may move together with others.
pub(super) fn move_page(
    mem: &PhysMem,
    (source, at): (&LockedLeaf<'_>, Vpn),
    (target, to): (&LockedLeaf<'_>, Vpn),
    sides: &Sides,
) -> Result<bool, Stop> {
    let pte = source.get(at);
    if !target.get(to).is_none() {
        return Err(UserfaultError::Exists(to.addr()).into());
    }
    if pte.is_none() {
        return match sides.holes {
            true => Ok(false),
            false => Err(UserfaultError::Hole(at.addr()).into()),
        };
    }
    let locked = hold(mem, pte, at)?;
    if let Some(locked) = &locked {
        mem.set_owner(locked.pfn(), Some(sides.owner(to)));
    }
    source.set(at, RawPte::NONE);
    target.set(to, sides.arrives(mem, pte));
    Ok(pte.counted().is_some())
}

/// Locks the frame of a page that may move, in memory or in the swap cache; `None`: it has none.
fn hold(mem: &PhysMem, pte: RawPte, at: Vpn) -> Result<Option<FrameLock<'_>>, Stop> {
    if let Some(pfn) = pte.counted() {
        let large = mem.is_large(pfn);
        let locked = lock_own(mem, pfn, at)?;
        return match large {
            true => Err(Stop::Split(pfn)),
            false => Ok(Some(locked)),
        };
    }
    if let Some(pfn) = pte.migrating() {
        return Err(Stop::Locked(pfn));
    }
    let Some(slot) = pte.swap_slot() else {
        return match pte.is_zero_page() {
            true => Ok(None),
            false => Err(UserfaultError::Marker(at.addr()).into()),
        };
    };
    if !pte.is_swap_exclusive() {
        return Err(UserfaultError::Shared(at.addr()).into());
    }
    let cached = mem.swap_cached(slot).map(|frame| mem.try_lock(frame));
    cached
        .transpose()
        .map_err(|frame| Stop::Locked(frame.pfn()))
}

/// Locks the frame of a page that this process alone has: its owner may change then.
pub(super) fn lock_own(mem: &PhysMem, pfn: Pfn, at: Vpn) -> Result<FrameLock<'_>, Stop> {
    if !mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE) || mem.is_pinned(pfn) {
        return Err(UserfaultError::Shared(at.addr()).into());
    }
    mem.try_lock(mem.get(pfn)).map_err(|_| Stop::Locked(pfn))
}
