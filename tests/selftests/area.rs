//! Registered memory of the five kinds of `uffd-unit-tests`, in units of a page of its kind.

use crate::common::{PAGE, World, at};
use emmu::{
    FaultError, HugeSize, MemConfig, Mm,
    file::{File, FileMode, HugetlbFile, Shmem},
    mm::{
        Advice, FillMode, MapFlags, MmapArgs, PageFault, ProtectMode, RegisterMode, UffdFeatures,
        UffdMessage, Userfault,
    },
};
use std::sync::Arc;

/// Small pages of a huge one.
pub(crate) const HUGE: u64 = 512;
/// Units of an area.
pub(crate) const UNITS: u64 = 4;
/// The unit at which another mapping of a shared area begins.
pub(crate) const ALIAS: u64 = 16;
/// Free huge pages of the pool.
const POOL: u64 = 24;

/// The kinds of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Anon,
    Shmem,
    ShmemPrivate,
    Hugetlb,
    HugetlbPrivate,
}

impl Kind {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        [
            Self::Anon,
            Self::Shmem,
            Self::ShmemPrivate,
            Self::Hugetlb,
            Self::HugetlbPrivate,
        ]
        .into_iter()
    }
    /// Every kind that is shared.
    pub(crate) fn shared() -> impl Iterator<Item = Self> {
        Self::all().filter(|kind| kind.is_shared())
    }
    pub(crate) const fn is_shared(self) -> bool {
        matches!(self, Self::Shmem | Self::Hugetlb)
    }
    pub(crate) const fn is_hugetlb(self) -> bool {
        matches!(self, Self::Hugetlb | Self::HugetlbPrivate)
    }
    /// Small pages of a unit.
    pub(crate) const fn unit(self) -> u64 {
        if self.is_hugetlb() { HUGE } else { 1 }
    }
}

/// A machine with swap and a pool of huge pages.
pub(crate) fn world() -> World {
    World::with_pool(
        MemConfig {
            frames: 32 * 512,
            swap: 2048,
            ..MemConfig::default()
        },
        POOL,
    )
}

/// Ends a world, and checks that its pool is whole.
pub(crate) fn end(mut w: World) {
    w.mm.exit(&mut w.thread.cx());
    let pool = w.machine.mem().huge_pool(HugeSize::Mib2);
    assert_eq!((pool.free, pool.reserved), (POOL, 0));
    assert_eq!(w.machine.mem().set_huge_pages(HugeSize::Mib2, 0), 0);
    w.end();
}

/// Units `[0, UNITS)` of memory of one kind.
pub(crate) struct Area {
    pub(crate) w: World,
    pub(crate) kind: Kind,
    pub(crate) uffd: Userfault,
    pub(crate) mm: Arc<Mm>,
}

