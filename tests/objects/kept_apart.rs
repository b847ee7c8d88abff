//! Memory that is kept from someone: sealed objects, secret memory, devices that have no pages.

use crate::common::{
    PAGE, RW, World, at,
    objects::{disk, shmem},
};
use emmu::{
    Errno, FaultError, Mm,
    error::{MmapError, ObjectError, SealError},
    file::{DeviceFile, FallocateMode, File, FileMode, MemoryObject, Seals, SecretMem, Shmem},
    mm::{Advice, MapFlags, MmapArgs, PinKind, Prot, VmFlags},
    notifier::Access,
};
use std::sync::Arc;

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

fn sealable(w: &World, pages: u64) -> Arc<File> {
    let object = Shmem::sealable(w.machine.host(), "s", pages * PAGE).expect("small");
    File::open(object, FileMode::ReadWrite)
}
fn try_map(
    w: &mut World,
    from: u64,
    file: &Arc<File>,
    prot: Prot,
    kind: MapFlags,
) -> Result<u64, MmapError> {
    let args = MmapArgs {
        addr: at(from),
        len: 4 * PAGE,
        prot,
        flags: kind | MapFlags::FIXED,
        file: Some(Arc::clone(file)),
        offset: 0,
    };
    w.mm.mmap(&mut w.thread.cx(), &args)
}

