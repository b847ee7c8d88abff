//! Files and shared words through a mapping in the host.

use crate::{
    host_mapping::{BASE, PAGE, byte, machine, map, read_into},
    skipped::skipped,
};
use emmu::{
    Errno, MemConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    file::{BLOCK, DiskFile, File, FileMode, MemStore},
    frame::{DeviceKind, DeviceMemory},
    mm::{
        DeviceLost, DevicePages, HomePage, MigrateArgs, MigrateSelect, MigrateTo, MmapArgs,
        MsyncFlags, Prot,
    },
};
use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicU16,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

fn block(disk: &DiskFile, index: u64) -> u8 {
    let mut bytes = [0; BLOCK];
    disk.store().read(index, &mut bytes).unwrap();
    bytes[7]
}

/// A page that was written back is clean, and the next store to it is noticed again.
#[test]
fn each_store_to_a_page_of_a_file_is_written_back() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let disk = DiskFile::new(
        machine.host(),
        "/d",
        2 * PAGE,
        Box::new(MemStore::default()),
    );
    let disk = disk.unwrap();
    let file = File::open(disk.clone(), FileMode::ReadWrite);
    let args = MmapArgs::anonymous(2 * PAGE).file(&file, 0).shared();
    mm.mmap(&mut cx, &args.fixed(BASE)).unwrap();
    let Some(memory) = map(&mut cx, &mm, 2 * PAGE as usize) else {
        return;
    };
    let sync = |cx: &mut CallCx<'_>| mm.msync(cx, BASE, 2 * PAGE, MsyncFlags::SYNC).unwrap();
    assert_eq!(byte(&memory, 7).load(Relaxed), 0, "it is read first");
    for n in 1..=3 {
        byte(&memory, 7).store(n, Relaxed);
        assert_eq!(block(&disk, 0), n - 1, "it is in memory alone");
        sync(&mut cx);
        assert_eq!((block(&disk, 0), disk.dirty()), (n, 0));
        assert_eq!(byte(&memory, 7).load(Relaxed), n);
        assert_eq!(disk.dirty(), 0, "a load is no store");
    }
    mm.exit(&mut cx);
}

#[test]
fn a_file_that_is_only_read_is_seen_in_its_own_page() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let disk = DiskFile::new(machine.host(), "/d", PAGE, Box::new(MemStore::default())).unwrap();
    let file = File::open(disk, FileMode::ReadWrite);
    file.write_at(cx.reborrow(), 7, &[5]).unwrap();
    let args = MmapArgs::anonymous(PAGE).file(&file, 0).shared();
    mm.mmap(&mut cx, &args.prot(Prot::READ).fixed(BASE))
        .unwrap();
    let Some(memory) = map(&mut cx, &mm, PAGE as usize) else {
        return;
    };
    assert_eq!(byte(&memory, 7).load(Relaxed), 5);
    let frames = machine.mem().in_use();
    file.write_at(cx.reborrow(), 7, &[6]).unwrap();
    assert_eq!(byte(&memory, 7).load(Relaxed), 6, "by `write` as well");
    assert_eq!(machine.mem().in_use(), frames);
    mm.exit(&mut cx);
}

/// Looks at a word through a mapping while the process stores to it by `store`. Returns true if
/// half of a store was seen.
fn tears(store: impl Fn(&Mm, &mut CallCx<'_>, u8) + Sync, most: u32) -> Option<bool> {
    let machine = machine(MemConfig::default());
    let mm = Mm::new(&machine);
    let done = AtomicBool::new(false);
    let memory = machine.with_current(|cx| {
        let args = MmapArgs::anonymous(PAGE_SIZE).fixed(BASE);
        mm.mmap(cx, &args).unwrap();
        map(cx, &mm, PAGE as usize)
    });
    let memory = memory.unwrap()?;
    // SAFETY: it is in the mapping, aligned, and accessed by atomics alone.
    let word = unsafe { AtomicU16::from_ptr(memory.as_ptr().as_ptr().wrapping_add(2).cast()) };
    let torn = std::thread::scope(|s| {
        s.spawn(|| {
            let mut thread = machine.enter().unwrap();
            let mut cx = thread.cx();
            while !done.load(Acquire) {
                for byte in [0xff, 0] {
                    store(&mm, &mut cx, byte);
                }
            }
        });
        let until = Instant::now() + Duration::from_secs(600);
        let halves = |_: &u32| {
            assert!(
                Instant::now() < until,
                "no half of a store in all this time"
            );
            let [low, high] = word.load(Relaxed).to_le_bytes();
            low != high
        };
        let torn = (0..most).find(halves).is_some();
        done.store(true, Release);
        torn
    });
    machine.with_current(|cx| mm.exit(cx)).unwrap();
    Some(torn)
}

/// A device that reads an index of a queue must see no half of it.
#[test]
fn the_process_stores_aligned_words_whole() {
    let whole = |mm: &Mm, cx: &mut CallCx<'_>, byte| {
        mm.write_bytes(cx, BASE + 2, &[byte; 2]).unwrap();
    };
    let Some(torn) = tears(whole, 200_000) else {
        return;
    };
    assert!(!torn);
    // The twin: each byte by itself.
    let halves = |mm: &Mm, cx: &mut CallCx<'_>, byte| {
        mm.store(cx, BASE + 2, byte).unwrap();
        mm.store(cx, BASE + 3, byte).unwrap();
    };
    assert_eq!(tears(halves, u32::MAX), Some(true));
}

/// The home of a page whose driver panics when it is asked for the first one.
struct PanicsOnce(DeviceMemory, AtomicBool);

impl DevicePages for PanicsOnce {
    fn migrate_to_ram(&self, page: &HomePage<'_>) -> Result<(), DeviceLost> {
        assert!(!self.1.swap(false, Relaxed), "a driver panics");
        page.copy();
        Ok(())
    }
}

/// The thread that serves touches goes on.
#[test]
fn a_touch_is_refused_whose_page_comes_from_a_driver_that_panics() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let new = |memory| Arc::new(PanicsOnce(memory, AtomicBool::new(true)));
    let device = machine.add_device(DeviceKind::Private, 4, new);
    let (device, _stays) = device.unwrap();
    mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE).fixed(BASE))
        .unwrap();
    mm.store(&mut cx, BASE, 7).unwrap();
    let out = MigrateArgs {
        memory: &device.0,
        range: VpnRange::single(Vpn::containing(BASE)),
        select: MigrateSelect::SYSTEM,
    };
    let moved = mm.migrate_vma(&mut cx, &out, |_| MigrateTo::Device);
    assert_eq!(moved.unwrap().moved(), 1);
    let Some(memory) = map(&mut cx, &mm, 2 * PAGE as usize) else {
        return;
    };
    if !memory.serves_kernel() {
        return skipped(
            "accesses of the kernel",
            "userfaultfd is for user mode alone",
        );
    }
    let refused = read_into(&memory, 8, 8).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::EFAULT.raw()));
    assert_eq!(read_into(&memory, PAGE, 8).unwrap(), 8, "another page");
    let until = Instant::now() + Duration::from_secs(600);
    while read_into(&memory, 8, 8).is_err() {
        assert!(Instant::now() < until, "it is refused for good");
    }
    assert_eq!(mm.load(&mut cx, BASE), Ok(7));
    drop(memory);
    mm.exit(&mut cx);
}
