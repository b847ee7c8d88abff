//! Changes of a file's blocks: what is mapped shows them, with the windows and the errors of Linux.

use crate::{
    common::{
        PAGE, World, at,
        objects::{disk, shmem, swapping, xip},
    },
    stores::{Puppet, Strings},
};
use emmu::{
    Errno, FaultError, HugeSize,
    error::ObjectError,
    file::{
        BLOCK, DiskFile, FallocateMode, File, FileMode, HugetlbFile, MemoryObject, Shmem, Store,
        StoreError,
    },
    mm::MapFlags,
};
use std::sync::Arc;

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;
const KEEP: FallocateMode = FallocateMode::KEEP_SIZE;

fn change(w: &mut World, file: &File, mode: u32, from: u64, len: u64) -> Result<(), Errno> {
    let mode = FallocateMode::from_bits_retain(mode);
    file.fallocate(w.thread.cx(), mode, from, len)
        .map_err(ObjectError::errno)
}
/// A disk file of `n` pages, mapped shared from page 0 and private from page 40 on.
fn mapped(w: &mut World, n: u64) -> (Arc<DiskFile>, Arc<File>) {
    let (object, file) = disk(w, n);
    w.map_file(0, 16, &file, 0, SHARED);
    w.map_file(40, 16, &file, 0, PRIVATE);
    (object, file)
}

#[test]
fn what_lies_behind_a_range_that_is_taken_out_moves_down() {
    let mut w = World::new();
    let (object, file) = mapped(&mut w, 8);
    w.put(1, 50);
    w.put(6, 60);
    w.put(41, 9);
    w.put(46, 9);
    w.told();
    assert_eq!(change(&mut w, &file, 8, 2 * PAGE, 3 * PAGE), Ok(()));
    // The stored page is written back; then all from the range on is unmapped, twice.
    assert_eq!(w.told(), "W6..7 W2..16 W42..56 W2..16 W42..56");
    assert_eq!(object.size(), 5 * PAGE);
    let seen: Vec<_> = (0..5).map(|n| w.get(n).unwrap()).collect();
    assert_eq!(seen, [1, 50, 6, 60, 8]);
    assert_eq!(w.get(5), Err(FaultError::Beyond(at(5))));
    assert_eq!(
        (w.get(41), w.get(43)),
        (Ok(9), Ok(60)),
        "the second copy is gone"
    );
    w.check_rmap();
}

#[test]
fn a_range_that_is_put_in_reads_zero_and_the_rest_moves_up() {
    let mut w = World::new();
    let (object, file) = mapped(&mut w, 4);
    w.put(3, 40);
    assert_eq!(change(&mut w, &file, 32, PAGE, 2 * PAGE), Ok(()));
    assert_eq!(object.size(), 6 * PAGE);
    let seen: Vec<_> = (0..6).map(|n| w.get(n).unwrap()).collect();
    assert_eq!(seen, [1, 0, 0, 2, 3, 40]);
}

#[test]
fn a_range_of_zeros_leaves_private_copies_and_may_grow_the_file() {
    let mut w = World::new();
    let (object, file) = mapped(&mut w, 4);
    w.put(42, 9);
    assert_eq!(change(&mut w, &file, 17, PAGE + 1, 5 * PAGE), Ok(()));
    assert_eq!(object.size(), 4 * PAGE);
    let seen: Vec<_> = [0, 1, 2, 3, 42].map(|n| w.get(n).unwrap()).into();
    assert_eq!(seen, [1, 2, 0, 0, 9]);
    assert_eq!(change(&mut w, &file, 16, 3 * PAGE, 3 * PAGE + 5), Ok(()));
    assert_eq!(object.size(), 6 * PAGE + 5);
    assert_eq!(w.get(5), Ok(0));
}

#[test]
fn what_is_allocated_behind_the_end_reads_zero() {
    let mut w = World::new();
    let (object, file) = mapped(&mut w, 2);
    file.truncate(w.thread.cx(), PAGE + 100).unwrap();
    w.mm.store(&mut w.thread.cx(), at(1) + 200, 77).unwrap();
    assert_eq!(change(&mut w, &file, 1, 0, 5 * PAGE), Ok(()));
    assert_eq!(object.size(), PAGE + 100);
    assert_eq!(change(&mut w, &file, 0, 0, 5 * PAGE), Ok(()));
    assert_eq!(object.size(), 5 * PAGE);
    assert_eq!(w.mm.load(&mut w.thread.cx(), at(1) + 200), Ok(0));
}

