//! All models at once on one address space, from several threads, against random operations: the
//! oracle stays silent and everything is given back. As a test it does a number of rounds;
//! `EMMU_STRESS_SECONDS` makes it go on for so long.
//!
//! ```text
//! EMMU_STRESS_SECONDS=60 cargo test --release --all-features --test partitions stress:: -- --nocapture
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `models` | what is used of each model, and what must not be left of it |
//! | `iommus` | the same of devices behind an IOMMU |
//! | `host_memory` | the same of memory at addresses of the host |
//! | `operations` | what the process and the machine do |
//! | `remotes` | processes that are killed meanwhile |

#[cfg(all(feature = "host-mapping", feature = "vm-memory"))]
mod host_memory;
mod iommus;
mod models;
mod operations;
mod remotes;

use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    extmmu::xpmem::Owner,
    file::{DiskFile, File, FileMode, MemStore, Shmem},
    mm::MmapArgs,
    oracle::Oracle,
};
use models::{Model, Turn, Use};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The first byte of the memory, at a multiple of 2 MiB.
const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
/// Pages of the memory: small ones, a hole, and a huge page.
const PAGES: u64 = 2 * HUGE;
/// Pages of the small mappings, which begin at [`BASE`].
const SMALL: u64 = 128;
/// Pages of a huge page.
const HUGE: u64 = 512;
/// Pages of each file.
const FILE: u64 = 32;
/// Threads that use devices, and threads that operate.
const USERS: usize = 3;
const OPERATORS: u64 = 2;
/// Operations of a thread, at least, and accesses of a thread.
const ROUNDS: u64 = 150;

/// A plain congruential generator: the same numbers from the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
    /// Some pages in a row, mostly small ones, by the first one and their number.
    fn pages(&mut self) -> (u64, u64) {
        let (from, all) = match self.below(8) {
            0 => return (HUGE, HUGE),
            1 => (HUGE, HUGE),
            _ => (0, SMALL),
        };
        let first = self.below(all);
        (from + first, 1 + self.below((all - first).min(32)))
    }
}

/// The memory, and the files that are mapped.
struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    oracle: Arc<Oracle>,
    shared: Arc<File>,
    disk: Arc<File>,
}

impl World {
    fn new(memory: MemConfig) -> Self {
        let machine = Machine::new(MachineConfig {
            memory: MemConfig {
                swap: 4096,
                ..memory
            },
            ..MachineConfig::default()
        });
        let oracle = Oracle::new(&machine);
        // How long a window takes is the machine's matter.
        oracle.set_deadline(Duration::MAX);
        let (host, store) = (machine.host(), Box::<MemStore>::default());
        let shared = Shmem::memfd(host, "shared", FILE * PAGE).unwrap();
        let disk = DiskFile::new(host, "/disk", FILE * PAGE, store).unwrap();
        Self {
            mm: Mm::new(&machine),
            shared: File::open(shared, FileMode::ReadWrite),
            disk: File::open(disk, FileMode::ReadWrite),
            oracle,
            machine,
        }
    }
    /// Maps private memory, of huge pages where they fit.
    fn map_all(&self, cx: &mut CallCx<'_>) {
        for (first, pages) in [(0, SMALL), (HUGE, HUGE)] {
            let args = MmapArgs::anonymous(pages * PAGE).fixed(BASE + first * PAGE);
            self.mm.mmap(cx, &args).unwrap();
        }
    }
}

/// How long operations go on beyond their [`ROUNDS`].
fn time() -> Duration {
    let seconds = std::env::var("EMMU_STRESS_SECONDS").ok();
    let seconds = seconds.and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(0))
}

