//! `guard-regions`, each case on private memory, shared memory and a file on a disk.

use crate::common::{
    PAGE, RW, World, at,
    calls::{FIXED, MAYMOVE, NONE, READ, STAY},
    objects::swapping,
};
use emmu::{
    Errno::{EFAULT, EINVAL, ENOMEM},
    FaultError,
    file::{DiskFile, File, FileMode, MemStore, Shmem},
    mm::{
        Advice, MapFlags, MmapArgs, PageCategories, PageState, Prot, RegisterMode, ScanArgs,
        ScanFlags, UffdFeatures,
    },
};
use std::{ops::Range, sync::Arc};

const INSTALL: Advice = Advice::GuardInstall;
const REMOVE: Advice = Advice::GuardRemove;
const N: u64 = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Backing {
    Anon,
    Shmem,
    File,
}

const ALL: [Backing; 3] = [Backing::Anon, Backing::Shmem, Backing::File];
const OF_FILES: [Backing; 2] = [Backing::Shmem, Backing::File];

struct Guards {
    w: World,
    backing: Backing,
    file: Option<Arc<File>>,
}

impl Guards {
    fn empty(backing: Backing) -> Self {
        let w = swapping(4096, 256);
        let host = w.machine.host();
        let open = |object| File::open(object, FileMode::ReadWrite);
        let file = match backing {
            Backing::Anon => None,
            Backing::Shmem => Some(open(Shmem::sealable(host, "g", 100 * PAGE).unwrap())),
            Backing::File => {
                let store = Box::<MemStore>::default();
                let object = DiskFile::new(host, "/g", 100 * PAGE, store).unwrap();
                Some(File::open(object, FileMode::ReadWrite))
            }
        };
        Self { w, backing, file }
    }
    /// Ten pages at page 0.
    fn new(backing: Backing) -> Self {
        let mut guards = Self::empty(backing);
        guards.map(0, N, RW);
        guards
    }
    fn map(&mut self, from: u64, n: u64, prot: Prot) {
        let args = MmapArgs::anonymous(n * PAGE).fixed(at(from)).prot(prot);
        let args = match &self.file {
            None => args,
            Some(file) => args.shared().file(file, 0),
        };
        self.w.mm.mmap(&mut self.w.thread.cx(), &args).unwrap();
    }
    fn advise(&mut self, pages: Range<u64>, advice: Advice) {
        let n = pages.end - pages.start;
        self.w.advise(pages.start, n, advice).unwrap();
    }
    /// Guards every even page.
    fn guard_even(&mut self, from: u64) {
        (0..N)
            .step_by(2)
            .for_each(|page| self.advise(from + page..from + page + 1, INSTALL));
    }
    fn reads(&mut self, page: u64) -> bool {
        match self.w.get(page) {
            Err(FaultError::Guarded(addr)) => {
                assert_eq!(addr, at(page));
                false
            }
            other => other.is_ok(),
        }
    }
    fn writes(&mut self, page: u64) -> bool {
        let stored = self.w.mm.store(&mut self.w.thread.cx(), at(page), b'x');
        assert!(matches!(
            stored,
            Ok(()) | Err(FaultError::Guarded(_) | FaultError::Denied(_))
        ));
        stored.is_ok()
    }
    /// Fails unless exactly the pages of which `open` is true can be read and written.
    fn open_where(&mut self, pages: Range<u64>, open: impl Fn(u64) -> bool) {
        for page in pages {
            let done = self.reads(page) && self.writes(page);
            assert_eq!(done, open(page), "{:?}, page {page}", self.backing);
        }
    }
    fn readable_where(&mut self, pages: Range<u64>, open: impl Fn(u64) -> bool) {
        for page in pages {
            assert_eq!(
                self.reads(page),
                open(page),
                "{:?}, page {page}",
                self.backing
            );
        }
    }
    fn set_pattern(&mut self) {
        (0..N).for_each(|page| self.w.put(page, b'a' + page as u8));
    }
    fn check_pattern(&mut self, from: u64, pages: Range<u64>) {
        for page in pages {
            let got = self.w.get(from + page);
            assert_eq!(
                got,
                Ok(b'a' + page as u8),
                "{:?}, page {page}",
                self.backing
            );
        }
    }
    fn end(self) {
        drop(self.file);
        self.w.end();
    }
}

