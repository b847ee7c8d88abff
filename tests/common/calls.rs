//! The calls by page numbers, with Linux's errno as their error.

use super::{PAGE, World, at};
use emmu::{
    Errno, Mm,
    ctx::CallCx,
    error::HasErrno,
    mm::{
        Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, MsyncFlags, Prot, ProtectMode,
        RegisterMode, UffdFeatures, Userfault,
    },
};
use std::sync::Arc;

/// What an operation came to, as a system call shows it.
pub type Sys<T> = Result<T, Errno>;

/// Reduces a typed error to its errno.
pub trait ToErrno<T> {
    fn sys(self) -> Sys<T>;
}

impl<T, E: HasErrno> ToErrno<T> for Result<T, E> {
    fn sys(self) -> Sys<T> {
        self.map_err(|why| why.errno())
    }
}

pub const NONE: Prot = Prot::empty();
pub const READ: Prot = Prot::READ;
pub const STAY: MremapFlags = MremapFlags::empty();
pub const MAYMOVE: MremapFlags = MremapFlags::MAYMOVE;
pub const FIXED: MremapFlags = MremapFlags::MAYMOVE.union(MremapFlags::FIXED);
pub const KEEP: MremapFlags = MremapFlags::MAYMOVE.union(MremapFlags::DONTUNMAP);

/// Private memory on pages `[from, from + n)`.
pub fn private(from: u64, n: u64) -> MmapArgs {
    MmapArgs::anonymous(n * PAGE).fixed(at(from))
}
/// Shared memory on pages `[from, from + n)`.
pub fn shared(from: u64, n: u64) -> MmapArgs {
    private(from, n).shared()
}
/// The pages `[from, from + old)` become `new` pages, at page `to` if the flags say so.
pub fn remap(from: u64, old: u64, new: u64, flags: MremapFlags, to: u64) -> MremapArgs {
    MremapArgs {
        addr: at(from),
        old_len: old * PAGE,
        new_len: new * PAGE,
        flags,
        new_addr: at(to),
    }
}

