//! VMAs of huge pages from a pool: their page size, their reservation, and the tables that they may
//! share.

use super::Vma;
use crate::mm::{entry::flags::VmFlags, machine::TableKind};
use crate::{
    addr::{PUD_PAGES, Vpn, VpnRange},
    file::HugetlbFile,
};
use std::sync::Arc;

/// A mark in the reverse map of the file: the VMA has a reservation (`HPAGE_RESV_OWNER`).
pub(in crate::mm) const OWNER: VmFlags = VmFlags::from_bits_retain(1 << 62);
/// A mark in the reverse map of the file: a page was taken away for the owner of its reservation
/// (`HPAGE_RESV_UNMAPPED`).
pub(in crate::mm) const STOLEN: VmFlags = VmFlags::from_bits_retain(1 << 61);

/// The flags of a VMA that may share tables of 2-MiB entries.
pub(in crate::mm) const SHARES_TABLES: VmFlags = VmFlags::HUGETLB.union(VmFlags::MAYSHARE);
/// The flags of which each keeps a VMA from sharing tables: its entries are not those of others.
pub(in crate::mm) const OWN_TABLES: VmFlags = VmFlags::UFFD_WP.union(VmFlags::UFFD_MINOR);

/// Flags of VMAs on which the entries of a table depend. They change in windows alone, others also
/// without.
const DECIDING: VmFlags = VmFlags::ACCESS.union(VmFlags::SHARED);

impl Vma {
    /// Returns the file of huge pages that is mapped.
    pub(in crate::mm) fn hugetlb(&self) -> Option<&HugetlbFile> {
        // The flag first: most VMAs need no question to their object.
        let huge = self.flags.contains(VmFlags::HUGETLB);
        HugetlbFile::of(&**self.object().filter(|_| huge)?)
    }
    /// Returns how many base pages each page of the VMA has (`vma_kernel_pagesize`).
    pub(in crate::mm) fn grain(&self) -> u64 {
        self.hugetlb().map_or(1, |file| file.huge_size().pages())
    }
    /// Returns the huge page around `at`.
    pub(in crate::mm) fn huge_page_of(&self, at: Vpn) -> VpnRange {
        let start = at.align_down(self.grain());
        VpnRange::new(start, start.plus(self.grain())).expect("a page is not empty")
    }
    /// Returns true if `at` is at the edge of a page of this VMA.
    pub(in crate::mm) fn is_whole(&self, at: Vpn) -> bool {
        at.0.is_multiple_of(self.grain())
    }
    /// Returns the index in the file of the huge page around `at` (`vma_hugecache_offset`).
    pub(in crate::mm) fn huge_index(&self, at: Vpn) -> u64 {
        self.pgoff_at(at) / self.grain()
    }
    /// Returns true if this VMA has a reservation.
    pub(in crate::mm) fn is_owner(&self) -> bool {
        self.reserve.is_some()
    }
    /// Returns true if a page of this VMA was taken away for the owner of its reservation: no page
    /// comes in any more, since a new one would not have the bytes of the old one.
    pub(in crate::mm) fn is_stolen(&self) -> bool {
        let marks = self.file_link.as_ref().map_or(0, |link| link.flags());
        self.stolen || STOLEN.intersects(VmFlags::from_bits_retain(marks))
    }
    /// Returns the marks of the VMA in the reverse map of its file.
    pub(super) fn huge_marks(&self) -> VmFlags {
        let mut marks = VmFlags::empty();
        marks.set(OWNER, self.is_owner());
        marks.set(STOLEN, self.is_stolen());
        marks
    }
    /// Gives the VMA above `at` its part of the reservation.
    pub(in crate::mm) fn split_reserve(&mut self, at: Vpn, upper: &mut Self) {
        let index = self.huge_index(at);
        upper.reserve = self.reserve.as_mut().map(|r| Box::new(r.split_off(index)));
    }
}

/// Extends the range of a window over part of a VMA to all of a table of 2-MiB entries, if the VMA
/// maps huge pages and may share such tables with others (`adjust_range_if_pmd_sharing_possible`).
///
/// Inside of such a window a table that is shared is given up whole
/// ([`SharedTables`](crate::mm::machine::SharedTables)).
pub(in crate::mm) fn with_shared_tables(
    vma: VpnRange,
    flags: VmFlags,
    range: VpnRange,
) -> VpnRange {
    let first = vma.start().align_up(PUD_PAGES);
    let last = vma.end().align_down(PUD_PAGES);
    let (start, end) = (range.start(), range.end());
    let shares = flags.contains(SHARES_TABLES) && first < last;
    if !shares || end <= first || start >= last {
        return range;
    }
    let start = match start > first {
        true => start.align_down(PUD_PAGES),
        false => start,
    };
    let end = match end < last {
        true => end.align_up(PUD_PAGES),
        false => end,
    };
    VpnRange::new(start, end).expect("it only grows")
}

/// The part of a VMA that decides which tables it may share.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct TableSharing {
    range: VpnRange,
    pgoff: u64,
    mapping: usize,
    /// `None`: the VMA needs tables of its own.
    flags: Option<VmFlags>,
}

impl TableSharing {
    pub(in crate::mm) fn of(vma: &Vma) -> Self {
        let shares = vma.flags.contains(SHARES_TABLES) && !vma.flags.intersects(OWN_TABLES);
        let mapping = vma.file.as_ref().map(|file| Arc::as_ptr(file.mapping()));
        Self {
            range: vma.range(),
            pgoff: vma.pgoff,
            mapping: mapping.map_or(0, <*const _>::addr),
            flags: shares.then_some(vma.flags & DECIDING),
        }
    }
    /// Returns the table around `at`, if it may be shared, and its kind (`want_pmd_share`).
    pub(in crate::mm) fn table(self, at: Vpn) -> Option<(VpnRange, TableKind)> {
        let start = at.align_down(PUD_PAGES);
        let table = VpnRange::new(start, start.plus(PUD_PAGES))?;
        let flags = self.flags.filter(|_| self.range.covers(table))?;
        let kind = TableKind {
            mapping: self.mapping,
            first: self.pgoff + (start.0 - self.range.start().0),
            flags,
        };
        Some((table, kind))
    }
    /// Returns the kind of the table at `start`, if it may be shared.
    pub(in crate::mm) fn kind(self, start: Vpn) -> Option<TableKind> {
        self.table(start).map(|(_, kind)| kind)
    }
}
