//! A file that is cut while a driver panics is cut or is not: what is left of it is neither older
//! than it was, nor empty.

use crate::{
    bomb::Call,
    common::{PAGE, at},
    world::{On, World},
};
use emmu::{
    addr::Pfn,
    ctx::{Cx, Sleepable, rank},
    file::{DiskFile, File, FileMode, MemStore, Shmem, XipFile},
    mm::{Advice, MapFlags},
    notifier::Access,
    reclaim::RmapWindows,
    rmap::RmapNotifier,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// Has frames by number, and panics when it is told of the how manieth.
#[derive(Default)]
struct Exporter(AtomicU64);

impl RmapNotifier for Exporter {
    fn invalidate_frame(&self, _: Cx<'_, rank::Folio, Sleepable>, _: Pfn) {
        let left = self.0.load(SeqCst);
        self.0.store(left.saturating_sub(1), SeqCst);
        assert_ne!(left, 1, "an exporter panics");
    }
}

/// What a file is like: its size in pages and what each reads.
type Shape = Vec<u8>;

fn shape(w: &mut World, file: &File) -> Shape {
    let read = |page| {
        let mut byte = [0];
        file.read_at(w.cx(), page * PAGE, &mut byte).unwrap();
        byte[0]
    };
    (0..file.object().pages()).map(read).collect()
}

/// A file of eight pages whose store has 1 in each, its cache 2, all mapped and taken by a driver.
fn file(w: &mut World, kind: usize) -> Arc<File> {
    let host = w.machine.host();
    let file = match kind {
        0 => File::open(
            Shmem::memfd(host, "m", 8 * PAGE).unwrap(),
            FileMode::ReadWrite,
        ),
        1 => {
            let object = DiskFile::new(host, "/d", 8 * PAGE, Box::<MemStore>::default());
            File::open(object.unwrap(), FileMode::ReadWrite)
        }
        _ => File::open(
            XipFile::new(host, "/x", 8 * PAGE).unwrap(),
            FileMode::ReadWrite,
        ),
    };
    for byte in [1, 2] {
        for page in 0..8 {
            file.write_at(w.cx(), page * PAGE, &[byte]).unwrap();
        }
        if byte == 1 {
            file.sync(w.cx()).unwrap();
        }
    }
    w.map_file(0..8, file.clone(), MapFlags::SHARED);
    w.take(0..8);
    file
}

type Cut = (fn(&mut World, &File), Shape);

fn cuts() -> [Cut; 4] {
    [
        (
            |w, file| file.truncate(w.cx(), 3 * PAGE).unwrap(),
            vec![2; 3],
        ),
        (
            |w, file| file.truncate(w.cx(), 3 * PAGE + 5).unwrap(),
            vec![2; 4],
        ),
        (
            |w, file| file.punch_hole(w.cx(), 2 * PAGE, 4 * PAGE).unwrap(),
            vec![2, 2, 0, 0, 0, 0, 2, 2],
        ),
        (
            |w, _| {
                let mm = w.mm.clone();
                mm.madvise(&mut w.cx(), at(2), 4 * PAGE, Advice::Remove)
                    .unwrap();
            },
            vec![2, 2, 0, 0, 0, 0, 2, 2],
        ),
    ]
}

/// Cuts, with the `nth` call panicking; says whether it did.
fn cut(kind: usize, (work, done): &Cut, call: Option<Call>, nth: u64) -> bool {
    let mut w = World::new(On::Chain, RmapWindows::Sleepable);
    let file = file(&mut w, kind);
    let exporter = Arc::new(Exporter::default());
    let exports = w.machine.register_exports(exporter.clone());
    if let Some(call) = call {
        w.bomb.arm(call, nth);
    } else {
        let mm = w.mm.clone();
        for page in 0..8 {
            mm.with_locked_frame(&mut w.cx(), at(page), Access::Write, |_, page| {
                page.export();
            })
            .unwrap();
        }
        exporter.0.store(nth, SeqCst);
    }
    let went = catch_unwind(AssertUnwindSafe(|| work(&mut w, &file))).is_err();
    w.bomb.disarm();
    exporter.0.store(0, SeqCst);
    let now = shape(&mut w, &file);
    let undone = went && now == [2; 8];
    assert!(undone || now == *done, "{kind} {call:?} {nth}: {now:?}");
    if went {
        work(&mut w, &file);
        assert_eq!(shape(&mut w, &file), *done);
    }
    w.check();
    let machine = w.machine.clone();
    machine.unregister_exports(&mut w.cx(), exports);
    drop(file);
    w.end();
    went
}

#[test]
fn until_the_first_page_goes_all_is_as_it_was_and_from_then_on_the_cut_is_finished() {
    let mut bangs = 0;
    for kind in 0..3 {
        for how in &cuts() {
            for call in Call::ALL.map(Some).into_iter().chain([None]) {
                bangs += (1..).take_while(|&nth| cut(kind, how, call, nth)).count();
            }
        }
    }
    assert!(bangs >= 60, "{bangs}");
}
