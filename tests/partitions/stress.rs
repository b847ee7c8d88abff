//! All three models at once on one address space, from several threads, against random operations:
//! the oracle stays silent and everything is given back. `EMMU_STRESS_SECONDS` makes it longer.
//!
//! ```text
//! EMMU_STRESS_SECONDS=60 cargo test --release --features remote --test stress -- --nocapture
//! ```

use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    extmmu::{
        gru::{Gru, GruConfig, GruContext, GruSpace},
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        xpmem::{Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs, Prot},
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 64;

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
}

struct Devices {
    vm: Arc<Vm>,
    gru: Arc<GruSpace>,
    owner: Arc<Owner>,
    partition: Arc<Partition>,
}

fn time() -> Duration {
    let seconds = std::env::var("EMMU_STRESS_SECONDS").ok();
    let seconds = seconds.and_then(|s| s.parse().ok());
    seconds.map_or(Duration::from_millis(1500), Duration::from_secs)
}

/// One device access after the other; what the address space refuses is no error here.
fn use_memory(
    machine: &Arc<Machine>,
    devices: &Devices,
    seed: u64,
    (stop, used): (&AtomicBool, &AtomicU64),
) {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mut random = Random(seed);
    let vcpu = devices.vm.vcpu(&mut cx);
    let context = GruContext::new(&devices.gru, seed as usize).unwrap();
    let whole = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + PAGES * PAGE)).unwrap();
    let segment = devices.owner.make(whole, Access::Write);
    let importer = devices
        .owner
        .import(&devices.partition, segment, 0, PAGES)
        .unwrap();
    while !stop.load(Relaxed) {
        let at = random.below(PAGES) * PAGE + random.below(PAGE);
        let byte = random.below(256) as u8;
        let fine = match random.below(6) {
            0 => vcpu.load(&mut cx, at).is_ok(),
            1 => vcpu.store(&mut cx, at, byte).is_ok(),
            2 => context.read(&mut cx, BASE + at, &mut [0]).is_ok(),
            3 => context.write(&mut cx, BASE + at, &[byte]).is_ok(),
            4 => importer.read(&mut cx, at, &mut [0]).is_ok(),
            _ => importer.write(&mut cx, at, &[byte]).is_ok(),
        };
        used.fetch_add(fine.into(), Relaxed);
    }
}

/// Until the time is up, and the others have come to something: how long that takes is the
/// machine's matter.
fn operate(
    machine: &Arc<Machine>,
    mm: &Mm,
    oracle: &Oracle,
    (seed, others): (u64, &dyn Fn() -> bool),
) -> u64 {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mut random = Random(seed);
    let until = Instant::now() + time();
    let mut done = 0;
    while Instant::now() < until || done < 100 || !others() {
        let first = random.below(PAGES);
        let pages = 1 + random.below(PAGES - first);
        let (at, len) = (BASE + first * PAGE, pages * PAGE);
        match random.below(8) {
            0 => {
                let child = mm.fork(&mut cx).unwrap();
                let _refused = child.store(&mut cx, at, 1);
                child.exit(&mut cx);
            }
            1 => mm.munmap(&mut cx, at, len).unwrap(),
            2 | 3 => {
                let _at = mm
                    .mmap(&mut cx, &MmapArgs::anonymous(len).fixed(at))
                    .unwrap();
            }
            4 => {
                let _unmapped = mm.mprotect(&mut cx, at, len, Prot::READ);
                let _unmapped = mm.mprotect(&mut cx, at, len, Prot::READ | Prot::WRITE);
            }
            5 => {
                let _unmapped = mm.madvise(&mut cx, at, len, Advice::DontNeed);
            }
            6 => {
                let _unmapped = mm.madvise(&mut cx, at, len, Advice::PageOut);
            }
            _ => {
                let _refused = mm.store(&mut cx, at, 2);
            }
        }
        oracle.audit();
        done += 1;
    }
    done
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
    enough: &dyn Fn() -> bool,
) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 4096,
            ..memory
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(Duration::MAX);
    let stop = AtomicBool::new(false);
    let devices = attach(&machine, &mm, &oracle);
    let used = AtomicU64::new(0);
    let operated = std::thread::scope(|s| {
        let threads = (1..=4).map(|seed| {
            let (machine, devices, shared) = (&machine, &devices, (&stop, &used));
            s.spawn(move || use_memory(machine, devices, seed, shared))
        });
        let threads: Vec<_> = threads.collect();
        let (owner, until) = (&devices.owner, &stop);
        let beside = s.spawn(move || meanwhile(owner, until));
        // Who has panicked comes to nothing more.
        let others = || {
            let ended = beside.is_finished() || threads.iter().any(|t| t.is_finished());
            ended || (used.load(Relaxed) > 0 && enough())
        };
        let operated = operate(&machine, &mm, &oracle, (99, &others));
        stop.store(true, Relaxed);
        threads.into_iter().for_each(|t| t.join().unwrap());
        beside.join().unwrap();
        operated
    });
    let used = used.load(Relaxed);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    oracle.audit();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
    assert!(
        used > 0 && operated > 0,
        "{used} accesses, {operated} operations"
    );
    assert_eq!(devices.vm.in_progress(), (0, 0));
    assert_eq!((devices.gru.active(), devices.owner.recalls()), (0, 0));
    assert_eq!(machine.mem().in_use(), 0);
    println!("{used} device accesses against {operated} operations");
}