fn each(backings: &[Backing], test: impl Fn(&mut Guards)) {
    for backing in backings {
        let mut guards = Guards::new(*backing);
        test(&mut guards);
        guards.end();
    }
}

#[test]
fn basic() {
    each(&ALL, |g| {
        g.open_where(0..1, |_| true);
        g.advise(0..1, INSTALL);
        g.open_where(0..N, |p| p != 0);
        g.advise(9..10, INSTALL);
        g.open_where(0..N, |p| p != 0 && p != 9);
        g.advise(0..1, REMOVE);
        g.advise(9..10, REMOVE);
        g.open_where(0..N, |_| true);
        g.advise(0..3, INSTALL);
        g.open_where(0..N, |p| p >= 3);
        g.advise(0..N, REMOVE);
        g.open_where(0..N, |_| true);
        g.advise(0..N, REMOVE);
        (0..N).for_each(|p| assert_eq!(g.w.get(p), Ok(b'x'), "no page is lost"));
    });
}

#[test]
fn multi_vma() {
    for backing in ALL {
        let mut g = Guards::empty(backing);
        for (from, n) in [(0, 10), (50, 5), (80, 20)] {
            g.map(from, n, RW);
        }
        let mapped = |p: u64| p < 10 || (50..55).contains(&p) || p >= 80;
        assert_eq!(g.w.advise(0, 100, INSTALL), Err(ENOMEM));
        g.open_where(0..100, |_| false);
        assert_eq!(g.w.advise(0, 100, REMOVE), Err(ENOMEM));
        g.open_where(0..100, mapped);
        g.map(10, 40, RW | Prot::EXEC);
        g.map(55, 25, RW | Prot::EXEC);
        g.advise(0..100, INSTALL);
        g.open_where(0..100, |_| false);
        g.advise(0..100, REMOVE);
        g.open_where(0..100, |_| true);
        g.end();
    }
}

#[test]
fn process_madvise() {
    for backing in ALL {
        let mut g = Guards::empty(backing);
        let spans = [(1, 10), (50, 5), (79, 20)];
        spans.iter().for_each(|(from, n)| g.map(*from, *n, RW));
        g.open_where(1..11, |_| true);
        let ends = spans.iter().flat_map(|(from, n)| [*from, from + n - 1]);
        let ends: Vec<u64> = ends.collect();
        let ranges: Vec<_> = ends.iter().map(|page| (at(*page), PAGE)).collect();
        for (advice, open) in [(INSTALL, false), (REMOVE, true)] {
            let mm = g.w.mm.clone();
            let done = mm.process_madvise(&mut g.w.thread.cx(), &mm, &ranges, advice);
            assert_eq!(done, Ok(6 * PAGE));
            for page in &ends {
                g.open_where(*page..page + 1, |_| open);
            }
        }
        g.end();
    }
}

#[test]
fn munmap() {
    each(&ALL, |g| {
        for page in [0, 9] {
            g.advise(page..page + 1, INSTALL);
            g.open_where(page..page + 1, |_| false);
            g.w.munmap(page, 1).unwrap();
            g.map(page, 1, RW);
            g.open_where(page..page + 1, |_| true);
        }
    });
}

#[test]
fn mprotect() {
    each(&ALL, |g| {
        g.advise(5..7, INSTALL);
        g.open_where(5..7, |_| false);
        g.w.protect(5, 2, READ).unwrap();
        g.readable_where(5..7, |_| false);
        g.advise(5..7, INSTALL);
        g.readable_where(5..7, |_| false);
        g.advise(0..N, REMOVE);
        g.readable_where(0..N, |_| true);
    });
}

