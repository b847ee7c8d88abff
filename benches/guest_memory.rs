//! Guest memory by rust-vmm's traits: a process's memory, mapped in the host or behind an IOMMU,
//! beside memory that the host has mapped itself, with and without `vm_memory`'s IOMMU, turn by
//! turn. What is measured is the ratio of the times.

mod ratio;

use criterion::{Criterion, criterion_group, criterion_main};
use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    ctx::CallCx,
    extmmu::{
        HostMapping, HostMappingError, HostRegion,
        iommu::{IommuConfig, LeasedMemory, ProcessIommu},
        vm_memory::{GuestRegion, ProcessAddressSpace},
    },
    mm::{Advice, MmapArgs},
};
use ratio::{Ratio, criterion, duel, timed};
use std::{
    ptr::null_mut,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Instant,
};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, GuestMemoryRegion,
    GuestMemoryRegionBytes, GuestMemoryResult, GuestRegionCollection, IommuMemory,
    MemoryRegionAddress, Permissions, VolatileSlice,
    iommu::{Error, Iommu, Iotlb, IotlbIterator, IovaRange},
};

const PLAIN: &str = "plain mmap memory";
const IOMMU: &str = "vm-memory's IommuMemory";
/// Pages of the guest.
const PAGES: u64 = 256;
const LEN: usize = (PAGES * PAGE_SIZE) as usize;
/// Pages that are loaded from: so many that every cache has them.
const HOT: u64 = 32;
/// Accesses of a turn.
const TURN: u64 = 100_000;

/// Memory of the host as a region: `GuestRegionMmap` without what this needs not.
///
/// Each contender has a type of its own, and what is measured is not inlined: how often another one
/// uses the same code of `vm_memory` decides else how much of it the compiler inlines, which is
/// worth a factor of two either way.
struct Plain<const WHOSE: u8>(*mut u8);

/// The memory by itself.
const BARE: u8 = 0;
/// The memory behind an IOMMU.
const BEHIND: u8 = 1;

// SAFETY: the address is of memory that is never unmapped.
unsafe impl<const WHOSE: u8> Send for Plain<WHOSE> {}
// SAFETY: as above.
unsafe impl<const WHOSE: u8> Sync for Plain<WHOSE> {}

impl<const WHOSE: u8> Plain<WHOSE> {
    fn new() -> Self {
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: the kernel chooses addresses that nothing is mapped at.
        let at = unsafe { libc::mmap(null_mut(), LEN, rights, flags, -1, 0) };
        assert!(at != libc::MAP_FAILED, "no memory");
        Self(at.cast())
    }
    fn discard(&self) {
        // SAFETY: the memory is this value's, and nothing refers to it.
        let done = unsafe { libc::madvise(self.0.cast(), LEN, libc::MADV_DONTNEED) };
        assert_eq!(done, 0);
    }
}
impl<const WHOSE: u8> GuestMemoryRegion for Plain<WHOSE> {
    type B = ();
    #[inline]
    fn len(&self) -> u64 {
        LEN as u64
    }
    #[inline]
    fn start_addr(&self) -> GuestAddress {
        GuestAddress(0)
    }
    fn bitmap(&self) {}
    #[inline]
    fn get_slice(
        &self,
        at: MemoryRegionAddress,
        len: usize,
    ) -> GuestMemoryResult<VolatileSlice<'_>> {
        let end = (at.0 as usize).checked_add(len);
        if end.is_none_or(|end| end > LEN) {
            return Err(GuestMemoryError::InvalidBackendAddress);
        }
        // SAFETY: the bytes are in the memory, which is never unmapped.
        Ok(unsafe { VolatileSlice::new(self.0.wrapping_add(at.0 as usize), len) })
    }
}
impl<const WHOSE: u8> GuestMemoryRegionBytes for Plain<WHOSE> {}

/// An IOMMU whose IOTLB has all that is asked for: each page, at the same address.
#[derive(Debug)]
struct Filled(RwLock<Iotlb>);

impl Filled {
    fn new() -> Self {
        let mut iotlb = Iotlb::new();
        // Each page is at a distance from its neighbour's, so that none are joined.
        for n in 0..PAGES / 2 {
            let (at, len) = (GuestAddress(n * 2 * PAGE_SIZE), PAGE_SIZE as usize);
            let mapped = iotlb.set_mapping(at, at, len, Permissions::ReadWrite);
            mapped.expect("it fits");
        }
        Self(RwLock::new(iotlb))
    }
}
impl Iommu for Filled {
    type IotlbGuard<'a> = RwLockReadGuard<'a, Iotlb>;

    fn translate(
        &self,
        iova: GuestAddress,
        length: usize,
        access: Permissions,
    ) -> Result<IotlbIterator<Self::IotlbGuard<'_>>, Error> {
        let iotlb = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Iotlb::lookup(iotlb, iova, length, access).map_err(|fails| Error::CannotResolve {
            iova_range: IovaRange { base: iova, length },
            reason: format!("{fails:?}"),
        })
    }
}

