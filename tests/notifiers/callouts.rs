//! The callouts of the "EMMU notifiers V5" proposal and of Linux, one test each: which windows
//! (`W3..5`: pages 3 and 4) and aging calls (`A3`) an operation makes, or that it makes none.

use crate::common::{
    PAGE, RW, World, at,
    objects::{disk, shmem, swapping, xip},
};
use emmu::{
    addr::Pfn,
    ctx::{AtomicCallbackCx, CallbackCx, Cx, Sleepable, rank},
    file::File,
    mm::{Advice, MachineConfig, MapFlags, MremapArgs, MremapFlags, Prot},
    notifier::{Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Seat, WouldBlock},
    reclaim::RmapWindows,
    rmap::{ExportOrder, RmapNotifier},
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering::SeqCst},
};

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

/// Pages 0..8 private, 2..6 written; the machine has swap.
fn world() -> World {
    let mut w = swapping(4096, 1024);
    w.map(0, 8, RW);
    w.fill(2, 4);
    w.told();
    w
}
fn advise(w: &mut World, from: u64, n: u64, advice: Advice) {
    w.advise(from, n, advice).expect("fits");
}
fn truncate(w: &mut World, file: &Arc<File>, pages: u64) {
    file.truncate(w.thread.cx(), pages * PAGE)
        .expect("possible");
}
fn reclaim(w: &mut World) -> u64 {
    w.machine.reclaim_all(&mut w.thread.cx())
}
fn move_to(w: &mut World, from: u64, n: u64, to: u64) {
    let (len, flags) = (n * PAGE, MremapFlags::MAYMOVE | MremapFlags::FIXED);
    let args = MremapArgs {
        addr: at(from),
        old_len: len,
        new_len: len,
        flags,
        new_addr: at(to),
    };
    w.mm.mremap(&mut w.thread.cx(), args).expect("movable");
}