#[test]
fn split_merge() {
    each(&ALL, |g| {
        let holes = [2, 5, 8];
        g.advise(0..N, INSTALL);
        holes.iter().for_each(|page| g.w.munmap(*page, 1).unwrap());
        g.open_where(0..N, |_| false);
        holes.iter().for_each(|page| g.map(*page, 1, RW));
        g.open_where(0..N, |p| holes.contains(&p));
        g.advise(0..N, INSTALL);
        let outer = |g: &mut Guards, prot| {
            g.w.protect(0, 3, prot).unwrap();
            g.w.protect(7, 3, prot).unwrap();
        };
        outer(g, READ);
        g.readable_where(0..N, |_| false);
        outer(g, RW);
        g.open_where(0..N, |_| false);
        outer(g, READ);
        g.advise(0..N, REMOVE);
        g.readable_where(0..N, |_| true);
        outer(g, RW);
        g.open_where(0..N, |_| true);
    });
}

#[test]
fn dontneed() {
    each(&ALL, |g| {
        (0..N).for_each(|page| g.w.put(page, b'y'));
        g.guard_even(0);
        g.advise(0..N, Advice::DontNeed);
        for page in (1..N).step_by(2) {
            let left = if g.backing == Backing::Anon { 0 } else { b'y' };
            assert_eq!(g.w.get(page), Ok(left));
        }
        g.open_where(0..N, |p| p % 2 == 1);
    });
}

#[test]
fn mlock() {
    each(&ALL, |g| {
        (0..N).for_each(|page| g.w.put(page, b'y'));
        g.w.lock(0, N).unwrap();
        assert_eq!(g.w.advise(0, N, INSTALL), Err(EINVAL));
        g.w.unlock(0, N).unwrap();
        g.advise(0..5, INSTALL);
        g.open_where(0..N, |p| p >= 5);
        g.w.lock(5, 5).unwrap();
        g.advise(0..N, REMOVE);
        g.open_where(0..N, |_| true);
    });
}

fn ends(g: &mut Guards, n: u64) {
    for page in [0, n - 1] {
        g.advise(page..page + 1, INSTALL);
    }
    g.open_where(0..n, |p| p != 0 && p != n - 1);
}

#[test]
fn mremap_move() {
    each(&ALL, |g| {
        g.w.munmap(5, 5).unwrap();
        ends(g, 5);
        g.map(20, 5, NONE);
        assert_eq!(g.w.remap(0, 5, 5, FIXED, 20), 20);
        g.open_where(20..25, |p| p != 20 && p != 24);
    });
}

#[test]
fn mremap_expand() {
    each(&ALL, |g| {
        g.w.munmap(5, 5).unwrap();
        ends(g, 5);
        assert_eq!(g.w.remap(0, 5, 10, STAY, 0), 0);
        g.open_where(0..N, |p| p != 0 && p != 4);
        g.map(20, 20, NONE);
        assert_eq!(g.w.remap(0, 10, 20, FIXED, 20), 20);
        g.open_where(20..40, |p| p != 20 && p != 24);
    });
}

#[test]
fn mremap_shrink() {
    each(&ALL, |g| {
        g.w.munmap(5, 5).unwrap();
        ends(g, 5);
        assert_eq!(g.w.remap(0, 5, 3, MAYMOVE, 0), 0);
        g.open_where(0..3, |p| p != 0);
        assert_eq!(g.w.remap(0, 3, 5, STAY, 0), 0);
        g.open_where(0..5, |p| p != 0);
    });
}

fn in_child(g: &mut Guards, test: impl FnOnce(&mut Guards)) {
    let child = g.w.fork();
    let own = std::mem::replace(&mut g.w.mm, Arc::clone(&child));
    test(g);
    g.w.mm = own;
    g.w.reap(&child);
}

#[test]
fn fork() {
    each(&ALL, |g| {
        g.advise(0..5, INSTALL);
        in_child(g, |g| {
            g.open_where(0..N, |p| p >= 5);
            g.advise(0..N, REMOVE);
            g.open_where(0..N, |_| true);
        });
        g.open_where(0..N, |p| p >= 5);
    });
}

#[test]
fn fork_cow() {
    each(&[Backing::Anon], |g| {
        g.set_pattern();
        in_child(g, |g| {
            g.check_pattern(0, 0..N);
            g.advise(0..N, INSTALL);
            g.advise(0..N, REMOVE);
            (0..N).for_each(|page| assert_eq!(g.w.get(page), Ok(0)));
        });
        g.check_pattern(0, 0..N);
    });
}

