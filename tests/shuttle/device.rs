//! A page that a device has, or has alone: a processor that wants it calls it home while another
//! thread forks, unmaps, protects, moves, evicts. The table is in `docs/entries.md`.

use crate::{
    run::{How, explore},
    world::{BASE, PAGE, one_page},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    driver::*,
    frame::{DeviceKind, DeviceMemory},
    mm::{
        Advice, DevicePages, DeviceRegistration, MigrateArgs, MigrateSelect, MigrateTo, MremapArgs,
        MremapFlags, Prot, Pte,
    },
    oracle::Oracle,
};
use std::sync::{Arc, Mutex};

type Task = Box<dyn FnOnce(&World, &mut CallCx<'_>) + Send>;
type Table = Gate<OrderedStore<Vpn>, (), Atomic>;

const AWAY: u64 = BASE + 64 * PAGE;

/// A device with memory of its own, and its translations of one address space.
struct Device {
    gate: Table,
    driver: Arc<Driver>,
}
struct Driver(DeviceMemory);

impl DevicePages for Driver {}
impl SpinningMmu for Device {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        match inv.spare(&self.driver.0) {
            Some(spared) => self.gate.exclude_sparing(cx, inv, spared, |(), _, _| ()),
            None => self.gate.exclude(cx, inv, |(), _, _| ()),
        }
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
}

/// One page, that holds 1, and a device.
struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    device: Arc<Device>,
    /// `None`: it was removed.
    memory: Mutex<Option<DeviceRegistration>>,
    _registration: Registration,
    oracle: Arc<Oracle>,
    /// A fork takes pages back although their device is about to use them.
    forks: bool,
}

fn page() -> VpnRange {
    VpnRange::single(Vpn::containing(BASE))
}

impl World {
    /// The page is in memory.
    fn at_home(kind: DeviceKind) -> Self {
        let (machine, mm) = one_page(MachineConfig {
            memory: MemConfig {
                frames: 16,
                ..MemConfig::default()
            },
            device_frames: 8,
            ..MachineConfig::default()
        });
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let (driver, memory) = machine
            .add_device(kind, 4, |memory| Arc::new(Driver(memory)))
            .unwrap();
        let (device, registration) = mm.register(&mut cx, |seat| {
            let gate = Gate::new(seat, OrderedStore::default(), ());
            Arc::new(Device { gate, driver })
        });
        let oracle = Oracle::new(&machine);
        // How long a window takes is the machine's matter.
        oracle.set_deadline(std::time::Duration::MAX);
        oracle.watch(&mm, device.clone());
        drop(thread);
        Self {
            machine,
            mm,
            device,
            memory: Mutex::new(Some(memory)),
            _registration: registration,
            oracle,
            forks: false,
        }
    }
    /// The page is on the device.
    fn there() -> Self {
        let w = Self::at_home(DeviceKind::Private);
        w.take_in(&mut w.machine.enter().unwrap().cx());
        assert_eq!(w.device.driver.0.in_use(), 1);
        w
    }
    fn migrate(&self, cx: &mut CallCx<'_>, select: MigrateSelect, to: MigrateTo) {
        let args = MigrateArgs {
            memory: &self.device.driver.0,
            range: page(),
            select,
        };
        let _unmapped = self.mm.migrate_vma(cx, &args, |_| to);
    }
    fn take_in(&self, cx: &mut CallCx<'_>) {
        self.migrate(cx, MigrateSelect::SYSTEM, MigrateTo::Device);
    }
    /// The first byte, as the device reads it where it is.
    fn read_there(&self, cx: &mut CallCx<'_>) -> Option<u8> {
        let gate = &self.device.gate;
        loop {
            if let Some(frame) = gate.lock(cx).lookup(&page().start()) {
                return Some(frame.read_u8(0));
            }
            let ticket = gate.range_ticket(page(), FaultRequest::Read);
            let ticket = ticket.allow_private(&self.device.driver.0);
            let established = gate.translate_ticket(cx, &self.mm, ticket, |permit| {
                let stopped = permit.stopped();
                if stopped.is_none() {
                    drop(permit.establish(|found| found.range().start()));
                }
                stopped.is_none()
            });
            if !established.unwrap() {
                return None;
            }
        }
    }
    /// Has the page alone, and writes to it if it maps it.
    fn alone(&self, cx: &mut CallCx<'_>) -> Result<(), emmu::Errno> {
        let (at, gate) = (page().start(), &self.device.gate);
        let memory = Some(&self.device.driver.0);
        let mapped = self
            .mm
            .make_device_exclusive(cx, BASE, memory, |page, mut cx| {
                let ticket = gate.ticket(at, Access::Write);
                let pending = page.resolve(&mut cx, ticket).unwrap();
                let permit = pending.and_then(|pending| pending.admit(&mut cx).ok());
                let mapped = permit.map(|permit| drop(permit.establish(at))).is_some();
                let now = self.mm.walker(&mut cx).pte(at);
                let present = matches!(now, Pte::Present { .. });
                assert!(!present || self.forks, "a processor took it: {now:?}");
                mapped
            });
        if mapped.map_err(|why| why.errno())?
            && let Some(mut frame) = gate.lock(cx).lookup_mut(&at)
        {
            frame.write(1, &[9]);
        }
        Ok(())
    }
    fn entry(&self, cx: &mut CallCx<'_>) -> Pte {
        self.mm.walker(cx).pte(page().start())
    }
}

