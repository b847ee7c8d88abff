//! Tables of 2-MiB entries that are shared with other mappings of a file of huge pages, on the side
//! of faults (`huge_pmd_share`); see [`SharedTables`](crate::mm::machine::SharedTables).

use super::{hugetlb::parts, scope::FaultScope};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    machine::{SpaceAt, TableKind, number_of},
    page_table::fill_part,
    space::Mm,
    vma::{Vma, hugetlb::TableSharing},
};
use crate::{
    addr::{PUD_PAGES, Vpn, VpnRange},
    error::NoMemory,
    file::HugetlbFile,
    frame::PhysMem,
    rmap::{FrameOwner, RmapCx},
};

/// Flags of VMAs that make no difference for sharing.
const ALIKE: VmFlags = VmFlags::LOCK_MASK;

impl FaultScope<'_> {
    /// Before a fault makes a table: if another mapping of the same kind has one for the same part
    /// of the file, all that it maps is mapped here too.
    pub(super) fn share_table(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        at: Vpn,
    ) -> Result<(), NoMemory> {
        let Some((table, kind)) = TableSharing::of(vma).table(at) else {
            return Ok(());
        };
        let mm = self.lease.mm;
        let tables = &mm.machine().shared_tables;
        if tables.offer(mm.number(), table.start(), kind) {
            return Ok(());
        }
        let other = self.find_table(vma, kind);
        let target = self.layout.space.clone();
        let place = other.as_ref().map(|&(space, start, _)| (space, start));
        if !tables.enter((mm.number(), target, table.start()), kind, place) {
            return Ok(());
        }
        let (_, start, mapped) = other.expect("a group was joined");
        for page in mapped {
            let at = table.start().plus(page.0 - start.0);
            self.share_page(vma, file, at)?;
        }
        Ok(())
    }
    /// Returns the address space, the first page and the mapped pages of the first table that can
    /// be shared, in the order of the reverse map.
    fn find_table(&mut self, vma: &Vma, kind: TableKind) -> Option<(SpaceAt, Vpn, Vec<Vpn>)> {
        let mm = self.lease.mm;
        let tables = &mm.machine().shared_tables;
        let mapping = vma.file.as_ref()?.mapping();
        let pages = (kind.first, kind.first + PUD_PAGES);
        let flags = vma.flags - ALIKE;
        let mut found = None;
        mapping.walk_huge(self.lease.cx.descend(), pages, &mut |cx, spot, part| {
            let space = number_of(spot.space);
            let start = part.start();
            let whole = part.pages() == PUD_PAGES && start.is_aligned(PUD_PAGES);
            let is_alike = VmFlags::from_bits_retain(spot.flags) - ALIKE == flags;
            if whole && is_alike && tables.offers(space, start, kind) {
                let mapped = spot.space.mapped_in(cx, part, vma.grain());
                found = Some((space, start, mapped));
            }
            found.is_none()
        });
        found
    }
    /// Maps the page at `at` that another mapping has, if the file has it still.
    fn share_page(&mut self, vma: &Vma, file: &HugetlbFile, at: Vpn) -> Result<(), NoMemory> {
        let page = vma.huge_page_of(at);
        let rights = vma.mapped_rights();
        let (mm, cx) = (self.lease.mm, &mut self.lease.cx);
        file.with_page(vma.huge_index(at), |head| {
            let Some(head) = head else {
                return Ok(());
            };
            mm.enter_huge_at(cx.descend(), page, RawPte::frame(head, rights))
        })
    }
    /// Enters the page that a fault has mapped into the other tables of the group.
    pub(in crate::mm) fn spread(&mut self, vma: &Vma, page: VpnRange, first: RawPte) {
        if TableSharing::of(vma).table(page.start()).is_none() {
            return;
        }
        let (mm, cx) = (self.lease.mm, &mut self.lease.cx);
        let tables = &mm.machine().shared_tables;
        tables.spread(mm.number(), page, |target, there| {
            target.enter_huge(cx.descend(), there, first.0)
        });
    }
}

impl Mm {
    /// Maps the huge page of a pool with this first entry at `page`, unless something is there.
    pub(in crate::mm) fn enter_huge_at(
        &self,
        mut cx: RmapCx<'_>,
        page: VpnRange,
        first: RawPte,
    ) -> Result<(), NoMemory> {
        let mem = self.machine().mem();
        for (part, nth) in parts(page) {
            let first = first.with_pfn(first.pfn().nth(nth));
            loop {
                let view = self.table.view(&mut cx);
                let leaf = view.make_leaf(part.start())?;
                if let Some(leaf) = leaf.try_lock()? {
                    if leaf.is_empty() {
                        fill_part(mem, &leaf, part, first, PhysMem::share);
                    }
                    break;
                }
            }
        }
        Ok(())
    }
}