#[test]
fn shared_memory_has_a_page_for_each_that_was_reserved() {
    let mut w = swapping(64, 64);
    let file = shmem(&mut w, 2);
    let used = w.machine.mem().in_use();
    assert_eq!(change(&mut w, &file, 1, PAGE, 5 * PAGE), Ok(()));
    assert_eq!(file.object().size(), 2 * PAGE);
    assert_eq!(w.machine.mem().in_use(), used + 4);
    assert!(!file.object().in_core(4), "nobody has used it");
    // They go to swap as any other page, and come back empty.
    w.machine.reclaim_all(&mut w.thread.cx());
    file.truncate(w.thread.cx(), 6 * PAGE).unwrap();
    w.map_file(0, 6, &file, 0, SHARED);
    let seen: Vec<_> = (0..6).map(|n| w.get(n).unwrap()).collect();
    assert_eq!(seen, [1, 2, 0, 0, 0, 0]);
    assert_eq!(change(&mut w, &file, 1, 9 * PAGE, PAGE), Ok(()));
    let used = w.machine.mem().in_use();
    file.truncate(w.thread.cx(), 6 * PAGE).unwrap();
    assert_eq!(w.machine.mem().in_use(), used - 1, "a cut takes it");
}

#[test]
fn a_reservation_that_fails_gives_its_pages_back() {
    let mut w = swapping(32, 0);
    let file = shmem(&mut w, 2);
    let used = w.machine.mem().in_use();
    assert_eq!(change(&mut w, &file, 0, 0, 64 * PAGE), Err(Errno::ENOMEM));
    assert_eq!(w.machine.mem().in_use(), used);
    assert_eq!(file.object().size(), 2 * PAGE);
    w.map_file(0, 2, &file, 0, SHARED);
    assert_eq!((w.get(0), w.get(1)), (Ok(1), Ok(2)));
}

#[test]
fn every_bad_call_has_the_errno_of_linux() {
    const LAST: u64 = i64::MAX as u64;
    let mut w = World::new();
    let (object, file) = mapped(&mut w, 4);
    let memory = shmem(&mut w, 4);
    let (_, in_place) = xip(&w, 4);
    let closed = File::open(object, FileMode::ReadOnly);
    for mode in [2, 4, 9, 10, 33, 64, 65, 128, 1 << 20] {
        assert_eq!(
            change(&mut w, &file, mode, 0, PAGE),
            Err(Errno::EOPNOTSUPP),
            "{mode}"
        );
    }
    for mode in [8, 16, 17, 32, 64] {
        for file in [&memory, &in_place] {
            assert_eq!(
                change(&mut w, file, mode, 0, PAGE),
                Err(Errno::EOPNOTSUPP),
                "{mode}"
            );
        }
    }
    for (mode, from, len, errno) in [
        (0, 0, 0, Errno::EINVAL),
        (2, 0, 0, Errno::EINVAL),
        (3, LAST + 1, 1, Errno::EINVAL),
        (3, LAST, LAST, Errno::EFBIG),
        (3, 0, 1 << 60, Errno::EFBIG),
        (8, 100, PAGE, Errno::EINVAL),
        (8, 0, 4 * PAGE, Errno::EINVAL),
        (32, 0, 100, Errno::EINVAL),
        (32, 4 * PAGE, PAGE, Errno::EINVAL),
        (32, 0, (1 << 48) - 2 * PAGE, Errno::EFBIG),
    ] {
        assert_eq!(
            change(&mut w, &file, mode, from, len),
            Err(errno),
            "{mode} {from:#x}"
        );
    }
    assert_eq!(change(&mut w, &closed, 3, 0, PAGE), Err(Errno::EBADF));
    assert_eq!(change(&mut w, &closed, 2, 0, PAGE), Err(Errno::EOPNOTSUPP));
    assert_eq!(w.told(), "");
    let kept = KEEP | FallocateMode::PUNCH_HOLE;
    assert_eq!(kept.bits(), 3);
}

