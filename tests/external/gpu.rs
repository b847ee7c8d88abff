//! The GPU: faults in batches, both sizes of entries, migration, eviction, atomic operations; and
//! what shows when its driver makes one of its mistakes.

use crate::common::{PAGE, RW, World, at, calls::READ};
use emmu::{
    Errno,
    extmmu::gpu::{BulkCommit, Gpu, GpuBoard, GpuConfig, GpuError, GpuMistake},
    frame::DeviceKind::{self, Coherent, Private},
    mm::{Advice, DeviceRegistration, MmapArgs},
    notifier::Access,
};
use std::{sync::Arc, thread};

/// Pages of a huge page.
const HUGE: u64 = 512;

struct Desk {
    w: World,
    board: Arc<GpuBoard>,
    stays: DeviceRegistration,
    gpu: Arc<Gpu>,
}

/// A process with 64 pages, each its number plus one, and a GPU with 16 frames.
fn desk(kind: DeviceKind, config: GpuConfig) -> Desk {
    let mut w = World::new();
    w.map(0, 64, RW);
    (0..64).for_each(|page| w.put(page, page as u8 + 1));
    let (board, stays) = GpuBoard::add(&w.machine, kind, 16).unwrap();
    let (gpu, _stays) = Gpu::attach(&mut w.thread.cx(), &w.mm, Some(&board), config);
    Desk {
        w,
        board,
        stays,
        gpu,
    }
}
fn private() -> Desk {
    mistaken(None)
}
fn mistaken(mistake: Option<GpuMistake>) -> Desk {
    let config = GpuConfig {
        mistake,
        ..GpuConfig::default()
    };
    desk(Private, config)
}

impl Desk {
    fn read(&mut self, engine: usize, page: u64) -> Result<u8, GpuError> {
        let mut byte = [0];
        let engine = self.gpu.engine(engine);
        engine.read(&mut self.w.thread.cx(), at(page), &mut byte)?;
        Ok(byte[0])
    }
    fn write(&mut self, engine: usize, page: u64, byte: u8) -> Result<(), GpuError> {
        let engine = self.gpu.engine(engine);
        engine.write(&mut self.w.thread.cx(), at(page), &[byte])
    }
    fn go(&mut self, from: u64, n: u64) -> Result<u64, GpuError> {
        self.gpu
            .to_device(&mut self.w.thread.cx(), at(from), n * PAGE)
    }
    fn add_one(&mut self, page: u64) -> Result<u64, GpuError> {
        let engine = self.gpu.engine(0);
        engine.update(&mut self.w.thread.cx(), at(page), |old| old + 1)
    }
    fn end(mut self) {
        self.w.mm.exit(&mut self.w.thread.cx());
        assert_eq!(self.board.memory().in_use(), 0, "frames left on the board");
        let cx = &mut self.w.thread.cx();
        self.w.machine.remove_device(cx, self.stays).unwrap();
        self.w.end();
    }
}

#[test]
fn a_fault_maps_its_neighbours_as_they_are() {
    let mut d = private();
    d.w.advise(3, 1, Advice::DontNeed).unwrap();
    assert_eq!(d.read(0, 1), Ok(2));
    assert_eq!(d.gpu.entries(&mut d.w.thread.cx()), 15, "but for the hole");
    assert_eq!(d.gpu.bill().faults, 15);
    assert_eq!(d.write(1, 3, 9), Ok(()));
    assert_eq!(d.w.get(3), Ok(9));
    assert_eq!(d.gpu.entries(&mut d.w.thread.cx()), 16);
    d.end();
}

#[test]
fn the_process_decides_on_every_access() {
    let mut d = private();
    d.w.mm
        .mprotect(&mut d.w.thread.cx(), at(4), PAGE, READ)
        .unwrap();
    assert_eq!(d.read(0, 4), Ok(5));
    assert_eq!(d.write(0, 4, 1).unwrap_err().errno(), Errno::EPERM);
    assert_eq!(d.read(0, 64).unwrap_err().errno(), Errno::EFAULT);
    d.w.map(64, 1, RW);
    assert_eq!(d.read(0, 64), Ok(0), "no refusal is remembered");
    let beyond = d.gpu.to_device(&mut d.w.thread.cx(), u64::MAX - 1, 8);
    assert_eq!(beyond.unwrap_err().errno(), Errno::EINVAL);
    let nothing = (at(1) + 1, 0);
    let nothing = d.gpu.prefetch(&mut d.w.thread.cx(), nothing, Access::Read);
    assert_eq!(nothing.unwrap_err().errno(), Errno::EINVAL);
    let hole = d.go(63, 4);
    assert_eq!(hole.unwrap_err().errno(), Errno::EINVAL);
    let odd = d.gpu.engine(0);
    let odd = odd.update(&mut d.w.thread.cx(), at(0) + 4, |old| old);
    assert_eq!(odd, Err(GpuError::Misaligned(at(0) + 4)));
    d.end();
}

