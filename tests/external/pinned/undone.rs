//! What is left of I/O address spaces: after a panic half-way, after a drop, and between areas that
//! join inside of a page.

use super::{IOVA, pages};
use crate::{
    acting::Acting,
    common::{PAGE, RW, World, at},
};
use emmu::{
    extmmu::pinned::{DmaFault, DomainConfig, Ioas, IoasConfig, IoasError, IoasMap, LockedAccount},
    mm::MmapArgs,
    notifier::Access,
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// A process with 8 pages of an object that panics at each page from the third on while the flag is
/// set, and an I/O address space with an account.
fn armed() -> (World, Arc<AtomicBool>, Arc<Ioas>, Arc<LockedAccount>) {
    let mut w = World::new();
    let armed = Arc::new(AtomicBool::new(true));
    let bomb = Arc::clone(&armed);
    let file = Acting::open(&w.machine, 16, 0, move |index| {
        assert!(index < 2 || !bomb.load(SeqCst), "a bomb");
    });
    let args = MmapArgs::anonymous(8 * PAGE).fixed(at(0)).shared();
    w.mm.mmap(&mut w.thread.cx(), &args.file(&file, 0)).unwrap();
    let account = Arc::new(LockedAccount::new(100));
    let ioas = with_account(&account);
    (w, armed, ioas, account)
}

fn with_account(account: &Arc<LockedAccount>) -> Arc<Ioas> {
    Ioas::new(IoasConfig {
        account: Some(Arc::clone(account)),
        ..IoasConfig::default()
    })
}

fn panics<T>(f: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

#[test]
fn a_map_that_panics_is_undone() {
    let (mut w, bomb, ioas, account) = armed();
    let mut cx = w.thread.cx();
    let domain = ioas.attach(&mut cx, DomainConfig::default()).unwrap();
    let map = pages(0, 8, Access::Write);
    assert!(panics(|| ioas.map(&mut cx, &w.mm, map)));
    assert_eq!(
        (account.pages(), ioas.pinned(), domain.entries()),
        (0, 0, 0)
    );
    bomb.store(false, SeqCst);
    assert_eq!(ioas.map(&mut cx, &w.mm, map), Ok(IOVA));
    assert_eq!(ioas.unmap_all(), Ok(8 * PAGE));
}

#[test]
fn an_attachment_that_panics_is_undone() {
    let (mut w, _bomb, ioas, account) = armed();
    let mut cx = w.thread.cx();
    let map = pages(0, 8, Access::Write);
    ioas.map(&mut cx, &w.mm, map).unwrap();
    let config = DomainConfig {
        aperture: (IOVA, IOVA + 8 * PAGE - 1),
        ..DomainConfig::default()
    };
    assert!(panics(|| ioas.attach(&mut cx, config)));
    assert_eq!((account.pages(), ioas.pinned()), (0, 0));
    assert_eq!(ioas.reserve(0, PAGE - 1), Ok(()));
    let beyond = IoasMap {
        iova: Some(IOVA + 8 * PAGE),
        ..map
    };
    ioas.map(&mut cx, &w.mm, beyond)
        .expect("the aperture is not reserved");
}

#[test]
fn a_pin_that_panics_is_undone() {
    let (mut w, _bomb, ioas, account) = armed();
    let mut cx = w.thread.cx();
    ioas.map(&mut cx, &w.mm, pages(0, 8, Access::Write))
        .unwrap();
    let access = ioas.access(|_, _| ());
    let all = (IOVA, 8 * PAGE);
    assert!(panics(|| access.pin_pages(&mut cx, all, Access::Write)));
    let mut bytes = vec![0; 8 * PAGE as usize];
    assert!(panics(|| access.read(&mut cx, IOVA, &mut bytes)));
    assert_eq!((account.pages(), ioas.pinned()), (0, 0));
    assert_eq!(ioas.unmap_all(), Ok(8 * PAGE), "it waits for no pin");
}

#[test]
fn an_area_whose_unmapping_panics_can_be_used_again() {
    let mut w = World::new();
    w.map(0, 4, RW);
    let ioas = Ioas::new(IoasConfig::default());
    let mut cx = w.thread.cx();
    ioas.map(&mut cx, &w.mm, pages(0, 4, Access::Write))
        .unwrap();
    let access = ioas.access(|_, _| panic!("it was to let go"));
    let pinned = access.pin_pages(&mut cx, (IOVA, PAGE), Access::Write);
    assert!(panics(|| ioas.unmap_all()));
    drop(
        access
            .pin_pages(&mut cx, (IOVA, PAGE), Access::Write)
            .unwrap(),
    );
    drop(pinned);
    assert_eq!(ioas.unmap_all(), Ok(4 * PAGE));
}

/// A copy keeps the pages pinned, and they are not for the domain of the one that is gone.
#[test]
fn an_address_space_that_is_dropped_gives_up_its_pages() {
    let mut w = World::new();
    w.map(0, 8, RW);
    let account = Arc::new(LockedAccount::new(100));
    let (ioas, other) = (with_account(&account), with_account(&account));
    let mut cx = w.thread.cx();
    let domain = ioas.attach(&mut cx, DomainConfig::default()).unwrap();
    ioas.map(&mut cx, &w.mm, pages(0, 8, Access::Write))
        .unwrap();
    let copied = other.copy(&mut cx, &ioas, (IOVA, 8 * PAGE), Some(IOVA), Access::Write);
    assert_eq!(copied, Ok(IOVA));
    let its = other.attach(&mut cx, DomainConfig::default()).unwrap();
    let last = Ioas::new(IoasConfig {
        account: Some(Arc::clone(&account)),
        ..IoasConfig::default()
    });
    last.attach(&mut cx, DomainConfig::default()).unwrap();
    last.map(&mut cx, &w.mm, pages(0, 2, Access::Read)).unwrap();
    assert_eq!(account.pages(), 10);
    drop(last);
    assert_eq!(account.pages(), 8);
    drop(ioas);
    assert_eq!(domain.read(IOVA, &mut [0]), Err(DmaFault::NotMapped(IOVA)));
    assert_eq!(its.read(IOVA, &mut [0]), Ok(()));
    other.unmap_all().unwrap();
    assert_eq!(account.pages(), 0);
}

/// Two areas that join after 100 bytes of a page, of pages 0 and 4 of the process.
fn joined() -> (World, Arc<Ioas>) {
    let mut w = World::new();
    w.map(0, 8, RW);
    let ioas = Ioas::new(IoasConfig::default());
    for (iova, page, len) in [(IOVA, 0, 100), (IOVA + 100, 4, 2 * PAGE - 100)] {
        let map = IoasMap {
            iova: Some(iova),
            addr: at(page),
            len,
            access: Access::Write,
        };
        ioas.map(&mut w.thread.cx(), &w.mm, map).unwrap();
    }
    (w, ioas)
}

#[test]
fn a_transfer_across_areas_stays_within_the_bytes_of_each() {
    let (mut w, ioas) = joined();
    let mut cx = w.thread.cx();
    let access = ioas.access(|_, _| ());
    let bytes: Vec<u8> = (0..200).collect();
    access.write(&mut cx, IOVA, &bytes).unwrap();
    let mut seen = [0; 200];
    access.read(&mut cx, IOVA, &mut seen).unwrap();
    assert_eq!(seen[..], bytes[..]);
    for (page, part) in [(0, &bytes[..100]), (4, &bytes[100..])] {
        let mut seen = [0; 101];
        w.mm.read_bytes(&mut cx, at(page), &mut seen).unwrap();
        assert_eq!(seen[..100], *part);
        assert_eq!(
            seen[100], 0,
            "the byte behind is of no area, or not written"
        );
    }
}

/// Each page of I/O addresses has one translation in a domain.
#[test]
fn areas_that_join_inside_of_a_page_are_not_copied_to_a_domain() {
    let (mut w, ioas) = joined();
    let mut cx = w.thread.cx();
    let other = Ioas::new(IoasConfig::default());
    other.attach(&mut cx, DomainConfig::default()).unwrap();
    let all = (IOVA, 2 * PAGE);
    let copied = other.copy(&mut cx, &ioas, all, Some(IOVA), Access::Write);
    let (iova, len) = all;
    assert_eq!(copied, Err(IoasError::Unaligned { iova, len }));
    assert_eq!(other.pinned(), 0);
}
