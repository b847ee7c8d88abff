//! Memory of a process at addresses in a row of the host.

use crate::{beside::churn, skipped::skipped};
use emmu::{
    Errno, Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{HostMapping, HostMappingError, HostMmu},
    frame::Contents,
    mm::{Advice, MmapArgs, Prot},
    notifier::{Access, AgeKind},
    oracle::Oracle,
};
use std::{
    fs::File,
    io::{self, Read},
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

pub(crate) const BASE: u64 = 1 << 30;
pub(crate) const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 8;
const LEN: usize = (PAGES * PAGE) as usize;

struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    oracle: Arc<Oracle>,
    memory: HostMapping,
}

pub(crate) fn machine(memory: MemConfig) -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory,
        ..MachineConfig::default()
    })
}
pub(crate) fn map(cx: &mut CallCx<'_>, mm: &Arc<Mm>, len: usize) -> Option<HostMapping> {
    match HostMapping::new(cx, mm, (BASE, len)) {
        Err(HostMappingError::NoUserfaultfd(why)) => {
            skipped("a mapping in the host", &format!("no userfaultfd: {why}"));
            None
        }
        other => Some(other.unwrap()),
    }
}
/// Runs `f` with a world, where the host has userfaultfd.
fn with_world(config: MemConfig, f: impl FnOnce(&mut CallCx<'_>, &World)) {
    let machine = machine(config);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let Some(memory) = map(&mut cx, &mm, LEN) else {
        return;
    };
    oracle.watch(&mm, memory.driver());
    let w = World {
        machine,
        mm,
        oracle,
        memory,
    };
    f(&mut cx, &w);
    w.mm.exit(&mut cx);
    drop(w.memory);
    w.oracle.audit_end(&w.mm);
    w.oracle.assert_silent();
    drop(w.mm);
    assert_eq!(w.machine.mem().in_use(), 0);
}

/// The byte at an offset of a mapping.
pub(crate) fn byte(memory: &HostMapping, at: u64) -> &AtomicU8 {
    assert!(at < memory.size() as u64);
    // SAFETY: it is in the mapping, which lives; its bytes are accessed by atomics alone.
    unsafe { AtomicU8::from_ptr(memory.as_ptr().as_ptr().wrapping_add(at as usize)) }
}
/// The aligned word at an offset of a mapping.
fn word(memory: &HostMapping, at: u64) -> &AtomicU64 {
    assert!(at.is_multiple_of(8) && at + 8 <= memory.size() as u64);
    // SAFETY: as for a byte, and aligned.
    unsafe { AtomicU64::from_ptr(memory.as_ptr().as_ptr().wrapping_add(at as usize).cast()) }
}
/// Has the host's kernel write bytes to a mapping, as a device model does that reads a file.
pub(crate) fn read_into(memory: &HostMapping, at: u64, len: usize) -> io::Result<usize> {
    assert!(at as usize + len <= memory.size());
    // SAFETY: it is in the mapping, which lives, and no other thread of the test has a reference.
    let to = unsafe {
        std::slice::from_raw_parts_mut(memory.as_ptr().as_ptr().wrapping_add(at as usize), len)
    };
    File::open("/dev/zero").unwrap().read(to)
}

#[test]
fn loads_and_stores_are_those_of_the_process() {
    with_world(MemConfig::default(), |cx, w| {
        w.mm.store(cx, BASE + 5, 7).unwrap();
        assert_eq!(byte(&w.memory, 5).load(Relaxed), 7);
        byte(&w.memory, PAGE + 1).store(9, Relaxed);
        assert_eq!(w.mm.load(cx, BASE + PAGE + 1), Ok(9));
        w.mm.store(cx, BASE + PAGE + 1, 10).unwrap();
        assert_eq!(byte(&w.memory, PAGE + 1).load(Relaxed), 10);
        assert_eq!(w.memory.pages_shown(cx), 2);
        // A page that is dropped is another one afterwards.
        w.mm.madvise(cx, BASE, 2 * PAGE, Advice::DontNeed).unwrap();
        assert_eq!(w.memory.pages_shown(cx), 0);
        assert_eq!(byte(&w.memory, 5).load(Relaxed), 0);
    });
}

#[test]
fn pages_that_are_only_read_take_no_frame_and_no_store_reaches_the_zero_page() {
    with_world(MemConfig::default(), |cx, w| {
        let first = |n| byte(&w.memory, n * PAGE);
        assert!((0..PAGES).all(|n| first(n).load(Relaxed) == 0));
        assert_eq!(w.machine.mem().in_use(), 0);
        first(3).store(3, Relaxed);
        assert_eq!(w.machine.mem().in_use(), 1);
        let all: Vec<u8> = (0..PAGES).map(|n| first(n).load(Relaxed)).collect();
        assert_eq!(all, [0, 0, 0, 3, 0, 0, 0, 0]);
        assert_eq!(w.mm.load(cx, BASE + 3 * PAGE), Ok(3));
    });
}

#[test]
fn a_fork_shares_pages_until_they_are_written_through_either_mapping() {
    with_world(MemConfig::default(), |cx, w| {
        byte(&w.memory, 0).store(1, Relaxed);
        byte(&w.memory, PAGE).store(2, Relaxed);
        let child = w.mm.fork(cx).unwrap();
        let theirs = map(cx, &child, LEN).unwrap();
        let see = |at| {
            (
                byte(&w.memory, at).load(Relaxed),
                byte(&theirs, at).load(Relaxed),
            )
        };
        assert_eq!((see(0), see(PAGE)), ((1, 1), (2, 2)));
        assert_eq!(w.machine.mem().in_use(), 2, "nothing is copied to be read");
        byte(&w.memory, 0).store(5, Relaxed);
        byte(&theirs, PAGE).store(6, Relaxed);
        assert_eq!((see(0), see(PAGE)), ((5, 1), (2, 6)));
        child.exit(cx);
        drop(theirs);
    });
}

#[test]
fn memory_that_two_processes_share_is_one_memory_in_both_mappings() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(PAGES * PAGE).shared().fixed(BASE);
    mm.mmap(&mut cx, &args).unwrap();
    let child = mm.fork(&mut cx).unwrap();
    let Some(ours) = map(&mut cx, &mm, LEN) else {
        return;
    };
    let theirs = map(&mut cx, &child, LEN).unwrap();
    for n in 0..PAGES {
        word(&ours, n * PAGE).store(n + 1, Release);
        assert_eq!(word(&theirs, n * PAGE).fetch_add(10, Acquire), n + 1);
        assert_eq!(word(&ours, n * PAGE).load(Acquire), n + 11);
    }
    child.exit(&mut cx);
    mm.exit(&mut cx);
}