#[test]
fn a_window_reaches_the_tlb_of_each_engine() {
    for (mistake, old) in [
        (None, [0, 0]),
        (Some(GpuMistake::FirstEngineOnly), [0, 8]),
        (Some(GpuMistake::NoFlush), [8, 8]),
    ] {
        let mut d = mistaken(mistake);
        // A pin keeps the frame, so that a stale entry reads it.
        let cx = &mut d.w.thread.cx();
        let _kept = d.w.mm.get_pages(cx, at(7), 1).unwrap();
        assert_eq!([d.read(0, 7), d.read(1, 7)], [Ok(8), Ok(8)]);
        d.w.advise(7, 1, Advice::DontNeed).unwrap();
        let [second, first] = [d.read(1, 7), d.read(0, 7)];
        assert_eq!([first, second], old.map(Ok), "{mistake:?}");
    }
}

#[test]
fn entries_of_2_mib_go_as_a_whole_and_are_aged() {
    let mut d = private();
    let args = MmapArgs::anonymous(HUGE * PAGE).fixed(at(4 * HUGE));
    d.w.mm.mmap(&mut d.w.thread.cx(), &args).unwrap();
    d.w.advise(4 * HUGE, HUGE, Advice::HugePage).unwrap();
    d.w.put(4 * HUGE, 3);
    assert_eq!(d.read(0, 4 * HUGE + 5), Ok(0));
    assert_eq!(d.gpu.entries(&mut d.w.thread.cx()), 1);
    assert_eq!(d.read(0, 4 * HUGE), Ok(3));
    d.w.advise(4 * HUGE + 9, 1, Advice::DontNeed).unwrap();
    assert_eq!(d.gpu.entries(&mut d.w.thread.cx()), 0);
    assert_eq!(d.read(0, 4 * HUGE), Ok(3));
    assert!(d.gpu.entries(&mut d.w.thread.cx()) > 1, "single pages now");
    d.end();
}

/// A range of more blocks than one is mapped as a whole, or up to the first page that cannot be
/// had.
#[test]
fn a_prefetch_maps_all_or_what_comes_before_an_error() {
    for commit in [BulkCommit::All, BulkCommit::Prefix] {
        let config = GpuConfig {
            commit,
            huge: false,
            ..GpuConfig::default()
        };
        let mut d = desk(Private, config);
        d.w.map(1000, 600, RW);
        d.w.map(1600, 8, READ);
        let cx = &mut d.w.thread.cx();
        let whole = d.gpu.prefetch(cx, (at(1000), 600 * PAGE), Access::Write);
        assert_eq!(whole, Ok(600));
        assert_eq!(d.gpu.entries(cx), 600);
        let part = d.gpu.prefetch(cx, (at(1590), 18 * PAGE), Access::Write);
        assert_eq!(part, Ok(10), "{commit:?}");
        let none = d.gpu.prefetch(cx, (at(1600), PAGE), Access::Write);
        assert_eq!(none.unwrap_err().errno(), Errno::EPERM);
        d.end();
    }
}

#[test]
fn pages_go_to_the_board_and_come_home() {
    let mut d = private();
    assert_eq!(d.read(0, 2), Ok(3));
    assert_eq!(d.go(0, 8), Ok(8));
    assert_eq!(d.board.memory().in_use(), 8);
    assert_eq!(d.write(1, 2, 50), Ok(()));
    assert_eq!(d.w.get(2), Ok(50));
    assert_eq!((d.board.home(), d.board.memory().in_use()), (1, 7));
    assert_eq!(d.read(1, 2), Ok(50));
    let home = d.gpu.to_system(&mut d.w.thread.cx(), at(0), 8 * PAGE);
    assert_eq!(home, Ok(7));
    assert_eq!(d.gpu.bill().migrations, 15);
    d.end();
}

/// Its own window takes the entries of memory and leaves those of the board.
#[test]
fn a_migration_of_its_own_spares_what_is_there_already() {
    let mut d = private();
    assert_eq!(d.go(0, 4), Ok(4));
    assert_eq!(d.read(0, 0), Ok(1));
    let before = d.gpu.bill();
    assert_eq!(d.go(0, 8), Ok(4));
    let dropped = d.gpu.bill().dropped - before.dropped;
    assert_eq!(dropped, 4, "neighbours that were in memory");
    assert_eq!(d.read(1, 6), Ok(7));
    d.end();
}

#[test]
fn the_oldest_pages_make_room_on_the_board() {
    let mut d = private();
    assert_eq!(d.go(0, 16), Ok(16));
    assert_eq!(d.go(32, 4), Ok(4));
    assert_eq!(d.board.memory().in_use(), 16);
    assert_eq!(d.board.home(), 4);
    assert_eq!(d.read(0, 33), Ok(34));
    assert_eq!(d.read(0, 1), Ok(2), "home again");
    // All of it leaves, as when the driver is unloaded.
    assert_eq!(d.gpu.evict(&mut d.w.thread.cx()), Ok(0));
    assert_eq!(d.board.memory().in_use(), 0);
    assert_eq!(d.read(0, 33), Ok(34));
    d.end();
}