#[test]
fn fork_wipeonfork() {
    each(&[Backing::Anon], |g| {
        g.advise(0..N, Advice::WipeOnFork);
        g.advise(0..5, INSTALL);
        in_child(g, |g| g.open_where(0..N, |_| true));
        g.open_where(0..N, |p| p >= 5);
    });
}

#[test]
fn lazyfree() {
    each(&[Backing::Anon], |g| {
        g.advise(0..N, INSTALL);
        g.advise(0..N, Advice::Free);
        g.open_where(0..N, |_| false);
    });
}

#[test]
fn populate() {
    each(&ALL, |g| {
        g.advise(0..N, INSTALL);
        for advice in [Advice::PopulateRead, Advice::PopulateWrite] {
            assert_eq!(g.w.advise(0, N, advice), Err(EFAULT));
        }
    });
}

#[test]
fn cold_pageout() {
    each(&ALL, |g| {
        g.advise(0..N, INSTALL);
        for advice in [Advice::Cold, Advice::PageOut] {
            g.advise(0..N, advice);
            g.open_where(0..N, |_| false);
        }
    });
}

#[test]
fn uffd() {
    each(&[Backing::Anon, Backing::Shmem], |g| {
        let uffd = g.w.userfaultfd(UffdFeatures::empty());
        g.w.register(&uffd, 0, N, RegisterMode::MISSING);
        g.advise(0..N, INSTALL);
        g.open_where(0..N, |_| false);
        assert!(!uffd.has_message());
        uffd.close(&mut g.w.thread.cx());
    });
}

#[test]
fn madvise_sequential() {
    each(&OF_FILES, |g| {
        g.set_pattern();
        g.advise(0..N, Advice::Sequential);
        g.guard_even(0);
        g.advise(0..N, Advice::PageOut);
        g.readable_where(0..N, |p| p % 2 == 1);
        g.advise(0..N, REMOVE);
        g.check_pattern(0, 0..N);
    });
}

#[test]
fn map_private() {
    const PRIVATE: u64 = 20;
    each(&OF_FILES, |g| {
        let file = g.file.clone().unwrap();
        g.w.map_file(PRIVATE, N, &file, 0, MapFlags::PRIVATE);
        g.set_pattern();
        g.guard_even(0);
        g.readable_where(0..N, |p| p % 2 == 1);
        g.readable_where(PRIVATE..PRIVATE + N, |_| true);
        g.guard_even(PRIVATE);
        g.readable_where(PRIVATE..PRIVATE + N, |p| p % 2 == 1);
        g.advise(0..N, REMOVE);
        g.readable_where(0..N, |_| true);
        g.readable_where(PRIVATE..PRIVATE + N, |p| p % 2 == 1);
        g.advise(PRIVATE..PRIVATE + N, REMOVE);
        g.check_pattern(0, 0..N);
        g.check_pattern(PRIVATE, 0..N);
        for page in (0..N).step_by(2) {
            g.w.put(PRIVATE + page, b'A' + page as u8);
        }
        g.advise(PRIVATE..PRIVATE + 5, INSTALL);
        g.readable_where(PRIVATE..PRIVATE + N, |p| p >= PRIVATE + 5);
        g.readable_where(0..N, |_| true);
        g.advise(PRIVATE..PRIVATE + N, REMOVE);
        for page in 0..N {
            // Guards dropped the first copies.
            let own = page >= 5 && page % 2 == 0;
            let first = if own { b'A' } else { b'a' };
            assert_eq!(g.w.get(PRIVATE + page), Ok(first + page as u8));
        }
    });
}

#[test]
fn readonly_file() {
    each(&[Backing::File], |g| {
        g.set_pattern();
        let file = g.file.clone().unwrap();
        let read_only = File::open(file.object().clone(), FileMode::ReadOnly);
        g.file = Some(read_only);
        g.map(0, N, READ);
        g.guard_even(0);
        g.readable_where(0..N, |p| p % 2 == 1);
        g.advise(0..N, REMOVE);
        g.check_pattern(0, 0..N);
    });
}

