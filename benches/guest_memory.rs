//! Guest memory by rust-vmm's traits: a process's memory, mapped in the host, beside memory that
//! the host has mapped itself, turn by turn. What is measured is the ratio of the times.

mod ratio;

use criterion::{Criterion, criterion_group, criterion_main};
use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    extmmu::{
        HostMapping, HostRegion,
        vm_memory::{GuestRegion, ProcessAddressSpace},
    },
    mm::{Advice, MmapArgs},
};
use ratio::{Ratio, criterion, duel, timed};
use std::{ptr::null_mut, sync::Arc};
use vm_memory::{
    Bytes, GuestAddress, GuestAddressSpace, GuestMemory, GuestMemoryError, GuestMemoryRegion,
    GuestMemoryRegionBytes, GuestMemoryResult, GuestRegionCollection, MemoryRegionAddress,
    VolatileSlice,
};

const PLAIN: &str = "plain mmap memory";
/// Pages of the guest.
const PAGES: u64 = 256;
const LEN: usize = (PAGES * PAGE_SIZE) as usize;
/// Accesses of a turn.
const TURN: u64 = 100_000;

/// Memory of the host as a region: `GuestRegionMmap` without what this needs not.
struct Plain(*mut u8);

// SAFETY: the address is of memory that is never unmapped.
unsafe impl Send for Plain {}
// SAFETY: as above.
unsafe impl Sync for Plain {}

impl Plain {
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
impl GuestMemoryRegion for Plain {
    type B = ();
    fn len(&self) -> u64 {
        LEN as u64
    }
    fn start_addr(&self) -> GuestAddress {
        GuestAddress(0)
    }
    fn bitmap(&self) {}
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
        Ok(unsafe { VolatileSlice::new(self.0.add(at.0 as usize), len) })
    }
}
impl GuestMemoryRegionBytes for Plain {}

/// Loads eight bytes of one page after the other.
fn loads(memory: &impl GuestMemory) {
    for n in 0..TURN {
        let at = GuestAddress(n % PAGES * PAGE_SIZE + n % 512 * 8);
        let word: u64 = memory.read_obj(at).expect("it is in the guest");
        std::hint::black_box(word);
    }
}
/// Stores a byte in each page.
fn touches(memory: &impl GuestMemory) {
    for n in 0..PAGES {
        let stored = memory.write_obj(n as u8, GuestAddress(n * PAGE_SIZE));
        stored.expect("it is in the guest");
    }
}

fn guest_memory(c: &mut Criterion<Ratio>) {
    let machine = Machine::new(MachineConfig::default());
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(LEN as u64);
    let call = machine.with_current(|cx| {
        let at = mm.mmap(cx, &args).expect("there is memory");
        (at, HostMapping::new(cx, &mm, (at, LEN)))
    });
    let (process, mapping) = call.expect("no token is out");
    let mapping = match mapping {
        Ok(mapping) => Arc::new(mapping),
        Err(why) => return eprintln!("skipped: {why}"),
    };
    let guest = GuestAddress(0);
    let region: HostRegion = HostRegion::new(mapping, guest, ());
    let ours = GuestRegionCollection::from_regions(vec![region]).expect("one region");
    let plain = Arc::new(Plain::new());
    let theirs = GuestRegionCollection::from_arc_regions(vec![Arc::clone(&plain)]);
    let theirs = theirs.expect("one region");
    let region = GuestRegion {
        guest,
        len: LEN as u64,
        process,
    };
    let paged = ProcessAddressSpace::new(&mm, &[region]);
    touches(&ours);
    touches(&theirs);
    duel(
        c,
        "guest memory: load that hits",
        PLAIN,
        &mut || timed(|| loads(&ours)),
        &mut || timed(|| loads(&theirs)),
    );
    duel(
        c,
        "guest memory: load by held pages",
        PLAIN,
        &mut || timed(|| loads(&*paged.memory())),
        &mut || timed(|| loads(&theirs)),
    );
    let discard = || {
        machine.with_current(|cx| {
            let done = mm.madvise(cx, process, LEN as u64, Advice::DontNeed);
            done.expect("it is mapped");
        })
    };
    // By the clock: other threads do a part of the work.
    let clock = |f: &mut dyn FnMut()| {
        let start = std::time::Instant::now();
        f();
        start.elapsed()
    };
    duel(
        c,
        "guest memory: first store to a page",
        PLAIN,
        &mut || {
            discard().expect("no token is out");
            clock(&mut || touches(&ours))
        },
        &mut || {
            plain.discard();
            clock(&mut || touches(&theirs))
        },
    );
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = guest_memory
}
criterion_main!(benches);
