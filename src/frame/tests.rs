//! Counts, retirement, exhaustion, and the oracle.

use super::{
    AllocKind, Contents, FrameFlags, MemConfig, OutOfFrames, PhysMem, mem::CHUNK, pfn::HUGE,
};
use crate::addr::Pfn;

fn memory(frames: u32) -> PhysMem {
    PhysMem::new(MemConfig {
        frames,
        contents: Contents::Real,
        swap: 0,
    })
}

fn bare(frames: u32) -> PhysMem {
    PhysMem::new(MemConfig {
        frames,
        contents: Contents::None,
        swap: 0,
    })
}

#[test]
fn a_frame_lives_as_long_as_its_references() {
    let mem = memory(4);
    let frame = mem.alloc().unwrap();
    let pfn = frame.pfn();
    let second = frame.clone();
    drop(frame);
    assert_eq!((mem.refcount(pfn), mem.in_use()), (1, 1));
    drop(second);
    assert_eq!(mem.in_use(), 0);
}

#[test]
fn mapping_takes_over_a_reference_and_unsharing_gives_it_back() {
    let mem = memory(4);
    let pfn = mem.alloc().unwrap().into_raw();
    mem.map_inc(pfn);
    mem.share(pfn);
    assert_eq!((mem.refcount(pfn), mem.mapcount(pfn)), (2, 2));
    mem.unshare(pfn);
    assert_eq!((mem.refcount(pfn), mem.mapcount(pfn)), (1, 1));
    mem.unshare(pfn);
    assert_eq!(mem.in_use(), 0);
}

#[test]
fn memory_runs_out_and_comes_back() {
    let mem = memory(2);
    let (a, b) = (mem.alloc().unwrap(), mem.alloc().unwrap());
    assert_eq!(mem.alloc().unwrap_err(), OutOfFrames::UsedUp(2));
    drop(a);
    assert!(mem.alloc().is_ok());
    drop(b);
    assert_eq!(mem.in_use(), 0);
}

#[test]
fn the_frame_retired_last_is_used_first() {
    let mem = memory(8);
    let frames: Vec<_> = (0..3).map(|_| mem.alloc().unwrap()).collect();
    let numbers: Vec<u32> = frames.iter().map(|f| f.pfn().number()).collect();
    assert_eq!(numbers, [1, 2, 3]);
    drop(frames);
    assert_eq!(mem.alloc().unwrap().pfn(), Pfn(3));
}

#[test]
fn a_used_frame_reads_zero_again() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    mem.write(frame.pfn(), 10, b"secret");
    mem.set_flags(frame.pfn(), FrameFlags::ANON);
    drop(frame);
    let frame = mem.alloc().unwrap();
    let mut bytes = [1; 6];
    mem.read(frame.pfn(), 10, &mut bytes);
    assert_eq!(
        (bytes, mem.flags(frame.pfn())),
        ([0; 6], FrameFlags::empty())
    );
}

#[test]
fn copies_are_independent_and_a_copy_of_nothing_is_nothing() {
    let mem = memory(2);
    let (a, b) = (mem.alloc().unwrap(), mem.alloc().unwrap());
    mem.write(b.pfn(), 0, &[9]);
    mem.copy(a.pfn(), b.pfn());
    let mut byte = [7];
    mem.read(b.pfn(), 0, &mut byte);
    assert_eq!(byte, [0]);
    mem.write(a.pfn(), 0, &[5]);
    mem.copy(a.pfn(), b.pfn());
    mem.write(a.pfn(), 0, &[6]);
    mem.read(b.pfn(), 0, &mut byte);
    assert_eq!(byte, [5]);
}

#[test]
fn without_contents_writes_are_lost() {
    let mem = bare(1);
    let frame = mem.alloc().unwrap();
    mem.write(frame.pfn(), 0, &[1]);
    let mut byte = [7];
    mem.read(frame.pfn(), 0, &mut byte);
    assert_eq!(byte, [0]);
}

#[test]
#[should_panic(expected = "stale reference to pfn:0x1")]
fn a_view_of_a_retired_frame_is_caught() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    let view = mem.view(frame.pfn(), mem.generation(frame.pfn()));
    assert_eq!(view.read_u64(0), 0);
    drop(frame);
    view.read_u8(0);
}