/// The host's kernel waits for a page as a thread does, and gets an error where a thread gets a
/// signal.
#[test]
fn the_hosts_kernel_accesses_the_memory_of_the_process() {
    with_world(MemConfig::default(), |cx, w| {
        if !w.memory.serves_kernel() {
            return skipped(
                "accesses of the kernel",
                "userfaultfd is for user mode alone",
            );
        }
        w.mm.write_bytes(cx, BASE, &[7; 3 * PAGE as usize]).unwrap();
        assert_eq!(read_into(&w.memory, 10, 5000).unwrap(), 5000);
        let mut all = vec![0; 3 * PAGE as usize];
        w.mm.read_bytes(cx, BASE, &mut all).unwrap();
        let expected = (0..all.len()).map(|n| if (10..5010).contains(&n) { 0 } else { 7 });
        assert!(all.iter().copied().eq(expected));
        // Without the right to write.
        w.mm.mprotect(cx, BASE, PAGE, Prot::READ).unwrap();
        assert_eq!(byte(&w.memory, 5).load(Relaxed), 7);
        let refused = read_into(&w.memory, 0, 8).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EFAULT.raw()));
        assert_eq!(w.mm.load(cx, BASE), Ok(7));
        // Without memory.
        w.mm.munmap(cx, BASE + PAGE, PAGE).unwrap();
        let refused = read_into(&w.memory, PAGE, 8).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(Errno::EFAULT.raw()));
        // A refusal is no state of the page.
        w.mm.mprotect(cx, BASE, PAGE, Prot::READ | Prot::WRITE)
            .unwrap();
        let until = Instant::now() + Duration::from_secs(600);
        while read_into(&w.memory, 0, 8).is_err() {
            assert!(Instant::now() < until, "it is refused for good");
        }
        assert_eq!(w.mm.load(cx, BASE), Ok(0));
    });
}

