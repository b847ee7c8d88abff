//! Devices behind an IOMMU that pins: what Linux's own self tests do not try
//! (`iommufd_selftests` has these), and the mistakes of such drivers.

mod dirty;
mod undone;

use crate::common::{PAGE, RW, World, at, calls::READ, objects::swapping};
use emmu::{
    Errno,
    extmmu::pinned::{
        DirtyRead, DmaFault, Domain, DomainConfig, Ioas, IoasConfig, IoasError, IoasMap,
        LockedAccount, PinMistake,
    },
    mm::Advice,
    notifier::Access,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU64, Ordering},
};

/// Pages of a huge page.
const HUGE: u64 = 512;
/// I/O addresses of the tests.
const IOVA: u64 = 1 << 32;

fn pages(from: u64, n: u64, access: Access) -> IoasMap {
    IoasMap {
        iova: Some(IOVA + from * PAGE),
        addr: at(from),
        len: n * PAGE,
        access,
    }
}

/// A process with 16 pages that can be written, a domain, and what maps them there.
fn mapped(mistake: Option<PinMistake>) -> (World, Arc<Ioas>, Arc<Domain>) {
    let mut w = swapping(4096, 4096);
    w.map(0, 16, RW);
    let (ioas, domain) = with_domain(&mut w, mistake);
    let map = pages(0, 16, Access::Write);
    assert_eq!(ioas.map(&mut w.thread.cx(), &w.mm, map), Ok(IOVA));
    (w, ioas, domain)
}

fn with_domain(w: &mut World, mistake: Option<PinMistake>) -> (Arc<Ioas>, Arc<Domain>) {
    let ioas = Ioas::new(IoasConfig {
        mistake,
        ..IoasConfig::default()
    });
    let config = DomainConfig {
        mistake,
        ..DomainConfig::default()
    };
    let domain = ioas.attach(&mut w.thread.cx(), config).unwrap();
    (ioas, domain)
}

/// The byte that the device reads at a page.
fn dma(domain: &Domain, page: u64) -> Result<u8, DmaFault> {
    let mut byte = [0];
    domain.read(IOVA + page * PAGE, &mut byte)?;
    Ok(byte[0])
}

/// Ends a test: after the unmapping nothing is pinned.
fn end(w: World, ioas: &Ioas) {
    ioas.unmap_all().unwrap();
    assert_eq!(ioas.pinned(), 0);
    w.end();
}

#[test]
fn a_device_and_a_process_see_the_stores_of_each_other() {
    let (mut w, ioas, domain) = mapped(None);
    w.put(3, 7);
    assert_eq!(dma(&domain, 3), Ok(7));
    domain.write(IOVA + 5 * PAGE - 2, b"abcd").unwrap();
    let mut seen = [0; 4];
    w.mm.read_bytes(&mut w.thread.cx(), at(5) - 2, &mut seen)
        .unwrap();
    assert_eq!(&seen, b"abcd");
    assert_eq!(ioas.pinned(), 16);
    end(w, &ioas);
}

#[test]
fn what_the_process_does_moves_no_pinned_page() {
    let (mut w, ioas, domain) = mapped(None);
    w.fill(0, 16);
    w.advise(0, 16, Advice::PageOut).unwrap();
    w.machine.reclaim(&mut w.thread.cx(), 64);
    assert_eq!(w.mm.migrate(&mut w.thread.cx(), at(2)), Ok(None));
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    w.put(2, 9);
    assert_eq!(
        dma(&domain, 2),
        Ok(9),
        "fork has copied the page for the child"
    );
    domain.write(IOVA + 2 * PAGE, &[10]).unwrap();
    assert_eq!(w.get(2), Ok(10));
    assert_eq!(child.load(&mut w.thread.cx(), at(2)), Ok(1));
    child.exit(&mut w.thread.cx());
    end(w, &ioas);
}

