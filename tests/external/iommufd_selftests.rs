//! The cases of `tools/testing/selftests/iommu` that concern memory, each with the kernel's name
//! and its outcome, on the model of devices that pin (docs/selftests.md). `pinned` has what these
//! do not try, and the mistakes.

mod dirty_tracking;
mod fail_nth;
mod mock_domain;

use crate::common::{PAGE, World, at};
use emmu::{
    Errno, MemConfig, Mm,
    extmmu::pinned::{Domain, DomainConfig, Ioas, IoasAccess, IoasConfig, IoasMap},
    mm::{MapFlags, MmapArgs},
    notifier::Access,
};
use std::sync::{Arc, Mutex};

/// The I/O addresses of the mock device: the first and the last byte.
const APERTURE: (u64, u64) = (1 << 24, (1 << 31) - 1);
const START: u64 = APERTURE.0;
/// Pages of the buffer, which is shared memory at page 0.
const BUFFER: u64 = 16;
const BYTES: u64 = BUFFER * PAGE;
/// Pages of a huge page.
const HUGE: u64 = 512;
/// Numbers of devices in the variants of a case.
const NO_DOMAIN: usize = 0;
const DOMAINS: [usize; 3] = [NO_DOMAIN, 1, 2];

/// A process with the buffer, an I/O address space, and devices.
struct Fixture {
    w: World,
    ioas: Arc<Ioas>,
    domains: Vec<Arc<Domain>>,
    /// The first I/O address of a case.
    base: u64,
    /// The frames of the pool of huge pages.
    pool: u32,
}

impl Fixture {
    fn new(domains: usize) -> Self {
        let memory = MemConfig {
            frames: 8192,
            ..MemConfig::default()
        };
        let mut w = World::with_pool(memory, 4);
        let pool = w.machine.mem().in_use();
        w.share(0, BUFFER);
        let mut f = Self {
            w,
            ioas: Ioas::new(IoasConfig::default()),
            domains: Vec::new(),
            base: if domains == NO_DOMAIN { 0 } else { START },
            pool,
        };
        for _ in 0..domains {
            let domain = f.attach().unwrap();
            f.domains.push(domain);
        }
        f
    }
    fn attach(&mut self) -> Result<Arc<Domain>, Errno> {
        let config = DomainConfig {
            aperture: APERTURE,
            ..DomainConfig::default()
        };
        let attached = self.ioas.attach(&mut self.w.thread.cx(), config);
        attached.map_err(|why| why.errno())
    }
    /// Maps memory of a process for writing.
    fn map_of(&mut self, mm: &Arc<Mm>, iova: Option<u64>, addr: u64, len: u64) -> Sys {
        let map = IoasMap {
            iova,
            addr,
            len,
            access: Access::Write,
        };
        let mapped = self.ioas.map(&mut self.w.thread.cx(), mm, map);
        mapped.map_err(|why| why.errno())
    }
    fn map(&mut self, iova: Option<u64>, addr: u64, len: u64) -> Sys {
        let mm = Arc::clone(&self.w.mm);
        self.map_of(&mm, iova, addr, len)
    }
    /// Maps the first bytes of the buffer at an I/O address.
    fn map_fixed(&mut self, iova: u64, len: u64) -> Sys {
        self.map(Some(iova), at(0), len)
    }
    fn unmap(&self, iova: u64, len: u64) -> Sys {
        self.ioas.unmap(iova, len).map_err(|why| why.errno())
    }
    fn copy(&mut self, from: &Arc<Ioas>, src: (u64, u64), to: u64) -> Sys {
        let cx = &mut self.w.thread.cx();
        let copied = self.ioas.copy(cx, from, src, Some(to), Access::Write);
        copied.map_err(|why| why.errno())
    }
    /// New memory of huge pages of the pool, or of small ones, from page `from` on.
    fn buffer(&mut self, from: u64, pages: u64, huge: bool) {
        let mut flags = MapFlags::POPULATE;
        flags.set(MapFlags::HUGETLB, huge);
        let args = MmapArgs::anonymous(pages * PAGE).fixed(at(from)).shared();
        let args = MmapArgs {
            flags: args.flags | flags,
            ..args
        };
        self.w.mm.mmap(&mut self.w.thread.cx(), &args).unwrap();
    }
    /// Checks that devices reach the process's pages: each sees a store of the process, and the
    /// process sees one of each.
    fn check_map(&mut self, page: u64, iova: u64, len: u64) {
        let mut cx = self.w.thread.cx();
        for (nth, domain) in self.domains.iter().enumerate() {
            for n in 0..len / PAGE {
                let (here, there) = (at(page + n) + 9, iova + n * PAGE + 9);
                let byte = (n + 3 * nth as u64 + 1) as u8;
                self.w.mm.store(&mut cx, here, byte).unwrap();
                let mut seen = [0];
                domain.read(there, &mut seen).unwrap();
                assert_eq!(seen, [byte]);
                domain.write(there + 1, &[!byte]).unwrap();
                assert_eq!(self.w.mm.load(&mut cx, here + 1), Ok(!byte));
            }
        }
    }
    /// Ends a case: nothing is pinned, and no frame is left.
    fn end(mut self) {
        assert!(self.unmap(0, u64::MAX).is_ok());
        for domain in &self.domains {
            assert_eq!(domain.entries(), 0);
        }
        assert_eq!(self.ioas.pinned(), 0);
        self.w.mm.exit(&mut self.w.thread.cx());
        assert_eq!(self.w.machine.mem().in_use(), self.pool);
    }
}

