//! Bytes between files and the memory of programs: `pread`, `pwrite`, `MADV_WILLNEED`.

use crate::common::{
    PAGE, World, at,
    objects::{disk, shmem, swapping},
};
use emmu::{
    FaultError,
    error::{ObjectError, TransferError},
    file::{File, FileMode},
    mm::{Advice, MapFlags, Prot},
};
use std::sync::Arc;

const P: usize = PAGE as usize;

fn missing(n: u64) -> TransferError {
    TransferError::Memory(FaultError::NotMapped(at(n)))
}

/// Of each kind one, of four pages.
fn both(w: &mut World) -> [Arc<File>; 2] {
    [shmem(w, 4), disk(w, 4).1]
}

fn write(w: &mut World, file: &File, off: u64, n: u64, len: usize) -> Result<usize, TransferError> {
    w.mm.write_file(&mut w.thread.cx(), (file, off), at(n), len)
}

fn read(w: &mut World, file: &File, off: u64, n: u64, len: usize) -> Result<usize, TransferError> {
    w.mm.read_file(&mut w.thread.cx(), (file, off), at(n), len)
}

#[test]
fn bytes_go_both_ways_whatever_their_places() {
    let mut w = World::new();
    for file in both(&mut w) {
        w.map(0, 8, crate::common::RW);
        let bytes: Vec<u8> = (0..3 * P).map(|i| (i % 251) as u8).collect();
        let mut cx = w.thread.cx();
        w.mm.write_bytes(&mut cx, at(0) + 77, &bytes).unwrap();
        let moved =
            w.mm.write_file(&mut cx, (&file, 5000), at(0) + 77, bytes.len());
        assert_eq!(moved, Ok(bytes.len()));
        assert_eq!(file.object().size(), 5000 + bytes.len() as u64);
        let moved = w.mm.read_file(&mut cx, (&file, 5000), at(4) + 9, 5 * P);
        assert_eq!(moved, Ok(bytes.len()), "up to the end of the file");
        let mut back = vec![0; bytes.len()];
        w.mm.read_bytes(&mut cx, at(4) + 9, &mut back).unwrap();
        assert_eq!(back, bytes);
    }
}

#[test]
fn a_write_from_memory_that_is_missing_grows_the_file_to_where_it_begins() {
    let mut w = World::new();
    for file in both(&mut w) {
        assert_eq!(write(&mut w, &file, 0, 20, P), Err(missing(20)));
        assert_eq!(file.object().size(), 4 * PAGE, "it began inside");
        assert_eq!(write(&mut w, &file, 6 * PAGE + 5, 20, 1), Err(missing(20)));
        assert_eq!(file.object().size(), 6 * PAGE + 5);
        let mut all = vec![1; 7 * P];
        let read = file.read_at(w.thread.cx(), 0, &mut all).unwrap();
        assert_eq!(read, 6 * P + 5);
        assert_eq!((all[0], all[3 * P]), (1, 4), "nothing was lost");
        assert!(all[4 * P..read].iter().all(|&b| b == 0));
    }
}

#[test]
fn what_was_stored_beyond_the_end_is_gone_where_a_write_only_began_behind_it() {
    let mut w = World::new();
    let (_, file) = disk(&mut w, 4);
    file.truncate(w.thread.cx(), 3 * PAGE + 100).unwrap();
    w.map_file(0, 4, &file, 0, MapFlags::SHARED);
    w.mm.store(&mut w.thread.cx(), at(3) + 200, 9).unwrap();
    assert_eq!(
        write(&mut w, &file, 3 * PAGE + 300, 20, 1),
        Err(missing(20))
    );
    assert_eq!(w.mm.load(&mut w.thread.cx(), at(3) + 200), Ok(0));
}

/// The file grows by the first try, so that the memory is there at the second.
#[test]
fn a_write_from_a_page_beyond_the_end_of_its_own_file_may_succeed() {
    let mut w = World::new();
    for (nth, file) in both(&mut w).into_iter().enumerate() {
        let n = 10 * nth as u64;
        w.map_file(n, 8, &file, 0, MapFlags::SHARED);
        assert_eq!(w.get(n + 4), Err(FaultError::Beyond(at(n + 4))));
        assert_eq!(write(&mut w, &file, 5 * PAGE, n + 4, P), Ok(P));
        assert_eq!(file.object().size(), 6 * PAGE);
        let beyond = TransferError::Memory(FaultError::Beyond(at(n + 6)));
        assert_eq!(write(&mut w, &file, 6 * PAGE, n + 6, P), Err(beyond));
        assert_eq!(write(&mut w, &file, 7 * PAGE, n + 6, P), Ok(P));
    }
}

