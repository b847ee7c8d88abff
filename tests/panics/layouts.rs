//! Operations that change VMAs.

use crate::{
    bomb::Call,
    common::{PAGE, RW, at},
    world::{On, World, blast},
};
use emmu::{
    mm::{Advice, MapFlags, MremapArgs, MremapFlags, Prot, RemapMode},
    reclaim::RmapWindows,
};

/// In either kind of registration, at least so many times.
fn all(least: u64, prepare: fn(&mut World), work: fn(&mut World), check: fn(&mut World)) {
    for on in [On::Chain, On::Range] {
        let how = (on, RmapWindows::Sleepable);
        let bangs = blast(how, &Call::ALL, prepare, work, check);
        assert!(bangs >= least, "{on:?}: {bangs}");
    }
}

fn unmap(w: &mut World, from: u64, n: u64) {
    let mm = w.mm.clone();
    mm.munmap(&mut w.cx(), at(from), n * PAGE).unwrap();
}
fn protect(w: &mut World, from: u64, n: u64, prot: Prot) {
    let mm = w.mm.clone();
    mm.mprotect(&mut w.cx(), at(from), n * PAGE, prot).unwrap();
}
fn remap(w: &mut World, addr: u64, old: u64, new: u64, flags: MremapFlags, to: u64) {
    let args = MremapArgs {
        addr: at(addr),
        old_len: old * PAGE,
        new_len: new * PAGE,
        flags,
        new_addr: at(to),
    };
    let mm = w.mm.clone();
    // The second time the source may be gone.
    let _gone = mm.mremap(&mut w.cx(), args);
}

#[test]
fn munmap() {
    all(
        3,
        World::sixteen,
        |w| unmap(w, 0, 16),
        |w| {
            w.reads_alike(0..16, &[Some(1), None]);
        },
    );
    all(
        3,
        World::sixteen,
        |w| unmap(w, 4, 4),
        |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..8, &[Some(1), None]);
            w.reads(8..16, &[Some(1)]);
        },
    );
}

#[test]
fn munmap_of_several_mappings() {
    fn prepare(w: &mut World) {
        w.sixteen();
        protect(w, 4, 4, Prot::READ);
        w.map_with(20..24, RW, MapFlags::LOCKED);
        w.fill(20..24);
        w.take(20..24);
    }
    all(
        3,
        prepare,
        |w| unmap(w, 2, 20),
        |w| {
            w.reads(0..2, &[Some(1)]);
            w.reads_alike(2..16, &[Some(1), None]);
            w.reads(22..24, &[Some(1)]);
        },
    );
}

#[test]
fn mmap_over_what_is_there() {
    for flags in [MapFlags::empty(), MapFlags::NORESERVE, MapFlags::LOCKED] {
        let work: fn(&mut World) = match flags {
            MapFlags::NORESERVE => |w| w.map_with(4..8, RW, MapFlags::NORESERVE),
            MapFlags::LOCKED => |w| w.map_with(4..8, RW, MapFlags::LOCKED),
            _ => |w| w.map(4..8, RW),
        };
        // Told the end of the window, the drivers find the old mapping gone and the new one not
        // there.
        all(3, World::sixteen, work, |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..8, &[Some(1), Some(0), None]);
            w.reads(8..16, &[Some(1)]);
        });
    }
}

#[test]
fn mprotect() {
    all(
        3,
        World::sixteen,
        |w| protect(w, 4, 4, Prot::READ),
        |w| w.reads(0..16, &[Some(1)]),
    );
    all(
        3,
        World::sixteen,
        |w| protect(w, 4, 12, Prot::empty()),
        |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..16, &[Some(1), None]);
        },
    );
    fn read_only(w: &mut World) {
        w.sixteen();
        protect(w, 4, 4, Prot::READ);
        protect(w, 10, 1, Prot::empty());
        w.take(0..10);
    }
    all(
        3,
        read_only,
        |w| protect(w, 0, 16, RW),
        |w| {
            w.reads(0..10, &[Some(1)]);
            w.reads(11..16, &[Some(1)]);
        },
    );
    // A window for each 512 GiB.
    const EDGE: u64 = (1 << 27) - 4;
    fn wide(w: &mut World) {
        w.map(EDGE..EDGE + 8, RW);
        w.fill(EDGE..EDGE + 8);
        w.take(EDGE..EDGE + 8);
    }
    all(
        6,
        wide,
        |w| protect(w, EDGE, 8, Prot::READ),
        |w| w.reads(EDGE..EDGE + 8, &[Some(1)]),
    );
}

