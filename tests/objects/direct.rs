//! Transfers past the cache of a file, and advice that empties it.

use crate::common::{
    PAGE, RW, World, at,
    objects::{disk, shmem},
};
use emmu::{
    Errno,
    error::{ObjectError, TransferError},
    file::{File, FileAdvice, FileMode, SyncRangeFlags},
    mm::{MapFlags, Prot},
};
use std::sync::Arc;

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

/// A file of 8 pages, mapped shared from page 0 and private from page 20 on, memory at page 40, and
/// the file open for direct transfers.
fn setting() -> (World, Arc<File>, Arc<File>) {
    let mut w = World::new();
    let (object, file) = disk(&mut w, 8);
    w.map_file(0, 8, &file, 0, SHARED);
    w.map_file(20, 8, &file, 0, PRIVATE);
    w.map(40, 8, RW);
    let direct = File::open_direct(object, FileMode::ReadWrite);
    (w, file, direct)
}

#[test]
fn a_direct_write_is_what_every_shared_page_shows() {
    let (mut w, _, direct) = setting();
    w.put(1, 50);
    w.put(22, 60);
    w.get(0).unwrap();
    w.told();
    let bytes = [7; 3 * PAGE as usize];
    assert_eq!(direct.write_at(w.thread.cx(), 0, &bytes), Ok(bytes.len()));
    // The stored page is written back, then each mapping loses the range in one window.
    assert_eq!(w.told(), "W1..2 W0..3 W20..23");
    let seen: Vec<_> = [0, 1, 2, 3, 21, 22].map(|n| w.get(n).unwrap()).into();
    assert_eq!(seen, [7, 7, 7, 4, 7, 60]);
    w.check_rmap();
}

#[test]
fn a_direct_read_sees_what_was_stored_and_unshares_its_target() {
    let (mut w, _, direct) = setting();
    w.put(1, 50);
    w.put(40, 1);
    let cx = &mut w.thread.cx();
    let child = w.mm.fork(cx).unwrap();
    w.told();
    let read =
        w.mm.read_file(&mut w.thread.cx(), (&direct, PAGE), at(40), PAGE as usize);
    assert_eq!(read, Ok(PAGE as usize));
    assert_eq!(w.told(), "W1..2 W40..41");
    assert_eq!(
        (w.get(40), child.load(&mut w.thread.cx(), at(40))),
        (Ok(50), Ok(1))
    );
    child.exit(&mut w.thread.cx());
}

#[test]
fn a_direct_write_may_come_from_the_page_that_it_replaces() {
    let (mut w, _, direct) = setting();
    w.put(2, 30);
    let wrote = w.mm.write_file(
        &mut w.thread.cx(),
        (&direct, 2 * PAGE),
        at(2),
        PAGE as usize,
    );
    assert_eq!(wrote, Ok(PAGE as usize));
    assert_eq!(w.get(2), Ok(30));
}

#[test]
fn direct_transfers_are_of_whole_sectors_and_end_with_the_file() {
    let (mut w, file, direct) = setting();
    let mut out = [9; 1024];
    for (offset, len) in [(1, 512), (0, 511), (100, 512)] {
        let bad = direct.read_at(w.thread.cx(), offset, &mut out[..len]);
        assert_eq!(bad, Err(ObjectError::Unaligned { offset, len }));
        let bad = direct.write_at(w.thread.cx(), offset, &out[..len]);
        assert_eq!(bad.map_err(ObjectError::errno), Err(Errno::EINVAL));
    }
    file.truncate(w.thread.cx(), 7 * PAGE + 100).unwrap();
    assert_eq!(direct.read_at(w.thread.cx(), 7 * PAGE, &mut out), Ok(100));
    assert_eq!(direct.read_at(w.thread.cx(), 8 * PAGE, &mut out), Ok(0));
    // Behind the end, what was beyond it reads zero.
    w.mm.store(&mut w.thread.cx(), at(7) + 200, 5).unwrap();
    assert_eq!(direct.write_at(w.thread.cx(), 9 * PAGE, &[1; 512]), Ok(512));
    assert_eq!(file.object().size(), 9 * PAGE + 512);
    assert_eq!(w.mm.load(&mut w.thread.cx(), at(7) + 200), Ok(0));
}