#[test]
fn munmap() {
    let mut w = world();
    w.mm.munmap(&mut w.thread.cx(), at(1), 3 * PAGE).unwrap();
    assert_eq!(w.told(), "W1..4");
}
#[test]
fn map_fixed_over_a_mapping() {
    let mut w = world();
    w.map(2, 2, RW);
    assert_eq!(w.told(), "W2..4");
}
#[test]
fn madvise_dontneed() {
    let mut w = world();
    advise(&mut w, 1, 4, Advice::DontNeed);
    assert_eq!(w.told(), "W1..5");
}
#[test]
fn truncate_passes_twice_over_every_mapping() {
    let mut w = world();
    let file = shmem(&mut w, 8);
    w.map_file(20, 8, &file, 0, SHARED);
    w.map_file(40, 4, &file, 4, PRIVATE);
    w.told();
    truncate(&mut w, &file, 6);
    assert_eq!(w.told(), "W26..28 W42..44 W26..28 W42..44");
}
#[test]
fn hole_punch_passes_once() {
    let mut w = world();
    let file = shmem(&mut w, 8);
    w.map_file(20, 8, &file, 0, SHARED);
    w.map_file(40, 4, &file, 4, PRIVATE);
    w.told();
    file.punch_hole(w.thread.cx(), 3 * PAGE, 3 * PAGE).unwrap();
    assert_eq!(w.told(), "W23..26 W40..42");
}
#[test]
fn madvise_remove_is_a_hole_for_all() {
    let mut w = world();
    let file = shmem(&mut w, 8);
    w.map_file(20, 8, &file, 0, SHARED);
    w.map_file(40, 8, &file, 0, SHARED);
    w.told();
    advise(&mut w, 21, 2, Advice::Remove);
    assert_eq!(w.told(), "W21..23 W41..43");
}
#[test]
fn mprotect() {
    let mut w = world();
    w.protect(0, 8, Prot::READ).unwrap();
    assert_eq!(w.told(), "W0..8");
}
#[test]
fn mremap_move_covers_the_source_twice_and_the_target_never() {
    let mut w = world();
    move_to(&mut w, 0, 8, 100);
    assert_eq!(w.told(), "W0..8 W0..8");
    w.check_rmap();
}
/// Where a copy of it would be: a walk comes to it behind all others that map the same page.
#[test]
fn a_mapping_that_moved_is_the_last_of_its_page_offset() {
    let mut w = world();
    let file = shmem(&mut w, 4);
    for first in [20, 30, 40] {
        w.map_file(first, 4, &file, 0, SHARED);
        w.get(first).unwrap();
    }
    move_to(&mut w, 30, 4, 200);
    move_to(&mut w, 20, 4, 100);
    w.told();
    w.check_rmap();
    advise(&mut w, 41, 1, Advice::Remove);
    assert_eq!(w.told(), "W41..42 W201..202 W101..102");
}
#[test]
fn remap_file_pages() {
    let mut w = world();
    let file = shmem(&mut w, 8);
    w.map_file(20, 4, &file, 0, SHARED);
    w.get(21).unwrap();
    w.told();
    let (none, flags) = (Prot::empty(), MapFlags::empty());
    w.mm.remap_file_pages(&mut w.thread.cx(), at(20), 2 * PAGE, none, 5, flags)
        .unwrap();
    assert_eq!(w.told(), "W20..22");
    assert_eq!(w.get(20), Ok(6));
    w.check_rmap();
}
#[test]
fn copy_page_range_of_private_memory() {
    let mut w = world();
    let child = w.fork();
    assert_eq!(w.told(), "W0..8");
    w.reap(&child);
}
#[test]
fn copy_page_range_of_shared_memory_makes_none() {
    let mut w = swapping(4096, 16);
    w.share(0, 4);
    w.fill(0, 4);
    w.told();
    let child = w.fork();
    assert_eq!(w.told(), "");
    w.reap(&child);
}
#[test]
fn cow_fault_of_a_shared_page() {
    let mut w = world();
    let child = w.fork();
    w.told();
    w.put(3, 9);
    assert_eq!(w.told(), "W3..4");
    w.reap(&child);
}
#[test]
fn cow_fault_of_the_only_owner_makes_none() {
    let mut w = world();
    let child = w.fork();
    w.reap(&child);
    w.told();
    w.put(3, 9);
    assert_eq!(w.told(), "");
}
#[test]
fn first_touch_makes_none_and_the_zero_page_is_replaced_in_one() {
    let mut w = world();
    w.get(0).unwrap();
    assert_eq!(w.told(), "");
    w.put(0, 1);
    assert_eq!(w.told(), "W0..1");
}
#[test]
fn try_to_unmap_asks_for_age_and_opens_one_a_page() {
    let mut w = world();
    advise(&mut w, 2, 4, Advice::Cold);
    assert_eq!(reclaim(&mut w), 4);
    assert_eq!(w.told(), "A2 W2..3 A3 W3..4 A4 W4..5 A5 W5..6");
}
#[test]
fn page_referenced_spares_once_and_asks_again() {
    let mut w = world();
    assert_eq!(reclaim(&mut w), 4);
    assert_eq!(w.told(), "A2 A3 A4 A5 A2 W2..3 A3 W3..4 A4 W4..5 A5 W5..6");
}
#[test]
fn pageout_asks_nobody() {
    let mut w = world();
    advise(&mut w, 3, 2, Advice::PageOut);
    assert_eq!(w.told(), "W3..4 W4..5");
    assert_eq!(w.get(3), Ok(1));
    assert_eq!(w.told(), "", "swapping in makes none");
}
#[test]
fn page_mkclean_for_writeback() {
    let mut w = world();
    let (object, file) = disk(&mut w, 8);
    w.map_file(20, 8, &file, 0, SHARED);
    w.map_file(40, 8, &file, 0, SHARED);
    w.put(22, 7);
    w.told();
    file.sync(w.thread.cx()).unwrap();
    assert_eq!((w.told().as_str(), object.dirty()), ("W22..23 W42..43", 0));
    w.put(22, 8);
    assert_eq!((w.told().as_str(), object.dirty()), ("", 1));
}
#[test]
fn migration() {
    let mut w = world();
    let child = w.fork();
    w.told();
    let moved = w.mm.migrate(&mut w.thread.cx(), at(3)).unwrap();
    assert!(moved.is_some());
    assert_eq!(w.told(), "W3..4");
    assert_eq!(w.get(3), Ok(1));
    w.check_rmap();
    let there = w.inside(&child, |w| (w.get(3), w.check_rmap()));
    assert_eq!(there.0, Ok(1));
    w.reap(&child);
}
#[test]
fn same_page_merging_protects_and_replaces() {
    let mut w = world();
    w.told();
    let mm = w.mm.clone();
    let pages = [(&*mm, at(2)), (&*mm, at(3)), (&*mm, at(0)), (&*mm, at(4))];
    assert_eq!(
        w.machine
            .clone()
            .merge_same_pages(&mut w.thread.cx(), &pages),
        2
    );
    assert_eq!(w.told(), "W3..4 W2..3 W2..3 W4..5 W4..5");
    w.put(3, 9);
    assert_eq!(w.told(), "W3..4");
    assert_eq!((w.get(2), w.get(3), w.get(4)), (Ok(1), Ok(9), Ok(1)));
}
#[test]
fn xip_unmap_takes_the_sparse_page_from_everywhere() {
    let mut w = world();
    let (object, file) = xip(&w, 8);
    w.map_file(20, 8, &file, 0, SHARED);
    w.map_file(40, 8, &file, 0, SHARED);
    assert_eq!((w.get(23), w.get(43), w.get(44)), (Ok(0), Ok(0), Ok(0)));
    w.told();
    w.put(23, 5);
    assert_eq!((w.told().as_str(), object.blocks()), ("W23..24 W43..44", 1));
    assert_eq!((w.get(43), w.get(44)), (Ok(5), Ok(0)));
}
#[test]
fn exit_makes_none() {
    let mut w = world();
    w.mm.exit(&mut w.thread.cx());
    assert_eq!(w.told(), "");
}
#[test]
fn huge_page_split_and_collapse() {
    let mut w = World::new();
    w.map(0, 1024, RW);
    advise(&mut w, 0, 1024, Advice::HugePage);
    w.put(5, 1);
    assert_eq!(w.told(), "", "a huge page comes without");
    w.mm.munmap(&mut w.thread.cx(), at(0), 4 * PAGE).unwrap();
    assert_eq!(w.told(), "W0..512 W0..4");
    w.map(0, 4, RW);
    w.put(700, 2);
    w.told();
    advise(&mut w, 512, 512, Advice::Collapse);
    assert_eq!(w.told(), "", "it is huge already");
    assert_eq!((w.get(5), w.get(700)), (Ok(1), Ok(2)));
}

