//! Loads and stores of a processor, with a fault where the page table does not allow them.
//!
//! Guarantee: an access reads or changes a frame only while the entry that maps the frame is in the
//! table, since it holds the lock of that entry's leaf. So a processor never uses a stale
//! translation. Within one page an access is atomic against changes of the page table, across pages
//! it is not, as in hardware.

use super::Patience;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    page_table::{LeafAt, LockedLeaf},
    space::Mm,
};
use crate::{
    addr::{Pfn, Vpn, VpnRange, by_page},
    ctx::{CallCx, Cx, Sleepable},
    error::FaultError,
    frame::{AtomicOp, Word, WordAccess},
    notifier::Access,
    sync::Ordering,
};

impl Mm {
    /// Loads one byte.
    ///
    /// # Errors
    ///
    /// [`FaultError`]: the access would have raised SIGSEGV or SIGBUS, or memory ran out.
    pub fn load(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<u8, FaultError> {
        let mut byte = [0];
        self.read_bytes(cx, addr, &mut byte)?;
        Ok(byte[0])
    }
    /// Stores one byte.
    ///
    /// # Errors
    ///
    /// Like [`load`](Self::load). A copy-on-write opens its window before the store is done.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, Mm, error::FaultError, mm::MmapArgs};
    ///
    /// let machine = Machine::new(MachineConfig::default());
    /// let mut thread = machine.enter().unwrap();
    /// let mut cx = thread.cx();
    /// let mm = Mm::new(&machine);
    /// let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(0x2000))?;
    /// mm.store(&mut cx, addr, 7)?;
    /// assert_eq!(mm.load(&mut cx, addr), Ok(7));
    /// mm.munmap(&mut cx, addr, 0x2000)?;
    /// assert_eq!(mm.load(&mut cx, addr), Err(FaultError::NotMapped(addr)));
    /// mm.exit(&mut cx);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn store(&self, cx: &mut CallCx<'_>, addr: u64, byte: u8) -> Result<(), FaultError> {
        self.write_bytes(cx, addr, &[byte])
    }
    /// Fetches one byte as an instruction. A page that is not present is faulted in as for a load;
    /// only then is the right to execute looked at, as on x86-64.
    ///
    /// # Errors
    ///
    /// Like [`load`](Self::load); also [`FaultError::Denied`] for memory without the right to
    /// execute.
    pub fn fetch(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<u8, FaultError> {
        let byte = self.load(cx, addr)?;
        let at = Vpn::containing(addr);
        let g = self.lock_shared_over(cx, Some(VpnRange::single(at)));
        let vma = g.layout.vmas.get(at);
        match vma.map(|vma| vma.flags.contains(VmFlags::EXEC)) {
            Some(true) => Ok(byte),
            Some(false) => Err(FaultError::Denied(addr)),
            None => Err(FaultError::NotMapped(addr)),
        }
    }
    /// Loads `out.len()` bytes from byte `addr` on.
    ///
    /// # Errors
    ///
    /// Like [`load`](Self::load); the pages below the failing one have been read.
    pub fn read_bytes(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> Result<(), FaultError> {
        let mem = self.machine().mem();
        by_page(addr, out, |at, offset, part| {
            self.touch(cx, at, addr, Access::Read, |pfn| {
                mem.read(pfn, offset, part)
            })
        })
    }
    /// Stores all of `bytes` from byte `addr` on.
    ///
    /// # Errors
    ///
    /// Like [`load`](Self::load); the pages below the failing one have been written.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{FaultError, PAGE_SIZE, mm::MmapArgs};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE).fixed(0x10000))?;
    /// let across = at + PAGE_SIZE - 4;
    /// mm.write_bytes(&mut cx, across, b"two pages")?;
    /// let mut bytes = [0; 9];
    /// mm.read_bytes(&mut cx, across, &mut bytes)?;
    /// assert_eq!(&bytes, b"two pages");
    ///
    /// // The error names the first byte that cannot be written.
    /// let end = at + 2 * PAGE_SIZE;
    /// assert_eq!(mm.write_bytes(&mut cx, end - 1, &[1, 2]), Err(FaultError::NotMapped(end)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn write_bytes(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        bytes: &[u8],
    ) -> Result<(), FaultError> {
        let mem = self.machine().mem();
        by_page(addr, bytes, |at, offset, part| {
            self.touch(cx, at, addr, Access::Write, |pfn| {
                mem.write(pfn, offset, part)
            })
        })
    }

    /// Does an atomic access of the aligned word at `addr` with the given ordering at least, and
    /// returns the value before it.
    ///
    /// It is one step to every other access of the memory: of other threads and processes, of
    /// drivers, and of the processors of a partition.
    ///
    /// # Errors
    ///
    /// Like [`load`](Self::load), for writing unless the access only loads;
    /// [`FaultError::Misaligned`]: `addr` is no multiple of the word's size. Nothing is stored
    /// then.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, frame::AtomicOp, mm::MmapArgs};
    /// use core::sync::atomic::Ordering::{Acquire, Release};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let index = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// assert_eq!(mm.atomic(&mut cx, index, AtomicOp::Add(3_u16), Release)?, 0);
    /// let swap = AtomicOp::CompareExchange { current: 3_u16, new: 9 };
    /// assert_eq!(mm.atomic(&mut cx, index, swap, Release)?, 3);
    /// assert_eq!(mm.atomic(&mut cx, index, AtomicOp::<u16>::Load, Acquire)?, 9);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn atomic<T: Word>(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        op: AtomicOp<T>,
        order: Ordering,
    ) -> Result<T, FaultError> {
        let word = WordAccess::new(op, order);
        if !word.is_aligned(addr) {
            return Err(FaultError::Misaligned(addr));
        }
        let access = match word.is_load() {
            true => Access::Read,
            false => Access::Write,
        };
        let (mem, at) = (self.machine().mem(), Vpn::containing(addr));
        let mut old = 0;
        let offset = usize::try_from(addr - at.addr()).expect("in a page");
        self.touch(cx, at, addr, access, |pfn| {
            old = mem.access_word(pfn, offset, &word);
        })?;
        Ok(T::from_low(old))
    }