/// A fault looks at no entry that is there for a read: what a mapping lets read, its entries do.
#[test]
fn what_may_be_read_again_can_be() {
    fn closed(w: &mut World) {
        w.sixteen();
        w.map(512..1024, RW);
        let mm = w.mm.clone();
        mm.madvise(&mut w.cx(), at(512), 512 * PAGE, Advice::HugePage)
            .unwrap();
        w.put(600, 1);
        w.map(16..20, RW);
        w.reads(16..20, &[Some(0)]);
        protect(w, 0, 20, Prot::empty());
        protect(w, 512, 512, Prot::empty());
    }
    fn open(w: &mut World, prot: Prot) {
        protect(w, 0, 20, prot);
        protect(w, 512, 512, prot);
    }
    let opened: [fn(&mut World); 2] = [|w| open(w, Prot::READ), |w| open(w, RW)];
    for opened in opened {
        all(4, closed, opened, |w| {
            w.reads(0..16, &[Some(1), None]);
            w.reads(16..20, &[Some(0), None]);
            w.reads(600..601, &[Some(1), None]);
            w.reads_alike(700..704, &[Some(0), None]);
        });
    }
}

#[test]
fn mprotect_of_memory_that_is_not_promised() {
    fn prepare(w: &mut World) {
        w.map(0..16, Prot::READ);
        w.take(0..16);
    }
    all(
        3,
        prepare,
        |w| protect(w, 4, 4, RW),
        |w| w.reads(0..16, &[Some(0)]),
    );
    fn unwritten(w: &mut World) {
        w.map(0..16, RW);
        w.reads(0..16, &[Some(0)]);
    }
    all(
        3,
        unwritten,
        |w| protect(w, 4, 4, Prot::READ),
        |w| w.reads(0..16, &[Some(0)]),
    );
}

const FIXED: MremapFlags = MremapFlags::MAYMOVE.union(MremapFlags::FIXED);

#[test]
fn mremap_moves() {
    for work in [
        (|w| remap(w, 0, 16, 16, FIXED, 100)) as fn(&mut World),
        |w| remap(w, 0, 16, 20, FIXED, 100),
        |w| remap(w, 0, 16, 8, FIXED, 100),
        // Beside itself, so that source and copy merge.
        |w| remap(w, 0, 16, 16, FIXED, 16),
        |w| {
            remap(
                w,
                0,
                16,
                16,
                MremapFlags::MAYMOVE | MremapFlags::DONTUNMAP,
                100,
            )
        },
    ] {
        all(3, World::sixteen, work, |w| {
            let first = [0, 16, 100].into_iter().filter(|&n| w.get(n) == Ok(1));
            assert_eq!(first.count(), 1);
        });
    }
}

#[test]
fn mremap_over_what_is_there_and_in_place() {
    fn prepare(w: &mut World) {
        w.sixteen();
        w.map(100..116, RW);
        w.fill(100..116);
        w.take(100..116);
    }
    all(
        9,
        prepare,
        |w| remap(w, 0, 8, 8, FIXED, 104),
        |w| {
            w.reads(8..16, &[Some(1)]);
            w.reads(100..104, &[Some(1)]);
            w.reads_alike(104..112, &[Some(1), None]);
        },
    );
    all(
        3,
        prepare,
        |w| remap(w, 0, 16, 4, MremapFlags::empty(), 0),
        |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..16, &[Some(1), None]);
        },
    );
}

#[test]
fn mremap_of_huge_pages() {
    fn prepare(w: &mut World) {
        w.map(0..1536, RW);
        let mm = w.mm.clone();
        mm.madvise(&mut w.cx(), at(0), 1536 * PAGE, Advice::HugePage)
            .unwrap();
        w.fill(0..1);
        w.put(511, 1);
        w.put(512, 1);
        w.put(1024, 1);
        w.take(0..4);
        w.take(511..516);
    }
    // The first as a whole, the second by its pages, after a window of its own.
    for work in [
        (|w| remap(w, 0, 1100, 1100, FIXED, 1 << 20)) as fn(&mut World),
        |w| remap(w, 0, 1100, 1100, FIXED, (1 << 20) + 7),
    ] {
        all(6, prepare, work, |w| {
            for n in [0, 511, 512, 1024] {
                let places = [n, (1 << 20) + n, (1 << 20) + 7 + n];
                let there = places.into_iter().filter(|&n| w.get(n) == Ok(1));
                assert_eq!(there.count(), 1, "page {n}");
            }
        });
    }
}