/// One access after the other, each by some model; what the address space refuses is no error here.
/// Returns what was used: TLBs may be full to the end.
fn use_memory<'m>(
    w: &World,
    models: &'m [Box<dyn Model>],
    thread: usize,
    (stop, used): (&AtomicBool, &[AtomicU64]),
) -> Vec<Use<'m>> {
    let mut token = w.machine.enter().unwrap();
    let mut cx = token.cx();
    let mut uses: Vec<_> = models.iter().map(|m| m.user(&mut cx, thread)).collect();
    let mut random = Random(thread as u64 + 1);
    let mut rounds = 0;
    while rounds < ROUNDS * models.len() as u64 || !stop.load(Relaxed) {
        let (first, pages) = random.pages();
        let turn = Turn {
            at: first * PAGE + random.below(PAGE),
            pages,
            byte: random.below(256) as u8,
            luck: random.below(1 << 16),
        };
        let model = random.below(models.len() as u64) as usize;
        let fine = uses[model](&mut cx, &turn);
        used[model].fetch_add(fine.into(), Relaxed);
        rounds += 1;
    }
    uses
}

#[test]
fn devices_and_operations_at_once() {
    let idle = |_: &Arc<Owner>, stop: &AtomicBool| {
        while !stop.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    run(MemConfig::default(), idle, &|| true);
}

/// Devices against operations, and `meanwhile` beside them until it is told to stop; `enough` says
/// whether it may be.
fn run(
    memory: MemConfig,
    meanwhile: impl FnOnce(&Arc<Owner>, &AtomicBool) + Send,
    enough: &(dyn Fn() -> bool + Sync),
) {
    let w = World::new(memory);
    let mut token = w.machine.enter().unwrap();
    w.map_all(&mut token.cx());
    let (models, owner) = models::attach_all(&mut token.cx(), &w);
    drop(token);
    let stop = AtomicBool::new(false);
    let used: Vec<_> = models.iter().map(|_| AtomicU64::new(0)).collect();
    let (operated, uses) = std::thread::scope(|s| {
        let (w, models, shared) = (&w, &*models, (&stop, &*used));
        let users = (0..USERS).map(|nth| s.spawn(move || use_memory(w, models, nth, shared)));
        let users: Vec<_> = users.collect();
        let beside = s.spawn(|| meanwhile(&owner, &stop));
        // A thread that has panicked comes to nothing more.
        let waited_for = || {
            let ended = beside.is_finished() || users.iter().any(|user| user.is_finished());
            !ended && !enough()
        };
        let operated = operate_all(w, &waited_for);
        stop.store(true, Relaxed);
        let uses: Vec<_> = users.into_iter().map(|t| t.join().unwrap()).collect();
        beside.join().unwrap();
        (operated, uses)
    });
    let used = models
        .iter()
        .zip(used)
        .map(|(m, n)| (m.name(), n.into_inner()));
    let used: Vec<_> = used.collect();
    println!("{operated} operations against accesses of devices: {used:?}");
    assert!(
        used.iter().all(|(_, n)| *n > 0),
        "a device did nothing: {used:?}"
    );
    // What TLBs have is looked at when the process ends.
    end(&w);
    drop(uses);
    nothing_is_left(w, models);
}

/// Operates in some threads, and returns the number of operations.
fn operate_all(w: &World, waited_for: &(dyn Fn() -> bool + Sync)) -> u64 {
    let until = Instant::now() + time();
    let goes_on = |done| done < ROUNDS || Instant::now() < until || waited_for();
    std::thread::scope(|s| {
        let goes_on = &goes_on;
        let threads = (0..OPERATORS).map(|n| s.spawn(move || operations::operate(w, n, goes_on)));
        let threads: Vec<_> = threads.collect();
        threads.into_iter().map(|t| t.join().unwrap()).sum()
    })
}

/// Ends the process. TLBs may be full.
fn end(w: &World) {
    w.oracle.audit();
    w.mm.exit(&mut w.machine.enter().unwrap().cx());
    w.oracle.audit_end(&w.mm);
}

/// Ends the devices: no pin, no registration and no frame is left.
fn nothing_is_left(w: World, models: Vec<Box<dyn Model>>) {
    let mut token = w.machine.enter().unwrap();
    let mut cx = token.cx();
    models.into_iter().for_each(|model| model.end(&mut cx));
    drop((w.shared, w.disk));
    w.oracle.audit_empty(&mut cx, 0);
    w.oracle.assert_silent();
    assert_eq!(w.machine.mem().in_use(), 0, "frames are left");
}