/// `iomap_dio_hole_iter`: zeros for a hole have any length; blocks behind it are whole sectors.
#[test]
fn a_direct_read_of_a_hole_begins_and_ends_anywhere() {
    let (mut w, file, direct) = setting();
    file.punch_hole(w.thread.cx(), 2 * PAGE, 3 * PAGE).unwrap();
    let mut out = [9; 5000];
    for (offset, len) in [(2 * PAGE, 100), (2 * PAGE + 1, 5000), (PAGE, 5000)] {
        let read = direct.read_at(w.thread.cx(), offset, &mut out[..len]);
        assert_eq!(read, Ok(len), "{offset}");
    }
    for (offset, len) in [(PAGE + 1, 5000), (4 * PAGE, 5000), (4 * PAGE + 1, 5000)] {
        let read = direct.read_at(w.thread.cx(), offset, &mut out[..len]);
        assert_eq!(read, Err(ObjectError::Unaligned { offset, len }));
    }
    for page in 40..43 {
        w.put(page, 9);
    }
    // The zeros of the hole have come to memory by then.
    let (offset, len) = (4 * PAGE, PAGE as usize + 100);
    let read =
        w.mm.read_file(&mut w.thread.cx(), (&direct, offset), at(40), len);
    let why = ObjectError::Unaligned { offset, len };
    assert_eq!(read, Err(TransferError::File(why)));
    assert_eq!((w.get(40), w.get(41)), (Ok(0), Ok(9)));
    let (offset, len) = (PAGE, PAGE as usize + 100);
    let read =
        w.mm.read_file(&mut w.thread.cx(), (&direct, offset), at(41), len);
    assert_eq!(read, Ok(len));
    assert_eq!((w.get(41), w.get(42)), (Ok(2), Ok(0)));
}

#[test]
fn a_direct_transfer_fails_whole_if_a_page_of_memory_is_missing() {
    let (mut w, _, direct) = setting();
    let two = 2 * PAGE as usize;
    w.map(47, 1, Prot::READ);
    let read =
        w.mm.read_file(&mut w.thread.cx(), (&direct, 0), at(46), two);
    assert!(matches!(read, Err(TransferError::Memory(_))), "{read:?}");
    assert_eq!(w.get(46), Ok(1), "the first page came");
}

/// `iomap_dio_rw` on ext4, as this kernel does it: a write that breaks off where memory ends has
/// failed, and its bytes behind the end of the file are only kept if it broke off inside of a
/// block.
#[test]
fn a_direct_write_that_breaks_off_inside_of_a_block_has_grown_the_file() {
    let (mut w, file, direct) = setting();
    w.mm.munmap(&mut w.thread.cx(), at(41), PAGE).unwrap();
    w.put(40, 7);
    let two = 2 * PAGE as usize;
    for (start, offset, size) in [
        (0, PAGE, 1),
        (0, 512, 512 + PAGE),
        (512, PAGE, 2 * PAGE - 512),
        (512, 512, 1),
    ] {
        file.truncate(w.thread.cx(), 1).unwrap();
        let from = at(40) + start;
        let written =
            w.mm.write_file(&mut w.thread.cx(), (&direct, offset), from, two);
        assert!(
            matches!(written, Err(TransferError::Memory(_))),
            "{written:?}"
        );
        assert_eq!(file.object().size(), size, "{start} {offset}");
    }
}

#[test]
fn objects_in_memory_have_no_cache_to_pass() {
    let mut w = World::new();
    let memory = shmem(&mut w, 2);
    let direct = File::open_direct(Arc::clone(memory.object()), FileMode::ReadWrite);
    assert_eq!(direct.write_at(w.thread.cx(), 1, &[8]), Ok(1));
    memory
        .advise(w.thread.cx(), 0, 0, FileAdvice::DontNeed)
        .unwrap();
    let mut out = [0; 2];
    assert_eq!(memory.read_at(w.thread.cx(), 0, &mut out), Ok(2));
    assert_eq!(out, [1, 8]);
}

#[test]
fn advice_empties_the_cache_of_what_is_clean_and_not_mapped() {
    let (mut w, file, _) = setting();
    let in_core = |n| file.object().in_core(n);
    assert!((0..8).all(in_core));
    w.put(3, 9);
    w.told();
    let advise = |w: &mut World, from, len| {
        file.advise(w.thread.cx(), from, len, FileAdvice::DontNeed)
            .unwrap();
        (0..8).filter(|&n| in_core(n)).collect::<Vec<_>>()
    };
    assert_eq!(advise(&mut w, PAGE + 1, 3 * PAGE), [0, 1, 3, 4, 5, 6, 7]);
    assert_eq!(w.told(), "W3..4", "it is written back");
    assert_eq!(advise(&mut w, 0, 0), [3]);
    file.advise(w.thread.cx(), 0, 2 * PAGE, FileAdvice::WillNeed)
        .unwrap();
    assert!(in_core(0) && in_core(1) && !in_core(2));
}

#[test]
fn a_range_is_written_back_alone() {
    let (mut w, file, _) = setting();
    (0..4).for_each(|n| w.put(n, 9));
    w.told();
    let sync = |w: &mut World, from, len, flags| {
        let flags = SyncRangeFlags::from_bits_retain(flags);
        let done = file.sync_range(w.thread.cx(), from, len, flags);
        (done.map_err(ObjectError::errno), w.told())
    };
    assert_eq!(sync(&mut w, PAGE, 1, 5), (Ok(()), String::new()));
    assert_eq!(sync(&mut w, PAGE, 1, 2), (Ok(()), "W1..2".into()));
    assert_eq!(sync(&mut w, PAGE, 0, 7), (Ok(()), "W2..3 W3..4".into()));
    assert_eq!(sync(&mut w, 0, 1, 8).0, Err(Errno::EINVAL));
    assert_eq!(sync(&mut w, 1 << 63, 1, 2).0, Err(Errno::EINVAL));
}