type Sys = Result<u64, Errno>;

/// Runs a case with each number of devices.
fn with_domains(case: impl Fn(&mut Fixture)) {
    for domains in DOMAINS {
        let mut f = Fixture::new(domains);
        case(&mut f);
        f.end();
    }
}

/// The first address is a multiple of the largest power of two that divides the length.
fn assert_aligned(iova: u64, len: u64) {
    assert!(iova.is_multiple_of(1 << len.trailing_zeros()));
}

#[test]
fn area() {
    with_domains(|f| {
        for n in 0..10 {
            assert_eq!(f.unmap(n * PAGE, PAGE), Err(Errno::ENOENT));
        }
        let page = |f: &Fixture, n: u64| f.base + n * PAGE;
        for n in 0..10 {
            assert!(f.map_fixed(page(f, n), PAGE).is_ok());
        }
        for n in 0..10 {
            assert_eq!(f.unmap(page(f, n), PAGE), Ok(PAGE));
        }
        // No area is split.
        assert!(f.map_fixed(page(f, 16), 2 * PAGE).is_ok());
        for n in [16, 17] {
            assert_eq!(f.unmap(page(f, n), PAGE), Err(Errno::ENOENT));
        }
        for (n, pages) in [(16, 2), (16, 1), (17, 1), (15, 2), (15, 3)] {
            let over = f.map_fixed(page(f, n), pages * PAGE);
            assert_eq!(over, Err(Errno::EEXIST), "{n} {pages}");
        }
        assert_eq!(f.unmap(0, u64::MAX), Ok(2 * PAGE));
        assert_eq!(f.unmap(0, u64::MAX), Ok(0), "also of nothing");
    });
}

#[test]
fn unmap_fully_contained_areas() {
    with_domains(|f| {
        let base = f.base + 4 * PAGE;
        for n in 0..4 {
            assert!(f.map_fixed(base + n * 16 * PAGE, 8 * PAGE).is_ok());
        }
        let before = f.unmap(base - 4 * PAGE, 8 * PAGE);
        assert_eq!(before, Err(Errno::ENOENT));
        let behind = f.unmap(base + (3 * 16 + 8 - 4) * PAGE, 8 * PAGE);
        assert_eq!(behind, Err(Errno::ENOENT));
        let all = f.unmap(base - 4 * PAGE, (3 * 16 + 8 + 4) * PAGE);
        assert_eq!(all, Ok(32 * PAGE));
    });
}

#[test]
fn area_auto_iova() {
    with_domains(|f| {
        let chosen = |f: &mut Fixture, addr: u64, pages: &dyn Fn(u64) -> u64| -> Vec<(u64, u64)> {
            let mut of = |n| {
                let len = pages(n) * PAGE;
                (f.map(None, addr, len).unwrap(), len)
            };
            (0..10).map(&mut of).collect()
        };
        let give_back = |f: &Fixture, areas: Vec<(u64, u64)>| {
            for (iova, len) in areas {
                assert_aligned(iova, len);
                assert_eq!(f.unmap(iova, len), Ok(len));
            }
        };
        let small = chosen(f, at(0), &|_| 1);
        give_back(f, small);
        // Without a device the memory need not exist.
        let addr = if f.domains.is_empty() { 1 << 31 } else { at(0) };
        let growing = chosen(f, addr, &|n| n + 1);
        give_back(f, growing);

        let reserved = (4 * PAGE, 104 * PAGE - 1);
        f.ioas.reserve(reserved.0, reserved.1).unwrap();
        let around = chosen(f, at(0), &|n| n + 1);
        for &(iova, len) in &around {
            assert!(iova + len <= reserved.0 || iova > reserved.1);
        }
        give_back(f, around);

        let allow = |f: &Fixture, range| f.ioas.allow(&[range]).map_err(|why| why.errno());
        assert_eq!(allow(f, (PAGE, 600 * PAGE)), Err(Errno::EADDRINUSE));
        let range = match f.base {
            0 => (200 * PAGE, 600 * PAGE - 1),
            start => (start + PAGE, start + 600 * PAGE - 1),
        };
        assert_eq!(allow(f, range), Ok(()));
        let inside = chosen(f, at(0), &|n| n + 1);
        for &(iova, len) in &inside {
            assert!(iova >= range.0 && iova + (len - 1) <= range.1);
        }
        give_back(f, inside);
    });
}

