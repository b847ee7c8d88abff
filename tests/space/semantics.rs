//! What the calls do to memory: merging and splitting, placement, moves, locks, guards, forks. One
//! test a rule.

use crate::common::{
    BASE, PAGE, RW, World, at,
    calls::{FIXED, KEEP, MAYMOVE, NONE, READ, STAY, private, remap, shared},
};
use emmu::{
    FaultError, MachineConfig, TASK_SIZE,
    mm::{Advice, MapFlags, MmapArgs, MremapFlags, PageState, Prot},
};

const RWX: Prot = RW.union(Prot::EXEC);

fn states(w: &mut World, from: u64, to: u64) -> Vec<PageState> {
    let range = World::pages(from, to);
    let map = w.mm.pagemap(&mut w.thread.cx(), range);
    map.into_iter().map(|(_, state)| state).collect()
}
fn frame_of(w: &mut World, page: u64) -> PageState {
    states(w, page, page + 1)[0]
}

mod merging {
    use super::*;

    #[test]
    fn a_new_range_joins_both_neighbours() {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.map(4, 2, RW);
        w.map(2, 2, RW);
        assert_eq!(w.spans(), [(0, 6)]);
        w.end();
    }

    #[test]
    fn a_new_range_joins_one_neighbour_or_none() {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.map(2, 2, RW);
        assert_eq!(w.spans(), [(0, 4)]);
        w.map(11, 2, RW);
        w.map(10, 1, RW);
        assert_eq!(w.spans(), [(0, 4), (10, 13)]);
        w.map(13, 1, READ);
        w.map(9, 1, READ);
        assert_eq!(w.spans(), [(0, 4), (9, 10), (10, 13), (13, 14)]);
        w.end();
    }

    #[test]
    fn flags_that_differ_keep_ranges_apart() {
        let mut w = World::new();
        w.map(0, 1, RW);
        w.map_with(1, 1, RW, MapFlags::NORESERVE);
        w.map_with(2, 1, RW, MapFlags::LOCKED);
        w.map(3, 1, RWX);
        w.map_with(4, 1, RW, MapFlags::GROWSDOWN);
        assert_eq!(w.count(), 5);
        w.map(0, 5, RW);
        for (advice, undo) in [
            (Advice::DontFork, Advice::DoFork),
            (Advice::WipeOnFork, Advice::KeepOnFork),
            (Advice::DontDump, Advice::DoDump),
            (Advice::Random, Advice::Normal),
            (Advice::Mergeable, Advice::Unmergeable),
        ] {
            w.advise(1, 1, advice).unwrap();
            assert_eq!(w.spans(), [(0, 1), (1, 2), (2, 5)], "{advice:?}");
            w.advise(1, 1, undo).unwrap();
            assert_eq!(w.spans(), [(0, 5)], "{undo:?}");
        }
        w.end();
    }

    #[test]
    fn two_shared_anonymous_mappings_never_merge_and_pieces_of_one_do() {
        let mut w = World::new();
        w.share(0, 2);
        w.share(2, 2);
        assert_eq!(w.spans(), [(0, 2), (2, 4)]);
        w.protect(0, 1, READ).unwrap();
        assert_eq!(w.spans(), [(0, 1), (1, 2), (2, 4)]);
        w.protect(0, 1, RW).unwrap();
        assert_eq!(w.spans(), [(0, 2), (2, 4)]);
        w.end();
    }

    #[test]
    fn a_written_mapping_keeps_its_offset_when_moved_and_an_unwritten_one_does_not() {
        for (written, spans) in [(true, vec![(8, 10), (10, 12)]), (false, vec![(8, 12)])] {
            let mut w = World::new();
            w.map(0, 2, RW);
            w.map(8, 2, RW);
            if written {
                w.fill(0, 2);
            }
            w.remap(0, 2, 2, FIXED, 10);
            assert_eq!(w.spans(), spans, "written: {written}");
            w.end();
        }
    }