#[test]
fn what_was_copied_before_an_error_counts() {
    let mut w = World::new();
    for file in both(&mut w) {
        w.map(0, 2, crate::common::RW);
        w.fill(0, 2);
        assert_eq!(write(&mut w, &file, 0, 1, 2 * P), Ok(P));
        assert_eq!(file.object().size(), 4 * PAGE);
        assert_eq!(read(&mut w, &file, 3 * PAGE, 1, 2 * P), Ok(P));
        assert_eq!(read(&mut w, &file, 0, 0, 4 * P), Ok(2 * P));
        w.mm.munmap(&mut w.thread.cx(), at(0), 2 * PAGE).unwrap();
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let mut w = World::new();
    for file in both(&mut w) {
        let open = |mode| File::open(Arc::clone(file.object()), mode);
        let (ro, wo) = (open(FileMode::ReadOnly), open(FileMode::WriteOnly));
        let access = Err(TransferError::File(ObjectError::Access));
        assert_eq!(write(&mut w, &ro, 9 * PAGE, 20, 1), access);
        assert_eq!(read(&mut w, &wo, 0, 20, 1), access);
        let high = emmu::addr::TASK_SIZE - 1;
        let mut cx = w.thread.cx();
        let above = Err(TransferError::Memory(FaultError::NotMapped(high)));
        let wrote = w.mm.write_file(&mut cx, (&file, 9 * PAGE), high, 2);
        let got = w.mm.read_file(&mut cx, (&file, 0), high, usize::MAX);
        assert_eq!((wrote, got), (above, above));
        assert!(write(&mut w, &file, u64::MAX - 1, 20, 1).is_err());
        assert_eq!(write(&mut w, &file, 9 * PAGE, 20, 0), Ok(0));
        assert_eq!(file.object().size(), 4 * PAGE);
    }
}

#[test]
fn memory_that_may_not_be_read_is_written_from_by_nobody() {
    let mut w = World::new();
    let [file, _] = both(&mut w);
    w.map(0, 1, crate::common::RW);
    w.put(0, 7);
    let none =
        w.mm.mprotect(&mut w.thread.cx(), at(0), PAGE, Prot::empty());
    none.unwrap();
    let denied = TransferError::Memory(FaultError::Denied(at(0)));
    assert_eq!(write(&mut w, &file, 0, 0, 1), Err(denied));
    assert_eq!(read(&mut w, &file, 0, 0, 1), Err(denied));
}

/// In memory, of pages 0 to 15.
fn present(w: &mut World) -> Vec<u64> {
    let there = w.mm.mincore(&mut w.thread.cx(), at(0), 16 * PAGE).unwrap();
    (0..16).filter(|&n| there[n as usize]).collect()
}

#[test]
fn a_file_is_read_where_it_will_be_needed() {
    let mut w = World::new();
    let (object, file) = disk(&mut w, 16);
    file.sync(w.thread.cx()).unwrap();
    w.map_file(0, 16, &file, 0, MapFlags::PRIVATE);
    w.machine.reclaim_all(&mut w.thread.cx());
    file.truncate(w.thread.cx(), 0).unwrap();
    file.truncate(w.thread.cx(), 16 * PAGE).unwrap();
    assert!(present(&mut w).is_empty());
    w.windows();
    w.advise(3, 4, Advice::WillNeed).unwrap();
    assert_eq!(present(&mut w), [3, 4, 5, 6]);
    assert!(w.windows().is_empty(), "nothing is mapped by it");
    // A read behind pages that are there goes on; a read elsewhere does not.
    let mut byte = [0];
    file.read_at(w.thread.cx(), 7 * PAGE, &mut byte).unwrap();
    assert_eq!(present(&mut w), (3..12).collect::<Vec<_>>());
    file.read_at(w.thread.cx(), 14 * PAGE, &mut byte).unwrap();
    assert_eq!(present(&mut w).last(), Some(&14));
    assert!(!present(&mut w).contains(&15));
    let beyond = w.advise(15, 2, Advice::WillNeed).unwrap_err();
    assert_eq!(beyond.to_string(), "ENOMEM");
    assert!(present(&mut w).contains(&15), "what is mapped was done");
    drop(object);
}

#[test]
fn shared_memory_comes_back_from_swap_where_it_will_be_needed() {
    let mut w = swapping(512, 64);
    w.share(0, 16);
    w.fill(0, 16);
    w.advise(0, 16, Advice::PageOut).unwrap();
    let out = present(&mut w).len();
    assert!(out < 16, "{out}");
    w.advise(0, 16, Advice::WillNeed).unwrap();
    assert_eq!(present(&mut w).len(), 16);
}

/// Pages in the cache, of the first 256.
fn cached(file: &File) -> usize {
    let there = |n: &u64| file.object().resident(*n).is_some();
    (0..256).filter(there).count()
}

/// A long read looks at a page when it comes there: what it reads ahead does not depend on how much
/// is left, and it takes as long for each page.
#[test]
fn a_long_read_that_ends_early_has_read_ahead_once() {
    let mut w = World::new();
    let file = disk(&mut w, 1).1;
    file.truncate(w.thread.cx(), 0).unwrap();
    file.truncate(w.thread.cx(), 256 * PAGE).unwrap();
    w.map(0, 3, crate::common::RW);
    assert_eq!(read(&mut w, &file, 0, 0, 256 * P), Ok(3 * P));
    assert_eq!(cached(&file), 32);
    let mut bytes = vec![0; 40 * P];
    assert_eq!(file.read_at(w.thread.cx(), 0, &mut bytes), Ok(40 * P));
    assert_eq!(cached(&file), 64);
}