#[test]
fn a_page_with_many_faults_migrates() {
    let config = GpuConfig {
        migrate_after: Some(2),
        batch: 1,
        ..GpuConfig::default()
    };
    let mut d = desk(Private, config);
    assert_eq!(d.read(0, 3), Ok(4));
    assert_eq!(d.board.memory().in_use(), 0);
    assert_eq!(
        d.write(0, 3, 5),
        Ok(()),
        "the second fault, if the first was for reading"
    );
    d.w.advise(3, 1, Advice::DontNeed).unwrap();
    assert_eq!(d.write(0, 3, 6), Ok(()));
    assert_eq!(d.board.memory().in_use(), 1);
    assert_eq!(d.w.get(3), Ok(6));
    d.end();
}

/// Processors reach a coherent board: pages stay there, whoever uses them.
#[test]
fn coherent_pages_stay_on_the_board() {
    let mut d = desk(Coherent, GpuConfig::default());
    assert_eq!(d.go(0, 4), Ok(4));
    d.w.put(1, 70);
    assert_eq!(d.read(0, 1), Ok(70));
    assert_eq!((d.board.memory().in_use(), d.board.home()), (4, 0));
    let home = d.gpu.to_system(&mut d.w.thread.cx(), at(0), 4 * PAGE);
    assert_eq!(home, Ok(4));
    d.end();
}

#[test]
fn atomic_operations_are_counted_with_those_of_the_process() {
    let mut d = private();
    d.w.fill(0, 1);
    assert_eq!(d.add_one(0), Ok(1));
    assert_eq!(d.w.get(0), Ok(2), "the process takes the page back");
    d.w.put(0, 10);
    assert_eq!(d.add_one(0), Ok(10));
    assert_eq!(d.add_one(0), Ok(11), "without a second exclusion");
    assert_eq!(d.go(0, 1), Ok(0), "a page that is alone does not move");
    assert_eq!((d.w.get(0), d.go(0, 1)), (Ok(12), Ok(1)));
    assert_eq!(d.add_one(0), Ok(12), "in its own memory");
    assert_eq!(d.w.get(0), Ok(13));
    d.w.share(200, 1);
    let shared = d.add_one(200).unwrap_err();
    assert_eq!(shared.errno(), Errno::EOPNOTSUPP);
    d.end();
}

/// A store of a processor between the two halves of an operation waits for its end. Where the GPU
/// does not have the page alone, the store goes through, and is lost.
#[test]
fn no_processor_comes_between_the_halves_of_an_operation() {
    for (mistake, store) in [
        (None, 90),
        (Some(GpuMistake::SharedAtomics), 6),
        (Some(GpuMistake::KeepsAlone), 6),
    ] {
        let mut d = mistaken(mistake);
        d.add_one(5).unwrap();
        d.w.put(5, 5);
        d.write(0, 5, 5).unwrap();
        let (mm, machine) = (Arc::clone(&d.w.mm), Arc::clone(&d.w.machine));
        let mut storing = None;
        let engine = d.gpu.engine(0);
        let update = engine.update(&mut d.w.thread.cx(), at(5), |old| {
            let (mm, machine) = (Arc::clone(&mm), Arc::clone(&machine));
            let thread = thread::spawn(move || {
                let mut thread = machine.enter().unwrap();
                mm.store(&mut thread.cx(), at(5), 90).unwrap();
            });
            if mistake.is_some() {
                // It is not held off.
                thread.join().unwrap();
            } else {
                storing = Some(thread);
            }
            old + 1
        });
        assert_eq!(update, Ok(5), "{mistake:?}");
        if let Some(thread) = storing {
            thread.join().unwrap();
        }
        assert_eq!(d.w.get(5), Ok(store), "{mistake:?}");
    }
}

#[test]
fn without_a_board_there_is_no_migration() {
    let mut w = World::new();
    w.map(0, 1, RW);
    let (gpu, registration) = Gpu::attach(&mut w.thread.cx(), &w.mm, None, GpuConfig::default());
    let cx = &mut w.thread.cx();
    assert_eq!(gpu.to_device(cx, at(0), PAGE), Err(GpuError::NoMemory));
    assert_eq!(gpu.evict(cx).unwrap_err().errno(), Errno::ENODEV);
    assert_eq!(gpu.engine(0).update(cx, at(0), |old| old + 3), Ok(0));
    w.mm.unregister(cx, registration);
    let gone = gpu.engine(0).read(cx, at(0), &mut [0]);
    assert_eq!(gone, Err(GpuError::Gone));
    w.end();
}