    #[test]
    fn pieces_moved_away_and_back_become_one_again() {
        let mut w = World::new();
        w.map(0, 6, RW);
        w.fill(0, 6);
        w.remap(2, 2, 2, FIXED, 20);
        assert_eq!(w.spans(), [(0, 2), (4, 6), (20, 22)]);
        w.remap(20, 2, 2, FIXED, 2);
        assert_eq!(w.spans(), [(0, 6)]);
        (0..6).for_each(|n| assert_eq!(w.get(n), Ok(1)));
        w.end();
    }

    #[test]
    fn one_written_side_merges_with_an_unwritten_one_and_two_strangers_do_not() {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.fill(0, 2);
        w.map(4, 2, RW);
        w.map(2, 2, RW);
        assert_eq!(w.spans(), [(0, 6)]);
        w.map(10, 2, RW);
        w.map(14, 2, RW);
        w.fill(10, 2);
        w.fill(14, 2);
        w.map(12, 2, RW);
        // Both fit the new range, and not each other: the lower one takes it.
        assert_eq!(w.spans(), [(0, 6), (10, 14), (14, 16)]);
        w.end();
    }

    #[test]
    fn memory_that_came_by_fork_merges_with_nothing_unwritten() {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.fill(0, 2);
        w.map(10, 2, RW);
        let child = w.fork();
        w.inside(&child, |w| {
            w.map(2, 2, RW);
            assert_eq!(w.spans(), [(0, 2), (2, 4), (10, 12)]);
            w.map(12, 2, RW);
            assert_eq!(w.spans(), [(0, 2), (2, 4), (10, 14)]);
        });
        w.map(2, 2, RW);
        assert_eq!(w.spans(), [(0, 4), (10, 12)], "the parent may");
        w.reap(&child);
        w.end();
    }

    #[test]
    fn a_move_of_memory_that_came_by_fork_merges_with_nothing_unwritten() {
        let away_and_back = |w: &mut World| {
            w.remap(0, 2, 2, FIXED, 20);
            w.map(2, 2, RW);
            w.remap(20, 2, 2, FIXED, 0);
            w.spans()
        };
        let mut w = World::new();
        w.map(0, 2, RW);
        w.fill(0, 2);
        let child = w.fork();
        assert_eq!(w.inside(&child, away_and_back), [(0, 2), (2, 4)]);
        assert_eq!(away_and_back(&mut w), [(0, 4)]);
        w.reap(&child);
        w.end();
    }

    #[test]
    fn a_change_merges_left_right_or_both() {
        let mut w = World::new();
        let mut spans_after = |changes: &[(u64, u64, Prot)]| {
            w.map(0, 12, NONE);
            w.map(0, 4, RW);
            w.map(4, 4, READ);
            w.map(8, 4, RW);
            for &(from, n, prot) in changes {
                w.protect(from, n, prot).unwrap();
            }
            w.spans()
        };
        assert_eq!(spans_after(&[(4, 4, RW)]), [(0, 12)]);
        assert_eq!(spans_after(&[(4, 2, RW)]), [(0, 6), (6, 8), (8, 12)]);
        assert_eq!(spans_after(&[(6, 2, RW)]), [(0, 4), (4, 6), (6, 12)]);
        assert_eq!(
            spans_after(&[(5, 2, RW)]),
            [(0, 4), (4, 5), (5, 7), (7, 8), (8, 12)]
        );
        assert_eq!(spans_after(&[(4, 4, NONE)]), [(0, 4), (4, 8), (8, 12)]);
        let left_whole = [(8, 4, NONE), (4, 4, RW)];
        assert_eq!(spans_after(&left_whole), [(0, 8), (8, 12)]);
        let right_whole = [(0, 4, NONE), (4, 4, RW)];
        assert_eq!(spans_after(&right_whole), [(0, 4), (4, 12)]);
        w.end();
    }

