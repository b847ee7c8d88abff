//! `mmap`: checks the arguments in Linux's order, finds a place, removes the old mappings there,
//! and merges or inserts the new range.

use super::file_kinds::{FileKind, Source, heed_seals};
use crate::mm::{
    edit::merge::NewRange,
    entry::{
        args::{MmapArgs, TYPE, check_args, size_of_pages},
        flags::{MapFlags, VmFlags},
    },
    guard::{AfterYield, MmapWriteGuard},
    space::Mm,
    vma::{Vma, extras::Extras, layout::Promise},
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{MmapError, VmaError},
    file::{ANONYMOUS, File, FileMode, MAX_SIZE, Shmem},
    frame::Overcommit,
    trace,
};
use std::sync::Arc;

impl Mm {
    /// Maps `args.len` bytes and returns their address (`mmap(2)`).
    ///
    /// Opens one window over the range if it replaces a mapping, none otherwise. `POPULATE` and
    /// `LOCKED` fault the pages in afterwards; failures of that are ignored, as on Linux.
    ///
    /// # Errors
    ///
    /// [`MmapError`]. At worst, VMAs were split at the ends of a fixed range; or the range was left
    /// unmapped, if the very last allocation failed or there are no huge pages for it. All that is
    /// as on Linux.
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
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// mm.store(&mut cx, at, 7)?;
    ///
    /// // A mapping at a fixed address replaces the mapping there.
    /// let again = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE).fixed(at))?;
    /// assert_eq!((again, mm.load(&mut cx, at)?), (at, 0));
    ///
    /// let refused = mm.mmap(&mut cx, &MmapArgs::anonymous(0)).unwrap_err();
    /// assert_eq!(refused.errno(), Errno::EINVAL);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mmap(&self, cx: &mut CallCx<'_>, args: &MmapArgs) -> Result<u64, MmapError> {
        let _call = trace::call("mmap", args.addr, args.len);
        let mut g = self.lock_exclusive_some(cx);
        let (range, locked) = g.do_mmap(args)?;
        drop(g);
        let populate = args.flags & (MapFlags::POPULATE | MapFlags::NONBLOCK) == MapFlags::POPULATE;
        if locked || populate {
            self.populate_best_effort(cx, range);
        }
        Ok(range.start().addr())
    }
}