#[test]
fn what_cannot_be_mapped_is_refused() {
    let kinds = [Contents::Real, Contents::None];
    for contents in kinds {
        let machine = machine(MemConfig {
            contents,
            ..MemConfig::default()
        });
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let mut ask = |at| {
            let why = HostMapping::new(&mut cx, &mm, at).err()?;
            Some((why.errno(), why))
        };
        for at in [
            (BASE, 0),
            (BASE + 1, 4096),
            (BASE, 4095),
            (u64::MAX - 4095, 4096),
        ] {
            let refused = ask(at).unwrap();
            assert!(matches!(
                refused,
                (Errno::EINVAL, HostMappingError::Range { .. })
            ));
        }
        let refused = ask((BASE, 4096));
        if contents == Contents::None {
            let refused = refused.unwrap();
            assert!(matches!(
                refused,
                (Errno::EOPNOTSUPP, HostMappingError::NoFrames)
            ));
        }
    }
}

/// No store through the mapping is lost, whatever happens to the pages meanwhile.
#[test]
fn stores_reach_the_memory_while_its_pages_are_copied_moved_and_swapped() {
    const ROUNDS: u64 = 4000;
    let config = MemConfig {
        swap: 64,
        ..MemConfig::default()
    };
    with_world(config, |cx, w| {
        let done = AtomicBool::new(false);
        std::thread::scope(|s| {
            s.spawn(|| churn(&w.mm, BASE..BASE + PAGES * PAGE, 2, &done));
            for n in 0..ROUNDS {
                let added = word(&w.memory, n % PAGES * PAGE).fetch_add(1, Relaxed);
                assert_eq!(added, n / PAGES);
            }
            done.store(true, Release);
        });
        for n in 0..PAGES {
            let mut bytes = [0; 8];
            w.mm.read_bytes(cx, BASE + n * PAGE, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), ROUNDS / PAGES);
        }
    });
}

/// Drops a page, has another process take its frame, and stores to where the page was. Returns
/// what the other process finds.
fn store_after_the_page_went(
    cx: &mut CallCx<'_>,
    machine: &Arc<Machine>,
    mm: &Mm,
    store: impl FnOnce(),
) -> u8 {
    mm.munmap(cx, BASE, PAGE).unwrap();
    mm.mmap(cx, &MmapArgs::anonymous(PAGE).fixed(BASE)).unwrap();
    let other = Mm::new(machine);
    let at = other.mmap(cx, &MmapArgs::anonymous(PAGE)).unwrap();
    other.store(cx, at + 1, 0xdb).unwrap();
    store();
    let found = other.load(cx, at).unwrap();
    other.exit(cx);
    found
}

#[test]
fn no_store_reaches_a_frame_that_another_process_has() {
    let config = MemConfig {
        frames: 10,
        ..MemConfig::default()
    };
    with_world(config, |cx, w| {
        byte(&w.memory, 0).store(1, Relaxed);
        let store = || byte(&w.memory, 0).store(0xee, Relaxed);
        assert_eq!(store_after_the_page_went(cx, &w.machine, &w.mm, store), 0);
        assert_eq!(w.mm.load(cx, BASE), Ok(0xee), "it is the new page's");
    });
    // The twin: the address of the frame itself, kept when the driver has given it up.
    let machine = machine(config);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE).fixed(BASE))
        .unwrap();
    let (host, _registration) = mm.register(&mut cx, HostMmu::new);
    let at = host.with_slices(&mut cx, &mm, (BASE, 1), Access::Write, |s| s[0].address);
    let at = at.unwrap();
    // SAFETY: the frame keeps its address as long as the machine lives; no reference leads there.
    let store = || unsafe { at.write_volatile(0xee) };
    let found = store_after_the_page_went(&mut cx, &machine, &mm, store);
    assert_eq!(found, 0xee, "the other process finds the store");
    mm.exit(&mut cx);
}