    #[test]
    fn a_change_between_two_strangers_goes_to_the_left() {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.map(4, 2, RW);
        w.fill(0, 2);
        w.fill(4, 2);
        w.map(2, 2, READ);
        w.protect(2, 2, RW).unwrap();
        assert_eq!(w.spans(), [(0, 4), (4, 6)]);
        w.end();
    }

    #[test]
    fn neighbours_written_side_by_side_are_one_family_and_apart_they_are_not() {
        let mut w = World::new();
        w.map(0, 2, RW);
        w.map(2, 2, RWX);
        w.fill(0, 4);
        w.protect(2, 2, RW).unwrap();
        assert_eq!(w.spans(), [(0, 4)]);
        w.map(10, 2, RW);
        w.map(13, 2, RWX);
        w.fill(10, 2);
        w.fill(13, 2);
        w.map(12, 1, RW);
        w.protect(13, 2, RW).unwrap();
        assert_eq!(w.spans(), [(0, 4), (10, 13), (13, 15)]);
        w.end();
    }

    #[test]
    fn promised_memory_that_was_written_stays_promised_when_made_read_only() {
        for (written, spans) in [(true, vec![(0, 2), (2, 4)]), (false, vec![(0, 4)])] {
            let mut w = World::new();
            w.map(0, 2, READ);
            w.map(2, 2, RW);
            if written {
                w.fill(2, 1);
            }
            w.protect(2, 2, READ).unwrap();
            assert_eq!(w.spans(), spans, "written: {written}");
            assert_eq!(w.promised(), if written { 2 } else { 0 });
            w.end();
        }
    }

    #[test]
    fn locking_and_unlocking_split_and_merge() {
        let mut w = World::new();
        w.map(0, 6, RW);
        w.lock(2, 2).unwrap();
        assert_eq!(w.spans(), [(0, 2), (2, 4), (4, 6)]);
        w.lock(0, 2).unwrap();
        assert_eq!(w.spans(), [(0, 4), (4, 6)]);
        w.unlock(0, 6).unwrap();
        assert_eq!(w.spans(), [(0, 6)]);
        w.end();
    }

    #[test]
    fn guards_split_nothing_and_seals_do() {
        let mut w = World::new();
        w.map(0, 6, RW);
        w.advise(2, 2, Advice::GuardInstall).unwrap();
        assert_eq!(w.spans(), [(0, 6)]);
        w.seal(2, 2).unwrap();
        assert_eq!(w.spans(), [(0, 2), (2, 4), (4, 6)]);
        w.seal(0, 6).unwrap();
        assert_eq!(w.spans(), [(0, 6)]);
        w.end();
    }
}

mod placement {
    use super::*;

    /// A world whose mappings go below page 4096 of the tests.
    fn world(align_huge: bool) -> World {
        let mut w = World::with(MachineConfig {
            align_huge,
            ..MachineConfig::default()
        });
        w.mm.set_mmap_base(&mut w.thread.cx(), at(4096)).unwrap();
        w
    }
    fn place(w: &mut World, n: u64) -> u64 {
        (w.mmap_at(0, n).expect("room") - BASE) / PAGE
    }

    #[test]
    fn each_lies_directly_below_the_last() {
        let mut w = world(true);
        let at: Vec<u64> = [1, 3, 2].map(|n| place(&mut w, n)).into();
        assert_eq!(at, [4095, 4092, 4090]);
        assert_eq!(w.spans(), [(4090, 4096)]);
        w.end();
    }

    #[test]
    fn the_highest_hole_that_fits_is_used_at_its_top() {
        let mut w = world(true);
        assert_eq!(place(&mut w, 96), 4000);
        w.munmap(4010, 2).unwrap();
        w.munmap(4050, 4).unwrap();
        assert_eq!(place(&mut w, 1), 4053);
        assert_eq!(place(&mut w, 4), 3996);
        assert_eq!(place(&mut w, 3), 4050);
        assert_eq!(place(&mut w, 2), 4010);
        assert_eq!(w.spans(), [(3996, 4096)]);
        w.end();
    }

