//! `uffd-unit-tests`: a child whose memory its parent answers for, through faults, a move, and the
//! end of its pages.

use crate::{
    area::{ALIAS, Area, Kind, UNITS},
    uffd_unit::release,
};
use emmu::{
    FaultError,
    mm::{
        FillMode, MremapArgs, MremapFlags, PageFaultFlags, RegisterMode, UffdFeatures, UffdMessage,
        Userfault,
    },
};

/// The place to which the child moves its memory.
const TARGET: u64 = 2 * ALIAS;

/// An access to a unit of the child, answered as often as it must be. Returns the number of missing
/// pages among the faults.
fn answered(area: &mut Area, uffd: &Userfault, unit: u64, wp: bool) -> u64 {
    let mut missing = 0;
    loop {
        let stored = match area.load(unit) {
            Ok(byte) => {
                assert_eq!(byte, 7, "{:?}", area.kind);
                area.store(unit, 7)
            }
            Err(error) => Err(error),
        };
        let Err(error) = stored else { return missing };
        assert_eq!(
            error,
            FaultError::Userfault(area.addr(unit)),
            "{:?}",
            area.kind
        );
        let fault = area.fault(uffd);
        assert_eq!(area.unit_of(fault.addr), unit);
        if fault.flags.contains(PageFaultFlags::WP) {
            area.protect(uffd, unit, false);
        } else {
            missing += 1;
            let mode = if wp { FillMode::WP } else { FillMode::empty() };
            area.copy(uffd, unit, 7, mode);
        }
    }
}

fn child(area: &mut Area, wp: bool) -> u64 {
    let uffd = area.forked();
    let half = UNITS / 2;
    let mut missing: u64 = (0..half).map(|unit| answered(area, &uffd, unit, wp)).sum();
    let args = MremapArgs {
        addr: area.addr(0),
        old_len: UNITS * area.len(),
        new_len: UNITS * area.len(),
        flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
        new_addr: area.addr(TARGET),
    };
    let mm = area.w.mm.clone();
    mm.mremap(&mut area.w.thread.cx(), args).unwrap();
    match uffd.read() {
        Some(UffdMessage::Remap { from, to, len }) => {
            assert_eq!((from, to, len), (args.addr, args.new_addr, args.new_len));
        }
        other => panic!("{:?}: {other:?}", area.kind),
    }
    for unit in TARGET..TARGET + half {
        assert_eq!(answered(area, &uffd, unit, wp), 0, "its page moved along");
    }
    let rest = TARGET + half..TARGET + UNITS;
    missing += rest
        .map(|unit| answered(area, &uffd, unit, wp))
        .sum::<u64>();
    released(area, &uffd);
    missing
}

/// The pages go, the handler hears of it and gives the range up, and zeros come.
fn released(area: &mut Area, uffd: &Userfault) {
    release(area, TARGET);
    let (start, end) = (area.addr(TARGET), area.addr(TARGET + UNITS));
    match uffd.read() {
        Some(UffdMessage::Remove { start: a, end: b }) => assert_eq!((a, b), (start, end)),
        other => panic!("{:?}: {other:?}", area.kind),
    }
    uffd.unregister(&mut area.w.thread.cx(), start, end - start)
        .unwrap();
    for unit in TARGET..TARGET + UNITS {
        let (file_has_it, byte) = (area.kind == Kind::ShmemPrivate, area.load(unit));
        assert!(byte == Ok(0) || file_has_it, "{:?}: {byte:?}", area.kind);
    }
}

fn events_on(kind: Kind, wp: bool) {
    let features = UffdFeatures::EVENT_FORK
        | UffdFeatures::EVENT_REMAP
        | UffdFeatures::EVENT_REMOVE
        | UffdFeatures::WP_HUGETLBFS_SHMEM;
    let mode = match wp {
        true => RegisterMode::MISSING | RegisterMode::WP,
        false => RegisterMode::MISSING,
    };
    let mut area = Area::registered(kind, features, mode);
    let missing = area.in_child(|area| child(area, wp));
    assert_eq!(missing, UNITS, "{kind:?}");
    assert!(!area.uffd.has_message());
    area.end();
}

#[test]
fn events() {
    Kind::all().for_each(|kind| events_on(kind, false));
}

#[test]
fn events_wp() {
    Kind::all().for_each(|kind| events_on(kind, true));
}
