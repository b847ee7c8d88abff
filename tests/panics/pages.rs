//! Operations that change pages and leave VMAs as they are.

use crate::{
    bomb::Call,
    common::{PAGE, RW, at},
    world::{On, World, blast},
};
use emmu::{
    addr::{Vpn, VpnRange},
    mm::{Advice, ForkMode, MapFlags, Prot},
    notifier::AgeKind,
    reclaim::RmapWindows,
};

fn all(least: u64, prepare: fn(&mut World), work: fn(&mut World), check: fn(&mut World)) {
    for on in [On::Chain, On::Range] {
        for windows in [RmapWindows::Sleepable, RmapWindows::AtomicFirst] {
            let bangs = blast((on, windows), &Call::ALL, prepare, work, check);
            assert!(bangs >= least, "{on:?} {windows:?}: {bangs}");
        }
    }
}
fn advise(w: &mut World, from: u64, n: u64, advice: Advice) {
    let mm = w.mm.clone();
    // It may be refused where a former attempt has done it.
    let _refused = mm.madvise(&mut w.cx(), at(from), n * PAGE, advice);
}

#[test]
fn dropping() {
    all(
        3,
        World::sixteen,
        |w| advise(w, 4, 4, Advice::DontNeed),
        |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..8, &[Some(1), Some(0)]);
            w.reads(8..16, &[Some(1)]);
        },
    );
    all(
        3,
        World::sixteen,
        |w| advise(w, 4, 4, Advice::Free),
        |w| w.reads(0..16, &[Some(1)]),
    );
    all(
        3,
        World::sixteen,
        |w| advise(w, 4, 4, Advice::GuardInstall),
        |w| {
            w.reads(0..4, &[Some(1)]);
            w.reads_alike(4..8, &[Some(1), None]);
            w.reads(8..16, &[Some(1)]);
        },
    );
    fn locked(w: &mut World) {
        w.map_with(0..16, RW, MapFlags::LOCKED);
        w.fill(0..16);
        w.take(0..16);
    }
    all(
        3,
        locked,
        |w| advise(w, 4, 4, Advice::DontNeedLocked),
        |w| {
            w.reads_alike(4..8, &[Some(1), Some(0)]);
        },
    );
}

/// Two huge pages; of most of their pages nothing is written.
pub fn huge(w: &mut World) {
    w.map(0..1024, RW);
    advise(w, 0, 1024, Advice::HugePage);
    for pages in [0..4, 490..530] {
        w.fill(pages);
    }
    w.take(0..4);
    w.take(510..514);
}
pub fn huge_reads(w: &mut World, allowed: &[Option<u8>]) {
    w.reads(0..4, &[Some(1)]);
    w.reads(490..500, &[Some(1)]);
    w.reads_alike(500..520, allowed);
    w.reads(520..530, &[Some(1)]);
}

/// Windows in windows.
#[test]
fn dropping_parts_of_huge_pages() {
    all(
        6,
        huge,
        |w| advise(w, 500, 20, Advice::DontNeed),
        |w| huge_reads(w, &[Some(1), Some(0)]),
    );
    all(
        6,
        huge,
        |w| advise(w, 500, 20, Advice::GuardInstall),
        |w| huge_reads(w, &[Some(1), None]),
    );
    all(
        6,
        huge,
        |w| advise(w, 500, 20, Advice::Free),
        |w| huge_reads(w, &[Some(1)]),
    );
    all(
        3,
        huge,
        |w| advise(w, 500, 20, Advice::Cold),
        |w| huge_reads(w, &[Some(1)]),
    );
}

#[test]
fn reclaiming_huge_pages() {
    all(
        6,
        huge,
        |w| advise(w, 0, 1024, Advice::PageOut),
        |w| huge_reads(w, &[Some(1)]),
    );
}

#[test]
fn collapsing() {
    fn prepare(w: &mut World) {
        w.map(0..512, RW);
        w.fill(0..512);
        w.take(0..8);
    }
    all(
        3,
        prepare,
        |w| advise(w, 0, 512, Advice::Collapse),
        |w| w.reads(0..512, &[Some(1)]),
    );
}

#[test]
fn swapping() {
    fn out(w: &mut World) {
        advise(w, 0, 16, Advice::PageOut);
    }
    all(3, World::sixteen, out, |w| w.reads(0..16, &[Some(1)]));
    // Others have the pages, too: some of their entries may be in swap by now.
    fn shared(w: &mut World) {
        w.sixteen();
        let child = w.mm.clone().fork(&mut w.cx()).unwrap();
        w.children.push(child);
        w.take(0..16);
    }
    fn reclaim(w: &mut World) {
        let machine = w.machine.clone();
        machine.reclaim(&mut w.cx(), 8);
        machine.reclaim_all(&mut w.cx());
    }
    all(6, shared, reclaim, |w| {
        w.reads(0..16, &[Some(1)]);
        let child = w.children[0].clone();
        for n in 0..16 {
            assert_eq!(child.load(&mut w.cx(), at(n)), Ok(1));
        }
    });
}