/// What the process does to the mapping does not reach the device: both go on with pages of their
/// own.
#[test]
fn a_mapping_that_goes_leaves_the_device_its_pages() {
    let (mut w, ioas, domain) = mapped(None);
    w.fill(0, 16);
    w.advise(1, 1, Advice::DontNeed).unwrap();
    w.mm.munmap(&mut w.thread.cx(), at(2), PAGE).unwrap();
    assert_eq!(w.get(1), Ok(0));
    w.put(1, 5);
    assert_eq!(dma(&domain, 1), Ok(1));
    assert_eq!(dma(&domain, 2), Ok(1));
    w.mm.exit(&mut w.thread.cx());
    assert_eq!(dma(&domain, 9), Ok(1));
    assert_eq!(w.machine.mem().in_use(), 16);
    assert_eq!(ioas.unmap(IOVA, 16 * PAGE), Ok(16 * PAGE));
    assert_eq!(w.machine.mem().in_use(), 0);
}

#[test]
fn a_range_that_ends_before_it_begins_is_refused() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let ioas = Ioas::new(IoasConfig::default());
    let map = IoasMap {
        iova: Some(2 * IOVA),
        addr: at(0),
        len: 4 * PAGE,
        access: Access::Write,
    };
    assert_eq!(ioas.map(&mut w.thread.cx(), &w.mm, map), Ok(2 * IOVA));
    let (first, last) = (3 * IOVA, IOVA);
    let reversed = Err(IoasError::Reversed { first, last });
    assert_eq!(ioas.reserve(first, last), reversed);
    assert_eq!(ioas.allow(&[(first, last)]), reversed);
    assert_eq!(reversed.map_err(IoasError::errno), Err(Errno::EINVAL));
    end(w, &ioas);
}

#[test]
fn areas_do_not_meet_and_addresses_are_chosen_among_the_allowed() {
    let mut w = World::new();
    w.map(0, 64, RW);
    let ioas = Ioas::new(IoasConfig::default());
    let mut map = |iova, addr, len| {
        let access = Access::Write;
        let map = IoasMap {
            iova,
            addr,
            len,
            access,
        };
        ioas.map(&mut w.thread.cx(), &w.mm, map)
    };
    assert_eq!(map(Some(IOVA), at(0), 4 * PAGE), Ok(IOVA));
    let overlap = map(Some(IOVA + 3 * PAGE), at(0), PAGE).unwrap_err();
    assert_eq!(overlap, IoasError::Mapped(IOVA + 3 * PAGE));
    assert_eq!(overlap.errno(), Errno::EEXIST);
    assert_eq!(
        map(Some(IOVA), at(0), 0).unwrap_err().errno(),
        Errno::EINVAL
    );
    let beyond = map(Some(u64::MAX - 10), at(0), PAGE).unwrap_err();
    assert_eq!(beyond.errno(), Errno::EOVERFLOW);
    assert_eq!(
        map(None, u64::MAX - 10, PAGE).unwrap_err().errno(),
        Errno::EOVERFLOW
    );
    assert_eq!(
        map(None, at(0), u64::MAX / 2).unwrap_err().errno(),
        Errno::EOVERFLOW
    );

    ioas.reserve(2 * IOVA, 3 * IOVA - 1).unwrap();
    let reserved = map(Some(2 * IOVA - PAGE), at(0), 2 * PAGE).unwrap_err();
    assert_eq!(reserved, IoasError::Reserved(2 * IOVA));
    assert_eq!(reserved.errno(), Errno::EINVAL);
    let allow = |first, last| ioas.allow(&[(first, last)]);
    assert_eq!(allow(0, 2 * IOVA).unwrap_err().errno(), Errno::EADDRINUSE);
    assert_eq!(allow(4 * IOVA, 4 * IOVA + 8 * PAGE - 1), Ok(()));
    let used = ioas.reserve(4 * IOVA, 4 * IOVA).unwrap_err();
    assert_eq!(used.errno(), Errno::EADDRINUSE);
    // As much of the process's alignment as the length asks for.
    assert_eq!(map(None, at(4), 4 * PAGE), Ok(4 * IOVA));
    assert_eq!(map(None, at(1), PAGE), Ok(4 * IOVA + 4 * PAGE));
    assert_eq!(map(None, at(1) + 5, 10), Ok(4 * IOVA + 5 * PAGE + 5));
    assert_eq!(
        map(None, at(0), 4 * PAGE).unwrap_err().errno(),
        Errno::ENOSPC
    );
    // Without a domain nothing is pinned.
    assert_eq!(ioas.pinned(), 0);
    end(w, &ioas);
}