mod remotes {
    use super::{BASE, PAGE, PAGES, run};
    use crate::process::{Meeting, Process};
    use emmu::{
        Contents, MemConfig,
        addr::{Vpn, VpnRange},
        extmmu::xpmem::{Owner, PartitionId, SegId, remote::RemoteConfig},
        notifier::Access,
    };
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
        },
        time::{Duration, Instant},
    };

    /// The test is run once more as its other process.
    const OTHER: &str = "stress::remotes::a_remote_process_is_killed_every_second";

    fn start(meeting: &Meeting, owner: &Arc<Owner>, segment: SegId, id: u32) -> Process {
        let (mut process, stream) = meeting.start(OTHER);
        // Every other one only reads: pages go to and fro between memory of either kind.
        let access = if id.is_multiple_of(2) {
            Access::Write
        } else {
            Access::Read
        };
        let config = RemoteConfig {
            access,
            ..RemoteConfig::default()
        };
        let served = owner.serve(stream, PartitionId(id), config);
        let segment = segment.number();
        assert_eq!(process.call(&format!("attach {segment} 0 {PAGES}")), "ok");
        process.order(&format!("churn {id}"));
        assert!(!served.unwrap().is_cut_off());
        process
    }

    /// Two processes use the memory at a time; every second (every 100 ms in a short run) the elder
    /// one is killed and another comes.
    #[test]
    fn a_remote_process_is_killed_every_second() {
        if crate::process::serve_parent() {
            return;
        }
        let memory = MemConfig {
            contents: Contents::Shared,
            ..MemConfig::default()
        };
        let killed = AtomicU64::new(0);
        let meanwhile = |owner: &Arc<Owner>, stop: &AtomicBool| {
            let meeting = Meeting::new();
            let whole = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + PAGES * PAGE));
            let segment = owner.make(whole.unwrap(), Access::Write);
            let pause = super::time().div_f64(15.0).min(Duration::from_secs(1));
            let mut elder = start(&meeting, owner, segment, 100);
            for id in 101.. {
                let younger = start(&meeting, owner, segment, id);
                let until = Instant::now() + pause;
                while Instant::now() < until && !stop.load(Relaxed) {
                    std::thread::sleep(Duration::from_millis(5));
                }
                elder.kill();
                killed.fetch_add(1, Relaxed);
                elder = younger;
                if stop.load(Relaxed) {
                    break;
                }
            }
            elder.kill();
            // Their pages are taken home from those that are gone, each on a thread of its own.
            let limit = Instant::now() + Duration::from_secs(600);
            while owner.connections() > 0 {
                assert!(Instant::now() < limit, "they are still served");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(owner.failures().is_empty());
        };
        run(memory, meanwhile, &|| killed.load(Relaxed) > 1);
        let killed = killed.into_inner();
        assert!(killed > 1, "{killed} killed");
        println!("{} remote processes killed", killed + 1);
    }
}

fn attach(machine: &Arc<Machine>, mm: &Arc<Mm>, oracle: &Arc<Oracle>) -> Devices {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let (vm, _stays) = Vm::create(&mut cx, mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut cx, slot).unwrap();
    let grus = Gru::several(
        2,
        GruConfig {
            preload: 2,
            ..GruConfig::default()
        },
    );
    let (gru, _stays) = GruSpace::attach(&mut cx, mm, &grus, None);
    // Nobody hangs here.
    let config = OwnerConfig {
        deadline: Duration::from_secs(600),
        ..OwnerConfig::default()
    };
    let (owner, _stays) = Owner::attach(&mut cx, mm, config);
    let all: [Arc<dyn ExternalMmu>; 3] = [vm.clone(), gru.clone(), owner.clone()];
    for ext in all {
        oracle.watch(mm, ext);
    }
    Devices {
        vm,
        gru,
        owner,
        partition: Partition::new(PartitionId(1)),
    }
}