impl MmapWriteGuard<'_> {
    /// Maps a range under the lock. Returns the range, and true if it is locked memory.
    pub(in crate::mm) fn do_mmap(
        &mut self,
        args: &MmapArgs,
    ) -> Result<(VpnRange, bool), MmapError> {
        let pages = check_args(args)?;
        let count = self.layout.vmas.len();
        if count > self.layout.machine.config().max_map_count {
            return Err(MmapError::MapCount(count));
        }
        let range = loop {
            let range = self.find_place(args, pages)?;
            if self.wait_for_conflicts(&[range]) {
                break range;
            }
        };
        let (flags, pgoff) = self.new_mapping(args, range)?;
        let (flags, _coming) = heed_seals(args.file.as_deref(), flags)?;
        if let Some(huge) = size_of_pages(args)? {
            let pgoff = args.offset >> PAGE_SHIFT;
            self.map_hugetlb(range, flags, (huge, pgoff), args.file.clone())?;
        } else {
            let flags = match self.prepare_mapping(args.file.as_deref(), flags, pages) {
                Ok(flags) => flags,
                Err(why) => match self.refuse_late(range, flags, why)? {},
            };
            let source = Source::of(args.file.as_ref(), flags);
            self.map_region(range, flags, pgoff, source)?;
        }
        Ok((range, flags.contains(VmFlags::LOCKED)))
    }

    /// Returns flags and page offset of the new VMA.
    #[inline]
    pub(super) fn new_mapping(
        &self,
        args: &MmapArgs,
        range: VpnRange,
    ) -> Result<(VmFlags, u64), MmapError> {
        let flags = self.vm_flags(args, range.pages())?;
        let pgoff = match &args.file {
            Some(_) => args.offset >> PAGE_SHIFT,
            None if flags.contains(VmFlags::SHARED) => 0,
            None => range.start().0,
        };
        Ok((flags, pgoff))
    }

    /// Returns the flags of the new VMA; checks the right to lock memory and contradictions of
    /// flags.
    fn vm_flags(&self, args: &MmapArgs, pages: u64) -> Result<VmFlags, MmapError> {
        let has = |f| args.flags.contains(f);
        let mut flags = VmFlags::from_prot(args.prot)
            | VmFlags::MAYREAD
            | VmFlags::MAYWRITE
            | VmFlags::MAYEXEC
            | self.layout.def_flags;
        if has(MapFlags::GROWSDOWN) {
            flags |= VmFlags::GROWSDOWN;
        }
        if has(MapFlags::SYNC) {
            flags |= VmFlags::SYNC;
        }
        if has(MapFlags::STACK) {
            flags |= VmFlags::NOHUGEPAGE;
        }
        if has(MapFlags::LOCKED) {
            flags |= VmFlags::LOCKED;
            if !self.layout.can_mlock() {
                return Err(MmapError::LockDenied);
            }
        }
        if flags.contains(VmFlags::LOCKED) && !self.layout.may_lock(pages) {
            return Err(MmapError::LockLimit(pages));
        }
        let pgoff = args.offset >> PAGE_SHIFT;
        if let Some(file) = &args.file {
            self.check_file(file, pgoff, pages)?;
        } else if has(MapFlags::HUGETLB) {
            // The file that is made for this mapping alone is mapped from there on.
            check_offset(pgoff, pages)?;
        }
        flags = kind_flags(args, flags)?;
        let never = matches!(
            self.layout.machine.config().overcommit,
            Overcommit::Never { .. }
        );
        let is_huge = size_of_pages(args)?.is_some();
        if has(MapFlags::NORESERVE) && (!never || is_huge) {
            flags |= VmFlags::NORESERVE;
        }
        Ok(flags)
    }

    /// Checks that the file's object is of this machine, and can have the offsets.
    pub(super) fn check_file(&self, file: &File, pgoff: u64, pages: u64) -> Result<(), MmapError> {
        if !file.mapping().is_on(self.layout.machine.registry()) {
            return Err(MmapError::OtherMachine);
        }
        check_offset(pgoff, pages)
    }

    /// Puts a checked range into the layout (`mmap_region`). Returns the start of the VMA that
    /// holds it.
    #[inline]
    pub(in crate::mm) fn map_region(
        &mut self,
        range: VpnRange,
        mut flags: VmFlags,
        pgoff: u64,
        source: Source,
    ) -> Result<Vpn, MmapError> {
        self.layout.vmas.focus(range.start());
        let old = self.gather(range)?;
        self.layout.may_expand(flags, range.pages() - old.pages)?;
        let accounted = flags.accountable();
        if accounted {
            // The memory that was promised to the replaced VMAs passes on to the new one.
            self.recharge(range.pages(), old.accounted)?;
            flags |= VmFlags::ACCOUNT;
        }
        // Given back if the range is not mapped in the end: the last allocation may fail, a driver
        // may panic.
        let promised = if accounted { range.pages() } else { 0 };
        let promise = Promise::made(self.mm.machine(), promised);
        if old.pages > 0 {
            let told = self.watchers(range, &old);
            self.complete_unmap(range, !accounted, AfterYield::KeepsEditing);
            if let Some(told) = told {
                told.send();
            }
        }
        flags = self.layout.with_merge_all(flags);
        let new = NewRange {
            range,
            pgoff,
            flags,
            file: source.file,
            copied_from: None,
            extras: Extras::of_device(source.device),
        };
        let shared_anonymous = new.file.is_none() && flags.contains(VmFlags::SHARED);
        let merged = (!shared_anonymous).then(|| self.merge_new(&new)).flatten();
        let start = match merged {
            Some(start) => start,
            None => self.insert_new(new)?,
        };
        promise.keep();
        self.layout.account(flags, range.pages());
        if flags.contains(VmFlags::LOCKED) {
            self.lock_new(start, range.pages());
        }
        Ok(start)
    }
    /// Counts a new range as locked (`__mmap_complete`). A VMA that cannot be locked loses the
    /// flags only now, so it did not merge with unlocked memory, and is populated all the same.
    pub(super) fn lock_new(&mut self, start: Vpn, pages: u64) {
        if self.vma(start).flags.may_be_locked() {
            self.layout.locked_vm += pages;
        } else {
            self.layout.change(start, |v| v.flags -= VmFlags::LOCK_MASK);
        }
    }
    fn recharge(&self, new: u64, old: u64) -> Result<(), MmapError> {
        if new >= old {
            Ok(self.layout.charge(new - old)?)
        } else {
            self.layout.uncharge(old - new);
            Ok(())
        }
    }
    /// Inserts a VMA of its own (`__mmap_new_vma`). Shared anonymous memory gets its object here.
    fn insert_new(&mut self, new: NewRange) -> Result<Vpn, VmaError> {
        self.layout.alloc_vma()?;
        let file = match new.file {
            None if new.flags.contains(VmFlags::SHARED) => Some(self.zero_file(&new)?),
            file => file,
        };
        let start = new.range.start();
        let mut vma = Vma::new(new.range, new.pgoff, new.flags, file);
        vma.extras = new.extras;
        self.layout.insert(vma);
        Ok(start)
    }
    /// Makes the object of shared anonymous memory (`shmem_zero_setup`).
    fn zero_file(&self, new: &NewRange) -> Result<Arc<File>, VmaError> {
        let machine = &self.layout.machine;
        let pages = new.range.pages();
        let charged = if new.flags.contains(VmFlags::NORESERVE) {
            0
        } else {
            pages
        };
        if !machine.commit().charge(charged) {
            return Err(VmaError::NoMemory(crate::error::NoMemory::Object));
        }
        let object = Shmem::new(machine.host(), ANONYMOUS, pages * PAGE_SIZE, charged)
            .inspect_err(|_| machine.commit().uncharge(charged))?;
        Ok(File::open(object, FileMode::ReadWrite))
    }
}

