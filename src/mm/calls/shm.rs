//! Segments of System V: `shmget`, `shmat`, `shmdt`, `shmctl` (`ipc/shm.c`).

use crate::mm::{
    entry::{
        args::MmapArgs,
        flags::{MapFlags, Prot},
    },
    guard::{AfterYield, MmapWriteGuard},
    machine::{Machine, Memory, ShmGetFlags, ShmId, ShmStat},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{PAGE_SHIFT, PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::ShmError,
    file::{File, FileMode, MemoryObject, same_file},
};
use bitflags::bitflags;

bitflags! {
    /// Flags of `shmat`, with Linux's values.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ShmFlags: u32 {
        /// The mapping is never written.
        const RDONLY = 0o10_000;
        /// The address is rounded down to a page.
        const RND = 0o20_000;
        /// Mappings at the address are replaced.
        const REMAP = 0o40_000;
        /// The mapping may be executed.
        const EXEC = 0o100_000;
    }
}

impl Machine {
    /// Returns the segment of that key, or makes one of `size` bytes (`shmget`). Key 0 always makes
    /// one.
    ///
    /// # Errors
    ///
    /// [`ShmError`].
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{Mm, PAGE_SIZE, mm::{ShmFlags, ShmGetFlags}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let id = machine.shmget(0x2a, PAGE_SIZE, ShmGetFlags::CREAT)?;
    /// let other = Mm::new(&machine);
    /// let here = mm.shmat(&mut cx, id, 0, ShmFlags::empty())?;
    /// let there = other.shmat(&mut cx, id, 0, ShmFlags::RDONLY)?;
    /// mm.store(&mut cx, here, 7)?;
    /// assert_eq!(other.load(&mut cx, there)?, 7);
    ///
    /// machine.shm_remove(id)?; // The memory stays until its last mapping goes.
    /// mm.shmdt(&mut cx, here)?;
    /// assert_eq!(machine.shm_stat(id)?.attached, 1);
    /// other.exit(&mut cx);
    /// assert!(machine.shm_stat(id).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shmget(&self, key: i32, size: u64, flags: ShmGetFlags) -> Result<ShmId, ShmError> {
        if !ShmGetFlags::all().contains(flags) {
            return Err(ShmError::Flags(flags.bits()));
        }
        self.segments.get_or_make(self.host(), (key, size), flags)
    }
    /// Removes a segment (`shmctl(IPC_RMID)`): its key is free, and the segment goes with its last
    /// mapping. Until then it can be attached by its number.
    ///
    /// # Errors
    ///
    /// [`ShmError::NoSegment`].
    pub fn shm_remove(&self, id: ShmId) -> Result<(), ShmError> {
        self.segments.remove(id)
    }
    /// Lets reclaim have the pages of a segment again (`shmctl(SHM_UNLOCK)`). One that is not
    /// locked stays as it is.
    ///
    /// # Errors
    ///
    /// [`ShmError::NoSegment`].
    pub fn shm_unlock(&self, id: ShmId) -> Result<(), ShmError> {
        if let Memory::Small(memory) = self.segments.get(id)? {
            memory.unlock();
        }
        Ok(())
    }
    /// Returns the state of a segment (`shmctl(IPC_STAT)`).
    ///
    /// # Errors
    ///
    /// [`ShmError::NoSegment`].
    pub fn shm_stat(&self, id: ShmId) -> Result<ShmStat, ShmError> {
        self.segments.stat(id)
    }
}