/// Loads eight bytes of one page after the other, each on a cache line of its own.
#[inline(never)]
fn loads(memory: &impl GuestMemory) {
    for n in 0..TURN {
        let at = GuestAddress(n % HOT * (2 * PAGE_SIZE + 64));
        let word: u64 = memory.read_obj(at).expect("it is in the guest");
        std::hint::black_box(word);
    }
}
/// Stores a byte in each page.
#[inline(never)]
fn touches(memory: &impl GuestMemory) {
    for n in 0..PAGES {
        let stored = memory.write_obj(n as u8, GuestAddress(n * PAGE_SIZE));
        stored.expect("it is in the guest");
    }
}

/// The memory of a process, mapped and by pages, and memory of the host.
struct Guests {
    mm: Arc<Mm>,
    process: u64,
    ours: GuestRegionCollection<HostRegion>,
    paged: ProcessAddressSpace,
    iommu: IommuMemory<LeasedMemory, ProcessIommu>,
    plain: Arc<Plain<BARE>>,
    theirs: GuestRegionCollection<Plain<BARE>>,
    their_iommu: IommuMemory<GuestRegionCollection<Plain<BEHIND>>, Filled>,
}

impl Guests {
    fn new() -> Result<Self, HostMappingError> {
        let machine = Machine::new(MachineConfig::default());
        let mm = Mm::new(&machine);
        let call = machine.with_current(|cx| {
            let at = mm.mmap(cx, &MmapArgs::anonymous(LEN as u64));
            let at = at.expect("there is memory");
            (at, HostMapping::new(cx, &mm, (at, LEN)))
        });
        let (process, mapping) = call.expect("no token is out");
        let guest = GuestAddress(0);
        let region = HostRegion::new(Arc::new(mapping?), guest, ()).expect("it begins at 0");
        let plain = Arc::new(Plain::new());
        let theirs = GuestRegionCollection::from_arc_regions(vec![Arc::clone(&plain)]);
        let theirs = theirs.expect("one region");
        let behind = GuestRegionCollection::from_regions(vec![Plain::new()]);
        let behind = behind.expect("one region");
        let region_of_pages = GuestRegion {
            guest,
            len: LEN as u64,
            process,
        };
        let attach = |cx: &mut CallCx<'_>| {
            let regions = [region_of_pages];
            let (iommu, _stays) = ProcessIommu::attach(cx, &mm, &regions, IommuConfig::default());
            iommu.memory()
        };
        Ok(Self {
            iommu: machine.with_current(attach).expect("no token is out"),
            their_iommu: IommuMemory::new(behind, Filled::new(), true, ()),
            paged: ProcessAddressSpace::new(&mm, &[region_of_pages]),
            mm,
            process,
            ours: GuestRegionCollection::from_regions(vec![region]).expect("one region"),
            plain,
            theirs,
        })
    }
    /// Drops all pages of the process.
    fn discard(&self) {
        let done = self.mm.machine().with_current(|cx| {
            let (at, len) = (self.process, LEN as u64);
            self.mm.madvise(cx, at, len, Advice::DontNeed)
        });
        done.expect("no token is out").expect("it is mapped");
    }
}

fn hits(c: &mut Criterion<Ratio>) {
    let guests = match Guests::new() {
        Ok(guests) => guests,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    touches(&guests.ours);
    touches(&guests.theirs);
    touches(guests.their_iommu.get_backend());
    duel(
        c,
        "guest memory: load that hits",
        PLAIN,
        &mut || timed(|| loads(&guests.ours)),
        &mut || timed(|| loads(&guests.theirs)),
    );
    duel(
        c,
        "guest memory: load that hits",
        IOMMU,
        &mut || timed(|| loads(&guests.ours)),
        &mut || timed(|| loads(&guests.their_iommu)),
    );
    for (against, theirs) in [(PLAIN, None), (IOMMU, Some(&guests.their_iommu))] {
        duel(
            c,
            "guest memory: load by leases",
            against,
            &mut || timed(|| loads(&guests.iommu)),
            &mut || match theirs {
                None => timed(|| loads(&guests.theirs)),
                Some(theirs) => timed(|| loads(theirs)),
            },
        );
    }
    duel(
        c,
        "guest memory: load by held pages",
        PLAIN,
        &mut || timed(|| loads(&*guests.paged.memory())),
        &mut || timed(|| loads(&guests.theirs)),
    );
}

fn first_touches(c: &mut Criterion<Ratio>) {
    let guests = match Guests::new() {
        Ok(guests) => guests,
        Err(why) => return eprintln!("skipped: {why}"),
    };
    // By the clock: other threads do a part of the work.
    let clock = |f: &mut dyn FnMut()| {
        let start = Instant::now();
        f();
        start.elapsed()
    };
    duel(
        c,
        "guest memory: first store to a page",
        PLAIN,
        &mut || {
            guests.discard();
            clock(&mut || touches(&guests.ours))
        },
        &mut || {
            guests.plain.discard();
            clock(&mut || touches(&guests.theirs))
        },
    );
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = hits, first_touches
}
criterion_main!(benches);
