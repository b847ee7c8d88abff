//! The cases of the fixture `iommufd_mock_domain`: one device or two, small pages and huge ones.

use super::*;
use crate::common::objects::disk;

/// Runs a case with each number of devices, and each kind of memory: its pages, and true if they
/// are huge.
fn variants(case: impl Fn(&mut Fixture, u64, bool)) {
    for domains in [1, 2] {
        for (pages, huge) in [(8, false), (2 * HUGE, true)] {
            let mut f = Fixture::new(domains);
            case(&mut f, pages, huge);
            f.end();
        }
    }
}

/// Where the memory of the variants lies.
const FROM: u64 = HUGE;

#[test]
fn basic() {
    variants(|f, pages, huge| {
        let iova = f.map(None, at(0), PAGE).unwrap();
        f.check_map(0, iova, PAGE);
        f.buffer(FROM, pages, huge);
        let half = pages / 2;
        for first in [half, 0] {
            let mm = Arc::clone(&f.w.mm);
            mm.munmap(&mut f.w.thread.cx(), at(FROM + first), half * PAGE)
                .unwrap();
            let all = f.map(None, at(FROM), pages * PAGE);
            assert_eq!(all, Err(Errno::EFAULT));
            assert_eq!(f.ioas.pinned(), 1, "what was pinned was given up");
        }
    });
}

/// A store of the process after its page was pinned for reading does not change the page.
#[test]
fn ro_unshare() {
    for domains in [1, 2] {
        let mut f = Fixture::new(domains);
        let (object, file) = disk(&mut f.w, 1);
        f.w.map_file(FROM, 1, &file, 0, MapFlags::PRIVATE);
        let map = IoasMap {
            iova: Some(START),
            addr: at(FROM),
            len: PAGE,
            access: Access::Read,
        };
        let mm = Arc::clone(&f.w.mm);
        f.ioas.map(&mut f.w.thread.cx(), &mm, map).unwrap();
        for byte in [1, 7] {
            if byte == 7 {
                f.w.put(FROM, byte);
            }
            for domain in &f.domains {
                let mut seen = [0];
                domain.read(START, &mut seen).unwrap();
                assert_eq!(seen, [byte]);
            }
        }
        mm.munmap(&mut f.w.thread.cx(), at(FROM), PAGE).unwrap();
        drop((file, object));
        f.end();
    }
}

/// Runs `check` for each part of the memory: `first` and the number of pages. Of huge pages the
/// parts are few, and end with them.
fn each_part(f: &mut Fixture, (pages, huge): (u64, bool), check: impl Fn(&mut Fixture, u64, u64)) {
    f.buffer(FROM, pages, huge);
    let step = if huge { pages / 16 } else { 1 };
    for first in (0..pages).step_by(step as usize) {
        let least = if huge { pages } else { first + 1 };
        for end in least..=pages {
            check(f, FROM + first, end - first);
            assert_eq!(f.ioas.pinned(), 0);
        }
    }
}

#[test]
fn all_aligns() {
    variants(|f, pages, huge| {
        each_part(f, (pages, huge), |f, first, n| {
            let iova = f.map(None, at(first), n * PAGE).unwrap();
            f.check_map(first, iova, n * PAGE);
            assert_eq!(f.ioas.pinned(), n, "once for all devices");
            assert_eq!(f.unmap(iova, n * PAGE), Ok(n * PAGE));
        });
    });
}

/// A device comes and goes while the area exists.
#[test]
fn all_aligns_copy() {
    variants(|f, pages, huge| {
        each_part(f, (pages, huge), |f, first, n| {
            let iova = f.map(None, at(first), n * PAGE).unwrap();
            let device = f.attach().unwrap();
            f.domains.push(Arc::clone(&device));
            f.check_map(first, iova, n * PAGE);
            assert_eq!(f.ioas.pinned(), n);
            f.domains.pop();
            f.ioas.detach(&device);
            assert_eq!(device.entries(), 0);
            assert_eq!(f.unmap(iova, n * PAGE), Ok(n * PAGE));
        });
    });
}

/// Pages that an access pinned in an I/O address space without a device are copied to one with
/// devices. An access does not go to another I/O address space here: a new one takes its place.
#[test]
fn user_copy() {
    for domains in [1, 2] {
        let mut f = Fixture::new(domains);
        for _ in 0..2 {
            let source = Ioas::new(IoasConfig::default());
            let map = IoasMap {
                iova: None,
                addr: at(0),
                len: BYTES,
                access: Access::Write,
            };
            let mm = Arc::clone(&f.w.mm);
            let from = source.map(&mut f.w.thread.cx(), &mm, map).unwrap();
            let access = source.access(|_, _| ());
            let cx = &mut f.w.thread.cx();
            let held = access.pin_pages(cx, (from, BYTES), Access::Write).unwrap();
            assert_eq!(f.copy(&source, (from, BYTES), START), Ok(START));
            f.check_map(0, START, BYTES);
            drop((held, access));
            assert_eq!(source.unmap(from, BYTES), Ok(BYTES));
            f.check_map(0, START, BYTES);
            assert_eq!(f.unmap(START, BYTES), Ok(BYTES));
        }
        f.end();
    }
}

/// Rights are those of an area, and not of the memory that it maps; pins are of pages whose
/// neighbours are those of the I/O addresses (`check_area_prot`, `iopt_area_contig_is_aligned`).
#[test]
fn accesses_have_the_rights_and_the_pages_of_areas() {
    let mut f = Fixture::new(NO_DOMAIN);
    let ioas = Arc::clone(&f.ioas);
    assert!(f.map_fixed(START, BYTES).is_ok());
    let readable = 2 * START;
    let cx = &mut f.w.thread.cx();
    let copied = ioas.copy(cx, &ioas, (START, BYTES), Some(readable), Access::Read);
    assert_eq!(copied, Ok(readable));
    let access = ioas.access(|_, _| ());
    assert_eq!(access.write(cx, START, &[5]), Ok(()));
    let written = access.write(cx, readable, &[6]).unwrap_err();
    assert_eq!(written.errno(), Errno::EPERM);
    let pinned = access.pin_pages(cx, (readable, PAGE), Access::Write);
    assert_eq!(pinned.unwrap_err().errno(), Errno::EPERM);
    assert!(access.pin_pages(cx, (readable, PAGE), Access::Read).is_ok());

    // An area that ends inside of a page has another behind it.
    assert!(f.map(Some(4 * START), at(0), 100).is_ok());
    assert!(f.map(Some(4 * START + 100), at(4), PAGE).is_ok());
    let cx = &mut f.w.thread.cx();
    for (iova, len) in [(4 * START, 200), (START + 8, PAGE)] {
        let odd = access.pin_pages(cx, (iova, len), Access::Read);
        assert_eq!(odd.unwrap_err().errno(), Errno::EINVAL);
    }
    for (iova, len) in [(4 * START, 100), (START, PAGE + 8)] {
        assert!(access.pin_pages(cx, (iova, len), Access::Read).is_ok());
    }
    f.end();
}
