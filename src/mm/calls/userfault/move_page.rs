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

/// The outcome of one step.
pub(super) enum Step {
    /// So many pages moved.
    Moved(u64),
    /// A page of a huge page is next: it must be split for good first.
    Split(Pfn),
    /// The page is in use by another operation: wait for it.
    Locked(Pfn),
}

/// A page that is about to move.
enum Page<'m> {
    /// Nothing can change it now; set if it does not move together with others.
    Held(Option<FrameLock<'m>>, bool),
    /// Something else is due first.
    Not(Step),
}

/// Moves one page. Returns `Moved(1)` if it does not move together with others, `Moved(0)` if it
/// may.
pub(super) fn move_page(
    mem: &PhysMem,
    (source, at): (&LockedLeaf<'_>, Vpn),
    (target, to): (&LockedLeaf<'_>, Vpn),
    sides: &Sides,
) -> Result<Step, UserfaultError> {
    let pte = source.get(at);
    if !target.get(to).is_none() {
        return Err(UserfaultError::Exists(to.addr()));
    }
    if pte.is_none() {
        return match sides.holes {
            true => Ok(Step::Moved(1)),
            false => Err(UserfaultError::Hole(at.addr())),
        };
    }
    let (locked, alone) = match hold(mem, pte, at)? {
        Page::Held(locked, alone) => (locked, alone),
        Page::Not(step) => return Ok(step),
    };
    if let Some(locked) = &locked {
        mem.set_owner(locked.pfn(), Some(sides.owner(to)));
    }
    source.set(at, RawPte::NONE);
    target.set(to, sides.arrives(mem, pte));
    Ok(Step::Moved(u64::from(alone)))
}

/// Locks the frame of a page that may move, in memory or in the swap cache.
fn hold(mem: &PhysMem, pte: RawPte, at: Vpn) -> Result<Page<'_>, UserfaultError> {
    let shared = UserfaultError::Shared(at.addr());
    if let Some(pfn) = pte.counted() {
        let large = mem.flags(pfn).contains(FrameFlags::LARGE);
        return match lock_own(mem, pfn, at)? {
            Ok(_) if large => Ok(Page::Not(Step::Split(pfn.head()))),
            Ok(locked) => Ok(Page::Held(Some(locked), false)),
            Err(step) => Ok(Page::Not(step)),
        };
    }
    if let Some(pfn) = pte.migrating() {
        return Ok(Page::Not(Step::Locked(pfn)));
    }
    let Some(slot) = pte.swap_slot() else {
        return match pte.is_zero_page() {
            true => Ok(Page::Held(None, true)),
            false => Err(UserfaultError::Marker(at.addr())),
        };
    };
    if !pte.is_swap_exclusive() {
        return Err(shared);
    }
    match mem.swap_cached(slot).map(|frame| mem.try_lock(frame)) {
        None => Ok(Page::Held(None, true)),
        Some(Ok(locked)) => Ok(Page::Held(Some(locked), true)),
        Some(Err(frame)) => Ok(Page::Not(Step::Locked(frame.pfn()))),
    }
}

/// Locks the frame of a page that this process alone has: its owner may change then.
pub(super) fn lock_own(
    mem: &PhysMem,
    pfn: Pfn,
    at: Vpn,
) -> Result<Result<FrameLock<'_>, Step>, UserfaultError> {
    if !mem.flags(pfn).contains(FrameFlags::ANON_EXCLUSIVE) || mem.is_pinned(pfn) {
        return Err(UserfaultError::Shared(at.addr()));
    }
    Ok(mem.try_lock(mem.get(pfn)).map_err(|_| Step::Locked(pfn)))
}