#[test]
fn a_copy_shares_the_pins() {
    let (mut w, ioas, _domain) = mapped(None);
    w.put(3, 3);
    let (other, there) = with_domain(&mut w, None);
    let part = (IOVA + 2 * PAGE, 4 * PAGE);
    let to = Some(IOVA);
    let copied = other.copy(&mut w.thread.cx(), &ioas, part, to, Access::Write);
    assert_eq!(copied, Ok(IOVA));
    assert_eq!(dma(&there, 1), Ok(3));
    let frames = w.machine.mem().in_use();
    // The first map goes; the pages of the copy stay pinned.
    ioas.unmap(IOVA, 16 * PAGE).unwrap();
    assert_eq!(other.pinned(), 4);
    there.write(IOVA + PAGE, &[8]).unwrap();
    assert_eq!(w.get(3), Ok(8));
    assert_eq!(w.machine.mem().in_use(), frames);
    let hole = (IOVA, 5 * PAGE);
    let missing = ioas.copy(&mut w.thread.cx(), &other, hole, None, Access::Read);
    assert_eq!(missing.unwrap_err().errno(), Errno::ENOENT);
    end(w, &other);
}

#[test]
fn an_unmapping_waits_for_those_that_pinned() {
    let (mut w, ioas, domain) = mapped(None);
    w.put(1, 1);
    let held = Arc::new(Mutex::new(None));
    let (taken, asked) = (Arc::clone(&held), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&asked);
    let access = ioas.access(move |iova, len| {
        assert_eq!((iova, len), (IOVA, 16 * PAGE));
        // It lets go when it is asked for the second time.
        if count.fetch_add(1, Ordering::Relaxed) == 1 {
            drop(taken.lock().unwrap().take());
        }
    });
    let range = (IOVA + PAGE, 2 * PAGE);
    let pinned = access
        .pin_pages(&mut w.thread.cx(), range, Access::Write)
        .unwrap();
    let frame = pinned.pages().next().unwrap().pfns()[0];
    assert_eq!(
        w.machine.mem().pins(frame),
        1,
        "the pin of the domain is shared"
    );
    pinned.pages().next().unwrap().write_at(0, &[4]);
    *held.lock().unwrap() = Some(pinned);
    ioas.detach(&domain);
    assert_eq!(
        (dma(&domain, 1), ioas.pinned()),
        (Err(DmaFault::NotMapped(IOVA + PAGE)), 2)
    );
    assert_eq!(ioas.unmap(IOVA, 16 * PAGE), Ok(16 * PAGE));
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    assert_eq!(w.get(1), Ok(4));
    end(w, &ioas);
}

#[test]
fn pages_that_are_never_given_up_stay_mapped() {
    let (mut w, ioas, domain) = mapped(None);
    let access = ioas.access(|_, _| ());
    let pinned = access
        .pin_pages(&mut w.thread.cx(), (IOVA, PAGE), Access::Read)
        .unwrap();
    assert_eq!(ioas.unmap_all().unwrap_err().errno(), Errno::EDEADLK);
    assert_eq!(dma(&domain, 5), Ok(0));
    drop(pinned);
    end(w, &ioas);
}

