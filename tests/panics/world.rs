//! A world with a bomb on its address space, and what must hold in it whatever happened.

use crate::{
    bomb::{Bomb, Call},
    common::{BASE, PAGE, RW, at, driver::Driver},
};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{CallCx, Thread},
    file::File,
    mm::{MapFlags, MmapArgs, Prot, VmFlags},
    notifier::{Access, Registration},
    oracle::Oracle,
    reclaim::RmapWindows,
};
use std::{
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

/// How a driver is told of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// Of all.
    Chain,
    /// Of those over its pages, which are all that a test uses.
    Range,
}

pub struct World {
    pub machine: Arc<Machine>,
    thread: Thread,
    pub mm: Arc<Mm>,
    pub bomb: Arc<Bomb>,
    /// Its registration, until a test takes it.
    pub seated: Option<Registration>,
    /// Told before the bomb, and after.
    beside: Vec<(Arc<Driver>, Registration)>,
    oracle: Arc<Oracle>,
    /// What the test keeps: files and children.
    pub files: Vec<Arc<File>>,
    pub children: Vec<Arc<Mm>>,
}

/// All pages that tests map.
fn arena() -> VpnRange {
    let first = Vpn::containing(BASE);
    VpnRange::new(first, first.plus(1 << 28)).unwrap()
}

