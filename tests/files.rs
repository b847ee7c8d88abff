//! Memory objects through their mappings: what is stored is what is read, by whatever way.

mod common;

use common::{
    PAGE, RW, World, at,
    objects::{disk, shmem, swapping, xip},
};
use emmu::{
    FaultError,
    file::{File, FileMode},
    mm::{Advice, MapFlags, MmapArgs, MsyncFlags, Prot},
};
use proptest::prelude::*;
use std::sync::Arc;

const SHARED: MapFlags = MapFlags::SHARED;
const PRIVATE: MapFlags = MapFlags::PRIVATE;

fn beyond(n: u64) -> Result<u8, FaultError> {
    Err(FaultError::Beyond(at(n)))
}

#[test]
fn private_and_shared_mappings_of_one_file() {
    let mut w = World::new();
    let file = shmem(&mut w, 8);
    w.map_file(0, 8, &file, 0, SHARED);
    w.map_file(10, 8, &file, 0, PRIVATE);
    assert_eq!((w.get(3), w.get(13)), (Ok(4), Ok(4)));
    w.put(3, 50);
    assert_eq!(w.get(13), Ok(50), "not yet copied");
    w.put(13, 60);
    w.put(3, 70);
    assert_eq!((w.get(3), w.get(13)), (Ok(70), Ok(60)));
    let mut byte = [0];
    file.read_at(w.thread.cx(), 3 * PAGE, &mut byte).unwrap();
    assert_eq!(byte, [70]);
    file.write_at(w.thread.cx(), 4 * PAGE, &[80]).unwrap();
    assert_eq!((w.get(4), w.get(14)), (Ok(80), Ok(80)));
    w.check_rmap();
}

#[test]
fn what_is_cut_off_is_gone_and_comes_back_empty() {
    let mut w = World::new();
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    w.map_file(10, 4, &file, 0, PRIVATE);
    (0..4).for_each(|n| w.put(10 + n, 9));
    w.mm.write_bytes(&mut w.thread.cx(), at(1), &[7; 4096])
        .unwrap();
    file.truncate(w.thread.cx(), PAGE + 100).unwrap();
    assert_eq!(
        (w.get(1), w.get(2), w.get(12)),
        (Ok(7), beyond(2), beyond(12))
    );
    assert_eq!(w.get(11), Ok(9), "the copy of the last page stays");
    file.truncate(w.thread.cx(), 4 * PAGE).unwrap();
    let mut tail = [1; 2];
    w.mm.read_bytes(&mut w.thread.cx(), at(1) + 99, &mut tail)
        .unwrap();
    assert_eq!((tail, w.get(2), w.get(12)), ([7, 0], Ok(0), Ok(0)));
}

