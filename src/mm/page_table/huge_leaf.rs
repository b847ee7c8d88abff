//! Leaves that map a huge page of 2 MiB, and their split into small entries.
//!
//! A leaf stands in for the one entry of the level above: all 512 entries are set, and the leaf is
//! marked (`docs/adr/0006-a-huge-page-is-a-marked-leaf.md`). Splitting the mapping clears the mark;
//! the pages stay where they are.

use super::leaf::LockedLeaf;
use crate::{
    addr::{PMD_PAGES, Pfn, Vpn, VpnRange},
    frame::{FrameFlags, HUGE, PhysMem},
    mm::entry::{
        pte::{RawPte, Rights},
        release::drop_entry,
    },
};

/// Maps frames that follow each other in an empty leaf, which is marked; `first` is its first
/// entry.
pub(in crate::mm) fn fill_part(
    mem: &PhysMem,
    leaf: &LockedLeaf<'_>,
    part: VpnRange,
    first: RawPte,
    map: impl Fn(&PhysMem, Pfn),
) {
    for (i, at) in (0..HUGE).zip(part.iter()) {
        let pfn = first.pfn().nth(i);
        map(mem, pfn);
        leaf.set(at, first.with_pfn(pfn));
    }
    leaf.set_huge(true);
}

/// After a split: maps the zero page instead of a page that holds only zeros, and gives that page
/// back (`try_to_map_unused_to_zeropage`). Returns whether it did.
pub(in crate::mm) fn zero_unused(mem: &PhysMem, leaf: &LockedLeaf<'_>, at: Vpn) -> bool {
    let pte = leaf.get(at);
    let unused = pte.counted().is_some_and(|pfn| mem.is_unused(pfn));
    if unused {
        let rights = Rights {
            read: pte.may_read(),
            write: false,
        };
        leaf.set(at, RawPte::zero(mem.zero_pfn(), rights));
        drop_entry(mem, pte);
    }
    unused
}

/// Returns true if the leaf maps a huge page that another mapping maps as well
/// (`folio_maybe_mapped_shared`).
pub(in crate::mm) fn shared_huge(mem: &PhysMem, leaf: &LockedLeaf<'_>) -> bool {
    let head = leaf.get(Vpn(0)).counted().filter(|_| leaf.is_huge());
    head.is_some_and(|head| (0..HUGE).any(|i| mem.mapcount(head.nth(i)) > 1))
}

/// Splits the mapping of a huge page: clears the mark of the leaf, whose entries are small ones
/// from then on.
///
/// Entries of an object's page are dropped instead and faulted in again later; returns true then,
/// and the leaf is empty.
pub(in crate::mm) fn split_leaf(mem: &PhysMem, leaf: &LockedLeaf<'_>) -> bool {
    if !leaf.is_huge() {
        return false;
    }
    leaf.set_huge(false);
    let first = leaf.get(Vpn(0));
    let objects = first
        .counted()
        .is_some_and(|pfn| !mem.flags(pfn).contains(FrameFlags::ANON));
    for i in 0..PMD_PAGES {
        let pte = leaf.get(Vpn(i));
        if objects {
            leaf.set(Vpn(i), RawPte::NONE);
            drop_entry(mem, pte);
        } else if pte.is_zero_page() {
            leaf.set(Vpn(i), pte.with_pfn(mem.zero_pfn()));
        }
    }
    objects
}