#[test]
fn parts_of_huge_pages() {
    use crate::pages::{huge, huge_reads};
    all(
        6,
        huge,
        |w| unmap(w, 500, 20),
        |w| huge_reads(w, &[Some(1), None]),
    );
    all(
        6,
        huge,
        |w| protect(w, 500, 20, Prot::READ),
        |w| huge_reads(w, &[Some(1)]),
    );
    all(
        6,
        huge,
        |w| w.map(500..520, Prot::READ),
        |w| huge_reads(w, &[Some(1), Some(0), None]),
    );
    fn lock(w: &mut World) {
        let mm = w.mm.clone();
        mm.mlock(&mut w.cx(), at(500), 20 * PAGE).unwrap();
    }
    all(3, huge, lock, |w| huge_reads(w, &[Some(1)]));
}

#[test]
fn changes_that_merge_mappings() {
    fn prepare(w: &mut World) {
        w.map(0..1024, RW);
        protect(w, 0, 100, Prot::READ);
        let mm = w.mm.clone();
        mm.madvise(&mut w.cx(), at(100), 924 * PAGE, Advice::HugePage)
            .unwrap();
        mm.madvise(&mut w.cx(), at(0), 100 * PAGE, Advice::HugePage)
            .unwrap();
        w.put(600, 1);
        w.put(200, 1);
        w.take(600..604);
    }
    // The middle of a huge page goes over to the mapping below.
    all(
        3,
        prepare,
        |w| protect(w, 100, 500, Prot::READ),
        |w| {
            w.reads(600..601, &[Some(1)]);
            let read_only = w.mm.clone().store(&mut w.cx(), at(50), 1).is_err();
            assert!(read_only);
        },
    );
}

#[test]
fn brk_that_shrinks() {
    fn prepare(w: &mut World) {
        let mm = w.mm.clone();
        mm.set_start_brk(&mut w.cx(), at(0)).unwrap();
        assert_eq!(mm.brk(&mut w.cx(), at(8)), at(8));
        w.fill(0..8);
        w.take(0..8);
    }
    all(
        3,
        prepare,
        |w| {
            let mm = w.mm.clone();
            mm.brk(&mut w.cx(), at(2) + 5);
        },
        |w| {
            w.reads(0..3, &[Some(1)]);
            w.reads_alike(3..8, &[Some(1), None]);
            // The heap is what lies below the break.
            let mm = w.mm.clone();
            let now = mm.brk(&mut w.cx(), 0);
            assert_eq!(w.get(7).is_ok(), now > at(3), "{now:x}");
        },
    );
}

#[test]
fn remap_file_pages() {
    fn prepare(w: &mut World) {
        let file = crate::files::memfd(w, 8);
        w.map_file(0..8, file, MapFlags::SHARED);
        w.fill(0..8);
        w.take(0..8);
    }
    fn nonlinear(w: &mut World) {
        let mm = w.mm.clone();
        mm.set_remap_mode(&mut w.cx(), RemapMode::Nonlinear);
        prepare(w);
    }
    fn work(w: &mut World) {
        let mm = w.mm.clone();
        // There is nothing to be remapped where the old mapping went and the new one did not come.
        let _refused = mm.remap_file_pages(
            &mut w.cx(),
            at(2),
            2 * PAGE,
            Prot::empty(),
            6,
            MapFlags::empty(),
        );
    }
    all(3, prepare, work, |w| {
        w.reads(0..2, &[Some(1)]);
        w.reads_alike(2..4, &[Some(1), None]);
        w.reads(4..8, &[Some(1)]);
    });
    all(3, nonlinear, work, |w| w.reads(0..8, &[Some(1)]));
}

#[test]
fn pages_of_a_file_and_its_own() {
    fn prepare(w: &mut World) {
        let file = crate::files::memfd(w, 8);
        w.map_file(0..8, file.clone(), MapFlags::SHARED);
        w.map_file(8..16, file, MapFlags::PRIVATE);
        w.fill(0..16);
        w.take(0..16);
    }
    all(
        3,
        prepare,
        |w| unmap(w, 4, 8),
        |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..12, &[Some(1), None]);
            w.reads(12..16, &[Some(1)]);
        },
    );
}