#[test]
fn area_allowed() {
    with_domains(|f| {
        let range = (f.base, f.base + 600 * PAGE);
        let page = (f.base + PAGE, f.base + 2 * PAGE - 1);
        f.ioas.allow(&[range]).unwrap();
        let refused = f.ioas.reserve(page.0, page.1).unwrap_err();
        assert_eq!(refused.errno(), Errno::EADDRINUSE);
        f.ioas.allow(&[]).unwrap();
        f.ioas.reserve(page.0, page.1).unwrap();
        let refused = f.ioas.allow(&[range]).unwrap_err();
        assert_eq!(refused.errno(), Errno::EADDRINUSE);
    });
}

#[test]
fn copy_area() {
    with_domains(|f| {
        assert!(f.map_fixed(f.base, PAGE).is_ok());
        let ioas = Arc::clone(&f.ioas);
        let there = f.base + PAGE;
        assert_eq!(f.copy(&ioas, (f.base, PAGE), there), Ok(there));
        f.check_map(0, there, PAGE);
        assert_eq!(f.ioas.pinned(), u64::from(!f.domains.is_empty()));
        let other = Ioas::new(IoasConfig::default());
        let cx = &mut f.w.thread.cx();
        let copied = other.copy(cx, &ioas, (f.base, PAGE), Some(0), Access::Write);
        assert_eq!(copied, Ok(0));
    });
}

/// Any byte may begin a copy for no device.
#[test]
fn copy_sweep() {
    with_domains(|f| {
        let len = BYTES - u64::from(f.domains.is_empty());
        assert!(f.map_fixed(START, len).is_ok());
        let last = START + len - 1;
        let to = Ioas::new(IoasConfig::default());
        for src in (START - PAGE..=last).step_by(511) {
            let half = PAGE / 2;
            let cx = &mut f.w.thread.cx();
            let copied = to.copy(cx, &f.ioas, (src, half), Some(START), Access::Write);
            if src < START || src + half - 1 > last {
                assert_eq!(copied.unwrap_err().errno(), Errno::ENOENT);
            } else {
                assert_eq!(copied, Ok(START));
                assert_eq!(to.unmap(START, half), Ok(half));
            }
        }
    });
}

/// The device goes while a page of a huge one is pinned for another user.
#[test]
fn access_domain_destroy() {
    with_domains(|f| {
        f.buffer(HUGE, 2 * HUGE, true);
        assert!(f.map(Some(f.base), at(HUGE), 2 * HUGE * PAGE).is_ok());
        let access = f.ioas.access(|_, _| ());
        let range = (f.base + PAGE, PAGE);
        let cx = &mut f.w.thread.cx();
        let held = access.pin_pages(cx, range, Access::Write).unwrap();
        for domain in f.domains.drain(..) {
            f.ioas.detach(&domain);
        }
        assert_eq!(f.ioas.pinned(), 1);
        held.pages().next().unwrap().write_at(0, &[7]);
        assert_eq!(f.w.get(HUGE + 1), Ok(7));
        drop(held);
        assert_eq!(f.ioas.pinned(), 0);
        f.w.mm
            .munmap(&mut f.w.thread.cx(), at(HUGE), 2 * HUGE * PAGE)
            .unwrap();
    });
}

#[test]
fn access_pin() {
    with_domains(|f| {
        let access = f.ioas.access(|_, _| ());
        for pages in 1..BUFFER {
            let range = (START, pages * PAGE);
            let pin = |f: &mut Fixture| {
                let cx = &mut f.w.thread.cx();
                access.pin_pages(cx, range, Access::Write).unwrap()
            };
            let pinned = |f: &Fixture| match f.domains.is_empty() {
                true => f.ioas.pinned(),
                false => pages,
            };
            assert!(f.map_fixed(START, BYTES).is_ok());
            drop(pin(f));
            // Two users.
            let (one, two) = (pin(f), pin(f));
            drop(two);
            assert_eq!(pinned(f), pages);
            drop(one);
            // A device comes and goes beside a user.
            let held = pin(f);
            let device = f.attach().unwrap();
            f.domains.push(Arc::clone(&device));
            f.check_map(0, START, BYTES);
            f.domains.pop();
            f.ioas.detach(&device);
            assert_eq!(pinned(f), pages);
            drop(held);
            assert_eq!(f.unmap(START, BYTES), Ok(BYTES));
        }
    });
}