impl Area {
    /// Memory that is not registered yet.
    pub(crate) fn new(kind: Kind, features: UffdFeatures) -> Self {
        let mut w = world();
        let len = UNITS * kind.unit() * PAGE;
        let host = w.machine.host();
        let file = match kind {
            Kind::Anon => None,
            Kind::Shmem | Kind::ShmemPrivate => {
                let object = Shmem::memfd(host, "m", len).unwrap();
                Some(File::open(object, FileMode::ReadWrite))
            }
            Kind::Hugetlb | Kind::HugetlbPrivate => {
                let object = HugetlbFile::memfd(host, "h", len, HugeSize::Mib2).unwrap();
                Some(File::open(object, FileMode::ReadWrite))
            }
        };
        let places = if kind.is_shared() {
            vec![0, ALIAS]
        } else {
            vec![0]
        };
        for place in places {
            let mut args = MmapArgs::anonymous(len).fixed(at(place * kind.unit()));
            if let Some(file) = &file {
                args = args.file(file, 0);
            }
            args.flags = match kind.is_shared() {
                true => MapFlags::FIXED | MapFlags::SHARED,
                false if file.is_some() => MapFlags::FIXED | MapFlags::PRIVATE,
                false => args.flags,
            };
            w.mm.mmap(&mut w.thread.cx(), &args).unwrap();
        }
        let uffd = w.userfaultfd(features);
        let mm = w.mm.clone();
        Self { w, kind, uffd, mm }
    }
    /// Memory that is registered.
    pub(crate) fn registered(kind: Kind, features: UffdFeatures, mode: RegisterMode) -> Self {
        let mut area = Self::new(kind, features);
        area.register(0, mode);
        area
    }
    /// Registers all units from `place` on.
    pub(crate) fn register(&mut self, place: u64, mode: RegisterMode) {
        let unit = self.kind.unit();
        self.w
            .register(&self.uffd, place * unit, UNITS * unit, mode);
    }
    pub(crate) fn addr(&self, unit: u64) -> u64 {
        at(unit * self.kind.unit())
    }
    pub(crate) fn unit_of(&self, addr: u64) -> u64 {
        (addr - at(0)) / (self.kind.unit() * PAGE)
    }
    /// Bytes of a unit.
    pub(crate) fn len(&self) -> u64 {
        self.kind.unit() * PAGE
    }
    pub(crate) fn bytes(&self, byte: u8) -> Vec<u8> {
        vec![byte; usize::try_from(self.len()).unwrap()]
    }
    pub(crate) fn load(&mut self, unit: u64) -> Result<u8, FaultError> {
        let addr = self.addr(unit);
        self.w.mm.load(&mut self.w.thread.cx(), addr)
    }
    pub(crate) fn store(&mut self, unit: u64, byte: u8) -> Result<(), FaultError> {
        let addr = self.addr(unit);
        self.w.mm.store(&mut self.w.thread.cx(), addr, byte)
    }
    pub(crate) fn copy(&mut self, uffd: &Userfault, unit: u64, byte: u8, mode: FillMode) {
        let (addr, len, bytes) = (self.addr(unit), self.len(), self.bytes(byte));
        let done = uffd.copy(&mut self.w.thread.cx(), addr, &bytes, mode);
        assert_eq!(done, Ok(len), "{:?}", self.kind);
    }
    /// Protects a unit, or lifts its protection.
    pub(crate) fn protect(&mut self, uffd: &Userfault, unit: u64, on: bool) {
        let mode = if on {
            ProtectMode::WP
        } else {
            ProtectMode::empty()
        };
        let pages = self.kind.unit();
        self.w.write_protect(uffd, unit * pages, pages, mode);
    }
    /// Tells whether a unit is write-protected, which the pagemap shows for every page of it.
    pub(crate) fn is_protected(&mut self, unit: u64) -> bool {
        let first = unit * self.kind.unit();
        let range = World::pages(first, first + self.kind.unit());
        let pages = self.w.mm.protected_pages(&mut self.w.thread.cx(), range);
        let all = pages.len() as u64;
        assert!(all == 0 || all == self.kind.unit(), "{all} pages of a unit");
        all > 0
    }
    pub(crate) fn advise(&mut self, unit: u64, n: u64, advice: Advice) -> bool {
        let (addr, len) = (self.addr(unit), n * self.len());
        let cx = &mut self.w.thread.cx();
        self.w.mm.madvise(cx, addr, len, advice).is_ok()
    }
    /// Does the work in a child, and ends the child.
    pub(crate) fn in_child<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let child = self.w.mm.fork(&mut self.w.thread.cx()).unwrap();
        let done = self.inside(&child, work);
        self.w.reap(&child);
        done
    }
    pub(crate) fn inside<T>(&mut self, mm: &Arc<Mm>, work: impl FnOnce(&mut Self) -> T) -> T {
        let own = std::mem::replace(&mut self.w.mm, Arc::clone(mm));
        let done = work(self);
        self.w.mm = own;
        done
    }
    /// The next message, which is of a fault.
    pub(crate) fn fault(&self, uffd: &Userfault) -> PageFault {
        match uffd.read() {
            Some(UffdMessage::PageFault(fault)) => fault,
            other => panic!("{:?}: {other:?}", self.kind),
        }
    }
    /// The userfaultfd of a child that has forked.
    pub(crate) fn forked(&self) -> Userfault {
        match self.uffd.read() {
            Some(UffdMessage::Fork(child)) => child,
            other => panic!("{:?}: {other:?}", self.kind),
        }
    }
    pub(crate) fn end(self) {
        let Self { w, mm, .. } = self;
        drop(mm);
        end(w);
    }
}