#[test]
fn the_pages_of_a_process_that_has_ended_cannot_be_had_unless_they_are_pinned() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    let ioas = Ioas::new(IoasConfig::default());
    let mut cx = w.thread.cx();
    ioas.map(&mut cx, &child, pages(0, 4, Access::Write))
        .unwrap();
    let access = ioas.access(|_, _| ());
    access.write(&mut cx, IOVA, &[3]).unwrap();
    assert_eq!(
        (w.mm.load(&mut cx, at(0)), child.load(&mut cx, at(0))),
        (Ok(0), Ok(3))
    );
    let held = access
        .pin_pages(&mut cx, (IOVA, PAGE), Access::Write)
        .unwrap();
    child.exit(&mut cx);
    drop(child);
    let mut byte = [0];
    access.read(&mut cx, IOVA, &mut byte).unwrap();
    assert_eq!(byte, [3]);
    let gone = access.read(&mut cx, IOVA + PAGE, &mut byte).unwrap_err();
    assert_eq!(gone.errno(), Errno::EFAULT);
    drop(held);
    end(w, &ioas);
}

/// Pages that a child has as well, mapped for reading.
fn reads_unshared(mistake: Option<PinMistake>) -> Result<u8, DmaFault> {
    let mut w = World::new();
    w.map(0, 1, RW);
    w.put(0, 1);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    let (ioas, domain) = with_domain(&mut w, mistake);
    ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 1, Access::Read))
        .unwrap();
    w.put(0, 2);
    let seen = dma(&domain, 0);
    let refused = domain.write(IOVA, &[3]);
    assert_eq!(refused, Err(DmaFault::ReadOnly(IOVA)));
    child.exit(&mut w.thread.cx());
    end(w, &ioas);
    seen
}

#[test]
fn a_map_for_reading_shows_later_stores_of_its_process() {
    assert_eq!(reads_unshared(None), Ok(2));
    assert_eq!(reads_unshared(Some(PinMistake::ReadsShared)), Ok(1));
}

#[test]
fn a_domain_takes_only_what_it_can_translate() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let ioas = Ioas::new(IoasConfig::default());
    ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 4, Access::Write))
        .unwrap();
    let mut attach = |aperture| {
        let config = DomainConfig {
            aperture,
            ..DomainConfig::default()
        };
        ioas.attach(&mut w.thread.cx(), config)
    };
    let outside = attach((0, IOVA + PAGE)).unwrap_err();
    assert_eq!(outside.errno(), Errno::EADDRINUSE);
    let domain = attach((0, 2 * IOVA - 1)).unwrap();
    assert_eq!((dma(&domain, 3), ioas.pinned()), (Ok(0), 4));
    let mut map = pages(0, 4, Access::Write);
    map.iova = Some(2 * IOVA);
    let beyond = ioas.map(&mut w.thread.cx(), &w.mm, map).unwrap_err();
    assert_eq!(beyond, IoasError::Reserved(2 * IOVA));
    map.iova = Some(IOVA / 2 + 1);
    let odd = ioas.map(&mut w.thread.cx(), &w.mm, map).unwrap_err();
    assert_eq!(odd.errno(), Errno::EINVAL);
    ioas.detach(&domain);
    ioas.detach(&domain);
    map.iova = Some(2 * IOVA);
    assert_eq!(ioas.map(&mut w.thread.cx(), &w.mm, map), Ok(2 * IOVA));
    end(w, &ioas);
}

fn keeps_pins(mistake: Option<PinMistake>) -> (u64, u32) {
    let mut w = World::new();
    w.map(0, 4, RW);
    let account = Arc::new(LockedAccount::new(16));
    let ioas = Ioas::new(IoasConfig {
        account: Some(Arc::clone(&account)),
        mistake,
    });
    ioas.attach(&mut w.thread.cx(), DomainConfig::default())
        .unwrap();
    // Behind the fourth page nothing is mapped.
    let map = ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 8, Access::Write));
    assert_eq!(map.unwrap_err().errno(), Errno::EFAULT);
    w.mm.exit(&mut w.thread.cx());
    (account.pages(), w.machine.mem().in_use())
}

#[test]
fn locked_memory_is_limited_and_given_back() {
    assert_eq!(keeps_pins(None), (0, 0));
    assert_eq!(keeps_pins(Some(PinMistake::KeepsPins)).0, 4);
    let mut w = World::new();
    w.map(0, 8, RW);
    let account = Arc::new(LockedAccount::new(6));
    let ioas = Ioas::new(IoasConfig {
        account: Some(Arc::clone(&account)),
        ..IoasConfig::default()
    });
    ioas.attach(&mut w.thread.cx(), DomainConfig::default())
        .unwrap();
    let map = ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 8, Access::Write));
    assert_eq!(map.unwrap_err().errno(), Errno::ENOMEM);
    assert_eq!(account.pages(), 0);
    ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 6, Access::Write))
        .unwrap();
    assert_eq!(account.pages(), 6);
    end(w, &ioas);
    assert_eq!(account.pages(), 0);
}

