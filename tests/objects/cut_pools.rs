//! Huge pages of a pool leave their file while other threads fault them in.

use crate::common::{PAGE, World, at};
use emmu::{
    FaultError, HugeSize, MemConfig,
    driver::*,
    error::ObjectError,
    file::{File, FileMode, HugetlbFile},
    mm::{MapFlags, MmapArgs},
};
use std::{
    sync::{Arc, Mutex, Weak},
    thread,
};

const HUGE: u64 = 512;
const POOL: u64 = 4;

/// A driver that lets a thread of another process read both pages in each window.
struct Reader {
    gate: Gate<OrderedStore<u64>, (), Atomic>,
    other: Mutex<Weak<Mm>>,
}

impl SpinningMmu for Reader {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let other = self.other.lock().unwrap().upgrade();
        if let Some(mm) = other {
            let read = move || {
                let load = |page| mm.machine().with_current(|cx| mm.load(cx, at(page)));
                [0, HUGE].map(|page| load(page).unwrap())
            };
            let _cut_or_not = thread::spawn(read).join().unwrap();
        }
        self.gate.exclude_entries(cx, inv)
    }
}

/// Runs `cut` on a file of two pages that two processes map and read in each other's windows.
/// Returns the outcome of a load of each page by each process after that.
fn cut(
    cut: impl FnOnce(CallCx<'_>, &File) -> Result<(), ObjectError>,
) -> Vec<Result<u8, FaultError>> {
    let mut w = World::with_pool(
        MemConfig {
            frames: 8192,
            ..MemConfig::default()
        },
        POOL,
    );
    let object = HugetlbFile::memfd(w.machine.host(), "h", 2 * HUGE * PAGE, HugeSize::Mib2);
    let file = File::open(object.unwrap(), FileMode::ReadWrite);
    let spaces = [Arc::clone(&w.mm), Mm::new(&w.machine)];
    let cx = &mut w.thread.cx();
    let readers = spaces.each_ref().map(|mm| {
        let args = MmapArgs::anonymous(2 * HUGE * PAGE)
            .fixed(at(0))
            .file(&file, 0);
        mm.mmap(cx, &args.flags(MapFlags::FIXED | MapFlags::SHARED))
            .unwrap();
        mm.store(cx, at(0), 7).unwrap();
        mm.store(cx, at(HUGE), 7).unwrap();
        mm.register(cx, |seat| {
            let gate = Gate::new(seat, OrderedStore::default(), ());
            let other = Mutex::default();
            Arc::new(Reader { gate, other })
        })
    });
    for (nth, (reader, _)) in readers.iter().enumerate() {
        *reader.other.lock().unwrap() = Arc::downgrade(&spaces[1 - nth]);
    }
    cut(cx.reborrow(), &file).unwrap();
    for (reader, _) in &readers {
        *reader.other.lock().unwrap() = Weak::new();
    }
    let loads = spaces.iter().flat_map(|mm| [(mm, 0), (mm, HUGE)]);
    let seen = loads.map(|(mm, page)| mm.load(cx, at(page))).collect();
    spaces.iter().for_each(|mm| mm.exit(cx));
    drop(file);
    let pool = w.machine.mem().huge_pool(HugeSize::Mib2);
    assert_eq!((pool.free, pool.reserved), (POOL, 0), "counts");
    seen
}

/// `remove_inode_hugepages`: faults are kept out while a page leaves.
#[test]
fn a_truncated_page_is_mapped_nowhere() {
    let seen = cut(|cx, file| file.truncate(cx, 0));
    let beyond = |page| Err(FaultError::Beyond(at(page)));
    assert_eq!(seen, [0, HUGE, 0, HUGE].map(beyond));
}

/// The page leaves with its reservation: one that a fault makes meanwhile takes none.
#[test]
fn a_hole_reads_zero_and_keeps_the_counts() {
    let seen = cut(|cx, file| file.punch_hole(cx, 0, 2 * HUGE * PAGE));
    assert_eq!(seen, [Ok(0); 4]);
}