#[test]
#[should_panic(expected = "stale reference")]
fn a_view_is_stale_also_when_the_frame_is_in_use_again() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    let mut view = mem.view_mut(frame.pfn(), mem.generation(frame.pfn()));
    view.write_u64(8, 1);
    drop(frame);
    let _again = mem.alloc().unwrap();
    view.write_u64(8, 2);
}

#[test]
#[should_panic(expected = "is freed while mapped")]
fn a_mapped_frame_is_not_freed() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    mem.map_inc(frame.pfn());
    drop(frame);
}

#[test]
#[should_panic(expected = "is free and gets a reference")]
fn a_free_frame_gets_no_reference() {
    let mem = memory(1);
    let pfn = mem.alloc().unwrap().pfn();
    let _frame = mem.get(pfn);
}

#[test]
fn the_chosen_allocation_fails_once() {
    let mem = memory(4);
    mem.inject().arm(2);
    let a = mem.alloc();
    assert!(
        a.is_ok()
            && matches!(mem.alloc(), Err(OutOfFrames::Injected(i)) if i.0 == AllocKind::Frame)
    );
    assert!(mem.alloc().is_ok());
    assert_eq!(mem.inject().count(), 3);
    mem.inject().disarm();
    assert!(mem.alloc().is_ok());
    assert_eq!(mem.inject().count(), 3);
}

#[test]
fn threads_share_and_leave_nothing() {
    let mem = memory(64);
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for i in 0..2000_u64 {
                    let Ok(frame) = mem.alloc() else { continue };
                    mem.write(frame.pfn(), 0, &i.to_le_bytes());
                    let pfn = frame.into_raw();
                    mem.map_inc(pfn);
                    mem.share(pfn);
                    mem.unshare(pfn);
                    let view = mem.view(pfn, mem.generation(pfn));
                    assert_eq!(view.read_u64(0), i);
                    mem.unshare(pfn);
                    assert!(view.is_stale());
                }
            });
        }
    });
    assert_eq!(mem.in_use(), 0);
}

/// While its frames become private ones, reclaim of another thread does not take it for a page that
/// has lost the others.
#[test]
fn a_huge_page_that_is_being_filled_has_lost_nothing() {
    let mem = bare(4 * HUGE - 1);
    let head = mem.alloc_huge().unwrap().into_raw();
    mem.set_flags(head, FrameFlags::ANON);
    assert!(mem.partly_given_back().is_empty());
    (1..HUGE).for_each(|i| mem.set_flags(head.nth(i), FrameFlags::ANON));
    drop(mem.adopt(head));
    assert_eq!(mem.partly_given_back(), [head.nth(1)]);
    (1..HUGE).for_each(|i| drop(mem.adopt(head.nth(i))));
    assert!(mem.partly_given_back().is_empty());
}

#[test]
fn memory_of_a_terabyte_costs_nothing_until_used() {
    let mem = bare(1 << 28);
    let directory = mem.overhead();
    assert!(directory < 4 << 20, "{directory} bytes");
    assert_eq!(mem.alloc().unwrap().pfn(), Pfn(1));
    assert!(mem.overhead() <= directory + CHUNK as usize * 22 + 64);
}

#[test]
fn metadata_costs_22_bytes_a_frame_and_24_more_with_contents() {
    // The zero page fills up the chunks.
    let frames = 4 * CHUNK - 1;
    for (mem, each) in [(bare(frames), 22), (memory(frames), 46)] {
        let directory = mem.overhead();
        let all: Vec<_> = (0..frames).map(|_| mem.alloc().unwrap()).collect();
        assert_eq!(mem.overhead() - directory, 4 * CHUNK as usize * each);
        drop(all);
    }
}

#[test]
fn sixteen_million_frames_in_use_fit_400_mib() {
    let directory = bare(1 << 24).overhead();
    assert!(directory + 22 * (1 << 24) < 400 << 20);
}

#[test]
fn a_small_memory_makes_small_chunks() {
    let mem = bare(8);
    let directory = mem.overhead();
    let _frame = mem.alloc().unwrap();
    // Nine frames, in groups of four.
    assert_eq!(mem.overhead() - directory, 3 * 4 * 22);
}