#[test]
fn a_seal_against_writes_waits_for_the_last_mapping_that_may_write() {
    let mut w = World::new();
    let file = sealable(&w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    assert_eq!(file.add_seals(Seals::WRITE), Err(SealError::Mapped));
    w.mm.mprotect(&mut w.thread.cx(), at(0), 4 * PAGE, Prot::READ)
        .unwrap();
    assert_eq!(
        file.add_seals(Seals::WRITE),
        Err(SealError::Mapped),
        "it may come to write"
    );
    assert_eq!(file.seals(), Ok(Seals::empty()));
    w.mm.munmap(&mut w.thread.cx(), at(0), 4 * PAGE).unwrap();
    w.map_file(0, 4, &file, 0, PRIVATE);
    w.put(0, 1);
    assert_eq!(
        file.add_seals(Seals::WRITE),
        Ok(()),
        "a private mapping writes to its own pages"
    );
    assert_eq!(
        try_map(&mut w, 8, &file, RW, SHARED),
        Err(MmapError::WriteSealed)
    );
    assert_eq!(try_map(&mut w, 8, &file, Prot::READ, SHARED), Ok(at(8)));
    let more = w.mm.mprotect(&mut w.thread.cx(), at(8), PAGE, RW);
    assert_eq!(more.map_err(|e| e.errno()), Err(Errno::EACCES));
    let wrote = file.write_at(w.thread.cx(), 0, &[1]);
    assert_eq!(wrote, Err(ObjectError::Sealed));
    assert_eq!(
        file.punch_hole(w.thread.cx(), 0, PAGE),
        Err(ObjectError::Sealed)
    );
}

/// `memfd_wait_for_pins`: the holder of a pin writes past all mappings.
#[test]
fn a_seal_against_writes_waits_for_the_last_pin() {
    let mut w = World::new();
    let file = sealable(&w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    let cx = &mut w.thread.cx();
    let pin = w.mm.pin(cx, at(1), 8, Access::Write, PinKind::LongTerm);
    let pin = pin.unwrap();
    let reference = w.mm.get_pages(cx, at(2), 8).unwrap();
    w.mm.munmap(cx, at(0), 4 * PAGE).unwrap();
    assert_eq!(file.add_seals(Seals::WRITE), Err(SealError::Held));
    assert_eq!(file.add_seals(Seals::FUTURE_WRITE), Ok(()));
    assert_eq!(pin.write_at(0, &[1]), 1);
    drop(pin);
    let refused = file.add_seals(Seals::WRITE).map_err(SealError::errno);
    assert_eq!(refused, Err(Errno::EBUSY), "the page could still be read");
    drop(reference);
    w.map_file(0, 4, &file, 0, PRIVATE);
    assert_eq!(w.get(1), Ok(1));
    assert_eq!(
        file.add_seals(Seals::WRITE),
        Ok(()),
        "mappings do not count"
    );
    drop(file);
    w.end();
}

#[test]
fn seals_of_the_size_hold_both_ends() {
    let mut w = World::new();
    let file = sealable(&w, 4);
    file.add_seals(Seals::GROW | Seals::SHRINK).unwrap();
    for size in [3 * PAGE, 4 * PAGE + 1] {
        assert_eq!(file.truncate(w.thread.cx(), size), Err(ObjectError::Sealed));
    }
    assert_eq!(file.truncate(w.thread.cx(), 4 * PAGE), Ok(()));
    // What fits is written; the rest is refused.
    assert_eq!(file.write_at(w.thread.cx(), 3 * PAGE, &[1; 5000]), Ok(4096));
    assert_eq!(
        file.write_at(w.thread.cx(), 4 * PAGE, &[1]),
        Err(ObjectError::Sealed)
    );
    let more = file.fallocate(w.thread.cx(), FallocateMode::KEEP_SIZE, 3 * PAGE, 2 * PAGE);
    assert_eq!(more, Err(ObjectError::Sealed));
    assert_eq!(file.object().size(), 4 * PAGE);
}

#[test]
fn a_seal_against_future_writes_leaves_present_mappings() {
    let mut w = World::new();
    let file = sealable(&w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    file.add_seals(Seals::FUTURE_WRITE).unwrap();
    w.put(1, 7);
    assert_eq!(
        try_map(&mut w, 8, &file, RW, SHARED),
        Err(MmapError::WriteSealed)
    );
    assert_eq!(
        file.write_at(w.thread.cx(), 0, &[1]),
        Err(ObjectError::Sealed)
    );
    let again = w.mm.remap_file_pages(
        &mut w.thread.cx(),
        at(0),
        PAGE,
        Prot::empty(),
        2,
        MapFlags::empty(),
    );
    assert_eq!(again.map_err(|e| e.errno()), Err(Errno::EPERM));
    assert_eq!(w.get(1), Ok(7), "nothing was unmapped");
}

#[test]
fn each_refusal_of_a_seal_has_its_errno() {
    let mut w = World::new();
    let file = sealable(&w, 1);
    let closed = File::open(Arc::clone(file.object()), FileMode::ReadOnly);
    let (_, disk) = disk(&mut w, 1);
    let plain = shmem(&mut w, 1);
    let errno = |file: &File, seals| file.add_seals(seals).map_err(SealError::errno);
    assert_eq!(errno(&closed, Seals::GROW), Err(Errno::EPERM));
    assert_eq!(
        errno(&file, Seals::from_bits_retain(64)),
        Err(Errno::EINVAL)
    );
    assert_eq!(errno(&disk, Seals::GROW), Err(Errno::EINVAL));
    assert_eq!(errno(&plain, Seals::GROW), Err(Errno::EPERM));
    assert_eq!(errno(&file, Seals::EXEC | Seals::SEAL), Ok(()));
    let all = Seals::all();
    assert_eq!(
        file.seals(),
        Ok(all),
        "an executable object is sealed against writes with it"
    );
    assert_eq!(errno(&file, Seals::GROW), Err(Errno::EPERM));
}

fn secret(w: &mut World, pages: u64) -> Arc<File> {
    let object = SecretMem::new(w.machine.host()).expect("small");
    let file = File::open(object, FileMode::ReadWrite);
    file.truncate(w.thread.cx(), pages * PAGE)
        .expect("the first size");
    file
}

#[test]
fn secret_memory_is_for_its_own_processes_alone() {
    let mut w = World::new();
    let file = secret(&mut w, 4);
    assert_eq!(try_map(&mut w, 0, &file, RW, SHARED), Ok(at(0)));
    w.put(0, 5);
    let cx = &mut w.thread.cx();
    let child = w.mm.fork(cx).unwrap();
    assert_eq!(child.load(cx, at(0)), Ok(5));
    let other = Mm::new(&w.machine);
    other
        .mmap(cx, &MmapArgs::anonymous(PAGE).fixed(at(90)))
        .unwrap();
    let copied = other.copy_from(cx, at(90), (&w.mm, at(0)), 1);
    assert_eq!(copied.map_err(|e| e.errno()), Err(Errno::EFAULT));
    let frame = w.mm.with_locked_frame(cx, at(0), Access::Read, |_, _| ());
    assert_eq!(frame, Err(FaultError::Secret(at(0))));
    assert_eq!(
        w.mm.mlock(cx, at(0), PAGE).map_err(|e| e.errno()),
        Err(Errno::ENOMEM)
    );
    assert_eq!(w.mm.munlock(cx, at(0), PAGE), Ok(()));
    let flags = w.mm.maps(cx)[0].flags;
    assert!(
        flags.contains(VmFlags::LOCKED | VmFlags::DONTDUMP) && !flags.contains(VmFlags::MAYEXEC)
    );
    let advised = w.mm.madvise(cx, at(0), PAGE, Advice::PopulateWrite);
    assert_eq!(advised.map_err(|e| e.errno()), Err(Errno::EINVAL));
    other.exit(cx);
    child.exit(cx);
}

#[test]
fn secret_memory_counts_as_locked_and_has_one_size() {
    let mut w = World::new();
    let file = secret(&mut w, 4);
    assert!(file.truncate(w.thread.cx(), PAGE).is_err());
    assert_eq!(
        file.sync(w.thread.cx()).map_err(ObjectError::errno),
        Err(Errno::EINVAL)
    );
    let mut limits = w.mm.limits(&mut w.thread.cx());
    (limits.ipc_lock, limits.memlock) = (false, 3 * PAGE);
    w.mm.set_limits(&mut w.thread.cx(), limits);
    w.map(0, 4, RW);
    assert_eq!(
        try_map(&mut w, 0, &file, RW, SHARED),
        Err(MmapError::LockLimit(4))
    );
    assert_eq!(
        w.get(0),
        Err(FaultError::NotMapped(at(0))),
        "the old mapping is gone by then"
    );
    assert_eq!(
        try_map(&mut w, 0, &file, RW, PRIVATE),
        Err(MmapError::PrivateSecret)
    );
    let executed = try_map(&mut w, 0, &file, Prot::READ | Prot::EXEC, SHARED);
    assert_eq!(executed.map_err(MmapError::errno), Err(Errno::EPERM));
}

#[test]
fn a_device_of_zeros_gives_memory_that_keeps_its_name() {
    let mut w = World::new();
    let zero = File::open(DeviceFile::zero(w.machine.host()), FileMode::ReadWrite);
    let dead: Arc<dyn MemoryObject> = DeviceFile::unmappable(w.machine.host(), "/dev/null");
    let dead = File::open(dead, FileMode::ReadWrite);
    try_map(&mut w, 0, &zero, RW, PRIVATE).unwrap();
    w.map(4, 4, RW);
    try_map(&mut w, 8, &zero, RW, SHARED).unwrap();
    try_map(&mut w, 12, &zero, RW, SHARED).unwrap();
    w.put(0, 1);
    w.put(8, 2);
    assert_eq!((w.get(1), w.get(12)), (Ok(0), Ok(0)));
    let lines = w.mm.maps(&mut w.thread.cx());
    let names: Vec<_> = lines.iter().map(|l| l.name.as_str()).collect();
    let shared = "/dev/zero (deleted)";
    assert_eq!(names, ["/dev/zero", "", shared, shared]);
    assert_eq!(
        try_map(&mut w, 20, &dead, RW, SHARED),
        Err(MmapError::Unmappable)
    );
}

#[test]
fn a_promise_that_a_disk_cannot_keep_is_refused_when_the_old_mapping_is_gone() {
    let mut w = World::new();
    let (_, disk) = disk(&mut w, 4);
    let memory = shmem(&mut w, 4);
    w.map(0, 4, RW);
    let sync = SHARED | MapFlags::SYNC;
    assert_eq!(
        try_map(&mut w, 0, &disk, RW, sync),
        Err(MmapError::NotSynchronous)
    );
    assert_eq!(w.get(0), Err(FaultError::NotMapped(at(0))));
    assert_eq!(try_map(&mut w, 0, &memory, RW, sync), Ok(at(0)));
    let sync = MapFlags::SHARED_VALIDATE | MapFlags::SYNC;
    let refused = try_map(&mut w, 0, &memory, RW, sync);
    assert_eq!(refused.map_err(MmapError::errno), Err(Errno::EOPNOTSUPP));
    assert_eq!(w.get(0), Ok(1), "found before anything was unmapped");
}
