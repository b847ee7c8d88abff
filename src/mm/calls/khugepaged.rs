//! `khugepaged`: makes huge pages of the small ones of memory that asked for huge pages
//! (`khugepaged_scan_mm_slot`).
//!
//! The collapse of 2 MiB is that of `MADV_COLLAPSE`; only the choice is another: the block must
//! have been used, and not have too many pages without memory, in swap or of other processes.

use super::madvise::collapse::{By, Collapsed, Fail, blocks, may_collapse};
use crate::mm::{
    entry::flags::VmFlags,
    machine::Machine,
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{PMD_PAGES, Vpn},
    ctx::CallCx,
    file::MemoryObject,
};

impl Machine {
    /// Scans the memory of all address spaces that asked for huge pages (`MADV_HUGEPAGE`), and
    /// makes a huge page of each aligned 2 MiB of small pages that the limits allow
    /// ([`KhugepagedLimits`](super::super::KhugepagedLimits)), in one window each.
    /// Returns how many.
    ///
    /// The address spaces come in the order in which they were made, each from its lowest address.
    /// Linux does the same in a thread of its own, some pages at a time. Shared memory becomes huge
    /// where the policy of its file system allows ([`HugePolicy`](crate::file::HugePolicy)), and is
    /// not mapped then; pages of other files are left alone.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::mm::{Advice, MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = 0x4000_0000; // a multiple of 2 MiB
    /// mm.mmap(&mut cx, &MmapArgs::anonymous(2 << 20).fixed(at))?;
    /// mm.store(&mut cx, at, 7)?; // a small page
    /// mm.madvise(&mut cx, at, 2 << 20, Advice::HugePage)?;
    /// assert_eq!(machine.khugepaged(&mut cx), 1);
    /// assert_eq!((mm.load(&mut cx, at)?, machine.mem().in_use()), (7, 512));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn khugepaged(&self, cx: &mut CallCx<'_>) -> usize {
        self.check_token(cx);
        let spaces = self.spaces.all();
        spaces.iter().map(|space| space.collapse_all(cx)).sum()
    }
}

/// Returns true if khugepaged may work on the VMA (`thp_vma_allowable_order` with
/// `TVA_KHUGEPAGED`, huge pages on request).
fn is_chosen(layout: &Layout, vma: &Vma) -> bool {
    // An object's memory has a policy of its own, which is asked block by block.
    let asked = vma.flags.contains(VmFlags::HUGEPAGE) || !vma.is_anonymous();
    asked && may_collapse(layout, vma)
}

impl Mm {
    /// Collapses the blocks of this address space that may be collapsed; returns how many.
    pub(super) fn khugepaged_scan(&self, cx: &mut CallCx<'_>) -> usize {
        let limits = self.machine().config().khugepaged;
        self.machine().mem().drain_batches();
        let mut made = 0;
        for at in self.khugepaged_blocks(cx) {
            match self.collapse_block(cx, at, By::Khugepaged(&limits)) {
                Ok(Collapsed::Now) => made += 1,
                Ok(Collapsed::Before) | Err(Fail::Skip | Fail::Busy | Fail::Never) => {}
                Err(Fail::NoMemory) => break,
            }
        }
        made
    }
    /// Returns the blocks that have a page, or once had one. In others, which may be many, there is
    /// nothing to collapse.
    fn khugepaged_blocks(&self, cx: &mut CallCx<'_>) -> Vec<Vpn> {
        let mut g = self.lock_shared_over(cx, None);
        let view = self.table.view(&mut g.cx);
        let mut found = Vec::new();
        for vma in g.layout.vmas.iter().filter(|vma| is_chosen(&g.layout, vma)) {
            let Some((from, to)) = blocks(vma.range()) else {
                continue;
            };
            match vma.object() {
                None => view.for_each_leaf(vma.range(), |part, _| {
                    found.extend((part.pages() == PMD_PAGES).then_some(part.start()));
                }),
                Some(object) => {
                    let mut at = from;
                    while let Some(next) = vma.first_page_of(&**object, at, to) {
                        let block = next.align_down(PMD_PAGES);
                        found.push(block);
                        at = block.plus(PMD_PAGES);
                    }
                }
            }
        }
        found
    }
}

impl Vma {
    /// Returns the place of the first page from `from` on that the object has, if below `to`.
    fn first_page_of(&self, object: &dyn MemoryObject, from: Vpn, to: Vpn) -> Option<Vpn> {
        let pages = self.pgoff_at(from)..self.pgoff_at(to);
        let index = object.mapping().first_page(pages.clone())?;
        Some(from.plus(index - pages.start))
    }
}