impl Mm {
    /// Maps all of a segment, at `addr` if that is not 0, and returns the address (`do_shmat`).
    /// Unknown flags are ignored. Each attachment is an open file of its own, so none merges with
    /// another.
    ///
    /// # Errors
    ///
    /// [`ShmError`].
    pub fn shmat(
        &self,
        cx: &mut CallCx<'_>,
        id: ShmId,
        addr: u64,
        flags: ShmFlags,
    ) -> Result<u64, ShmError> {
        let replaces = flags.contains(ShmFlags::REMAP);
        let at = match flags.contains(ShmFlags::RND) {
            true => addr - addr % PAGE_SIZE,
            false => addr,
        };
        if !at.is_multiple_of(PAGE_SIZE) || (at == 0 && replaces) {
            return Err(ShmError::Address(addr));
        }
        let memory = self.machine().segments.get(id)?.object();
        let size = memory.size();
        let (mode, mut prot) = match flags.contains(ShmFlags::RDONLY) {
            true => (FileMode::ReadOnly, Prot::READ),
            false => (FileMode::ReadWrite, Prot::READ | Prot::WRITE),
        };
        if flags.contains(ShmFlags::EXEC) {
            prot |= Prot::EXEC;
        }
        let fixed = match addr {
            0 => MapFlags::empty(),
            _ => MapFlags::FIXED,
        };
        let args = MmapArgs {
            addr: at,
            len: size,
            prot,
            flags: MapFlags::SHARED | fixed,
            file: Some(File::open(memory, mode)),
            offset: 0,
        };
        let mut g = self.lock_exclusive_some(cx);
        if addr != 0 && !replaces && g.is_taken(at, size) {
            return Err(ShmError::Occupied(at));
        }
        let (range, locked) = g.do_mmap(&args)?;
        drop(g);
        if locked {
            self.populate_best_effort(cx, range);
        }
        Ok(range.start().addr())
    }
    /// Keeps the pages of a segment from reclaim, those that come in later included
    /// (`shmctl(SHM_LOCK)`). No page comes in by this, no mapping shows it, and children and other
    /// attachments change nothing. The pages of all locked segments of the machine count against
    /// the limit of this process. Huge pages of a pool are never reclaimed: nothing is to be done.
    ///
    /// # Errors
    ///
    /// [`ShmError::NoSegment`], [`ShmError::Denied`], [`ShmError::Locked`].
    pub fn shm_lock(&self, cx: &mut CallCx<'_>, id: ShmId) -> Result<(), ShmError> {
        let segments = &self.machine().segments;
        let memory = segments.get(id)?;
        let limits = {
            let g = self.lock_shared_over(cx, None);
            if !g.layout.can_mlock() {
                return Err(ShmError::Denied);
            }
            g.layout.limits
        };
        let Memory::Small(memory) = memory else {
            return Ok(());
        };
        let most = match limits.ipc_lock {
            true => u64::MAX,
            false => limits.memlock >> PAGE_SHIFT,
        };
        match memory.lock(&segments.locked, most) {
            true => Ok(()),
            false => Err(ShmError::Locked(memory.pages())),
        }
    }
    /// Unmaps what is left of the segment that was attached at `addr`, piece by piece
    /// (`ksys_shmdt`): pieces that moved away, or of which another segment took the place, stay.
    ///
    /// # Errors
    ///
    /// [`ShmError::Address`], [`ShmError::NotAttached`]. A piece that cannot be unmapped stays,
    /// without an error.
    pub fn shmdt(&self, cx: &mut CallCx<'_>, addr: u64) -> Result<(), ShmError> {
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(ShmError::Address(addr));
        }
        let at = Vpn::containing(addr);
        let mut g = self.lock_exclusive(cx);
        let vmas = &g.layout.vmas;
        let mut vmas = vmas.range(above(at)).skip_while(|vma| !is_piece(vma, at));
        let first = vmas.next().ok_or(ShmError::NotAttached(addr))?;
        let file = first.file.as_ref();
        let end = at.plus(file.map_or(0, |file| file.object().pages()));
        let rest = vmas
            .take_while(|vma| vma.end() <= end)
            .filter(|vma| is_piece(vma, at) && same_file(vma.file.as_ref(), file));
        let pieces: Vec<VpnRange> = std::iter::once(first).chain(rest).map(Vma::range).collect();
        for piece in pieces {
            let _stays = g.unmap(piece, AfterYield::KeepsEditing);
        }
        Ok(())
    }
}

/// Returns the pages from `at` on.
fn above(at: Vpn) -> VpnRange {
    VpnRange::new(at, Vpn(crate::addr::TASK_PAGES.max(at.0 + 1))).expect("not empty")
}

/// Returns true for a piece of a segment that lies where the attachment at `at` put it.
fn is_piece(vma: &Vma, at: Vpn) -> bool {
    vma.object().is_some_and(|o| o.counts_mappings())
        && vma.start().0.checked_sub(at.0) == Some(vma.pgoff)
}

impl MmapWriteGuard<'_> {
    /// Returns true if a mapping is in the way of `size` bytes at `at`, or the range wraps.
    fn is_taken(&self, at: u64, size: u64) -> bool {
        let Some(end) = at.checked_add(size.next_multiple_of(PAGE_SIZE)) else {
            return true;
        };
        VpnRange::new(Vpn::containing(at), Vpn::containing(end))
            .is_some_and(|range| self.layout.occupied(range))
    }
}