#[test]
fn a_hole_leaves_private_copies() {
    let mut w = World::new();
    let file = shmem(&mut w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    w.map_file(10, 4, &file, 0, PRIVATE);
    w.put(11, 9);
    w.get(12).unwrap();
    file.punch_hole(w.thread.cx(), PAGE, 2 * PAGE).unwrap();
    let seen: Vec<_> = [0, 1, 2, 3, 11, 12].map(|n| w.get(n).unwrap()).into();
    assert_eq!(seen, [1, 0, 0, 4, 9, 0]);
}

#[test]
fn a_read_only_file_is_mapped_shared_for_reading_and_private_for_writing() {
    let mut w = World::new();
    let whole = shmem(&mut w, 2);
    let open = |mode| File::open(Arc::clone(whole.object()), mode);
    let (ro, wo) = (open(FileMode::ReadOnly), open(FileMode::WriteOnly));
    let map = |w: &mut World, file: &Arc<File>, kind, prot| {
        let mut args = MmapArgs::anonymous(PAGE)
            .fixed(at(0))
            .of(file, 0)
            .prot(prot);
        args.flags = MapFlags::FIXED | kind;
        w.mm.mmap(&mut w.thread.cx(), &args)
            .map_err(|e| e.errno().to_string())
    };
    let denied = Err("EACCES".to_owned());
    assert_eq!(map(&mut w, &ro, SHARED, RW), denied);
    assert_eq!(map(&mut w, &wo, PRIVATE, Prot::READ), denied);
    assert!(map(&mut w, &ro, PRIVATE, RW).is_ok());
    w.put(0, 5);
    assert!(map(&mut w, &ro, SHARED, Prot::READ).is_ok());
    assert_eq!((w.get(0), w.vmas()[0].2.as_str()), (Ok(1), "r--s"));
    let protect = w.mm.mprotect(&mut w.thread.cx(), at(0), PAGE, RW);
    assert_eq!(protect.unwrap_err().errno().to_string(), "EACCES");
    assert!(ro.write_at(w.thread.cx(), 0, &[1]).is_err());
    assert!(wo.read_at(w.thread.cx(), 0, &mut [0]).is_err());
    assert!(ro.truncate(w.thread.cx(), 0).is_err());
}

#[test]
fn writeback_brings_stores_to_the_store() {
    let mut w = World::new();
    let (object, file) = disk(&mut w, 4);
    w.map_file(0, 4, &file, 0, SHARED);
    w.put(2, 99);
    assert_eq!(object.dirty(), 1);
    w.sync(0, 4, MsyncFlags::SYNC).unwrap();
    assert_eq!(object.dirty(), 0);
    let mut block = [0; 4096];
    object.store().read(2, &mut block).unwrap();
    assert_eq!(block[0], 99);
}

#[test]
fn objects_go_when_nobody_has_them() {
    let mut w = swapping(512, 64);
    let file = shmem(&mut w, 8);
    let (_, on_disk) = disk(&mut w, 8);
    let (_, in_place) = xip(&w, 8);
    for (n, file) in [&file, &on_disk, &in_place].into_iter().enumerate() {
        w.map_file(n as u64 * 10, 8, file, 0, SHARED);
        w.fill(n as u64 * 10, 8);
    }
    w.machine.reclaim(&mut w.thread.cx());
    drop((file, on_disk, in_place));
    let machine = w.machine.clone();
    w.end();
    assert_eq!(machine.mem().swap().used(), 0);
}

/// One step on a file of 8 pages, mapped shared at page 0 and 20 and private at 40 of two processes.
#[derive(Clone, Debug)]
enum Step {
    Store(u64, u8),
    Private(u64, u8),
    Write(u64, u8),
    Truncate(u64),
    Punch(u64, u64),
    Sync,
    PageOut(u64),
    Reclaim,
    Move,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let page = 0..8_u64;
    let step = prop_oneof![
        (page.clone(), 1..255_u8).prop_map(|(p, b)| Step::Store(p, b)),
        (page.clone(), 1..255_u8).prop_map(|(p, b)| Step::Private(p, b)),
        (page.clone(), 1..255_u8).prop_map(|(p, b)| Step::Write(p, b)),
        (0..9_u64).prop_map(Step::Truncate),
        (page.clone(), 1..4_u64).prop_map(|(p, n)| Step::Punch(p, n)),
        Just(Step::Sync),
        page.prop_map(Step::PageOut),
        Just(Step::Reclaim),
        Just(Step::Move),
    ];
    prop::collection::vec(step, 1..40)
}

/// The file as a model: bytes, and private copies.
struct Model {
    size: u64,
    bytes: [u8; 8],
    copies: [Option<u8>; 8],
}

fn run(w: &mut World, file: &Arc<File>, steps: &[Step]) {
    w.map_file(0, 8, file, 0, SHARED);
    w.map_file(20, 8, file, 0, SHARED);
    w.map_file(40, 8, file, 0, PRIVATE);
    let mut m = Model {
        size: 8,
        bytes: [1, 2, 3, 4, 5, 6, 7, 8],
        copies: [None; 8],
    };
    let mut second = 20;
    for step in steps {
        apply(w, file, step, &mut m, &mut second);
        w.check_rmap();
        for p in 0..8_usize {
            let n = p as u64;
            let there = (n < m.size).then_some(m.bytes[p]);
            let private = there.map(|b| m.copies[p].unwrap_or(b));
            for (base, want) in [(0, there), (second, there), (40, private)] {
                assert_eq!(
                    w.get(base + n).ok(),
                    want,
                    "page {n} at {base} after {step:?}"
                );
            }
        }
    }
}

fn apply(w: &mut World, file: &Arc<File>, step: &Step, m: &mut Model, second: &mut u64) {
    let put = |w: &mut World, n, b| w.mm.store(&mut w.thread.cx(), at(n), b).is_ok();
    match *step {
        Step::Store(p, b) => {
            if put(w, p, b) {
                m.bytes[p as usize] = b;
            }
        }
        Step::Private(p, b) => {
            if put(w, 40 + p, b) {
                m.copies[p as usize] = Some(b);
            }
        }
        Step::Write(p, b) => {
            file.write_at(w.thread.cx(), p * PAGE, &[b]).unwrap();
            // What lies between the old end and the new one is a hole.
            m.bytes[p as usize] = b;
            m.size = m.size.max(p + 1);
        }
        Step::Truncate(n) => {
            file.truncate(w.thread.cx(), n * PAGE).unwrap();
            for p in n as usize..8 {
                (m.bytes[p], m.copies[p]) = (0, None);
            }
            m.size = n;
        }
        Step::Punch(p, n) => {
            let _beyond_the_end = file.punch_hole(w.thread.cx(), p * PAGE, n * PAGE);
            let end = (p + n).min(8) as usize;
            m.bytes[p as usize..end].fill(0);
        }
        Step::Sync => file.sync(w.thread.cx()).unwrap(),
        Step::PageOut(p) => {
            let _locked = w.advise(p, 2.min(8 - p), Advice::PageOut);
            let _locked = w.advise(40, 8, Advice::PageOut);
        }
        Step::Reclaim => {
            w.machine.reclaim(&mut w.thread.cx());
        }
        Step::Move => {
            let to = 80 - *second; // 60 and back
            w.remap(*second, 8, 8, common::calls::FIXED, to);
            *second = to;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn every_mapping_shows_the_object(steps in steps(), kind in 0..3_u8) {
        let mut w = swapping(2048, 256);
        let file = match kind {
            0 => shmem(&mut w, 8),
            1 => disk(&mut w, 8).1,
            _ => {
                let file = xip(&w, 8).1;
                for p in 0..8 {
                    file.write_at(w.thread.cx(), p * PAGE, &[p as u8 + 1]).unwrap();
                }
                file
            }
        };
        run(&mut w, &file, &steps);
        drop(file);
        w.end();
    }
}
