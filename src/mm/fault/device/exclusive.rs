//! Pages in memory that a device has alone, for its atomic operations (`make_device_exclusive`).
//!
//! The entry becomes an exclusive one in a window, and the device gets the page with the frame
//! locked. A processor that wants the page waits for the lock, and takes the page back in another
//! window: so the device has it for a moment at least.

use crate::mm::{
    entry::{
        flags::VmFlags,
        pte::{RawPte, Rights},
    },
    fault::scope::{FaultScope, WindowWork},
    vma::Vma,
    window::{Lease, PteSlot},
};
use crate::{
    addr::{Pfn, Vpn},
    ctx::{Sleepable, rank},
    frame::{DeviceId, FrameFlags, FrameLock, PhysMem},
    notifier::{Access, Event, Reason},
};

/// A step towards an exclusive page.
pub(in crate::mm) enum Grant<'m> {
    /// The device has the page.
    Given(FrameLock<'m>),
    /// The page is no private memory, or one of a pool.
    NotPrivate,
    /// The page must be faulted in for writing first, or has changed.
    Again,
}

impl FaultScope<'_> {
    /// Gives the page at `at` to a device alone, if it is present and writable.
    pub(in crate::mm) fn give_alone<'m>(
        &mut self,
        mem: &'m PhysMem,
        at: Vpn,
        owner: Option<DeviceId>,
    ) -> Grant<'m> {
        let mm = self.lease.mm;
        let is_of_pool = |vma: &Vma| vma.flags.contains(VmFlags::HUGETLB);
        if self.layout.vmas.get(at).is_some_and(is_of_pool) {
            return Grant::NotPrivate;
        }
        if mm.is_huge(&mut self.lease.cx, at) {
            self.lease.split_pmd(at);
        }
        let frame = mm.with_leaf_of(&mut self.lease.cx, at, |leaf| {
            let pte = leaf.get(at);
            let mapped = pte.counted().filter(|_| pte.allows(Access::Write));
            mapped.map(|pfn| mem.get(pfn))
        });
        let Some(frame) = frame.flatten() else {
            return Grant::Again;
        };
        if !mem.flags(frame.pfn()).contains(FrameFlags::ANON) {
            return Grant::NotPrivate;
        }
        let locked = mem.lock(&mut self.lease.cx, frame);
        let pfn = locked.pfn();
        let mut cx = self.lease.cx.descend::<rank::Folio, Sleepable>();
        let lease = Lease {
            mm,
            cx: cx.reborrow(),
        };
        let mut window = lease.into_window(at.into(), Reason::exclusive(owner));
        let given = window.lock_ptes(at, |txn| {
            if txn.leaf().is_huge() {
                return false;
            }
            let still = |slot: &PteSlot<'_>| {
                slot.raw().counted() == Some(pfn) && slot.raw().allows(Access::Write)
            };
            let slot = txn.slot(at).filter(still);
            slot.map(|slot| make_exclusive(slot, pfn)).is_some()
        });
        window.close();
        if given != Some(true) {
            return Grant::Again;
        }
        // Now, since the frame stays locked: drivers that have it exported must not write either.
        mm.machine().registry().exports.notify(mem, &mut cx, pfn);
        Grant::Given(locked)
    }
    /// Takes the page of the exclusive entry `seen` back for the processors, when the mmap lock is
    /// released if a driver must be called (`remove_device_exclusive_entry`).
    pub(super) fn take_back(&mut self, vma: &Vma, at: Vpn, seen: RawPte) {
        let rights = vma.rights();
        self.in_window(WindowWork::TakeBack { at, seen, rights });
    }
}

fn make_exclusive(slot: PteSlot<'_>, pfn: Pfn) {
    let pte = slot.raw();
    if pte.is_dirty() {
        slot.mem().set_flags(pfn, FrameFlags::DIRTY);
    }
    slot.lose_write(pte);
    slot.set(pte.exclusive());
}

impl Lease<'_, rank::Mmap, Sleepable> {
    /// Makes the exclusive entry `seen` present again, with the frame locked: its device may be
    /// about to use it. The entry is old, dirty if the frame is, and writable if a write would not
    /// copy (`restore_exclusive_pte`).
    pub(in crate::mm) fn take_back(&mut self, at: Vpn, seen: RawPte, rights: Rights) {
        let (mm, mem) = (self.mm, self.mm.machine().mem());
        let frame = mm.with_leaf_of(&mut self.cx, at, |leaf| {
            let still = seen.device_exclusive().filter(|_| leaf.get(at) == seen);
            still.map(|pfn| mem.get(pfn))
        });
        let Some(frame) = frame.flatten() else {
            return;
        };
        let locked = mem.lock(&mut self.cx, frame);
        let cx = self.cx.descend::<rank::Folio, Sleepable>();
        let mut window = Lease { mm, cx }.into_window(at.into(), Event::Clear);
        window.lock_ptes(at, |txn| {
            if let Some(slot) = txn.slot(at).filter(|slot| slot.raw() == seen) {
                let flags = mem.flags(locked.pfn());
                let own = flags.contains(FrameFlags::ANON_EXCLUSIVE);
                let write = rights.write && own && !seen.is_uffd_wp();
                let mut pte = seen.unexclusive().with_rights(Rights { write, ..rights });
                if write && flags.contains(FrameFlags::DIRTY) {
                    pte = pte.mkdirty().mkold();
                }
                slot.set(pte);
            }
        });
        window.close();
    }
}