    #[test]
    fn whole_huge_pages_lie_at_their_boundary() {
        let mut w = world(true);
        assert_eq!(place(&mut w, 1), 4095);
        assert_eq!(place(&mut w, 512), 3072, "the next boundary below");
        assert_eq!(place(&mut w, 1), 4094, "above it remains room");
        assert_eq!(place(&mut w, 513), 2559, "no whole multiple");
        w.end();
        let mut w = world(false);
        assert_eq!(place(&mut w, 1), 4095);
        assert_eq!(place(&mut w, 512), 3583);
        w.end();
    }

    #[test]
    fn a_stack_keeps_its_gap() {
        let mut w = world(true);
        w.map_with(4000, 8, RW, MapFlags::GROWSDOWN);
        w.map(4008, 88, READ);
        assert_eq!(place(&mut w, 1), 3743);
        // Not so for what lies above it, for hints that leave the gap, and for fixed addresses.
        assert_eq!(w.mmap_at(at(3740), 3), Ok(at(3740)));
        assert_eq!(w.mmap_at(at(3745), 1), Ok(at(3739)));
        assert_eq!(w.mmap(&private(3999, 1)), Ok(at(3999)));
        w.end();
    }

    #[test]
    fn hints_are_rounded_down_and_obeyed_where_free() {
        let mut w = world(true);
        assert_eq!(w.mmap_at(at(50) + 4095, 2), Ok(at(50)));
        assert_eq!(w.mmap_at(at(52), 2), Ok(at(52)));
        assert_eq!(w.mmap_at(at(49), 2), Ok(at(4094)), "taken in part");
        assert_eq!(w.mmap_at(TASK_SIZE - PAGE, 1), Ok(TASK_SIZE - PAGE));
        assert_eq!(w.mmap_at(TASK_SIZE - PAGE, 2), Ok(at(4092)));
        assert_eq!(w.mmap_at(TASK_SIZE, 1), Ok(at(4091)));
        assert_eq!(w.mmap_at(u64::MAX, 1), Ok(at(4090)));
        assert_eq!(w.mmap_at(4095, 1), Ok(at(4089)), "rounds to no hint");
        w.end();
    }

    #[test]
    fn hints_below_the_lowest_address_are_raised_to_it() {
        let mut w = world(true);
        let min = w.machine.config().mmap_min_addr;
        assert_eq!(w.mmap_at(4096, 1), Ok(min));
        assert_eq!(w.mmap_at(4096, 1), Ok(at(4095)));
        w.end();
    }

    #[test]
    fn with_nothing_free_below_the_base_the_search_goes_up() {
        let mut w = world(true);
        w.mm.set_mmap_base(&mut w.thread.cx(), 1 << 20).unwrap();
        let bottom = (TASK_SIZE / 3) & !(PAGE - 1);
        let lowest = (1 << 20) - (w.machine.config().mmap_min_addr);
        assert_eq!(w.mmap_at(0, lowest / PAGE), Ok(1 << 16));
        assert_eq!(w.mmap_at(0, 3), Ok(bottom));
        assert_eq!(w.mmap_at(0, 3), Ok(bottom + 3 * PAGE));
        w.end();
    }

    #[test]
    fn what_moves_is_placed_the_same_way_while_the_source_is_mapped() {
        let mut w = world(true);
        assert_eq!(place(&mut w, 4), 4092);
        w.protect(4094, 2, READ).unwrap();
        assert_eq!(w.remap(4092, 2, 3, MAYMOVE, 7), 4089, "no hint");
        assert_eq!(w.remap(4089, 3, 3, KEEP, 100), 100, "a hint");
        assert_eq!(w.remap(4089, 3, 3, KEEP, 101), 4086, "taken");
        w.end();
    }
}

