//! Pages that the kernel's I/O or a device holds: pins and references (`pin_user_pages`,
//! `get_user_pages`).
//!
//! A held page is read and written by its frame, past the page table. No change of the mapping ends
//! the hold: after `munmap`, `MADV_DONTNEED` or a truncation the holder
//! has the frame alone.

use crate::mm::{
    fault::follow::{Follow, Hold, PinKind},
    machine::Machine,
    space::Mm,
};
use crate::{
    addr::{Bytes, PAGE_SIZE, Pfn, TASK_SIZE, Vpn, VpnRange, by_page, chunks},
    ctx::CallCx,
    error::{ByteRange, FaultError, PinError},
    frame::{FrameFlags, HeldFrame, PhysMem},
    notifier::Access,
    trace,
};
use std::{convert::Infallible, ptr::NonNull, sync::Arc};

/// Pages that are held; dropping this gives them back (`unpin_user_pages`, `put_page`).
///
/// Needs no token: it may be dropped in any context, and after the address space has ended.
#[must_use = "the pages are given back when this is dropped"]
pub struct HeldPages {
    machine: Arc<Machine>,
    /// The frames, in the order of the pages; a zero page is not counted.
    pfns: Vec<Pfn>,
    /// The offset of the first byte in the first page.
    offset: usize,
    /// The number of bytes.
    len: usize,
    access: Access,
    hold: Hold,
    /// Their addresses were given out, so they may have been written when the hold ends.
    has_addresses: bool,
}

impl Mm {
    /// Pins the pages of `[addr, addr + len)` for reading or writing their bytes by frame
    /// (`pin_user_pages`, as for buffers of io_uring).
    ///
    /// Each page is faulted in for the access. A private page becomes the process's own, by a copy
    /// in a window if it must, also for reading: so the holder sees later stores of the process,
    /// and the process those of the holder. It stays so: `fork` copies it for the child at once.
    /// The mapping of the page is not held.
    ///
    /// # Errors
    ///
    /// [`PinError`]: a page could not be pinned. Nothing is pinned then; the pages before it have
    /// been faulted in.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Machine, MachineConfig, Mm, mm::{MmapArgs, PinKind}, notifier::Access};
    ///
    /// let machine = Machine::new(MachineConfig::default());
    /// let mut thread = machine.enter().unwrap();
    /// let mut cx = thread.cx();
    /// let mm = Mm::new(&machine);
    /// let addr = mm.mmap(&mut cx, &MmapArgs::anonymous(0x1000))?;
    /// let buffer = mm.pin(&mut cx, addr, 0x1000, Access::Write, PinKind::LongTerm)?;
    /// let child = mm.fork(&mut cx)?;
    /// assert_eq!(buffer.write_at(8, b"dma"), 3);
    /// assert_eq!(mm.load(&mut cx, addr + 8), Ok(b'd'));
    /// assert_eq!(child.load(&mut cx, addr + 8), Ok(0)); // Its copy was made by the fork.
    /// child.exit(&mut cx);
    /// mm.exit(&mut cx);
    /// drop(buffer);
    /// assert_eq!(machine.mem().in_use(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pin(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: usize,
        access: Access,
        kind: PinKind,
    ) -> Result<HeldPages, PinError> {
        let _call = trace::call("pin", addr, len as u64);
        let end = end_of(addr, len)?;
        let (held, failed) = self.hold_pages(cx, (addr, end), access, Hold::Pin(kind));
        match failed {
            None => Ok(held),
            Some(why) => Err(PinError::Fault(why)),
        }
    }
    /// Takes references on the pages of `[addr, addr + len)` for reading their bytes by frame
    /// (`get_user_pages`, as by `vmsplice`), up to the first page that cannot be had.
    ///
    /// A page that other processes have as well stays shared. The next write of the process copies
    /// a page with a reference of another holder, unless the process has the page alone and may
    /// write to it already.
    ///
    /// # Errors
    ///
    /// [`PinError`], if not even the first page could be had.
    pub fn get_pages(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: usize,
    ) -> Result<HeldPages, PinError> {
        let end = end_of(addr, len)?;
        let (held, failed) = self.hold_pages(cx, (addr, end), Access::Read, Hold::Reference);
        match failed {
            Some(why) if held.is_empty() => Err(PinError::Fault(why)),
            _ => Ok(held),
        }
    }
    /// Holds the pages of `[addr, end)` up to the first that cannot be had, and returns the reason
    /// for that beside them. `end` is at most [`TASK_SIZE`].
    pub(super) fn hold_pages(
        &self,
        cx: &mut CallCx<'_>,
        (addr, end): (u64, u64),
        access: Access,
        hold: Hold,
    ) -> (HeldPages, Option<FaultError>) {
        self.check_token(cx);
        let mut held = HeldPages {
            machine: Arc::clone(self.machine()),
            pfns: Vec::new(),
            offset: usize::try_from(addr % PAGE_SIZE).unwrap_or_default(),
            len: 0,
            access,
            hold,
            has_addresses: false,
        };
        let how = Follow {
            access,
            hold,
            force: false,
        };
        let zero = self.machine().mem().zero_pfn();
        let first = Vpn::containing(addr);
        let pages = VpnRange::new(first, Vpn::containing(end.next_multiple_of(PAGE_SIZE)));
        for page in pages.into_iter().flat_map(VpnRange::iter) {
            match self.hold_page(cx, (page, addr.max(page.addr())), how) {
                Ok(frame) => held.pfns.push(frame.map_or(zero, HeldFrame::into_raw)),
                Err(why) => return (held, Some(why)),
            }
            let len = page.plus(1).addr().min(end) - addr;
            held.len = usize::try_from(len).expect("the length is one of the caller's memory");
        }
        (held, None)
    }
}