    /// Loads bytes up to the first page that cannot be read (`copy_from_user`). Returns how many,
    /// and the error that stopped it.
    pub(in crate::mm) fn read_up_to(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> (usize, Option<FaultError>) {
        let mem = self.machine().mem();
        let mut done = 0;
        let read = by_page(addr, out, |at, offset, part| {
            let n = part.len();
            self.touch(cx, at, addr, Access::Read, |pfn| {
                mem.read(pfn, offset, part);
            })?;
            done += n;
            Ok(())
        });
        (done, read.err())
    }
    /// Loads bytes up to the first page that is not present, without a fault
    /// (`copy_from_user_atomic`). Returns how many.
    pub(in crate::mm) fn read_present(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        out: &mut [u8],
    ) -> usize {
        let mem = self.machine().mem();
        let view = self.table.view(cx);
        let mut done = 0;
        let _ended: Result<(), ()> = by_page(addr, out, |at, offset, part| {
            let leaf = view.leaf(at).ok_or(())?;
            let leaf = leaf.lock().ok_or(())?;
            let pfn = hit(&leaf, at, Access::Read).ok_or(())?;
            mem.read(pfn, offset, part);
            done += part.len();
            Ok(())
        });
        done
    }
    /// Stores bytes up to the first page that cannot be written (`copy_to_user`). Returns how many,
    /// and the error that stopped it.
    pub(in crate::mm) fn write_up_to(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        bytes: &[u8],
    ) -> (usize, Option<FaultError>) {
        let mem = self.machine().mem();
        let mut done = 0;
        let written = by_page(addr, bytes, |at, offset, part| {
            self.touch(cx, at, addr, Access::Write, |pfn| {
                mem.write(pfn, offset, part);
            })?;
            done += part.len();
            Ok(())
        });
        (done, written.err())
    }

    /// Runs `f` on the frame of page `at` under the lock of its entry; faults until the entry
    /// allows the access.
    pub(in crate::mm) fn touch(
        &self,
        cx: &mut CallCx<'_>,
        at: Vpn,
        addr: u64,
        access: Access,
        f: impl FnOnce(Pfn),
    ) -> Result<(), FaultError> {
        // The address that a signal would report: the one given, or the first byte of the page into
        // which the access crosses.
        let addr = addr.max(at.addr());
        let mut f = f;
        let mut patience = Patience::default();
        loop {
            f = match self.try_touch(cx, at, access, f) {
                Ok(()) => return Ok(()),
                Err(f) => f,
            };
            patience.allow_retry(self.fault_in(cx, at, addr, access))?;
        }
    }
    /// Runs `f` on the frame of page `at` under the lock of its entry, if the entry allows the
    /// access; else returns `f`, which did not run.
    #[inline]
    pub(in crate::mm) fn try_touch<R: crate::ctx::Rank, F: FnOnce(Pfn)>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
        access: Access,
        f: F,
    ) -> Result<(), F> {
        let view = self.table.view(cx);
        let Some(leaf) = view.leaf(at) else {
            return Err(f);
        };
        let pte = leaf.peek(at);
        if !pte.allows(access) {
            return match access {
                Access::Read if pte.is_none() => self.touch_zero(leaf, at, f),
                _ => Err(f),
            };
        }
        let locked = leaf.lock();
        match locked.as_ref().and_then(|leaf| hit(leaf, at, access)) {
            Some(pfn) => {
                f(pfn);
                Ok(())
            }
            None => Err(f),
        }
    }
    /// Serves the first load from private anonymous memory whose table is present: maps the zero
    /// page and runs `f` on it in one step, as Linux serves such a fault under the lock of the VMA
    /// alone. Does nothing if a writer holds the mmap lock or the memory is of another kind: a
    /// fault decides then.
    fn touch_zero<F: FnOnce(Pfn)>(&self, leaf: LeafAt<'_>, at: Vpn, f: F) -> Result<(), F> {
        let Some(layout) = self.layout.try_read() else {
            return Err(f);
        };
        let vma = layout
            .vmas
            .get(at)
            .filter(|vma| vma.file.is_none() && vma.userfault().is_none())
            .filter(|vma| vma.allows(Access::Read) && !layout.released);
        // A shared table would have to be copied first, which may fail for want of memory.
        let (Some(vma), false) = (vma, leaf.is_shared()) else {
            return Err(f);
        };
        let locked = leaf.lock();
        let Some(locked) = locked.filter(|leaf| leaf.get(at).is_none()) else {
            return Err(f);
        };
        let zero = self.machine().mem().zero_pfn();
        locked.set(at, RawPte::zero(zero, vma.read_only()));
        f(zero);
        Ok(())
    }
}

/// Returns the frame if the entry allows the access, and marks the entry accessed, and dirty by a
/// write.
fn hit(leaf: &LockedLeaf<'_>, at: Vpn, access: Access) -> Option<Pfn> {
    let pte = leaf.get(at);
    if !pte.allows(access) {
        return None;
    }
    let touched = match access {
        Access::Read => pte.mkyoung(),
        Access::Write => pte.mkdirty(),
    };
    if touched != pte {
        leaf.set(at, touched);
    }
    Some(pte.pfn())
}
