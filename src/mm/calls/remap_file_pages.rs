//! `remap_file_pages`: maps other pages of an object in the place of those of a shared mapping.
//!
//! Linux emulates the call since 4.0 by a new mapping of those pages; [`RemapMode::Nonlinear`] does
//! as it did before, by entries that name their pages.

use crate::mm::{
    entry::{
        args::MmapArgs,
        flags::{MapFlags, Prot, RemapMode, VmFlags},
        pte::RawPte,
    },
    guard::{AfterYield, MmapWriteGuard},
    space::Mm,
    window::InvalidationWindow,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, Vpn, VpnRange},
    ctx::{CallCx, Sleepable},
    error::{ByteRange, MmapError, NoMemory, RemapError, VmaError},
    file::{MAX_SIZE, same_file},
    notifier::Event,
};
use std::sync::Arc;

impl Mm {
    /// Sets the way in which [`remap_file_pages`](Self::remap_file_pages) works from now on, also
    /// for children of a fork.
    pub fn set_remap_mode(&self, cx: &mut CallCx<'_>, mode: RemapMode) {
        self.lock_exclusive(cx).layout.remap_mode = mode;
    }
    /// Maps pages of the object that is mapped shared at `addr`, from page `pgoff` of it on, to
    /// `[addr, addr + len)`; `addr` and `len` are rounded down to pages. `prot` must be 0. Of the
    /// flags only `NONBLOCK` counts: without it the pages are faulted in.
    ///
    /// Opens one window over the range, as any mapping that replaces another.
    ///
    /// # Errors
    ///
    /// [`RemapError`]; no page is mapped elsewhere, except as for [`mmap`](Self::mmap).
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::{MapFlags, MmapArgs, Prot}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(4 * PAGE_SIZE).shared())?;
    /// mm.store(&mut cx, at + 3 * PAGE_SIZE, 7)?;
    /// mm.remap_file_pages(&mut cx, at, PAGE_SIZE, Prot::empty(), 3, MapFlags::empty())?;
    /// assert_eq!(mm.load(&mut cx, at)?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remap_file_pages(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        prot: Prot,
        pgoff: u64,
        flags: MapFlags,
    ) -> Result<(), RemapError> {
        if !prot.is_empty() {
            return Err(RemapError::Prot(prot.bits()));
        }
        let range = check_range(addr, len, pgoff)?;
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        if g.layout.remap_mode == RemapMode::Nonlinear {
            g.remap_nonlinear(range, pgoff)?;
            drop(g);
            if !flags.contains(MapFlags::NONBLOCK) {
                self.populate_best_effort(cx, range);
            }
            return Ok(());
        }
        let args = g.remap_args(range, pgoff, flags)?;
        let (range, locked) = g.do_mmap(&args)?;
        drop(g);
        if locked || !flags.contains(MapFlags::NONBLOCK) {
            self.populate_best_effort(cx, range);
        }
        Ok(())
    }
}

fn check_range(addr: u64, len: u64, pgoff: u64) -> Result<VpnRange, RemapError> {
    let bad = RemapError::Range(ByteRange { addr, len });
    let (start, size) = (addr & !(PAGE_SIZE - 1), len & !(PAGE_SIZE - 1));
    let end = start.wrapping_add(size);
    if end <= start {
        return Err(bad);
    }
    if pgoff.checked_add(size >> PAGE_SHIFT).is_none() {
        return Err(RemapError::Offset(pgoff));
    }
    VpnRange::new(Vpn::containing(start), Vpn::containing(end)).ok_or(bad)
}

impl MmapWriteGuard<'_> {
    /// Returns the arguments of the mapping that replaces the range. All of the range must be
    /// shared, of one file and with one set of flags.
    fn remap_args(
        &self,
        range: VpnRange,
        pgoff: u64,
        flags: MapFlags,
    ) -> Result<MmapArgs, RemapError> {
        let bad = RemapError::Unsuitable(range.start().addr());
        let vma = self.layout.vmas.get(range.start()).ok_or(bad)?;
        let whole = range.start().is_aligned(vma.grain()) && range.end().is_aligned(vma.grain());
        if !vma.flags.contains(VmFlags::SHARED) || !whole {
            return Err(bad);
        }
        let file = vma.file.as_ref().ok_or(bad)?;
        let mut end = vma.end();
        while end < range.end() {
            let next = self.layout.vmas.get(end).ok_or(bad)?;
            if !same_file(next.file.as_ref(), Some(file)) || next.flags != vma.flags {
                return Err(bad);
            }
            end = next.end();
        }
        let mut kind = MapFlags::SHARED | MapFlags::FIXED | (flags & MapFlags::NONBLOCK);
        if vma.flags.contains(VmFlags::LOCKED) {
            kind |= MapFlags::LOCKED;
        }
        Ok(MmapArgs {
            addr: range.start().addr(),
            len: range.pages() * PAGE_SIZE,
            prot: Prot::from_bits_truncate(
                u32::try_from((vma.flags & VmFlags::ACCESS).bits()).expect("three bits"),
            ),
            flags: kind,
            file: Some(Arc::clone(file)),
            offset: pgoff
                .checked_mul(PAGE_SIZE)
                .ok_or(RemapError::Offset(pgoff))?,
        })
    }
}

impl MmapWriteGuard<'_> {
    /// Unmaps the range in one window and names its page in each entry (the kernel's
    /// `populate_range` until 4.0). The range must lie in one shared mapping.
    fn remap_nonlinear(&mut self, range: VpnRange, pgoff: u64) -> Result<(), RemapError> {
        let bad = RemapError::Unsuitable(range.start().addr());
        let vma = self.layout.vmas.get(range.start()).ok_or(bad)?;
        let fits = vma.flags.contains(VmFlags::SHARED) && vma.range().covers(range);
        if !fits || vma.is_sealed() || vma.flags.contains(VmFlags::HUGETLB) {
            return Err(bad);
        }
        let limit = MAX_SIZE / PAGE_SIZE;
        if pgoff.saturating_add(range.pages()) > limit {
            return Err(MmapError::OffsetOverflow(pgoff).into());
        }
        let start = vma.start();
        if !vma.flags.contains(VmFlags::NONLINEAR) {
            self.layout
                .change(start, |vma| vma.flags |= VmFlags::NONLINEAR);
        }
        let mm = self.mm;
        let filled = self.yield_while(range.pages(), AfterYield::OnlyPages, &[], |lease| {
            let mut window = lease.into_window(range, Event::Clear);
            window.fill(mm, range, pgoff)
        });
        filled.map_err(|e| MmapError::Vma(VmaError::NoMemory(e)).into())
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Names the pages once all tables are there, so that a refused table changes no entry.
    fn fill(&mut self, mm: &Mm, range: VpnRange, pgoff: u64) -> Result<(), NoMemory> {
        self.split_edges(range);
        let mut at = range.start();
        while at < range.end() {
            self.split_huge(at);
            mm.table.view(&mut self.cx()).make_leaf(at)?;
            at = VpnRange::block_of(at).end();
        }
        for at in range.iter() {
            let entry = RawPte::file(pgoff + (at.0 - range.start().0));
            self.lock_ptes(at, |txn| {
                txn.entry(at).map(|slot| drop(slot.replace(entry)))
            });
        }
        Ok(())
    }
}