#[test]
fn fault_around() {
    each(&OF_FILES, |g| {
        g.set_pattern();
        g.advise(0..N, Advice::PageOut);
        g.map(0, N, RW);
        g.guard_even(0);
        g.readable_where(1..2, |_| true);
        g.readable_where(0..N, |p| p % 2 == 1);
    });
}

#[test]
fn truncation() {
    each(&OF_FILES, |g| {
        g.set_pattern();
        g.guard_even(0);
        let file = g.file.clone().unwrap();
        for sizes in [vec![10], vec![5, 10]] {
            for size in sizes {
                file.truncate(g.w.thread.cx(), size * PAGE).unwrap();
            }
            g.open_where(0..N, |p| p % 2 == 1);
        }
    });
}

#[test]
fn hole_punch() {
    each(&OF_FILES, |g| {
        g.set_pattern();
        g.advise(3..7, INSTALL);
        let outside = |p: u64| !(3..7).contains(&p);
        g.readable_where(0..N, outside);
        g.advise(3..7, Advice::Remove);
        g.readable_where(0..N, outside);
        g.advise(0..N, REMOVE);
        g.check_pattern(0, 0..3);
        g.check_pattern(0, 7..N);
        (3..7).for_each(|page| assert_eq!(g.w.get(page), Ok(0)));
    });
}

#[test]
fn memfd_write_seal() {
    each(&[Backing::Shmem], |g| {
        g.set_pattern();
        g.w.munmap(0, N).unwrap();
        let file = g.file.clone().unwrap();
        file.add_seals(emmu::file::Seals::WRITE).unwrap();
        g.map(0, N, READ);
        g.check_pattern(0, 0..N);
        g.guard_even(0);
        g.readable_where(0..N, |p| p % 2 == 1);
        g.advise(0..N, REMOVE);
        g.check_pattern(0, 0..N);
        g.open_where(0..N, |_| false);
    });
}

#[test]
fn anon_zeropage() {
    each(&[Backing::Anon, Backing::Shmem], |g| {
        g.map(0, N, READ);
        g.guard_even(0);
        g.readable_where(0..N, |p| p % 2 == 1);
        g.advise(0..N, REMOVE);
        (0..N).for_each(|page| assert_eq!(g.w.get(page), Ok(0)));
    });
}

#[test]
fn pagemap() {
    each(&ALL, |g| {
        let guards = |g: &mut Guards| {
            let states = g.w.mm.pagemap(&mut g.w.thread.cx(), World::pages(0, N));
            let guard = states.into_iter().filter(|(_, s)| *s == PageState::Guard);
            guard.map(|(vpn, _)| (vpn.addr() - at(0)) / PAGE).collect()
        };
        let none: Vec<u64> = guards(g);
        assert!(none.is_empty());
        g.guard_even(0);
        assert_eq!(guards(g), [0, 2, 4, 6, 8]);
    });
}

#[test]
fn pagemap_scan() {
    each(&ALL, |g| {
        let args = ScanArgs {
            start: at(0),
            end: at(N),
            flags: ScanFlags::empty(),
            regions: 10,
            pages: 0,
            inverted: PageCategories::empty(),
            mask: PageCategories::empty(),
            any_of: PageCategories::GUARD,
            reported: PageCategories::GUARD,
        };
        let mm = g.w.mm.clone();
        let none = mm.pagemap_scan(&mut g.w.thread.cx(), &args).unwrap();
        assert_eq!((none.regions.len(), none.end), (0, at(N)));
        g.guard_even(0);
        let scan = mm.pagemap_scan(&mut g.w.thread.cx(), &args).unwrap();
        assert_eq!(scan.end, at(N));
        let found = scan.regions.iter();
        let found = found.map(|r| (r.start, r.end, r.categories));
        let wanted = (0..N).step_by(2);
        let wanted = wanted.map(|p| (at(p), at(p + 1), PageCategories::GUARD));
        assert!(found.eq(wanted));
    });
}