impl World {
    pub fn cx(&mut self) -> CallCx<'_> {
        self.thread.cx()
    }
    pub fn mmap(&mut self, args: &MmapArgs) -> Sys<u64> {
        self.mm.mmap(&mut self.thread.cx(), args).sys()
    }
    /// Maps with `FIXED` taken out: the page is a hint, or nothing if `from` is `None`.
    pub fn mmap_at(&mut self, hint: u64, n: u64) -> Sys<u64> {
        self.mmap(&MmapArgs {
            addr: hint,
            ..MmapArgs::anonymous(n * PAGE)
        })
    }
    pub fn munmap(&mut self, from: u64, n: u64) -> Sys<()> {
        self.munmap_bytes(at(from), n * PAGE)
    }
    pub fn munmap_bytes(&mut self, addr: u64, len: u64) -> Sys<()> {
        self.mm.munmap(&mut self.thread.cx(), addr, len).sys()
    }
    pub fn protect(&mut self, from: u64, n: u64, prot: Prot) -> Sys<()> {
        self.protect_bytes(at(from), n * PAGE, prot)
    }
    pub fn protect_bytes(&mut self, addr: u64, len: u64, prot: Prot) -> Sys<()> {
        self.mm
            .mprotect(&mut self.thread.cx(), addr, len, prot)
            .sys()
    }
    pub fn mremap(&mut self, args: MremapArgs) -> Sys<u64> {
        self.mm.mremap(&mut self.thread.cx(), args).sys()
    }
    /// A move or resize that must succeed; returns the page where the mapping is.
    pub fn remap(&mut self, from: u64, old: u64, new: u64, flags: MremapFlags, to: u64) -> u64 {
        let addr = self.mremap(remap(from, old, new, flags, to));
        addr.expect("movable").wrapping_sub(at(0)) / PAGE
    }
    pub fn advise(&mut self, from: u64, n: u64, advice: Advice) -> Sys<()> {
        self.advise_bytes(at(from), n * PAGE, advice)
    }
    pub fn advise_bytes(&mut self, addr: u64, len: u64, advice: Advice) -> Sys<()> {
        self.mm
            .madvise(&mut self.thread.cx(), addr, len, advice)
            .sys()
    }
    pub fn lock(&mut self, from: u64, n: u64) -> Sys<()> {
        self.lock_bytes(at(from), n * PAGE)
    }
    pub fn lock_bytes(&mut self, addr: u64, len: u64) -> Sys<()> {
        self.mm.mlock(&mut self.thread.cx(), addr, len).sys()
    }
    pub fn unlock(&mut self, from: u64, n: u64) -> Sys<()> {
        self.mm
            .munlock(&mut self.thread.cx(), at(from), n * PAGE)
            .sys()
    }
    pub fn seal(&mut self, from: u64, n: u64) -> Sys<()> {
        self.mm
            .mseal(&mut self.thread.cx(), at(from), n * PAGE)
            .sys()
    }
    pub fn sync(&mut self, from: u64, n: u64, flags: MsyncFlags) -> Sys<()> {
        self.mm
            .msync(&mut self.thread.cx(), at(from), n * PAGE, flags)
            .sys()
    }
    pub fn in_core(&mut self, from: u64, n: u64) -> Sys<Vec<bool>> {
        self.mm
            .mincore(&mut self.thread.cx(), at(from), n * PAGE)
            .sys()
    }
    /// A userfaultfd with these features; it has no memory yet.
    pub fn userfaultfd(&self, features: UffdFeatures) -> Userfault {
        let uffd = self.mm.userfaultfd();
        uffd.api(Userfault::VERSION, features).unwrap();
        uffd
    }
    pub fn register(&mut self, uffd: &Userfault, from: u64, n: u64, mode: RegisterMode) {
        uffd.register(&mut self.thread.cx(), at(from), n * PAGE, mode)
            .unwrap();
    }
    pub fn write_protect(&mut self, uffd: &Userfault, from: u64, n: u64, mode: ProtectMode) {
        uffd.write_protect(&mut self.thread.cx(), at(from), n * PAGE, mode)
            .unwrap();
    }
    pub fn fork(&mut self) -> Arc<Mm> {
        self.mm.fork(&mut self.thread.cx()).expect("enough memory")
    }
    /// Pages in locked VMAs.
    pub fn locked(&mut self) -> u64 {
        self.mm.sizes(&mut self.thread.cx()).1
    }
    /// Promised pages.
    pub fn promised(&self) -> i64 {
        self.machine.commit().pages()
    }
    pub fn count(&mut self) -> usize {
        self.mm.map_count(&mut self.thread.cx())
    }
    /// Runs the DSL on another address space of this machine.
    pub fn inside<T>(&mut self, mm: &Arc<Mm>, work: impl FnOnce(&mut Self) -> T) -> T {
        let own = std::mem::replace(&mut self.mm, Arc::clone(mm));
        let out = work(self);
        self.mm = own;
        out
    }
    /// Ends another address space of this machine.
    pub fn reap(&mut self, mm: &Mm) {
        mm.exit(&mut self.thread.cx());
    }
    /// Changes one limit.
    pub fn limit(&mut self, change: impl FnOnce(&mut emmu::mm::Limits)) {
        let mut limits = emmu::mm::Limits::default();
        change(&mut limits);
        self.mm.set_limits(&mut self.thread.cx(), limits);
    }
    /// Makes the map hold exactly `n` VMAs, by single pages far above.
    pub fn crowd(&mut self, n: usize) {
        let mut page = 1 << 20;
        while self.count() < n {
            let args = private(page, 1).prot(READ);
            assert_eq!(self.mmap(&args), Ok(at(page)));
            page += 2;
        }
        assert_eq!(self.count(), n);
    }
}

/// A world whose map holds at most about `n` VMAs.
pub fn small_map(n: usize) -> World {
    World::with(emmu::MachineConfig {
        max_map_count: n,
        ..Default::default()
    })
}
/// Flags that no call knows.
pub const UNKNOWN_MAP_FLAG: MapFlags = MapFlags::from_bits_retain(1 << 22);

impl Drop for World {
    /// A test that does not [`end`](World::end) its world leaves nothing registered.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.mm.exit(&mut self.thread.cx());
        }
    }
}
