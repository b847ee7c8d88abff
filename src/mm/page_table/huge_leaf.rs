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
    notifier::Flushed,
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
    // A walk without the lock that sees an entry sees the mark.
    leaf.set_huge(true);
    for (i, at) in (0..HUGE).zip(part.iter()) {
        let pfn = first.pfn().nth(i);
        map(mem, pfn);
        leaf.set(at, first.with_pfn(pfn));
    }
}

/// After a split: maps the zero page instead of a page that holds only zeros, and gives that page
/// back (`try_to_map_unused_to_zeropage`). Returns whether it did. A pinned page stays: its holder
/// may write to it.
///
/// `flush` flushes the page. The entry is empty meanwhile, so no device writes to the page between
/// the look at its bytes and the change of the entry.
pub(in crate::mm) fn zero_unused<'f>(
    mem: &PhysMem,
    leaf: &LockedLeaf<'_>,
    at: Vpn,
    flush: impl FnOnce() -> Flushed<'f>,
) -> bool {
    let pte = leaf.get(at);
    let unused = |pfn: Pfn| !mem.is_pinned(pfn) && mem.is_unused(pfn);
    let is_unused = |pte: RawPte| pte.counted().is_some_and(unused);
    if !is_unused(pte) {
        return false;
    }
    leaf.set(at, RawPte::NONE);
    let flushed = flush();
    let unused = is_unused(pte);
    if unused {
        let rights = Rights {
            read: pte.may_read(),
            write: false,
        };
        leaf.set(at, RawPte::zero(mem.zero_pfn(), rights).in_place_of(pte));
        drop_entry(mem, pte, flushed);
    } else {
        leaf.set(at, pte);
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
/// Entries of an object's page stay, and have to be dropped, to be faulted in again later; returns
/// true then.
pub(in crate::mm) fn split_leaf(mem: &PhysMem, leaf: &LockedLeaf<'_>) -> bool {
    if !leaf.is_huge() {
        return false;
    }
    leaf.set_huge(false);
    let first = leaf.get(Vpn(0));
    let objects = first
        .counted()
        .is_some_and(|pfn| !mem.flags(pfn).contains(FrameFlags::ANON));
    for i in (0..PMD_PAGES).filter(|_| !objects) {
        let pte = leaf.get(Vpn(i));
        if pte.is_zero_page() {
            leaf.set(Vpn(i), pte.with_pfn(mem.zero_pfn()));
        }
    }
    objects
}
