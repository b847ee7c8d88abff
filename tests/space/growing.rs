//! The mappings that extend themselves: the heap and stacks.

use crate::common::{
    PAGE, RW, World, at,
    calls::{NONE, READ},
};
use emmu::{FaultError, mm::MapFlags};

const DOWN: MapFlags = MapFlags::GROWSDOWN;

fn brk(w: &mut World, addr: u64) -> u64 {
    w.mm.brk(&mut w.thread.cx(), addr)
}
fn names(w: &mut World) -> Vec<String> {
    let maps = w.mm.maps(&mut w.thread.cx());
    maps.into_iter().map(|l| l.name).collect()
}
fn heap() -> World {
    let mut w = World::new();
    w.mm.set_start_brk(&mut w.thread.cx(), at(0)).unwrap();
    w
}

#[test]
fn the_heap_grows_and_shrinks_by_pages_and_remembers_bytes() {
    let mut w = heap();
    assert_eq!(brk(&mut w, 0), at(0), "the question for the break");
    assert_eq!(brk(&mut w, at(0) + 10), at(0) + 10);
    assert_eq!(w.spans(), [(0, 1)]);
    assert_eq!(brk(&mut w, at(1)), at(1));
    w.put(0, 1);
    assert_eq!(brk(&mut w, at(3) + 1), at(3) + 1);
    assert_eq!(w.spans(), [(0, 4)]);
    assert_eq!(names(&mut w), ["[heap]"]);
    assert_eq!(brk(&mut w, at(1) + 1), at(1) + 1);
    assert_eq!(w.spans(), [(0, 2)]);
    assert_eq!((w.get(0), w.promised()), (Ok(1), 2));
    w.end();
}

#[test]
fn the_heap_shrinks_though_its_top_was_unmapped() {
    let mut w = heap();
    brk(&mut w, at(8));
    w.munmap(7, 1).unwrap();
    assert_eq!(brk(&mut w, at(6)), at(6));
    w.munmap(4, 2).unwrap();
    assert_eq!(brk(&mut w, at(5)), at(6), "nothing there to give back");
    assert_eq!(brk(&mut w, at(3)), at(3));
    assert_eq!(w.spans(), [(0, 3)]);
    w.end();
}

#[test]
fn the_heap_does_not_join_what_ends_where_it_begins() {
    let mut w = World::new();
    w.map(0, 4, RW);
    w.mm.set_start_brk(&mut w.thread.cx(), at(4)).unwrap();
    brk(&mut w, at(6));
    assert_eq!(w.spans(), [(0, 4), (4, 6)]);
    w.end();
}

#[test]
fn only_the_heap_is_called_so() {
    let mut w = World::new();
    w.map(0, 4, READ);
    w.mm.set_start_brk(&mut w.thread.cx(), at(4)).unwrap();
    brk(&mut w, at(6));
    w.map(6, 1, READ);
    assert_eq!(names(&mut w), ["", "[heap]", ""]);
    w.end();
}

#[test]
fn a_stack_grows_down_to_the_page_touched() {
    let mut w = World::new();
    w.map_with(1000, 4, RW, DOWN);
    w.mm.set_start_stack(&mut w.thread.cx(), at(1003)).unwrap();
    w.put(990, 1);
    assert_eq!(w.spans(), [(990, 1004)]);
    assert_eq!(w.get(900), Ok(0));
    assert_eq!((w.spans(), w.promised()), (vec![(900, 1004)], 104));
    assert_eq!(names(&mut w), ["[stack]"]);
    w.end();
}

#[test]
fn a_stack_keeps_away_from_what_can_be_accessed_below() {
    let mut w = World::new();
    w.map_with(1000, 4, RW, DOWN);
    w.map(500, 1, READ);
    assert_eq!(w.get(756), Err(FaultError::NotMapped(at(756))));
    assert_eq!(w.get(757), Ok(0));
    w.protect(500, 1, NONE).unwrap();
    assert_eq!(w.get(501), Ok(0), "a guard page may be reached");
    assert_eq!(w.spans(), [(500, 501), (501, 1004)]);
    w.end();
    let mut w = World::new();
    w.map_with(1000, 4, RW, DOWN);
    w.map_with(900, 4, RW, DOWN);
    assert_eq!(w.get(904), Ok(0), "so may another stack");
    w.end();
}

#[test]
fn a_stack_stays_within_its_limits() {
    let mut w = World::new();
    w.map_with(1000, 4, RW, DOWN);
    let refused = |page| Err(FaultError::NotMapped(at(page)));
    w.limit(|l| l.stack = 8 * PAGE);
    assert_eq!((w.get(995), w.get(996)), (refused(995), Ok(0)));
    w.limit(|l| l.address_space = 9 * PAGE);
    assert_eq!((w.get(994), w.get(995)), (refused(994), Ok(0)));
    w.lock(995, 9).unwrap();
    w.limit(|l| (l.ipc_lock, l.memlock) = (false, 10 * PAGE));
    assert_eq!((w.get(993), w.get(994)), (refused(993), Ok(0)));
    assert_eq!(w.locked(), 10);
    w.end();
}

#[test]
fn nothing_is_placed_in_the_gap_of_a_stack_that_grew() {
    let mut w = World::new();
    w.map_with(2000, 2, RW, DOWN);
    w.put(1202, 1);
    w.mm.set_mmap_base(&mut w.thread.cx(), at(1202)).unwrap();
    assert_eq!(w.mmap_at(0, 1), Ok(at(1202 - 256 - 1)));
    w.end();
}

#[test]
fn a_stack_stops_at_the_lowest_address() {
    let mut w = World::new();
    let min = w.machine.config().mmap_min_addr;
    let mut args = emmu::mm::MmapArgs::anonymous(PAGE).fixed(min + PAGE);
    args.flags |= DOWN;
    w.mmap(&args).unwrap();
    let cx = &mut w.thread.cx();
    assert!(w.mm.load(cx, min - 1).is_err());
    assert_eq!(w.mm.load(cx, min), Ok(0));
    w.end();
}