mod remapping {
    use super::*;

    fn world() -> World {
        let mut w = World::new();
        w.map(0, 8, RW);
        (0..8).for_each(|n| w.put(n, 10 + n as u8));
        w
    }
    fn bytes(w: &mut World, from: u64, n: u64) -> Vec<u8> {
        (from..from + n)
            .map(|n| w.get(n).expect("mapped"))
            .collect()
    }

    #[test]
    fn the_same_size_is_no_change_also_past_the_mapping() {
        let mut w = world();
        assert_eq!(w.remap(0, 8, 8, STAY, 0), 0);
        assert_eq!(w.remap(2, 100, 100, MAYMOVE, 0), 2);
        assert_eq!(w.spans(), [(0, 8)]);
        w.end();
    }

    #[test]
    fn shrinking_unmaps_the_tail_over_mappings_and_holes() {
        let mut w = world();
        w.map(10, 2, READ);
        w.map(13, 2, RW);
        assert_eq!(w.remap(2, 12, 3, STAY, 0), 2);
        assert_eq!(w.spans(), [(0, 5), (14, 15)]);
        w.end();
    }

    #[test]
    fn growing_in_place_merges_with_what_follows() {
        let mut w = world();
        w.remap(4, 4, 4, FIXED, 20);
        w.remap(20, 2, 2, FIXED, 6);
        assert_eq!(w.spans(), [(0, 4), (6, 8), (22, 24)]);
        assert_eq!(w.remap(0, 4, 6, STAY, 0), 0);
        assert_eq!(w.spans(), [(0, 6), (6, 8), (22, 24)]);
        assert_eq!(bytes(&mut w, 4, 4), [0, 0, 14, 15]);
        w.end();
        let mut w = world();
        w.munmap(4, 2).unwrap();
        assert_eq!(w.remap(0, 4, 6, STAY, 0), 0);
        assert_eq!(w.spans(), [(0, 8)]);
        assert_eq!(bytes(&mut w, 3, 4), [13, 0, 0, 16]);
        w.end();
    }

    #[test]
    fn a_part_of_the_middle_moves_when_it_grows() {
        let mut w = world();
        let to = w.remap(2, 2, 4, MAYMOVE, 0);
        assert_eq!(bytes(&mut w, to, 4), [12, 13, 0, 0]);
        w.get(2).unwrap_err();
        w.munmap(to, 4).unwrap();
        assert_eq!(w.spans(), [(0, 2), (4, 8)]);
        w.end();
    }

    #[test]
    fn a_fixed_move_replaces_only_the_new_length() {
        let mut w = world();
        w.map(20, 8, READ);
        w.remap(0, 8, 3, FIXED, 22);
        assert_eq!(w.spans(), [(20, 22), (22, 25), (25, 28)]);
        assert_eq!(bytes(&mut w, 22, 3), [10, 11, 12]);
        w.remap(22, 3, 5, FIXED, 40);
        assert_eq!(bytes(&mut w, 40, 5), [10, 11, 12, 0, 0]);
        w.end();
    }

    #[test]
    fn several_mappings_move_piece_by_piece_and_holes_replace_nothing() {
        let mut w = world();
        w.munmap(2, 2).unwrap();
        w.protect(6, 2, READ).unwrap();
        w.map(20, 12, RW);
        w.fill(20, 12);
        w.remap(0, 10, 10, FIXED, 20);
        assert_eq!(
            bytes(&mut w, 20, 12),
            [10, 11, 1, 1, 14, 15, 16, 17, 1, 1, 1, 1]
        );
        assert_eq!(w.vmas().iter().filter(|v| v.2 == "r--p").count(), 1);
        w.end();
    }