#[test]
fn access_pin_unmap() {
    with_domains(|f| {
        let held = Arc::new(Mutex::new(None));
        let taken = Arc::clone(&held);
        let access = f.ioas.access(move |iova, len| {
            assert_eq!((iova, len), (START, BYTES));
            drop(taken.lock().unwrap().take());
        });
        assert!(f.map_fixed(START, BYTES).is_ok());
        let cx = &mut f.w.thread.cx();
        let pages = access.pin_pages(cx, (START, BYTES), Access::Write);
        *held.lock().unwrap() = Some(pages.unwrap());
        assert_eq!(f.unmap(START, BYTES), Ok(BYTES));
        assert!(held.lock().unwrap().is_none(), "it was asked for");
    });
}

/// Transfers from around the end of the first page on, of some lengths, and one of everything.
fn check_access_rw(f: &mut Fixture, access: &IoasAccess, iova: u64) {
    let mut cx = f.w.thread.cx();
    let mut state = 1_u32;
    let mut random = |len: usize| -> Vec<u8> {
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..len).map(|_| next()).collect()
    };
    let mut all = random(usize::try_from(BYTES).unwrap());
    f.w.mm.write_bytes(&mut cx, at(0), &all).unwrap();
    for offset in PAGE - 50..PAGE + 50 {
        for len in [1, 2, 31, 49, 50, 63] {
            let part = usize::try_from(offset).unwrap()..;
            let part = &mut all[part][..len];
            let mut seen = vec![0; len];
            access.read(&mut cx, iova + offset, &mut seen).unwrap();
            assert_eq!(seen, *part);
            part.copy_from_slice(&random(len));
            access.write(&mut cx, iova + offset, part).unwrap();
            let of_process = &mut seen;
            f.w.mm
                .read_bytes(&mut cx, at(0) + offset, of_process)
                .unwrap();
            assert_eq!(seen, *part);
        }
    }
    let mut seen = vec![0; all.len()];
    access.read(&mut cx, iova, &mut seen).unwrap();
    assert!(seen == all);
    let beyond = access.read(&mut cx, iova + BYTES - 1, &mut [0; 2]);
    assert_eq!(beyond.unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn access_rw() {
    with_domains(|f| {
        let access = f.ioas.access(|_, _| ());
        let iova = f.map(None, at(0), BYTES).unwrap();
        check_access_rw(f, &access, iova);
        assert_eq!(f.unmap(iova, BYTES), Ok(BYTES));
    });
}

/// The mock device has pages of 2048 bytes. Those of this library have 4096, so only a map for none
/// begins inside of a page of I/O addresses.
#[test]
fn access_rw_unaligned() {
    let mut f = Fixture::new(NO_DOMAIN);
    let access = f.ioas.access(|_, _| ());
    let iova = PAGE / 2;
    assert_eq!(f.map_fixed(iova, BYTES), Ok(iova));
    check_access_rw(&mut f, &access, iova);
    assert_eq!(f.unmap(iova, BYTES), Ok(BYTES));
    f.end();
}

/// What a child mapped stays pinned after its end, and cannot be pinned after that.
#[test]
fn fork_gone() {
    with_domains(|f| {
        let access = f.ioas.access(|_, _| ());
        let child = f.w.fork();
        assert_eq!(f.map_of(&child, Some(START), at(0), BYTES), Ok(START));
        child.exit(&mut f.w.thread.cx());
        drop(child);
        match f.attach() {
            Ok(device) => {
                assert!(!f.domains.is_empty(), "the pages came from another domain");
                check_access_rw(f, &access, START);
                f.domains.push(device);
                f.check_map(0, START, BYTES);
            }
            Err(why) => {
                assert!(f.domains.is_empty());
                assert_eq!(why, Errno::EFAULT);
            }
        }
    });
}

#[test]
fn fork_present() {
    with_domains(|f| {
        let access = f.ioas.access(|_, _| ());
        let child = f.w.fork();
        assert_eq!(f.map_of(&child, Some(START), at(0), BYTES), Ok(START));
        let device = f.attach().unwrap();
        f.domains.push(device);
        check_access_rw(f, &access, START);
        f.check_map(0, START, BYTES);
        child.exit(&mut f.w.thread.cx());
    });
}

#[test]
fn ioas_iova_alloc() {
    with_domains(|f| {
        let device = !f.domains.is_empty();
        for len in (1..2 * PAGE).step_by(31).chain([PAGE, 2 * PAGE]) {
            let mapped = f.map(None, at(0), len);
            if device && !len.is_multiple_of(PAGE) {
                assert_eq!(mapped, Err(Errno::EINVAL));
            } else {
                assert_eq!(f.unmap(mapped.unwrap(), len), Ok(len));
            }
        }
    });
}
