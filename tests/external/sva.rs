//! Devices behind an IOMMU that walks the page table of the process: flushes, page requests,
//! binding, and the mistakes of such drivers.

use crate::common::{PAGE, RW, World, at, calls::READ, objects::swapping};
use emmu::{
    Errno, FaultError, Mm,
    addr::{Vpn, VpnRange},
    extmmu::sva::{Iommu, Response, SvaBond, SvaConfig, SvaDevice, SvaError, SvaFault, SvaMistake},
    mm::Advice,
    notifier::Access,
    oracle::{Invariant, Oracle},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// A process with 16 pages that can be written, two devices bound to it, and an oracle.
struct Bound {
    w: World,
    iommu: Arc<Iommu>,
    devices: [Arc<SvaDevice>; 2],
    bonds: [SvaBond; 2],
    oracle: Arc<Oracle>,
}

fn config(mistake: Option<SvaMistake>) -> SvaConfig {
    SvaConfig {
        mistake,
        ..SvaConfig::default()
    }
}

impl Bound {
    fn new(config: SvaConfig) -> Self {
        let mut w = swapping(4096, 4096);
        w.map(0, 16, RW);
        let iommu = Iommu::new(config);
        let devices = [SvaDevice::new(&iommu), SvaDevice::new(&iommu)];
        let bind = |device| iommu.bind(&mut w.thread.cx(), &w.mm, device).unwrap();
        let bonds = devices.each_ref().map(bind);
        let oracle = Oracle::new(&w.machine);
        oracle.watch_tlb(&w.mm, bonds[0].tlb());
        Self {
            w,
            iommu,
            devices,
            bonds,
            oracle,
        }
    }
    fn with(mistake: Option<SvaMistake>) -> Self {
        Self::new(config(mistake))
    }
    fn read(&mut self, device: usize, page: u64) -> Result<u8, SvaFault> {
        let mut byte = [0];
        let (pasid, cx) = (self.bonds[device].pasid(), &mut self.w.thread.cx());
        self.devices[device].read(cx, pasid, at(page), &mut byte)?;
        Ok(byte[0])
    }
    fn write(&mut self, device: usize, page: u64, byte: u8) -> Result<(), SvaFault> {
        let (pasid, cx) = (self.bonds[device].pasid(), &mut self.w.thread.cx());
        self.devices[device].write(cx, pasid, at(page), &[byte])
    }
    fn drop_pages(&mut self, from: u64, n: u64) {
        let cx = &mut self.w.thread.cx();
        self.w
            .mm
            .madvise(cx, at(from), n * PAGE, Advice::DontNeed)
            .unwrap();
    }
    fn found(&self, invariant: Invariant) -> bool {
        self.oracle.audit();
        self.oracle
            .take()
            .iter()
            .any(|f| f.invariant() == invariant)
    }
    fn end(mut self) {
        self.oracle.audit();
        for bond in self.bonds {
            bond.unbind(&mut self.w.thread.cx());
        }
        assert_eq!(self.devices.map(|device| device.atc_len()), [0, 0]);
        assert_eq!(self.iommu.requests().waiting(), 0);
        assert_eq!(self.iommu.requests().stray, 0);
        self.oracle.audit_end(&self.w.mm);
        self.oracle.assert_silent();
        self.w.end();
    }
}

#[test]
fn device_and_process_see_the_stores_of_each_other() {
    let mut b = Bound::with(None);
    b.w.put(3, 7);
    assert_eq!([b.read(0, 3), b.read(1, 3)], [Ok(7), Ok(7)]);
    b.write(1, 3, 8).unwrap();
    assert_eq!((b.w.get(3), b.read(0, 3)), (Ok(8), Ok(8)));
    // A page that is not there: a request, a walk. The zero page is replaced for the write.
    assert_eq!(b.read(0, 5), Ok(0));
    b.write(0, 5, 1).unwrap();
    assert_eq!((b.w.get(5), b.read(1, 5)), (Ok(1), Ok(1)));
    let requests = b.iommu.requests();
    assert_eq!((requests.groups, requests.answered), (2, 2));
    b.end();
}

/// Each way in which an entry loses something flushes the devices before the frame goes.
#[test]
fn changes_of_the_page_table_reach_the_device() {
    let mut b = Bound::with(None);
    for n in 0..16 {
        b.write(0, n, 1).unwrap();
    }
    b.drop_pages(0, 2);
    assert_eq!((b.read(0, 0), b.read(0, 2)), (Ok(0), Ok(1)));
    let (mm, thread) = (Arc::clone(&b.w.mm), &mut b.w.thread);
    mm.mprotect(&mut thread.cx(), at(2), PAGE, READ).unwrap();
    let refused = Err(SvaFault::Refused {
        addr: at(2),
        why: FaultError::Denied(at(2)),
    });
    assert_eq!((b.write(0, 2, 9), b.read(0, 2)), (refused, Ok(1)));
    mm.mprotect(&mut b.w.thread.cx(), at(2), PAGE, RW).unwrap();
    assert_eq!(
        b.write(0, 2, 9),
        Ok(()),
        "a right that is gained is found by a walk"
    );
    let child = mm.fork(&mut b.w.thread.cx()).unwrap();
    b.write(0, 3, 4).unwrap();
    assert_eq!(
        (child.load(&mut b.w.thread.cx(), at(3)), b.w.get(3)),
        (Ok(1), Ok(4))
    );
    child.exit(&mut b.w.thread.cx());
    mm.madvise(&mut b.w.thread.cx(), at(0), 16 * PAGE, Advice::PageOut)
        .unwrap();
    assert_eq!(b.devices[0].atc_len(), 0);
    assert_eq!(b.read(0, 3), Ok(4));
    b.end();
}

#[test]
fn a_group_of_requests_has_one_answer() {
    let mut b = Bound::with(None);
    let pasid = b.bonds[0].pasid();
    let device = Arc::clone(&b.devices[0]);
    let pages = World::pages(4, 8);
    let group = device.send_requests(pasid, pages, Access::Write);
    assert_eq!(device.take_response(pasid, group), None);
    assert!(b.iommu.serve_one(&mut b.w.thread.cx()));
    assert!(!b.iommu.serve_one(&mut b.w.thread.cx()), "one group");
    assert_eq!(device.take_response(pasid, group), Some(Response::Success));
    assert_eq!(device.take_response(pasid, group), None, "once");
    let present = |n| {
        b.w.mm
            .walker(&mut b.w.thread.cx())
            .pte(Vpn::containing(at(n)))
    };
    assert!(
        (4..8)
            .map(present)
            .all(|pte| matches!(pte, emmu::mm::Pte::Present { .. }))
    );
    // Page 16 is not mapped: the group is refused, and what came before it stays.
    let response = device.request(
        &mut b.w.thread.cx(),
        pasid,
        World::pages(15, 17),
        Access::Read,
    );
    assert_eq!(response, Response::Invalid(FaultError::NotMapped(at(16))));
    b.end();
}

/// A device asks for every page that there is: it is done soon, and others can be unbound.
#[test]
fn a_group_of_all_pages_is_mostly_dropped() {
    let mut b = Bound::new(SvaConfig::default());
    let pasid = b.bonds[0].pasid();
    let device = Arc::clone(&b.devices[0]);
    let group = device.send_requests(pasid, VpnRange::TASK, Access::Read);
    while b.iommu.serve_one(&mut b.w.thread.cx()) {}
    assert!(b.iommu.requests().overflows > 0);
    assert!(device.take_response(pasid, group).is_some());
    b.end();
}

/// The hardware answers what finds no room, and the device tries again.
#[test]
fn a_full_queue_loses_no_answer() {
    let full = SvaConfig {
        queue: 2,
        ..SvaConfig::default()
    };
    let mut b = Bound::new(full);
    let pasid = b.bonds[0].pasid();
    let device = Arc::clone(&b.devices[0]);
    let send = |n: u64| device.send_requests(pasid, World::pages(n, n + 1), Access::Read);
    let groups = [send(0), send(1), send(2)];
    assert_eq!(b.iommu.requests().overflows, 1);
    assert_eq!(
        device.take_response(pasid, groups[2]),
        Some(Response::Success)
    );
    while b.iommu.serve_one(&mut b.w.thread.cx()) {}
    for group in &groups[..2] {
        assert_eq!(device.take_response(pasid, *group), Some(Response::Success));
    }
    // A group larger than the queue never gets through whole; page by page it does.
    let cx = &mut b.w.thread.cx();
    let response = device.request(cx, pasid, World::pages(8, 12), Access::Read);
    assert_eq!(response, Response::Success);
    assert_eq!(b.read(0, 11), Ok(0));
    b.end();
}

#[test]
fn a_pasid_belongs_to_a_process_as_long_as_one_of_them_is_there() {
    let few = SvaConfig {
        pasids: 2,
        ..SvaConfig::default()
    };
    let mut b = Bound::new(few);
    let (iommu, device) = (Arc::clone(&b.iommu), Arc::clone(&b.devices[0]));
    assert_eq!(b.bonds[0].pasid(), b.bonds[1].pasid());
    let cx = &mut b.w.thread.cx();
    let second = Mm::new(&b.w.machine);
    let bond = iommu.bind(cx, &second, &device).unwrap();
    assert_ne!(bond.pasid(), b.bonds[0].pasid());
    let third = Mm::new(&b.w.machine);
    let refused = iommu.bind(cx, &third, &device).unwrap_err();
    assert_eq!(
        (refused, refused.errno()),
        (SvaError::NoPasid, Errno::ENOSPC)
    );
    // The second process ends, and keeps its PASID while it is bound.
    let pasid = bond.pasid();
    second.exit(cx);
    assert_eq!(
        device.read(cx, pasid, at(0), &mut [0]),
        Err(SvaFault::Gone(pasid.0))
    );
    drop(second);
    assert!(iommu.bind(cx, &third, &device).is_err());
    bond.unbind(cx);
    assert_eq!(
        device.read(cx, pasid, at(0), &mut [0]),
        Err(SvaFault::NotBound(pasid.0))
    );
    let bond = iommu.bind(cx, &third, &device).unwrap();
    assert_eq!(bond.pasid(), pasid);
    // Twice bound, it takes two unbindings.
    let again = iommu.bind(cx, &third, &device).unwrap();
    bond.unbind(cx);
    let read = device.read(cx, pasid, at(0), &mut [0]);
    assert!(matches!(read, Err(SvaFault::Refused { .. })), "still bound");
    again.unbind(cx);
    third.exit(cx);
    let other = Iommu::new(SvaConfig::default());
    let mm = Arc::clone(&b.w.mm);
    let foreign = other.bind(&mut b.w.thread.cx(), &mm, &device);
    assert_eq!(foreign.unwrap_err(), SvaError::OtherIommu);
    b.end();
}

#[test]
fn an_unbinding_answers_what_is_asked() {
    for mistake in [None, Some(SvaMistake::NoDrain)] {
        let b = Bound::with(mistake);
        let Bound {
            mut w,
            iommu,
            devices,
            bonds: [first, second],
            ..
        } = b;
        let (pasid, device) = (first.pasid(), &devices[0]);
        let group = device.send_requests(pasid, World::pages(0, 2), Access::Read);
        let other = devices[1].send_requests(pasid, World::pages(0, 1), Access::Read);
        first.unbind(&mut w.thread.cx());
        let response = device.take_response(pasid, group);
        assert_eq!(response.is_none(), mistake.is_some());
        if mistake.is_none() {
            assert_eq!(
                response,
                Some(Response::Invalid(FaultError::NotMapped(at(0))))
            );
            assert_eq!(iommu.requests().waiting(), 1, "the other device's");
            let late = device.request(&mut w.thread.cx(), pasid, World::pages(0, 1), Access::Read);
            assert!(matches!(late, Response::Invalid(_)));
        }
        while iommu.serve_one(&mut w.thread.cx()) {}
        let response = devices[1].take_response(pasid, other);
        assert_eq!(response, Some(Response::Success));
        second.unbind(&mut w.thread.cx());
        w.end();
    }
}

/// A flush of many pages is one of all, and costs each device one command.
#[test]
fn a_long_flush_is_one_command() {
    let mut b = Bound::with(None);
    b.w.map(0, 2048, RW);
    b.write(0, 0, 1).unwrap();
    b.write(0, 2047, 1).unwrap();
    let before = b.iommu.bill();
    let (mm, cx) = (Arc::clone(&b.w.mm), &mut b.w.thread.cx());
    mm.mprotect(cx, at(0), 2048 * PAGE, READ).unwrap();
    let bill = b.iommu.bill();
    assert_eq!(bill.dropped - before.dropped, 2);
    assert!(
        bill.acknowledgements - before.acknowledgements <= 2 * 4,
        "{bill:?}"
    );
    b.end();
}

#[test]
fn a_flush_that_misses_the_device_is_found() {
    for mistake in [
        SvaMistake::NoAtcFlush,
        SvaMistake::FirstDeviceOnly,
        SvaMistake::NoWait,
        SvaMistake::ShortFlush,
    ] {
        let mut b = Bound::with(Some(mistake));
        (0..2).for_each(|n| b.write(1, n, 1).unwrap());
        b.drop_pages(0, 2);
        assert!(b.found(Invariant::NoUseAfterFree), "{mistake:?}");
    }
}

/// The entry that stays leads to a frame of another owner: its use is found as well.
#[test]
fn the_use_of_what_was_not_flushed_is_found() {
    let mut b = Bound::with(Some(SvaMistake::NoAtcFlush));
    b.write(0, 0, 1).unwrap();
    b.drop_pages(0, 1);
    let used = catch_unwind(AssertUnwindSafe(|| b.read(0, 0)));
    assert!(used.is_err(), "a stale reference");
}

#[test]
fn a_whole_flush_that_is_computed_to_nothing_is_found() {
    let mut b = Bound::with(Some(SvaMistake::WholeMissed));
    b.w.map(0, 2048, RW);
    (0..1024)
        .step_by(512)
        .for_each(|n| b.write(0, n, 1).unwrap());
    let (mm, cx) = (Arc::clone(&b.w.mm), &mut b.w.thread.cx());
    mm.exit(cx);
    b.oracle.audit_end(&mm);
    assert!(b.found(Invariant::GoneAtExit));
}

/// The ATC entry of a process that has gone answers for the next process with its PASID.
#[test]
fn entries_that_outlive_an_unbinding_are_another_process_s() {
    for mistake in [None, Some(SvaMistake::UnbindKeepsAtc)] {
        let Bound {
            mut w,
            iommu,
            devices,
            bonds,
            ..
        } = Bound::with(mistake);
        let (pasid, device) = (bonds[0].pasid(), &devices[0]);
        let cx = &mut w.thread.cx();
        device.write(cx, pasid, at(0), &[1]).unwrap();
        bonds.into_iter().for_each(|bond| bond.unbind(cx));
        assert_eq!(device.atc_len() > 0, mistake.is_some());
        w.mm.exit(cx);
        let machine = Arc::clone(&w.machine);
        drop(std::mem::replace(&mut w.mm, Mm::new(&machine)));
        w.map(0, 1, RW);
        let cx = &mut w.thread.cx();
        let bond = iommu.bind(cx, &w.mm, device).unwrap();
        assert_eq!(bond.pasid(), pasid, "used again");
        let read = device.read(cx, pasid, at(0), &mut [0]);
        let expected = mistake.map_or(Ok(()), |_| Err(SvaFault::Stale(at(0))));
        assert_eq!(read, expected);
        bond.unbind(cx);
        w.end();
    }
}

#[test]
fn answers_are_counted() {
    let mut b = Bound::with(Some(SvaMistake::AnswersTwice));
    b.read(0, 0).unwrap();
    assert_eq!(b.iommu.requests().stray, 1);
}

#[test]
fn an_answer_that_is_lost_is_counted() {
    let lost = SvaConfig {
        queue: 1,
        ..config(Some(SvaMistake::LosesOverflow))
    };
    let b = Bound::new(lost);
    let pasid = b.bonds[0].pasid();
    let send = |n: u64| b.devices[0].send_requests(pasid, World::pages(n, n + 1), Access::Read);
    let groups = [send(0), send(1)];
    assert_eq!(b.devices[0].take_response(pasid, groups[1]), None);
    assert_eq!(b.iommu.requests().waiting(), 2);
}