/// Writes down the frames that it is told of.
#[derive(Default)]
struct Exporter(Mutex<Vec<Pfn>>);

impl RmapNotifier for Exporter {
    fn invalidate_frame(&self, _: Cx<'_, rank::Folio, Sleepable>, pfn: Pfn) {
        self.0.lock().unwrap().push(pfn);
    }
}

#[test]
fn exported_frames_are_told_by_frame_in_either_order() {
    for order in [ExportOrder::AfterRmaps, ExportOrder::BeforeRmaps] {
        let mut w = World::with(MachineConfig {
            export_order: order,
            memory: emmu::MemConfig {
                swap: 64,
                ..emmu::MemConfig::default()
            },
            ..MachineConfig::default()
        });
        w.map(0, 4, RW);
        w.fill(0, 4);
        let driver = Arc::new(Exporter::default());
        let registration = w.machine.register_exports(driver.clone());
        let pfn =
            w.mm.with_locked_frame(&mut w.thread.cx(), at(1), Access::Write, |_, locked| {
                locked.export();
                locked.pfn()
            })
            .unwrap();
        w.told();
        advise(&mut w, 0, 4, Advice::PageOut);
        assert_eq!(*driver.0.lock().unwrap(), [pfn], "{order:?}");
        w.fill(0, 4);
        advise(&mut w, 0, 4, Advice::PageOut);
        assert_eq!(driver.0.lock().unwrap().len(), 1, "exported no more");
        w.machine
            .unregister_exports(&mut w.thread.cx(), registration);
    }
}

/// A driver that must sleep to drop a page.
struct Sleeper {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    refused: AtomicU32,
    dropped: AtomicU32,
}

impl Sleeper {
    fn new(seat: Seat) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            refused: AtomicU32::new(0),
            dropped: AtomicU32::new(0),
        })
    }
}

impl ExternalMmu for Sleeper {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.dropped.fetch_add(1, SeqCst);
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn try_invalidate_start<'i>(
        &self,
        _: AtomicCallbackCx<'_>,
        _: Invalidation<'i>,
    ) -> Result<Ack<'i>, WouldBlock> {
        self.refused.fetch_add(1, SeqCst);
        Err(WouldBlock)
    }
}

#[test]
fn where_nobody_may_sleep_a_frame_is_put_off_and_not_freed() {
    let mut w = World::with(MachineConfig {
        rmap_windows: RmapWindows::AtomicFirst,
        memory: emmu::MemConfig {
            swap: 64,
            ..emmu::MemConfig::default()
        },
        ..MachineConfig::default()
    });
    w.map(0, 4, RW);
    w.fill(0, 4);
    let (sleeper, registration) = w.mm.register(&mut w.thread.cx(), Sleeper::new);
    w.told();
    advise(&mut w, 0, 4, Advice::PageOut);
    assert_eq!(sleeper.refused.load(SeqCst), 4);
    assert_eq!(sleeper.dropped.load(SeqCst), 4);
    assert_eq!(w.told(), "W0..1 W1..2 W2..3 W3..4", "once for who agrees");
    assert_eq!(w.machine.mem().in_use(), 0);
    assert_eq!((w.get(0), w.get(3)), (Ok(1), Ok(1)));
    w.mm.unregister(&mut w.thread.cx(), registration);
}
