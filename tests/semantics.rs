//! Rules of Linux that show in layouts and contents: merging, placement, stacks, copy-on-write, tables.

mod common;

use common::{BASE, PAGE, RW, World, at};
use emmu::{
    FaultError, MachineConfig, TASK_SIZE,
    mm::{Advice, Limits, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot},
};

const MOVE: MremapFlags = MremapFlags::MAYMOVE.union(MremapFlags::FIXED);
const MIB: u64 = 1 << 20;

fn protect(w: &mut World, from: u64, n: u64, prot: Prot) {
    w.mm.mprotect(&mut w.thread.cx(), at(from), n * PAGE, prot)
        .unwrap();
}
fn mremap(w: &mut World, (from, old, new): (u64, u64, u64), flags: MremapFlags, to: u64) -> u64 {
    let args = MremapArgs {
        addr: at(from),
        old_len: old * PAGE,
        new_len: new * PAGE,
        flags,
        new_addr: if flags.is_empty() { 0 } else { at(to) },
    };
    w.mm.mremap(&mut w.thread.cx(), args).unwrap()
}
fn anywhere(w: &mut World, len: u64) -> u64 {
    w.mm.mmap(&mut w.thread.cx(), &MmapArgs::anonymous(len))
        .unwrap()
}

#[test]
fn a_new_range_joins_both_neighbours() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.map(4, 2, RW);
    w.map(2, 2, RW);
    assert_eq!(w.spans(), [(0, 6)]);
    w.map(6, 2, Prot::READ);
    w.map(8, 2, RW);
    assert_eq!(w.spans(), [(0, 6), (6, 8), (8, 10)]);
    w.end();
}

#[test]
fn shared_memory_joins_only_its_own_pieces() {
    let mut w = World::new();
    w.share(0, 2);
    w.share(2, 2);
    assert_eq!(w.spans(), [(0, 2), (2, 4)]);
    protect(&mut w, 1, 1, Prot::READ);
    protect(&mut w, 1, 1, RW);
    assert_eq!(w.spans(), [(0, 2), (2, 4)]);
    w.end();
}

#[test]
fn a_change_is_taken_over_by_the_neighbour_that_has_it_already() {
    let mut w = World::new();
    w.map(0, 4, Prot::READ);
    w.map(4, 4, RW);
    w.map(8, 4, Prot::READ);
    protect(&mut w, 4, 1, Prot::READ);
    assert_eq!(w.spans(), [(0, 5), (5, 8), (8, 12)]);
    protect(&mut w, 7, 1, Prot::READ);
    assert_eq!(w.spans(), [(0, 5), (5, 7), (7, 12)]);
    protect(&mut w, 5, 2, Prot::READ);
    assert_eq!(w.spans(), [(0, 12)]);
    w.end();
}

#[test]
fn written_memory_that_was_promised_stays_apart_from_what_was_not() {
    for (written, spans) in [(false, vec![(0, 4)]), (true, vec![(0, 2), (2, 4)])] {
        let mut w = World::new();
        w.map(0, 2, Prot::READ);
        w.map(2, 2, RW);
        if written {
            w.put(2, 1);
        }
        protect(&mut w, 2, 2, Prot::READ);
        assert_eq!(w.spans(), spans, "written: {written}");
        w.end();
    }
}

#[test]
fn neighbours_share_a_family_if_they_touch_when_first_written() {
    for (gap, spans) in [(false, vec![(0, 4)]), (true, vec![(0, 2), (2, 4)])] {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.map(2, 2, RW | Prot::EXEC);
        if gap {
            w.mm.munmap(&mut w.thread.cx(), at(1), PAGE).unwrap();
        }
        w.put(0, 1);
        w.put(2, 1);
        if gap {
            w.map(1, 1, RW);
        }
        protect(&mut w, 2, 2, RW);
        assert_eq!(w.spans(), spans, "gap: {gap}");
        w.end();
    }
}

#[test]
fn a_forked_child_does_not_extend_what_it_inherited() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.put(0, 1);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    let more = MmapArgs::anonymous(PAGE).fixed(at(2));
    let cx = &mut w.thread.cx();
    child.mmap(cx, &more).unwrap();
    assert_eq!(child.map_count(cx), 2);
    w.mm.mmap(cx, &more).unwrap();
    assert_eq!(w.mm.map_count(cx), 1);
    child.exit(cx);
    w.end();
}