/// Returns the end of a range that is to be held.
fn end_of(addr: u64, len: usize) -> Result<u64, PinError> {
    let len = len as u64;
    let end = addr.checked_add(len).filter(|&end| end <= TASK_SIZE);
    end.ok_or(PinError::Range(ByteRange { addr, len }))
}

impl HeldPages {
    /// Returns the number of bytes in the pages that are held, of those that were asked for.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Returns true if no page is held.
    pub fn is_empty(&self) -> bool {
        self.pfns.is_empty()
    }
    /// Returns the numbers of the frames, in the order of the pages. They stay valid while this
    /// value lives.
    pub fn pfns(&self) -> &[Pfn] {
        &self.pfns
    }
    /// Reads bytes from offset `at` on; returns how many, fewer at the end.
    pub fn read_at(&self, at: usize, out: &mut [u8]) -> usize {
        let (at, len) = self.part(at, out.len());
        self.each_page(at, &mut out[..len], |mem, pfn, offset, part| {
            mem.read(pfn, offset, part);
        });
        len
    }
    /// Writes bytes from offset `at` on; returns how many were written: fewer at the end of the
    /// range, and none if the pages are held for reading.
    pub fn write_at(&self, at: usize, bytes: &[u8]) -> usize {
        if self.access == Access::Read {
            return 0;
        }
        let (at, len) = self.part(at, bytes.len());
        self.each_page(at, &bytes[..len], |mem, pfn, offset, part| {
            mem.write(pfn, offset, part);
            // Writeback may have cleaned the page since it was held.
            mem.set_flags(pfn, FrameFlags::DIRTY);
        });
        len
    }
    /// Returns where the bytes lie in this process: address and length of the part in each page, in
    /// order. `None` without [contents](crate::Contents), and while a page is lent to a partition.
    ///
    /// The addresses are good while this value lives. The bytes change at any time: they are to be
    /// accessed by volatile or atomic loads and stores, and to be read only if the hold is for
    /// reading. When the hold ends, pages that are held for writing become dirty
    /// (`unpin_user_pages_dirty_lock`). Partitions cannot borrow the pages any more.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::{MmapArgs, PinKind}, notifier::Access};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// let mut held = mm.pin(&mut cx, at + 8, 4096, Access::Write, PinKind::LongTerm)?;
    /// let parts = held.addresses().expect("frames have contents");
    /// assert_eq!([parts[0].1, parts[1].1], [4088, 8]);
    /// // SAFETY: the page is held, and nobody accesses it by references.
    /// unsafe { parts[0].0.write_volatile(7) };
    /// assert_eq!(mm.load(&mut cx, at + 8)?, 7);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn addresses(&mut self) -> Option<Vec<(NonNull<u8>, usize)>> {
        self.has_addresses = true;
        let mem = self.machine.mem();
        let parts = chunks(self.offset as u64, self.len);
        let parts = parts.zip(&self.pfns).map(|((_, offset, len), &pfn)| {
            let first = mem.address(pfn)?;
            Some((NonNull::new(first.as_ptr().wrapping_add(offset))?, len))
        });
        parts.collect()
    }
    /// Returns the offsets of the pages in the memory file of the machine
    /// ([`PhysMem::memfd`](crate::frame::PhysMem::memfd)), in order, each a multiple of the page
    /// size. `None` where [`addresses`](Self::addresses) has none.
    ///
    /// Another process that maps the file accesses the bytes there, by the rules of `addresses`.
    #[cfg(all(feature = "host-mapping", target_os = "linux"))]
    pub fn memfd_offsets(&mut self) -> Option<Vec<u64>> {
        self.has_addresses = true;
        let mem = self.machine.mem();
        let offsets = self.pfns.iter().map(|&pfn| mem.offset_in_memfd(pfn));
        offsets.collect()
    }
    /// Returns offset and length of those of `len` bytes from `at` on that were asked for.
    fn part(&self, at: usize, len: usize) -> (usize, usize) {
        let at = at.min(self.len);
        (at, len.min(self.len - at))
    }
    /// Runs `f` on the frames of some bytes from offset `at` on, which are all held.
    fn each_page<B: Bytes>(&self, at: usize, bytes: B, f: impl Fn(&PhysMem, Pfn, usize, B)) {
        let mem = self.machine.mem();
        let Ok(()) = by_page((self.offset + at) as u64, bytes, |page, offset, part| {
            f(
                mem,
                self.pfns[usize::try_from(page.0).expect("held")],
                offset,
                part,
            );
            Ok::<(), Infallible>(())
        });
    }
}

impl Drop for HeldPages {
    fn drop(&mut self) {
        let mem = self.machine.mem();
        let written = self.has_addresses && self.access == Access::Write;
        for &pfn in self.pfns.iter().filter(|pfn| !pfn.is_zero()) {
            if written {
                mem.set_flags(pfn, FrameFlags::DIRTY);
            }
            drop(mem.adopt_held(pfn, self.hold.is_pin()));
        }
    }
}

impl std::fmt::Debug for HeldPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldPages")
            .field("pfns", &self.pfns)
            .field("access", &self.access)
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}
