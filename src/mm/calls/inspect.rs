//! Questions about mappings, `find_vma` and `mincore`, and `mseal`, which forbids changes.

use super::vma_walk::part_of;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    guard::{MmapReadGuard, MmapWriteGuard},
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MincoreError, MsealError},
};

/// The VMA at a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VmaInfo {
    /// The pages of the VMA.
    pub range: VpnRange,
    /// The rights and properties of the VMA.
    pub flags: VmFlags,
}

impl MmapReadGuard<'_> {
    /// Returns the VMA that holds page `at` (`vma_lookup`). Takes O(log n) in the number of VMAs.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::Vpn, mm::{MmapArgs, VmFlags}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE))?;
    /// let guard = mm.lock_shared(&mut cx);
    /// let vma = guard.vma_at(Vpn::containing(at + PAGE_SIZE)).expect("mapped");
    /// assert_eq!((vma.range.start(), vma.range.pages()), (Vpn::containing(at), 4));
    /// assert!(vma.flags.contains(VmFlags::WRITE));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn vma_at(&self, at: Vpn) -> Option<VmaInfo> {
        let found = self.layout.vmas.range_of(at);
        found.map(|(range, flags)| VmaInfo {
            range,
            flags: VmFlags::from_bits_retain(flags),
        })
    }
}

impl Mm {
    /// Returns for each page of `[addr, addr + len)` whether it is in memory: mapped, or in its
    /// object's memory.
    ///
    /// # Errors
    ///
    /// [`MincoreError`]: a bad range or a hole.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// mm.store(&mut cx, at + PAGE_SIZE, 7)?;
    /// assert_eq!(mm.mincore(&mut cx, at, 2 * PAGE_SIZE)?, [false, true]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mincore(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
    ) -> Result<Vec<bool>, MincoreError> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(MincoreError::Unaligned(addr));
        }
        let too_high = MincoreError::TooHigh(ByteRange { addr, len });
        let end = addr
            .checked_add(len)
            .filter(|&end| end <= TASK_SIZE)
            .ok_or(too_high)?
            .next_multiple_of(PAGE_SIZE);
        let Some(range) = VpnRange::new(Vpn::containing(addr), Vpn::containing(end)) else {
            return Ok(Vec::new());
        };
        let mut g = self.lock_shared_over(cx, Some(range));
        let mut out = cached(&g.layout, range)?;
        let mut at = range.start();
        while let Some(vma) = g.layout.vmas.get(at).filter(|_| at < range.end()) {
            let part = part_of(vma, at, range);
            if vma.flags.contains(VmFlags::HUGETLB) {
                // Where there is a table, only the entries count (`mincore_hugetlb`).
                let view = self.table.view(&mut g.cx);
                for page in part.iter().filter(|&page| view.has_pmd(page)) {
                    let i = page.0 - range.start().0;
                    out[usize::try_from(i).expect("fits the vector")] = false;
                }
            }
            self.for_each_entry(&mut g.cx, part, |page, pte| {
                let i = page.0 - range.start().0;
                if let Some(in_core) = self.in_core(vma, pte) {
                    out[usize::try_from(i).expect("fits the vector")] = in_core;
                }
            });
            at = part.end();
        }
        Ok(out)
    }
    /// Returns the answer that an entry gives without a look at the object (`mincore_pte_range`);
    /// `None` for a guard marker, which gives none.
    fn in_core(&self, vma: &Vma, pte: RawPte) -> Option<bool> {
        // An entry that is no swap entry counts as in memory (`mincore_swap`).
        if pte.is_present() || pte.migrating().is_some() || pte.of_device().is_some() {
            Some(true)
        } else if let Some(slot) = pte.swap_slot() {
            Some(self.machine().mem().swap_is_cached(slot))
        } else {
            pte.file_index().map(|index| in_object(vma, index))
        }
    }

    /// Seals `[addr, addr + len)`: its VMAs can no longer be unmapped, moved, replaced or given
    /// other rights.
    ///
    /// # Errors
    ///
    /// [`MsealError`]. Nothing is sealed then, unless the map limit prevented a split.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Errno, PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// mm.mseal(&mut cx, at, PAGE_SIZE)?;
    /// let refused = mm.munmap(&mut cx, at, PAGE_SIZE).unwrap_err();
    /// assert_eq!(refused.errno(), Errno::EPERM);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mseal(&self, cx: &mut CallCx<'_>, addr: u64, len: u64) -> Result<(), MsealError> {
        let bad = MsealError::Range(ByteRange { addr, len });
        let end = len
            .checked_next_multiple_of(PAGE_SIZE)
            .and_then(|len| addr.checked_add(len))
            .filter(|_| addr.is_multiple_of(PAGE_SIZE))
            .ok_or(bad)?;
        let Some(range) = VpnRange::new(Vpn::containing(addr), Vpn::containing(end)) else {
            return Ok(());
        };
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        g.seal(range)
    }
}

/// Returns for each page whether its object has it in memory. Pages beyond the end of the object
/// cost nothing.
fn cached(layout: &Layout, range: VpnRange) -> Result<Vec<bool>, MincoreError> {
    let mut parts = Vec::new();
    let mut at = range.start();
    while at < range.end() {
        let vma = layout.vmas.get(at).ok_or(MincoreError::Hole(at.addr()))?;
        let part = part_of(vma, at, range);
        parts.extend(vma.object().map(|object| (vma, part, object)));
        at = part.end();
    }
    let nth = |n: u64| usize::try_from(n).expect("fits the vector");
    let mut out = vec![false; nth(range.pages())];
    for (vma, part, object) in parts {
        let first = vma.pgoff_at(part.start());
        // The page behind the last may be present too: a write began in it, but failed.
        let end = object.pages().saturating_add(1);
        let there = end.saturating_sub(first).min(part.pages());
        for n in 0..there {
            out[nth(part.start().0 - range.start().0 + n)] = object.in_core(first + n);
        }
    }
    Ok(out)
}

fn in_object(vma: &Vma, index: u64) -> bool {
    vma.object().is_some_and(|object| object.in_core(index))
}

impl MmapWriteGuard<'_> {
    fn seal(&mut self, range: VpnRange) -> Result<(), MsealError> {
        let mut at = range.start();
        while at < range.end() {
            let vma = self.layout.vmas.get(at);
            at = vma.map(Vma::end).ok_or(MsealError::Hole(at.addr()))?;
        }
        let mut at = range.start();
        while at < range.end() {
            let vma = self.layout.vmas.get(at).expect("checked above");
            let part = part_of(vma, at, range);
            let (start, flags) = (vma.start(), vma.flags);
            let start = if vma.is_sealed() {
                start
            } else {
                self.modify(start, part, flags | VmFlags::SEALED)?
            };
            at = self.vma(start).end();
        }
        Ok(())
    }
}