/// Each page that is shown apart is a mapping of the host, which has so many and no more.
#[test]
fn more_pages_than_the_host_maps_apart_are_shown_in_turns() {
    const MANY: u64 = 4200;
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(MANY * PAGE).fixed(BASE))
        .unwrap();
    let Some(memory) = map(&mut cx, &mm, (MANY * PAGE) as usize) else {
        return;
    };
    // Frames come in ascending order, so no two neighbours are neighbours in the file.
    for n in (0..MANY).rev() {
        word(&memory, n * PAGE).store(n, Relaxed);
    }
    let shown = memory.pages_shown(&mut cx) as u64;
    assert!((1..MANY).contains(&shown), "{shown}");
    assert!((0..MANY).all(|n| word(&memory, n * PAGE).load(Relaxed) == n));
    mm.exit(&mut cx);
}

#[test]
fn aging_finds_pages_that_were_touched_since() {
    let config = MemConfig {
        swap: 64,
        ..MemConfig::default()
    };
    with_world(config, |cx, w| {
        for n in 0..PAGES {
            byte(&w.memory, n * PAGE).store(1, Relaxed);
        }
        let whole = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + LEN as u64));
        let page = VpnRange::single(Vpn::containing(BASE + 2 * PAGE));
        let mut age = |range, kind| w.mm.age(cx, range, kind);
        let whole = whole.unwrap();
        assert!(age(whole, AgeKind::Test) && age(whole, AgeKind::ClearFlush));
        assert!(!age(whole, AgeKind::Test), "none was touched since");
        byte(&w.memory, 2 * PAGE).store(2, Relaxed);
        assert!(age(page, AgeKind::Test) && age(whole, AgeKind::Clear));
        assert!(!age(whole, AgeKind::Clear));
        assert_eq!(byte(&w.memory, PAGE).load(Relaxed), 1);
    });
}

#[cfg(feature = "vm-memory")]
#[test]
fn a_collection_of_regions_is_a_backend_of_guest_memory() {
    use emmu::extmmu::HostRegion;
    use vm_memory::{
        Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryError, GuestMemoryRegion,
        GuestRegionCollection, MemoryRegionAddress,
    };
    let machine = machine(MemConfig::default());
    let mm = Mm::new(&machine);
    let args = MmapArgs::anonymous(2 * PAGES * PAGE).fixed(BASE);
    let made = machine.with_current(|cx| {
        mm.mmap(cx, &args).unwrap();
        let high = HostMapping::new(cx, &mm, (BASE + PAGES * PAGE, LEN));
        (map(cx, &mm, LEN), high)
    });
    let (Some(low), Ok(high)) = made.unwrap() else {
        return;
    };
    let guests = [0x1000, 0x10_0000].map(GuestAddress);
    let regions: Vec<HostRegion> = [low, high]
        .into_iter()
        .zip(guests)
        .map(|(mapping, guest)| HostRegion::new(Arc::new(mapping), guest, ()).unwrap())
        .collect();
    let past = |guest| HostRegion::new(Arc::clone(regions[0].mapping()), GuestAddress(guest), ());
    let refused = past(u64::MAX - LEN as u64 + 2).unwrap_err();
    assert!(matches!(refused, GuestMemoryError::GuestAddressOverflow));
    assert!(past(u64::MAX - LEN as u64 + 1).is_ok());
    let memory = GuestRegionCollection::from_regions(regions).unwrap();
    assert_eq!(memory.num_regions(), 2);
    let across = GuestAddress(0x1000 + PAGE - 3);
    memory.write_obj(0x0807_0605_0403_0201_u64, across).unwrap();
    let mut bytes = [0; 8];
    machine
        .with_current(|cx| mm.read_bytes(cx, BASE + PAGE - 3, &mut bytes))
        .unwrap()
        .unwrap();
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    let region = memory.find_region(guests[1]).unwrap();
    let all = region.as_volatile_slice().unwrap();
    all.write_obj(7_u8, LEN - 1).unwrap();
    assert!(all.write_obj(7_u8, LEN).is_err());
    let last = BASE + 2 * PAGES * PAGE - 1;
    assert_eq!(machine.with_current(|cx| mm.load(cx, last)).unwrap(), Ok(7));
    let has = |at| region.get_host_address(MemoryRegionAddress(at)).is_ok();
    assert!(has(LEN as u64 - 1) && !has(LEN as u64));
    assert!(memory.read_obj::<u8>(GuestAddress(0x9000)).is_err());
    machine.with_current(|cx| mm.exit(cx)).unwrap();
}