/// Checks that no offset exceeds the greatest of an object (`file_mmap_ok`).
fn check_offset(pgoff: u64, pages: u64) -> Result<(), MmapError> {
    if pages > MAX_SIZE / PAGE_SIZE || pgoff > MAX_SIZE / PAGE_SIZE - pages {
        return Err(MmapError::OffsetOverflow(pgoff));
    }
    Ok(())
}

/// Adds the flags of the mapping's type; fails for unknown types.
#[inline]
fn kind_flags(args: &MmapArgs, flags: VmFlags) -> Result<VmFlags, MmapError> {
    let bad = Err(MmapError::Flags(args.flags.bits()));
    let grows = flags.contains(VmFlags::GROWSDOWN);
    let kind = args.flags & TYPE;
    if let Some(file) = &args.file {
        return FileKind::of(file).flags(args, flags);
    }
    if args.flags.contains(MapFlags::HUGETLB) {
        // As for the file of huge pages that is made for this mapping alone.
        return FileKind::huge().flags(args, flags);
    }
    if kind == MapFlags::SHARED {
        if grows {
            return bad;
        }
        Ok(flags | VmFlags::SHARED | VmFlags::MAYSHARE)
    } else if kind == MapFlags::PRIVATE {
        Ok(flags)
    } else if kind == MapFlags::DROPPABLE {
        // `LOCKED` contradicts it. `mlockall` for new memory does not, and is ignored.
        if grows || args.flags.contains(MapFlags::LOCKED) {
            return bad;
        }
        let droppable = VmFlags::DROPPABLE | VmFlags::WIPEONFORK | VmFlags::DONTDUMP;
        Ok(flags | droppable | VmFlags::NORESERVE)
    } else {
        bad
    }
}