    #[test]
    fn a_source_that_is_left_behind_reads_zero() {
        let mut w = world();
        w.advise(1, 1, Advice::GuardInstall).unwrap();
        w.remap(0, 4, 4, FIXED | MremapFlags::DONTUNMAP, 20);
        assert_eq!(bytes(&mut w, 0, 5), [0, 0, 0, 0, 14]);
        assert_eq!(w.get(21), Err(FaultError::Guarded(at(21))));
        assert_eq!(w.get(23), Ok(13));
        w.end();
    }

    #[test]
    fn a_shared_source_that_is_left_behind_shows_its_object() {
        let mut w = World::new();
        w.share(0, 4);
        w.put(1, 7);
        w.remap(0, 4, 4, FIXED | MremapFlags::DONTUNMAP, 20);
        assert_eq!((w.get(1), w.get(21)), (Ok(7), Ok(7)));
        w.put(22, 8);
        assert_eq!(w.get(2), Ok(8));
        w.end();
    }

    #[test]
    fn an_unwritten_source_merges_with_its_copy() {
        let mut w = World::new();
        w.map(4, 4, RW);
        w.remap(4, 4, 4, FIXED | MremapFlags::DONTUNMAP, 8);
        assert_eq!(w.spans(), [(4, 12)]);
        w.end();
    }

    #[test]
    fn old_length_zero_maps_a_shared_object_again() {
        let mut w = World::new();
        w.share(0, 4);
        w.put(2, 7);
        assert_eq!(w.remap(1, 0, 2, FIXED, 20), 20);
        assert_eq!(bytes(&mut w, 20, 2), [0, 7]);
        w.put(20, 9);
        assert_eq!(w.get(1), Ok(9));
        w.munmap(0, 4).unwrap();
        assert_eq!(w.promised(), 4, "the object lives on");
        assert_eq!(w.remap(20, 2, 4, STAY, 0), 20);
        assert_eq!(w.get(22), Ok(0), "its last page");
        assert_eq!(w.get(23), Err(FaultError::Beyond(at(23))));
        w.end();
    }

    #[test]
    fn moves_keep_frames_also_by_whole_tables() {
        let mut w = World::new();
        let huge = 1 << 18;
        w.map_with(huge, huge, RW, MapFlags::NORESERVE);
        for page in [0, 511, 512, 100_000] {
            w.put(huge + page, 5);
        }
        let before = (frame_of(&mut w, huge + 512), w.mm.tables());
        for (from, to) in [(huge, 4 * huge), (4 * huge, 512), (512, 2 * huge + 7)] {
            w.remap(from, huge, huge, FIXED, to);
            assert_eq!(frame_of(&mut w, to + 512), before.0);
            assert_eq!(w.get(to + 100_000), Ok(5));
        }
        assert_eq!(w.machine.mem().in_use(), 4);
        w.end();
    }
}

#[test]
fn maps_lines_read_as_in_proc() {
    let mut w = World::new();
    w.mmap(&MmapArgs::anonymous(PAGE).fixed(0x40_0000).prot(READ))
        .unwrap();
    w.mmap(&shared(0, 2)).unwrap();
    w.mmap(&private(5, 1).prot(NONE)).unwrap();
    let lines = w.mm.maps(&mut w.thread.cx());
    let text: Vec<String> = lines.iter().map(ToString::to_string).collect();
    assert_eq!(
        text,
        [
            "00400000-00401000 r--p 00000000 00:00 0 ",
            "10000000000-10000002000 rw-s 00000000 00:00 0                            /dev/zero (deleted)",
            "10000005000-10000006000 ---p 00000000 00:00 0 ",
        ]
    );
    w.remap(0, 0, 1, FIXED, 8);
    w.mremap(remap(1, 1, 1, FIXED, 10)).unwrap();
    let offsets: Vec<u64> =
        w.mm.maps(&mut w.thread.cx())
            .iter()
            .map(|l| l.offset)
            .collect();
    assert_eq!(offsets, [0, 0, 0, 0, PAGE]);
    w.end();
}