/// Runs all of them at the same time, then the last one alone; nothing is left then.
fn race(w: World, tasks: Vec<Task>, then: impl FnOnce(&World, &mut CallCx<'_>)) {
    let w = Arc::new(w);
    let run = |task: Task| {
        let w = Arc::clone(&w);
        shuttle::thread::spawn(move || task(&w, &mut w.machine.enter().unwrap().cx()))
    };
    let running: Vec<_> = tasks.into_iter().map(run).collect();
    running.into_iter().for_each(|task| task.join().unwrap());
    let mut thread = w.machine.enter().unwrap();
    let mut cx = thread.cx();
    then(&w, &mut cx);
    w.mm.exit(&mut cx);
    let left = (w.machine.mem().in_use(), w.device.driver.0.in_use());
    assert_eq!(left, (0, 0), "frames are left");
    w.oracle.audit();
    let found = w.oracle.take();
    assert!(found.is_empty(), "{found:?}");
    let w = Arc::into_inner(w).expect("the tasks have ended");
    if let Some(memory) = w.memory.into_inner().unwrap() {
        w.machine.remove_device(&mut cx, memory).expect("empty");
    }
}
fn task(what: impl FnOnce(&World, &mut CallCx<'_>) + Send + 'static) -> Task {
    Box::new(what)
}
fn loads() -> Task {
    task(|w, cx| assert_eq!(w.mm.load(cx, BASE), Ok(1)))
}
fn stores(byte: u8) -> Task {
    task(move |w, cx| w.mm.store(cx, BASE, byte).unwrap())
}
/// What the child writes is the child's.
fn forks() -> Task {
    task(|w, cx| {
        let child = w.mm.fork(cx).unwrap();
        child.store(cx, BASE, 2).unwrap();
        assert_eq!(w.mm.load(cx, BASE), Ok(1), "the child wrote to its parent");
        w.mm.store(cx, BASE, 3).unwrap();
        assert_eq!(child.load(cx, BASE), Ok(2), "the parent wrote to its child");
        child.exit(cx);
    })
}
fn takes_in() -> Task {
    task(World::take_in)
}
fn evicts() -> Task {
    task(|w, cx| {
        let _left = w.machine.evict_device(cx, &w.device.driver.0);
    })
}
fn has_alone() -> Task {
    task(|w, cx| w.alone(cx).unwrap())
}
/// A removal that finds pages there gives the device back.
fn removes() -> Task {
    task(|w, cx| {
        let memory = w.memory.lock().unwrap().take().expect("it was added");
        let left = w.machine.remove_device(cx, memory).err();
        *w.memory.lock().unwrap() = left;
    })
}
fn holds(byte: u8) -> impl FnOnce(&World, &mut CallCx<'_>) {
    move |w, cx| assert_eq!(w.mm.load(cx, BASE), Ok(byte))
}

fn forked() {
    let from_there = task(|w, cx| {
        let seen = w.mm.load(cx, BASE).unwrap();
        assert!(matches!(seen, 1 | 3), "{seen}");
    });
    race(World::there(), vec![from_there, forks()], holds(3));
}
fn unmapped() {
    let loads = task(|w, cx| {
        let seen = w.mm.load(cx, BASE);
        assert!(matches!(seen, Ok(1) | Err(_)), "{seen:?}");
    });
    let unmaps = task(|w, cx| w.mm.munmap(cx, BASE, PAGE).unwrap());
    race(World::there(), vec![loads, unmaps], |_, _| ());
}
fn discarded() {
    let discards = task(|w, cx| {
        w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(w.mm.load(cx, BASE), Ok(0), "it came back");
    });
    let loads = task(|w, cx| assert!(w.mm.load(cx, BASE).unwrap() <= 1));
    race(World::there(), vec![loads, discards], holds(0));
}
fn protected() {
    let protects = task(|w, cx| {
        w.mm.mprotect(cx, BASE, PAGE, Prot::READ).unwrap();
        let now = w.entry(cx);
        let writable = matches!(
            now,
            Pte::Present { write: true, .. } | Pte::Device { write: true, .. }
        );
        assert!(!writable, "more than the mapping gives: {now:?}");
    });
    race(World::there(), vec![loads(), protects], holds(1));
}
fn remapped() {
    let loads = task(|w, cx| {
        let seen = w.mm.load(cx, BASE);
        assert!(matches!(seen, Ok(1) | Err(_)), "{seen:?}");
    });
    let remaps = task(|w, cx| {
        let args = MremapArgs {
            addr: BASE,
            old_len: PAGE,
            new_len: PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: AWAY,
        };
        w.mm.mremap(cx, args).unwrap();
    });
    race(World::there(), vec![loads, remaps], |w, cx| {
        assert_eq!(w.mm.load(cx, AWAY), Ok(1));
    });
}
/// The page is shared by a child that another thread writes in.
fn shared() {
    let w = World::there();
    let child = w.mm.fork(&mut w.machine.enter().unwrap().cx()).unwrap();
    let childs = task(move |_, cx| {
        child.store(cx, BASE, 2).unwrap();
        assert_eq!(child.load(cx, BASE), Ok(2));
        child.exit(cx);
    });
    race(w, vec![stores(3), childs], holds(3));
}
/// The device reads the page where it is, while a processor writes to it.
fn read_there() {
    let reads = task(|w, cx| {
        let first = w.read_there(cx).unwrap();
        let second = w.read_there(cx).unwrap();
        assert!(first <= second, "it saw an older page: {first}, {second}");
    });
    race(World::there(), vec![stores(2), reads], |w, cx| {
        assert_eq!(w.read_there(cx), Some(2));
    });
}
/// Another migration to the device spares what it reads.
fn spared() {
    let reads = task(|w, cx| {
        for _ in 0..2 {
            assert_eq!(w.read_there(cx), Some(1));
        }
    });
    race(World::there(), vec![takes_in(), reads], holds(1));
}
fn alone_against(what: Task, then: u8) {
    let w = World::at_home(DeviceKind::Private);
    race(w, vec![has_alone(), what], holds(then));
}

/// A page comes into a hole while a new one is on its way to the device.
fn new_page() {
    let w = World::at_home(DeviceKind::Private);
    {
        let mut thread = w.machine.enter().unwrap();
        let (mm, cx) = (&w.mm, &mut thread.cx());
        mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
    }
    race(w, vec![stores(2), takes_in()], holds(2));
}
/// The device reads the page in memory while it moves to the device.
fn taken_in() {
    let reads = task(|w, cx| {
        for _ in 0..2 {
            assert_eq!(w.read_there(cx), Some(1));
        }
    });
    let w = World::at_home(DeviceKind::Private);
    race(w, vec![takes_in(), reads], holds(1));
}

const SMALL: [How; 3] = [How::Sweep(2, 1), How::Random(100), How::Pct(100)];

#[test]
fn fault_home_against_fork() {
    explore(&SMALL, forked);
}
#[test]
fn fault_home_against_munmap() {
    explore(&SMALL, unmapped);
}
#[test]
fn fault_home_against_discard() {
    explore(&SMALL, discarded);
}
#[test]
fn fault_home_against_mprotect() {
    explore(&SMALL, protected);
}
#[test]
fn fault_home_against_mremap() {
    explore(&SMALL, remapped);
}
#[test]
fn fault_home_against_eviction() {
    explore(&SMALL, || {
        race(World::there(), vec![stores(2), evicts()], holds(2));
    });
}
#[test]
fn fault_home_against_migration() {
    explore(&SMALL, || {
        race(World::there(), vec![stores(2), takes_in()], holds(2));
    });
}
#[test]
fn fault_home_against_another() {
    explore(&SMALL, || {
        race(World::there(), vec![stores(2), loads_any()], holds(2));
    });
}
fn loads_any() -> Task {
    task(|w, cx| assert!(matches!(w.mm.load(cx, BASE), Ok(1 | 2))))
}
#[test]
fn fault_home_against_a_child() {
    explore(&SMALL, shared);
}
#[test]
fn fault_home_against_a_device() {
    explore(&SMALL, read_there);
}
#[test]
fn migration_against_a_device() {
    explore(&SMALL, spared);
}
#[test]
fn coherent_page_against_eviction() {
    explore(&SMALL, || {
        let w = World::at_home(DeviceKind::Coherent);
        w.take_in(&mut w.machine.enter().unwrap().cx());
        race(w, vec![stores(2), evicts()], holds(2));
    });
}
#[test]
fn exclusive_access_against_a_store() {
    explore(&SMALL, || alone_against(stores(2), 2));
}
#[test]
fn exclusive_access_against_fork() {
    explore(&SMALL, || {
        let mut w = World::at_home(DeviceKind::Private);
        w.forks = true;
        race(w, vec![has_alone(), forks()], holds(3));
    });
}
#[test]
fn exclusive_access_against_migration() {
    explore(&SMALL, || alone_against(takes_in(), 1));
}
#[test]
fn exclusive_access_against_munmap() {
    explore(&SMALL, || {
        let unmaps = task(|w, cx| w.mm.munmap(cx, BASE, PAGE).unwrap());
        let alone = task(|w, cx| {
            let _unmapped = w.alone(cx);
        });
        let w = World::at_home(DeviceKind::Private);
        race(w, vec![alone, unmaps], |_, _| ());
    });
}
#[test]
fn exclusive_access_against_discard() {
    explore(&SMALL, || {
        let discards = task(|w, cx| w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap());
        let w = World::at_home(DeviceKind::Private);
        race(w, vec![has_alone(), discards], |w, cx| {
            assert!(w.mm.load(cx, BASE).unwrap() <= 1);
        });
    });
}
#[test]
fn exclusive_access_against_mprotect() {
    explore(&SMALL, || {
        let protects = task(|w, cx| {
            w.mm.mprotect(cx, BASE, PAGE, Prot::READ).unwrap();
            let mut gate = w.device.gate.lock(cx);
            let mapped = gate.lookup_mut(&page().start());
            assert!(mapped.is_none(), "the device may write");
        });
        let alone = task(|w, cx| {
            let _denied = w.alone(cx);
        });
        let w = World::at_home(DeviceKind::Private);
        race(w, vec![alone, protects], holds(1));
    });
}
#[test]
fn migration_against_a_device_that_reads_memory() {
    explore(&SMALL, taken_in);
}
#[test]
fn new_page_against_a_store() {
    explore(&SMALL, new_page);
}
#[test]
fn removal_against_migration() {
    explore(&SMALL, || {
        let w = World::at_home(DeviceKind::Private);
        race(w, vec![removes(), takes_in()], holds(1));
    });
}
#[test]
fn removal_against_fault_home() {
    explore(&SMALL, || {
        race(World::there(), vec![removes(), loads()], holds(1))
    });
}
/// The page goes, and the device with it, while a fault has the page's frame.
#[test]
fn removal_with_the_page_against_fault_home() {
    explore(&SMALL, || {
        let gives_up = task(|w, cx| {
            w.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
            removes()(w, cx);
        });
        let loads = task(|w, cx| assert!(w.mm.load(cx, BASE).unwrap() <= 1));
        race(World::there(), vec![gives_up, loads], holds(0));
    });
}