#[test]
fn an_object_refuses_bytes_beyond_all_offsets() {
    let mut w = World::new();
    let (on_disk, _) = disk(&mut w, 4);
    let memory = shmem(&mut w, 4);
    let pooled = HugetlbFile::memfd(w.machine.host(), "huge", 2 << 20, HugeSize::Mib2).unwrap();
    let objects: [&dyn MemoryObject; 3] = [&*on_disk, &**memory.object(), &*pooled];
    for object in objects {
        let size = object.size();
        for mode in [FallocateMode::empty(), KEEP] {
            let done = object.fallocate(w.thread.cx(), mode, u64::MAX - 1, 2);
            assert_eq!(done, Err(ObjectError::TooLarge(u64::MAX)), "{object:?}");
        }
        assert_eq!(object.size(), size);
    }
}

/// A page that cannot be written back keeps a range from being taken out: nothing has moved.
#[test]
fn nothing_moves_that_cannot_be_written_back() {
    let mut w = World::new();
    let strings = Arc::new(Strings::default());
    let store = Box::new(Puppet(Arc::clone(&strings)));
    let object = DiskFile::new(w.machine.host(), "/d", 0, store).unwrap();
    let file = File::open(object.clone(), FileMode::ReadWrite);
    file.write_at(w.thread.cx(), 0, &[7; 6 * BLOCK]).unwrap();
    strings.unwritable.lock().unwrap().insert(4);
    for mode in [8, 32] {
        assert_eq!(change(&mut w, &file, mode, PAGE, PAGE), Err(Errno::EIO));
        assert_eq!((object.size(), object.dirty() > 0), (6 * PAGE, true));
    }
    strings.unwritable.lock().unwrap().clear();
    assert_eq!(change(&mut w, &file, 8, PAGE, PAGE), Ok(()));
    assert_eq!(object.size(), 5 * PAGE);
}

/// A store that moves no blocks by itself: they are copied, one after the other.
#[derive(Debug, Default)]
struct Copying(Strings);

impl Store for Copying {
    fn read(&self, index: u64, out: &mut [u8; BLOCK]) -> Result<bool, StoreError> {
        self.0.blocks.read(index, out)
    }
    fn write(&self, index: u64, bytes: &[u8; BLOCK]) -> Result<(), StoreError> {
        let refused = self.0.unwritable.lock().unwrap().contains(&index);
        match refused {
            true => Err(StoreError(index)),
            false => self.0.blocks.write(index, bytes),
        }
    }
    fn discard(&self, from: u64, to: u64) {
        self.0.blocks.discard(from, to);
    }
}

#[test]
fn a_store_moves_blocks_by_copies_and_says_which_one_failed() {
    let store = Copying::default();
    let fill = |store: &Copying| {
        store.discard(0, 99);
        for index in [0, 1, 2, 4] {
            store.write(index, &[index as u8 + 1; BLOCK]).unwrap();
        }
    };
    let first = |store: &Copying, index| {
        let mut block = [0; BLOCK];
        let there = store.read(index, &mut block).unwrap();
        there.then_some(block[0])
    };
    let all = |store: &Copying| (0..6).map(|n| first(store, n)).collect::<Vec<_>>();
    fill(&store);
    store.collapse(1, 2, 5).unwrap();
    assert_eq!(all(&store), [Some(1), Some(3), None, Some(5), None, None]);
    fill(&store);
    store.insert(1, 1, 5).unwrap();
    assert_eq!(
        all(&store),
        [Some(1), None, Some(2), Some(3), None, Some(5)]
    );
    fill(&store);
    store.0.unwritable.lock().unwrap().insert(3);
    assert_eq!(store.collapse(1, 2, 5), Err(StoreError(3)));
    fill(&store);
    assert_eq!(store.insert(1, 1, 5), Err(StoreError(3)));
}

/// A page that was only read is a hole again; one that was allocated, or written with zeros, is not
/// (`shrink_folio_list`).
#[test]
fn memory_pressure_takes_no_allocated_page_away() {
    let mut w = swapping(512, 64);
    let memory = Shmem::memfd(w.machine.host(), "memory", 8 * PAGE).unwrap();
    let file = File::open(memory, FileMode::ReadWrite);
    assert_eq!(change(&mut w, &file, 0, 0, 2 * PAGE), Ok(()));
    w.map_file(0, 8, &file, 0, SHARED);
    w.put(4, 0);
    assert_eq!(w.get(6), Ok(0));
    w.machine.reclaim_all(&mut w.thread.cx());
    let mem = w.machine.mem();
    assert_eq!((mem.in_use(), mem.swap().used()), (0, 3));
    w.end();
}
