//! Pages that go to the memory of a device and come home (`migrate_vma_setup`, `migrate_vma_pages`,
//! `migrate_vma_finalize`); and pages in memory that a device has alone.
//!
//! Guarantee: a page is at one place at each moment. While it moves, its frame is locked and its
//! entries are marks, which become entries of the new frame, or of the old one again, when the
//! migration is dropped: also by a driver's panic.
//!
//! A migration takes these steps:
//!
//! 1. *Collect*: in a window with the device as owner, the selected pages of a range become marks.
//!    No lock is waited for, so two migrations never wait for each other.
//! 2. *Unmap*: other mappings become marks, each in a window without an owner. A page that is
//!    referenced otherwise stays.
//! 3. The caller gives a new frame to the pages that are to move.
//! 4. *Pages*: bytes are copied and the pages handed over. Holes get their frames, in a second
//!    window with the owner.
//! 5. *Finalize*: marks become entries.
//!
//! | file | holds |
//! | --- | --- |
//! | this one | which pages are selected, and the reasons for which a page stays |
//! | `collect` | the first step |
//! | `migration` | the pages on their way, and the other steps |
//! | `insert` | new pages on a device, in the place of holes |
//! | `home` | the fault of a processor on a page of a device |
//! | `exclusive` | a page that a device has alone, and how it is taken back |

mod collect;
pub(in crate::mm) mod exclusive;
mod home;
mod insert;
pub(in crate::mm) mod migration;

use crate::mm::{entry::pte::RawPte, vma::Vma};
use crate::{
    addr::Pfn,
    frame::{DeviceId, FrameFlags, PhysMem},
    notifier::Reason,
};

/// The pages of a range that migrate.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Selection {
    /// The device that they go to, or come from.
    pub(in crate::mm) owner: DeviceId,
    /// Pages of memory, and holes.
    pub(in crate::mm) system: bool,
    /// Pages that lie on the device, beyond the reach of processors.
    pub(in crate::mm) private: bool,
    /// Pages that lie on the device, and processors reach.
    pub(in crate::mm) coherent: bool,
}

/// The reason for which a page does not migrate to a device, or home.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stays {
    /// Nothing is there that could move: the page is in swap, on its way, a marker, or a hole of a
    /// mapping of an object.
    Absent,
    /// Pages like this one were not selected; or it lies on another device.
    NotSelected,
    /// The page belongs to an object: a device takes private pages only.
    OfObject,
    /// Same-page merging shares the page.
    Merged,
    /// The page is part of a huge page that could not be split.
    Huge,
    /// Another operation has the page locked.
    Locked,
    /// The page is pinned, or referenced by more than its mappings.
    InUse,
    /// No frame was left for it.
    NoFrame,
    /// The driver let it stay, or has lost it.
    Driver,
    /// Another page came into the hole before the migration was over, or userfaultfd handles
    /// its fault.
    Changed,
}

/// The decision about an entry of a range that migrates.
enum Choice {
    /// Nothing is mapped: a new page may come.
    Hole,
    /// The page of this frame moves, if nothing holds it.
    Moves(Pfn),
    /// The page stays.
    Stays(Stays),
}

impl Selection {
    /// The reason of the windows: their owner may keep translations of the pages on its device,
    /// unless some of these are selected.
    fn reason(&self) -> Reason {
        Reason::migration(self.owner, !self.private && !self.coherent)
    }
    /// Decides about an entry (`migrate_vma_collect_pmd`).
    fn choose(&self, mem: &PhysMem, vma: &Vma, pte: RawPte) -> Choice {
        if pte.is_none() {
            return match vma.is_anonymous() {
                true if self.system => Choice::Hole,
                true => Choice::Stays(Stays::NotSelected),
                false => Choice::Stays(Stays::Absent),
            };
        }
        if let Some(pfn) = pte.device_private() {
            let mine = self.private && mem.device_of(pfn) == Some(self.owner);
            return match mine {
                true => Choice::Moves(pfn),
                false => Choice::Stays(Stays::NotSelected),
            };
        }
        if !pte.is_present() {
            return Choice::Stays(Stays::Absent);
        }
        if let Some(pfn) = pte.counted().filter(|&pfn| mem.is_device(pfn)) {
            let mine = self.coherent && mem.device_of(pfn) == Some(self.owner);
            return match mine {
                true => Choice::Moves(pfn),
                false => Choice::Stays(Stays::NotSelected),
            };
        }
        if !self.system {
            return Choice::Stays(Stays::NotSelected);
        }
        let Some(pfn) = pte.counted() else {
            return match vma.is_anonymous() {
                true => Choice::Hole, // The zero page.
                false => Choice::Stays(Stays::OfObject),
            };
        };
        let flags = mem.flags(pfn);
        if !flags.contains(FrameFlags::ANON) {
            Choice::Stays(Stays::OfObject)
        } else if flags.contains(FrameFlags::LARGE) {
            Choice::Stays(Stays::Huge)
        } else if mem.is_merged(pfn) {
            Choice::Stays(Stays::Merged)
        } else {
            Choice::Moves(pfn)
        }
    }
}