/// A page that a driver's panic left in nobody's hands would be on no list of reclaim.
#[test]
fn pages_that_reclaim_had_in_its_hands_are_reclaimed_later() {
    for call in [Call::Begin, Call::SecondPass, Call::End, Call::Age] {
        let mut w = World::new(On::Chain, RmapWindows::Sleepable);
        w.sixteen();
        w.bomb.arm(call, 3);
        let machine = w.machine.clone();
        let went = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            machine.reclaim_all(&mut w.cx());
        }));
        assert!(went.is_err(), "{call:?}");
        machine.reclaim_all(&mut w.cx());
        assert_eq!(machine.mem().in_use(), 0, "{call:?}");
        w.reads(0..16, &[Some(1)]);
        w.end();
    }
}

#[test]
fn forking() {
    fn prepare(w: &mut World) {
        w.sixteen();
        w.map(600..604, RW);
        w.fill(600..604);
        w.map(700..704, Prot::READ);
        let file = crate::files::memfd(w, 4);
        w.map_file(800..804, file, MapFlags::PRIVATE);
        w.fill(800..804);
        w.take(600..604);
        w.take(800..804);
    }
    fn check(w: &mut World) {
        w.reads(0..16, &[Some(1)]);
        w.reads(600..604, &[Some(1)]);
        w.reads(700..704, &[Some(0)]);
        w.reads(800..804, &[Some(1)]);
    }
    all(
        9,
        prepare,
        |w| {
            let child = w.mm.clone().fork_with(&mut w.cx(), ForkMode::Copy).unwrap();
            assert_eq!(child.load(&mut w.cx(), at(600)), Ok(1));
            child.exit(&mut w.cx());
        },
        check,
    );
    all(
        9,
        prepare,
        |w| {
            let child =
                w.mm.clone()
                    .fork_with(&mut w.cx(), ForkMode::Share)
                    .unwrap();
            assert_eq!(child.load(&mut w.cx(), at(600)), Ok(1));
            child.exit(&mut w.cx());
        },
        check,
    );
}

#[test]
fn copying_on_write() {
    fn prepare(w: &mut World) {
        w.sixteen();
        let child = w.mm.clone().fork(&mut w.cx()).unwrap();
        w.children.push(child);
        w.take(0..16);
    }
    fn check(w: &mut World) {
        w.reads(0..1, &[Some(1), Some(5)]);
        w.reads(1..16, &[Some(1)]);
        let child = w.children[0].clone();
        assert_eq!(child.load(&mut w.cx(), at(0)), Ok(1));
    }
    // `take` asks for the right to write: the copy was made there.
    fn read_only(w: &mut World) {
        w.sixteen();
        let child = w.mm.clone().fork(&mut w.cx()).unwrap();
        w.children.push(child);
    }
    all(0, prepare, |w| w.put(0, 5), check);
    all(3, read_only, |w| w.put(0, 5), check);
    // Through a driver.
    all(3, read_only, |w| w.take(0..1), check);
}

#[test]
fn copying_of_what_is_not_there_yet() {
    fn zero(w: &mut World) {
        w.map(0..16, RW);
        w.reads(0..16, &[Some(0)]);
    }
    all(
        3,
        zero,
        |w| w.put(0, 5),
        |w| w.reads(0..1, &[Some(0), Some(5)]),
    );
    fn huge_zero(w: &mut World) {
        w.map(0..512, RW);
        advise(w, 0, 512, Advice::HugePage);
        w.reads(0..16, &[Some(0)]);
    }
    all(
        3,
        huge_zero,
        |w| w.put(0, 5),
        |w| w.reads(0..1, &[Some(0), Some(5)]),
    );
    fn file(w: &mut World) {
        let file = crate::files::memfd(w, 8);
        w.map_file(0..8, file, MapFlags::PRIVATE);
        w.reads(0..8, &[Some(0)]);
    }
    all(
        3,
        file,
        |w| w.put(0, 5),
        |w| w.reads(0..1, &[Some(0), Some(5)]),
    );
}

#[test]
fn migrating() {
    fn prepare(w: &mut World) {
        w.sixteen();
        // Mapped twice in this address space: one mark may be there when the bomb goes off.
        let file = crate::files::memfd(w, 4);
        w.map_file(20..24, file.clone(), MapFlags::SHARED);
        w.map_file(30..34, file, MapFlags::SHARED);
        w.fill(20..24);
        w.take(20..24);
        w.take(30..34);
    }
    all(
        9,
        prepare,
        |w| {
            for n in [0, 20] {
                let mm = w.mm.clone();
                mm.migrate(&mut w.cx(), at(n))
                    .unwrap()
                    .expect("nobody holds it");
            }
        },
        |w| {
            w.reads(0..16, &[Some(1)]);
            w.reads(20..24, &[Some(1)]);
            w.reads(30..34, &[Some(1)]);
        },
    );
}

#[test]
fn merging() {
    all(
        6,
        World::sixteen,
        |w| {
            let (machine, mm) = (w.machine.clone(), w.mm.clone());
            machine.merge_same_pages(&mut w.cx(), &[(&mm, at(0)), (&mm, at(1)), (&mm, at(2))]);
        },
        |w| {
            w.reads(0..16, &[Some(1)]);
            w.put(0, 1);
            w.reads(0..16, &[Some(1)]);
        },
    );
}

#[test]
fn aging() {
    all(
        1,
        World::sixteen,
        |w| {
            let mm = w.mm.clone();
            let first = Vpn::containing(at(0));
            let range = VpnRange::new(first, first.plus(16)).unwrap();
            mm.age(&mut w.cx(), range, AgeKind::ClearFlush);
        },
        |w| w.reads(0..16, &[Some(1)]),
    );
}