#[test]
fn untouched_memory_that_moves_may_join_touched_memory_only_where_it_is_linear() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.map(10, 2, RW);
    mremap(&mut w, (10, 2, 2), MOVE, 2);
    assert_eq!(w.spans(), [(0, 4)]);
    w.map(20, 2, RW);
    w.put(20, 1);
    mremap(&mut w, (20, 2, 2), MOVE, 4);
    assert_eq!(w.spans(), [(0, 4), (4, 6)]);
    w.end();
}

#[test]
fn new_mappings_come_below_the_last_and_fill_the_highest_hole() {
    let mut w = World::new();
    let a = anywhere(&mut w, 3 * PAGE);
    let guard = MmapArgs::anonymous(PAGE).prot(Prot::READ);
    let b = w.mm.mmap(&mut w.thread.cx(), &guard).unwrap();
    assert_eq!(b, a - PAGE);
    assert_eq!(anywhere(&mut w, 2 * PAGE), b - 2 * PAGE);
    w.mm.munmap(&mut w.thread.cx(), a, 2 * PAGE).unwrap();
    assert_eq!(anywhere(&mut w, PAGE), a + PAGE);
    // A free hint is taken, a taken one is not.
    let hint = |addr| MmapArgs {
        addr,
        ..MmapArgs::anonymous(PAGE)
    };
    let cx = &mut w.thread.cx();
    assert_eq!(w.mm.mmap(cx, &hint(at(5) + 7)), Ok(at(5)));
    assert_eq!(w.mm.mmap(cx, &hint(at(5))), Ok(a));
    assert_eq!(w.mm.mmap(cx, &hint(1)), Ok(a - 4 * PAGE));
    w.end();
}

#[test]
fn multiples_of_two_mebibytes_are_aligned_and_others_are_not() {
    let mut w = World::new();
    anywhere(&mut w, PAGE);
    assert_eq!(anywhere(&mut w, 2 * MIB) % (2 * MIB), 0);
    assert_ne!(anywhere(&mut w, 2 * MIB + PAGE) % (2 * MIB), 0);
    w.end();
}

#[test]
fn when_nothing_fits_below_the_base_the_bottom_is_tried() {
    let mut w = World::new();
    let cx = &mut w.thread.cx();
    w.mm.set_mmap_base(cx, 20 * PAGE);
    let third = (TASK_SIZE / PAGE / 3) * PAGE;
    assert_eq!(anywhere(&mut w, 100 * PAGE), third);
    assert_eq!(anywhere(&mut w, PAGE), 19 * PAGE);
    w.end();
}

#[test]
fn a_stack_grows_to_its_limit_and_keeps_its_distance() {
    let mut w = World::new();
    w.map_with(2000, 2, RW, MapFlags::GROWSDOWN);
    w.map(1000, 1, RW);
    w.put(1990, 1);
    assert_eq!(w.spans(), [(1000, 1001), (1990, 2002)]);
    assert_eq!(w.get(1257), Ok(0));
    let near = at(1256);
    let cx = &mut w.thread.cx();
    assert_eq!(w.mm.load(cx, near), Err(FaultError::NotMapped(near)));
    w.mm.set_limits(
        cx,
        Limits {
            stack: 800 * PAGE,
            ..Limits::default()
        },
    );
    w.mm.munmap(cx, at(1000), PAGE).unwrap();
    assert_eq!(
        w.mm.load(cx, at(1201)),
        Err(FaultError::NotMapped(at(1201)))
    );
    assert_eq!(w.mm.load(cx, at(1202)), Ok(0));
    // Nothing is placed in the gap below it.
    w.mm.set_mmap_base(cx, at(1202));
    assert_eq!(anywhere(&mut w, PAGE), at(1202 - 256 - 1));
    w.end();
}

#[test]
fn each_process_has_its_own_copy_and_the_last_one_reuses_the_frame() {
    let mut w = World::new();
    w.map(0, 2, RW);
    w.put(0, 1);
    let cx = &mut w.thread.cx();
    let child = w.mm.fork(cx).unwrap();
    assert_eq!(w.machine.mem().in_use(), 1);
    child.store(cx, at(0), 2).unwrap();
    assert_eq!(w.machine.mem().in_use(), 2);
    assert_eq!(
        (w.mm.load(cx, at(0)), child.load(cx, at(0))),
        (Ok(1), Ok(2))
    );
    // The other one holds the only reference now: no third frame.
    w.mm.store(cx, at(0), 3).unwrap();
    assert_eq!(w.machine.mem().in_use(), 2);
    child.exit(cx);
    w.end();
}