#[test]
fn the_last_frame_of_a_part_chunk_is_usable() {
    let mem = memory(CHUNK + 2);
    let all: Vec<_> = (0..CHUNK + 2).map(|_| mem.alloc().unwrap()).collect();
    let last = all.last().unwrap();
    last.write(4088, &[1; 8]);
    assert_eq!((last.pfn(), mem.refcount(last.pfn())), (Pfn(CHUNK + 2), 1));
    assert!(mem.alloc().is_err());
}

#[test]
fn contents_are_made_on_the_first_write_and_given_back() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    let pfn = frame.pfn();
    frame.read(0, &mut [0; 8]);
    assert!(!mem.holds_page(pfn));
    frame.write(0, &[0]);
    assert!(mem.holds_page(pfn));
    drop(frame);
    assert!(!mem.holds_page(pfn));
}

#[test]
#[cfg(debug_assertions)]
fn a_raw_read_of_a_free_frame_is_poisoned() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    let pfn = frame.pfn();
    frame.write(0, b"secret");
    let mut bytes = [0; 6];
    frame.read(0, &mut bytes);
    assert_eq!(&bytes, b"secret");
    drop(frame);
    mem.read(pfn, 0, &mut bytes);
    assert_eq!(bytes, [0x6b; 6]);
    mem.alloc().unwrap().read(0, &mut bytes);
    assert_eq!(bytes, [0; 6]);
}

#[test]
fn the_zero_page_reads_zero_and_is_not_counted() {
    let mem = memory(1);
    let mut bytes = [1; 4];
    mem.read(mem.zero_pfn(), 0, &mut bytes);
    assert_eq!((bytes, mem.in_use()), ([0; 4], 0));
    assert!(mem.alloc().is_ok());
}

#[test]
#[should_panic(expected = "the zero page is written")]
fn the_zero_page_is_not_written() {
    let mem = memory(1);
    mem.write(mem.zero_pfn(), 0, &[1]);
}

#[test]
#[should_panic(expected = "the zero page is written")]
fn the_zero_page_is_not_copied_to() {
    let mem = memory(1);
    mem.copy(mem.alloc().unwrap().pfn(), mem.zero_pfn());
}

#[test]
#[should_panic]
fn the_zero_page_gets_no_reference() {
    let mem = memory(1);
    let _frame = mem.get(mem.zero_pfn());
}

#[test]
#[should_panic]
fn the_zero_page_is_not_shared() {
    let mem = memory(1);
    mem.share(mem.zero_pfn());
}

#[test]
#[should_panic(expected = "loses one too many")]
fn a_reference_is_given_up_once() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    let pfn = frame.pfn();
    drop(frame);
    drop(mem.adopt(pfn));
}

#[test]
#[should_panic(expected = "with 2 references and 0 mappings loses one too many")]
fn a_mapping_is_given_up_once() {
    let mem = memory(1);
    let frame = mem.alloc().unwrap();
    let _second = std::mem::ManuallyDrop::new(frame.clone());
    mem.unshare(std::mem::ManuallyDrop::new(frame).pfn());
}

#[test]
fn the_same_calls_give_the_same_frames() {
    let run = || {
        let mem = memory(32);
        let mut held = Vec::new();
        let mut order = Vec::new();
        for step in 0..500_usize {
            if step * 7 % 11 < 6 {
                held.extend(mem.alloc().ok());
            } else if !held.is_empty() {
                held.swap_remove(step * 13 % held.len());
            }
            order.extend(held.last().map(|f| f.pfn().number()));
        }
        order
    };
    assert_eq!(run(), run());
}

/// A driver may get a zero page, and ask about it as about any frame.
#[test]
fn of_a_zero_page_there_is_nothing_to_say() {
    let mem = memory(4);
    let huge = mem.huge_zero_pfn();
    for pfn in [mem.zero_pfn(), huge, huge.nth(1), huge.nth(511)] {
        assert_eq!((mem.refcount(pfn), mem.mapcount(pfn)), (0, 0));
        assert_eq!(
            (mem.generation(pfn), mem.flags(pfn)),
            (0, FrameFlags::empty())
        );
    }
}
