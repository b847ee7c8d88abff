//! Counts, retirement, exhaustion, and the oracle.

use super::{AllocKind, Contents, FrameFlags, MemConfig, OutOfFrames, PhysMem};
use crate::addr::Pfn;

fn memory(frames: u32) -> PhysMem {
    PhysMem::new(MemConfig {
        frames,
        contents: Contents::Real,
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
    assert_eq!(mem.peak(), 2);
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
    let mem = PhysMem::new(MemConfig {
        frames: 1,
        contents: Contents::None,
    });
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

#[test]
fn a_frame_costs_16_bytes_and_a_large_memory_nothing_until_used() {
    let mem = PhysMem::new(MemConfig {
        frames: 1 << 28,
        contents: Contents::None,
    });
    assert_eq!(mem.alloc().unwrap().pfn(), Pfn(1));
    assert_eq!(super::arena::META_BYTES, 16);
}