#[test]
fn fork_leaves_out_wipes_and_shares() {
    let mut w = World::new();
    w.map(0, 6, RW);
    w.fill(0, 6);
    w.share(8, 1);
    w.put(8, 1);
    let cx = &mut w.thread.cx();
    w.mm.madvise(cx, at(0), 2 * PAGE, Advice::DontFork).unwrap();
    w.mm.madvise(cx, at(4), 2 * PAGE, Advice::WipeOnFork)
        .unwrap();
    let child = w.mm.fork(cx).unwrap();
    assert_eq!(child.load(cx, at(0)), Err(FaultError::NotMapped(at(0))));
    assert_eq!(
        (child.load(cx, at(2)), child.load(cx, at(4))),
        (Ok(1), Ok(0))
    );
    child.store(cx, at(8), 7).unwrap();
    assert_eq!(w.mm.load(cx, at(8)), Ok(7));
    drop(child);
    w.end();
}

#[test]
fn moved_contents_come_along_and_duplicates_share() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.fill(0, 4);
    w.share(8, 2);
    w.put(8, 5);
    mremap(&mut w, (1, 2, 2), MOVE, 100);
    assert_eq!((w.get(100), w.get(101)), (Ok(1), Ok(1)));
    assert_eq!(w.spans(), [(0, 1), (3, 4), (8, 10), (100, 102)]);
    mremap(&mut w, (8, 0, 2), MOVE, 200);
    w.put(200, 6);
    assert_eq!(w.get(8), Ok(6));
    mremap(&mut w, (100, 2, 2), MOVE | MremapFlags::DONTUNMAP, 300);
    assert_eq!((w.get(100), w.get(300)), (Ok(0), Ok(1)));
    w.end();
}

#[test]
fn tables_go_when_no_mapping_needs_them() {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.map(511, 2, RW);
    w.fill(0, 1);
    w.fill(511, 2);
    assert_eq!(w.mm.tables(), 4);
    let cx = &mut w.thread.cx();
    w.mm.munmap(cx, at(512), PAGE).unwrap();
    assert_eq!(w.mm.tables(), 3);
    w.mm.munmap(cx, at(511), PAGE).unwrap();
    assert_eq!(w.mm.tables(), 3);
    w.mm.munmap(cx, at(0), PAGE).unwrap();
    assert_eq!(w.mm.tables(), 0);
    w.end();
}

#[test]
fn a_large_discard_frees_empty_tables() {
    let mut w = World::new();
    w.map(0, 1024, RW);
    w.fill(0, 1);
    w.fill(600, 1);
    let cx = &mut w.thread.cx();
    w.mm.madvise(cx, at(0), 511 * PAGE, Advice::DontNeed)
        .unwrap();
    assert_eq!(w.mm.tables(), 4);
    w.mm.madvise(cx, at(0), 512 * PAGE, Advice::DontNeed)
        .unwrap();
    assert_eq!(w.mm.tables(), 3);
    w.end();
}

#[test]
fn maps_prints_as_proc_does() {
    let mut w = World::with(MachineConfig::default());
    w.map(0, 1, RW);
    w.share(2, 2);
    w.map(6, 1, Prot::READ | Prot::EXEC);
    let cx = &mut w.thread.cx();
    w.mm.set_start_brk(cx, at(10));
    w.mm.brk(cx, at(12));
    protect(&mut w, 3, 1, Prot::READ);
    let cx = &mut w.thread.cx();
    let text: Vec<String> = w.mm.maps(cx).iter().map(ToString::to_string).collect();
    assert_eq!(BASE, 0x100_0000_0000);
    assert_eq!(
        text,
        [
            "10000000000-10000001000 rw-p 00000000 00:00 0 ",
            "10000002000-10000003000 rw-s 00000000 00:00 0                            /dev/zero (deleted)",
            "10000003000-10000004000 r--s 00001000 00:00 0                            /dev/zero (deleted)",
            "10000006000-10000007000 r-xp 00000000 00:00 0 ",
            "1000000a000-1000000c000 rw-p 00000000 00:00 0                            [heap]",
        ]
    );
    w.end();
}

#[test]
fn bytes_cross_pages() {
    let mut w = World::new();
    w.map(0, 3, RW);
    let cx = &mut w.thread.cx();
    let bytes: Vec<u8> = (0..=255).cycle().take(9000).collect();
    w.mm.write_bytes(cx, at(0) + 100, &bytes).unwrap();
    let mut out = vec![0; 9000];
    w.mm.read_bytes(cx, at(0) + 100, &mut out).unwrap();
    assert_eq!(out, bytes);
    let over = w.mm.write_bytes(cx, at(2) + 4000, &bytes[..200]);
    assert_eq!(over, Err(FaultError::NotMapped(at(3))));
    w.end();
}