fn after_unmap(mistake: Option<PinMistake>) -> Result<u8, DmaFault> {
    let (w, ioas, domain) = mapped(mistake);
    dma(&domain, 2).unwrap();
    end(w, &ioas);
    dma(&domain, 2)
}

#[test]
fn the_iotlb_is_flushed_before_pages_are_unpinned() {
    let page = IOVA + 2 * PAGE;
    assert_eq!(after_unmap(None), Err(DmaFault::NotMapped(page)));
    let stale = after_unmap(Some(PinMistake::NoFlush));
    assert_eq!(stale, Err(DmaFault::Unpinned(page)));
}

/// The number of bytes that an unmapping takes which waited while another area was mapped.
fn waited(mistake: Option<PinMistake>) -> u64 {
    let (mut w, ioas, _domain) = mapped(mistake);
    let held = Arc::new(Mutex::new(None));
    let taken = Arc::clone(&held);
    let weak = Arc::downgrade(&ioas);
    let mm = Arc::clone(&w.mm);
    let machine = Arc::clone(&w.machine);
    let access = ioas.access(move |_, _| {
        drop(taken.lock().unwrap().take());
        let (ioas, mm, machine) = (
            weak.upgrade().unwrap(),
            Arc::clone(&mm),
            Arc::clone(&machine),
        );
        let other = std::thread::spawn(move || {
            let mut thread = machine.enter().unwrap();
            let mut map = pages(0, 1, Access::Write);
            map.iova = Some(IOVA + 16 * PAGE);
            ioas.map(&mut thread.cx(), &mm, map)
        });
        assert!(other.join().unwrap().is_ok());
    });
    let pinned = access.pin_pages(&mut w.thread.cx(), (IOVA, PAGE), Access::Read);
    *held.lock().unwrap() = Some(pinned.unwrap());
    let bytes = ioas.unmap(IOVA, 32 * PAGE).unwrap();
    end(w, &ioas);
    bytes
}

#[test]
fn an_unmapping_leaves_areas_that_came_while_it_waited() {
    assert_eq!(waited(None), 16 * PAGE);
    assert_eq!(waited(Some(PinMistake::TakesLaterAreas)), 17 * PAGE);
}

#[test]
fn an_unmapping_that_does_not_wait_is_found_by_the_pins() {
    let (mut w, ioas, domain) = mapped(Some(PinMistake::UnpinsInUse));
    ioas.detach(&domain);
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let access = ioas.access(move |_, _| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let range = (IOVA, PAGE);
    let pinned = access
        .pin_pages(&mut w.thread.cx(), range, Access::Read)
        .unwrap();
    assert_eq!(ioas.unmap_all(), Ok(16 * PAGE));
    assert_eq!(asked.load(Ordering::Relaxed), 0, "the holder was not asked");
    drop(pinned);
    end(w, &ioas);
}

#[test]
fn memory_that_is_only_read_cannot_be_mapped_for_writing() {
    let mut w = World::new();
    w.map(0, 4, READ);
    let (ioas, domain) = with_domain(&mut w, None);
    let refused = ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 4, Access::Write));
    assert_eq!(refused.unwrap_err().errno(), Errno::EFAULT);
    ioas.map(&mut w.thread.cx(), &w.mm, pages(0, 4, Access::Read))
        .unwrap();
    assert_eq!(dma(&domain, 1), Ok(0));
    let access = ioas.access(|_, _| ());
    let write = access.write(&mut w.thread.cx(), IOVA, &[1]).unwrap_err();
    assert_eq!(write.errno(), Errno::EPERM);
    end(w, &ioas);
}
