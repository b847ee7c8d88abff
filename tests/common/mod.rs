//! A small language for tests: a world with one address space, pages by number, windows as page
//! pairs.
#![allow(unreachable_pub, dead_code)] // Each test uses its part.

use emmu::{
    FaultError, HugePoolConfig, Machine, MachineConfig, MemConfig, Mm, PAGE_SIZE,
    addr::VpnRange,
    ctx::Thread,
    extmmu::{Recorded, Recorder},
    file::File,
    mm::{MapFlags, MmapArgs, Prot},
    notifier::Registration,
};
use std::{
    sync::{
        Arc,
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

pub mod calls;
pub mod driver;
pub mod mirror;
pub mod moving;
pub mod numbered;
pub mod objects;

/// Where page 0 of a test lies.
pub const BASE: u64 = 1 << 40;
pub const PAGE: u64 = PAGE_SIZE;
pub const RW: Prot = Prot::READ.union(Prot::WRITE);

/// Address of page `n`.
pub const fn at(n: u64) -> u64 {
    BASE + n * PAGE
}

/// A machine with that many frames.
pub fn machine(frames: u32) -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            frames,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

/// A thread on a machine, with an address space and a recorder on it.
pub struct World {
    pub machine: Arc<Machine>,
    pub thread: Thread,
    pub mm: Arc<Mm>,
    recorder: Arc<Recorder>,
    _registration: Registration,
}

impl World {
    pub fn new() -> Self {
        Self::on(machine(4096))
    }
    pub fn with(config: MachineConfig) -> Self {
        Self::on(Machine::new(config))
    }
    /// A world with this memory, and a pool of so many huge pages of 2 MiB.
    pub fn with_pool(memory: MemConfig, pages: u64) -> Self {
        Self::with(MachineConfig {
            memory,
            huge_pages: HugePoolConfig {
                pages,
                overcommit: 0,
            },
            ..MachineConfig::default()
        })
    }
    pub fn on(machine: Arc<Machine>) -> Self {
        let mut thread = machine.enter().expect("one world a thread");
        let mm = Mm::new(&machine);
        let (recorder, registration) = mm.register(&mut thread.cx(), Recorder::new);
        Self {
            machine,
            thread,
            mm,
            recorder,
            _registration: registration,
        }
    }
    /// Maps private memory on pages `[from, from + n)`.
    pub fn map(&mut self, from: u64, n: u64, prot: Prot) {
        self.map_with(from, n, prot, MapFlags::empty());
    }
    pub fn map_with(&mut self, from: u64, n: u64, prot: Prot, flags: MapFlags) {
        let args = MmapArgs::anonymous(n * PAGE).fixed(at(from)).prot(prot);
        self.mm
            .mmap(&mut self.thread.cx(), &args.flags(flags))
            .expect("mappable");
    }
    /// Maps shared memory.
    pub fn share(&mut self, from: u64, n: u64) {
        let args = MmapArgs::anonymous(n * PAGE).fixed(at(from)).shared();
        self.mm
            .mmap(&mut self.thread.cx(), &args)
            .expect("mappable");
    }
    /// Writes page `n`.
    pub fn put(&mut self, n: u64, byte: u8) {
        self.mm
            .store(&mut self.thread.cx(), at(n), byte)
            .expect("writable");
    }
    /// Writes each page of a range.
    pub fn fill(&mut self, from: u64, n: u64) {
        (from..from + n).for_each(|p| self.put(p, 1));
    }
    /// Reads page `n`.
    pub fn get(&mut self, n: u64) -> Result<u8, FaultError> {
        self.mm.load(&mut self.thread.cx(), at(n))
    }
    /// The windows since the last call, as pages `[from, to)` of the test.
    pub fn windows(&mut self) -> Vec<(u64, u64)> {
        let page = |vpn: u64| vpn - BASE / PAGE;
        let told = self.recorder.take();
        let windows = told.iter().map(|told| match told {
            Recorded::Window(range) | Recorded::Age(range) => {
                (page(range.start().0), page(range.end().0))
            }
        });
        windows.collect()
    }
    /// What the recorder was told since the last call: `W3..5` a window over pages `[3, 5)`, `A3`
    /// aging of page 3.
    pub fn told(&mut self) -> String {
        let page = |vpn: u64| vpn - BASE / PAGE;
        let told = self.recorder.take();
        let words = told.iter().map(|told| match told {
            Recorded::Window(r) => format!("W{}..{}", page(r.start().0), page(r.end().0)),
            Recorded::Age(r) => format!("A{}", page(r.start().0)),
        });
        words.collect::<Vec<_>>().join(" ")
    }
    /// Maps `n` pages of a file from its page `offset` on.
    pub fn map_file(&mut self, from: u64, n: u64, file: &Arc<File>, offset: u64, kind: MapFlags) {
        let mut args = MmapArgs::anonymous(n * PAGE)
            .fixed(at(from))
            .file(file, offset * PAGE);
        args.flags = MapFlags::FIXED | kind;
        self.mm
            .mmap(&mut self.thread.cx(), &args)
            .expect("mappable");
    }
    /// Fails if the reverse map of a frame does not lead to a page that maps it.
    pub fn check_rmap(&mut self) {
        let lost = self.mm.unreachable_pages(&mut self.thread.cx());
        assert!(lost.is_empty(), "not found by reverse maps: {lost:?}");
    }
    /// The VMAs as (first page, end, permissions).
    pub fn vmas(&mut self) -> Vec<(u64, u64, String)> {
        let maps = self.mm.maps(&mut self.thread.cx());
        let row =
            |m: &emmu::mm::MapsLine| ((m.start - BASE) / PAGE, (m.end - BASE) / PAGE, m.perms());
        maps.iter().map(row).collect()
    }
    /// The VMAs as page pairs.
    pub fn spans(&mut self) -> Vec<(u64, u64)> {
        self.vmas().into_iter().map(|(a, b, _)| (a, b)).collect()
    }
    /// Pages `[from, to)`.
    pub fn pages(from: u64, to: u64) -> VpnRange {
        let page = |n| emmu::addr::Vpn::containing(at(n));
        VpnRange::new(page(from), page(to)).expect("not empty")
    }
    /// Ends the world and checks that nothing is left of it.
    pub fn end(mut self) {
        self.mm.exit(&mut self.thread.cx());
        assert_eq!(self.machine.mem().in_use(), 0, "frames left");
        assert_eq!(self.mm.tables(), 0, "tables left");
        assert_eq!(self.machine.commit().pages(), 0, "promised memory left");
    }
}

/// Runs `work` on a thread of its own, and fails rather than hang for ever.
pub fn ends_within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (says, hears) = channel();
    let runner = thread::spawn(move || {
        work();
        says.send(()).unwrap();
    });
    let ended = hears.recv_timeout(limit);
    assert_ne!(ended, Err(RecvTimeoutError::Timeout), "it hangs");
    runner.join().unwrap();
}