impl World {
    pub fn new(on: On, rmap_windows: RmapWindows) -> Self {
        let machine = Machine::new(MachineConfig {
            memory: MemConfig {
                frames: 4096,
                swap: 1024,
                ..MemConfig::default()
            },
            rmap_windows,
            ..MachineConfig::default()
        });
        let mut thread = machine.enter().expect("one world a thread");
        let mm = Mm::new(&machine);
        let oracle = Oracle::new(&machine);
        // How long a window takes is the machine's matter.
        oracle.set_deadline(std::time::Duration::MAX);
        let cx = &mut thread.cx();
        let first = mm.register(cx, Driver::new);
        let (bomb, seated) = match on {
            On::Chain => mm.register(cx, Bomb::new),
            On::Range => mm.subscribe(cx, arena(), Bomb::new),
        };
        let last = mm.subscribe(cx, arena(), Driver::new);
        oracle.watch(&mm, bomb.clone());
        Self {
            machine,
            thread,
            mm,
            bomb,
            seated: Some(seated),
            beside: vec![first, last],
            oracle,
            files: Vec::new(),
            children: Vec::new(),
        }
    }
    pub fn cx(&mut self) -> CallCx<'_> {
        self.thread.cx()
    }
    pub fn map_args(&mut self, args: &MmapArgs) {
        self.mm.mmap(&mut self.thread.cx(), args).expect("mappable");
    }
    pub fn map(&mut self, pages: Range<u64>, prot: Prot) {
        self.map_with(pages, prot, MapFlags::empty());
    }
    pub fn map_with(&mut self, pages: Range<u64>, prot: Prot, flags: MapFlags) {
        let args = MmapArgs::anonymous((pages.end - pages.start) * PAGE)
            .fixed(at(pages.start))
            .prot(prot)
            .flags(flags);
        self.map_args(&args);
    }
    /// Maps a file of the world's.
    pub fn map_file(&mut self, pages: Range<u64>, file: Arc<File>, kind: MapFlags) {
        let mut args = MmapArgs::anonymous((pages.end - pages.start) * PAGE)
            .fixed(at(pages.start))
            .file(&file, 0);
        args.flags = MapFlags::FIXED | kind;
        self.map_args(&args);
        self.files.push(file);
    }
    /// Writes 1 to each page.
    pub fn fill(&mut self, pages: Range<u64>) {
        for n in pages {
            self.put(n, 1);
        }
    }
    pub fn put(&mut self, n: u64, byte: u8) {
        self.mm
            .store(&mut self.thread.cx(), at(n), byte)
            .expect("writable");
    }
    pub fn get(&mut self, n: u64) -> Result<u8, FaultError> {
        self.mm.load(&mut self.thread.cx(), at(n))
    }
    /// Has all drivers take these pages, to write to where that is allowed.
    pub fn take(&mut self, pages: Range<u64>) {
        for n in pages {
            let cx = &mut self.thread.cx();
            self.bomb.take(cx, &self.mm, at(n), Access::Read);
            self.bomb.take(cx, &self.mm, at(n), Access::Write);
            for (driver, _) in &self.beside {
                driver.read(cx, &self.mm, at(n)).expect("it is registered");
            }
        }
    }
    /// Sixteen pages of private memory that all drivers have.
    pub fn sixteen(&mut self) {
        self.map(0..16, RW);
        self.fill(0..16);
        self.take(0..16);
    }
    /// Each page reads one of these; `None`: it cannot be read.
    pub fn reads(&mut self, pages: Range<u64>, allowed: &[Option<u8>]) {
        for n in pages {
            let got = self.get(n).ok();
            assert!(allowed.contains(&got), "page {n}: {got:?} of {allowed:?}");
        }
    }
    /// The same, and all of them one.
    pub fn reads_alike(&mut self, pages: Range<u64>, allowed: &[Option<u8>]) {
        self.reads(pages.clone(), allowed);
        let first = self.get(pages.start).ok();
        self.reads(pages, &[first]);
    }

    /// What the layout, the page table, the reverse maps, the accounts and the drivers say agrees.
    pub fn check(&mut self) {
        assert_eq!(self.mm.windows_open(), 0);
        for (driver, _) in &self.beside {
            let (starts, ends) = driver.told();
            assert_eq!(starts, ends, "a driver beside the bomb");
        }
        self.oracle.audit();
        assert_eq!(self.oracle.take().len(), 0, "findings");
        let mm = Arc::clone(&self.mm);
        self.check_space(&mm);
        for child in self.children.clone() {
            self.check_space(&child);
        }
        self.check_accounts();
    }
    fn check_space(&mut self, mm: &Mm) {
        let cx = &mut self.thread.cx();
        let maps = mm.maps(cx);
        for (at, state) in mm.pagemap(cx, arena()) {
            let vma = maps.iter().find(|m| (m.start..m.end).contains(&at.addr()));
            assert!(vma.is_some(), "{at:?} is {state:?} and in no VMA");
        }
        assert_eq!(mm.unreachable_pages(cx), [], "not found by reverse maps");
        // What may not be written is not.
        for m in maps.iter().filter(|m| !m.flags.contains(VmFlags::WRITE)) {
            mm.store(cx, m.start, 9).expect_err("read-only");
        }
        let pages = |m: &emmu::mm::MapsLine| (m.end - m.start) / PAGE;
        let locked = maps.iter().filter(|m| m.flags.contains(VmFlags::LOCKED));
        let sizes = (maps.iter().map(pages).sum(), locked.map(pages).sum());
        assert_eq!(mm.sizes(cx), sizes, "pages mapped, and locked");
    }
    /// What is promised is what the layouts say; tests map no shared anonymous memory.
    fn check_accounts(&mut self) {
        let cx = &mut self.thread.cx();
        let spaces = self.children.iter().chain([&self.mm]);
        let lines = spaces.flat_map(|mm| mm.maps(cx));
        let promised = lines
            .filter(|m| m.flags.contains(VmFlags::ACCOUNT))
            .map(|m| (m.end - m.start) / PAGE)
            .sum::<u64>();
        let now = self.machine.commit().pages();
        assert_eq!(now, i64::try_from(promised).unwrap(), "promised memory");
    }
    /// Everything goes; nothing is left.
    pub fn end(mut self) {
        self.check();
        self.leave();
    }
    /// The same where drivers may be left with what they had.
    pub fn leave(mut self) {
        let cx = &mut self.thread.cx();
        if let Some(seated) = self.seated.take() {
            seated.unregister(cx);
        }
        for (_, registration) in self.beside.drain(..) {
            registration.unregister(cx);
        }
        for mm in self.children.drain(..).chain([self.mm.clone()]) {
            mm.exit(cx);
        }
        self.files.clear();
        let machine = &self.machine;
        assert_eq!(machine.mem().in_use(), 0, "frames left");
        assert_eq!(machine.mem().swap().used(), 0, "slots of swap left");
        assert_eq!(machine.commit().pages(), 0, "promised memory left");
        assert_eq!(self.mm.tables(), 0, "tables left");
    }
}

/// Work on a world.
type Step = fn(&mut World);

/// Has the bomb go off in each of its callbacks during `work` in turn, on worlds that `prepare`
/// made: of many calls of one callback in the first seven, and then in fewer. `check` gets every
/// world after that, and once more after the work was done again. Returns how often it went off.
pub fn blast(
    (on, windows): (On, RmapWindows),
    calls: &[Call],
    prepare: Step,
    work: Step,
    check: Step,
) -> u64 {
    let mut bangs = 0;
    for &call in calls {
        // Of many, some.
        let mut nths = (1..8).chain((0..).map(|n| 8 << n));
        loop {
            let nth = nths.next().expect("no end");
            let mut w = World::new(on, windows);
            prepare(&mut w);
            w.check();
            w.bomb.arm(call, nth);
            let went = catch_unwind(AssertUnwindSafe(|| work(&mut w))).is_err();
            let unused = w.bomb.disarm();
            assert_eq!(went, !unused, "{call:?} {nth}: a panic of somebody else");
            w.check();
            check(&mut w);
            if went {
                work(&mut w);
                w.check();
                check(&mut w);
            }
            w.end();
            if !went {
                break;
            }
            bangs += 1;
        }
    }
    bangs
}
