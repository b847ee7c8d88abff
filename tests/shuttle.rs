//! The whole address space with a virtual machine, a GRU and an XPmem owner on it, under shuttle: tasks that operate,
//! fault and use the devices, in schedules drawn at random and by PCT. The oracle looks on.
//!
//! `EMMU_SCHEDULES` says how many; a failing one is printed as a string, and `EMMU_REPLAY` takes it to run that one
//! alone. `EMMU_MISTAKE` makes one of the drivers make its mistake (docs/evidence.md).
#![cfg(shuttle)]

use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    extmmu::{
        gru::{self, AddressSpace, Context, Gru, GruConfig},
        kvm::{self, Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        xpmem::{self, Owner, OwnerConfig, Partition, PartitionId},
    },
    mm::{Advice, MmapArgs, Prot},
    notifier::{Access, ExternalMmu},
    oracle::Oracle,
};
use shuttle::{
    Config, Runner,
    scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler},
};
use std::{env, process::Command, sync::Arc};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 2;

fn operate(machine: &Arc<Machine>, mm: &Mm) {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let child = mm.fork(&mut cx).unwrap();
    let _refused = mm.store(&mut cx, BASE, 7);
    child.exit(&mut cx);
    mm.mprotect(&mut cx, BASE, PAGE, Prot::READ).unwrap();
    mm.madvise(&mut cx, BASE, PAGES * PAGE, Advice::DontNeed)
        .unwrap();
    mm.munmap(&mut cx, BASE, PAGE).unwrap();
}

fn use_devices(
    machine: &Arc<Machine>,
    vm: &Arc<Vm>,
    gru: &Arc<AddressSpace>,
    owner: &Arc<Owner>,
) -> impl Send + use<> {
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let vcpu = vm.vcpu(&mut cx);
    let context = Context::new(gru, 0);
    let partition = Partition::new(PartitionId(1));
    let whole = VpnRange::new(Vpn::containing(BASE), Vpn::containing(BASE + PAGES * PAGE)).unwrap();
    let segment = owner.make(whole, Access::Write);
    let importer = owner.import(&partition, segment, 0, PAGES).unwrap();
    for page in [0, 1, 0] {
        let at = page * PAGE;
        let _refused = vcpu.store(&mut cx, at, 1);
        let _refused = context.write(&mut cx, BASE + at, &[2]);
        let _refused = importer.write(&mut cx, at, &[3]);
        let _refused = vcpu.load(&mut cx, at);
        let _refused = context.read(&mut cx, BASE + at, &mut [0]);
        let _refused = importer.read(&mut cx, at, &mut [0]);
    }
    // What they have in their TLBs is looked at in the end.
    (vcpu, context, importer)
}

/// Who makes a mistake.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Nobody,
    Kvm,
    Gru,
    Xpmem,
}

impl Wrong {
    fn asked() -> Self {
        match env::var("EMMU_MISTAKE").as_deref() {
            Err(_) => Self::Nobody,
            Ok("kvm") => Self::Kvm,
            Ok("gru") => Self::Gru,
            Ok("xpmem") => Self::Xpmem,
            Ok(other) => panic!("EMMU_MISTAKE={other}: kvm, gru or xpmem"),
        }
    }
    fn then<M>(self, who: Self, mistake: M) -> Option<M> {
        (self == who).then_some(mistake)
    }
}

/// One schedule: a task that operates, one that uses all devices, one that faults.
fn world(wrong: Wrong) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let config = VmConfig {
        mistake: wrong.then(Wrong::Kvm, kvm::Mistake::NoRetry),
        ..VmConfig::default()
    };
    let (vm, _stays) = Vm::create(&mut cx, &mm, config);
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: PAGES,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut cx, slot).unwrap();
    let size = GruConfig {
        tlb_entries: 4,
        preload: 1,
        ..GruConfig::default()
    };
    let (gru, _stays) = AddressSpace::attach(
        &mut cx,
        &mm,
        &Gru::several(1, size),
        wrong.then(Wrong::Gru, gru::Mistake::NoDisarm),
    );
    let (owner, _stays) = Owner::attach(
        &mut cx,
        &mm,
        OwnerConfig {
            mistake: wrong.then(Wrong::Xpmem, xpmem::Mistake::NoRetry),
            ..OwnerConfig::default()
        },
    );
    let all: [Arc<dyn ExternalMmu>; 3] = [vm.clone(), gru.clone(), owner.clone()];
    for ext in all {
        oracle.watch(&mm, ext);
    }
    drop(thread);
    let (ma, m) = (Arc::clone(&machine), Arc::clone(&mm));
    let operations = shuttle::thread::spawn(move || operate(&ma, &m));
    let (ma, v, g, o) = (
        Arc::clone(&machine),
        Arc::clone(&vm),
        Arc::clone(&gru),
        Arc::clone(&owner),
    );
    let devices = shuttle::thread::spawn(move || use_devices(&ma, &v, &g, &o));
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let _refused = mm.store(&mut cx, BASE + PAGE, 9);
    let _refused = mm.store(&mut cx, BASE, 9);
    operations.join().unwrap();
    let devices = devices.join().unwrap();
    oracle.audit();
    mm.exit(&mut cx);
    oracle.audit_end(&mm);
    drop(devices);
    oracle.audit_empty(&mut cx, 0);
    oracle.assert_silent();
    assert_eq!(vm.in_progress(), (0, 0));
    assert_eq!((gru.active(), owner.recalls()), (0, 0));
}

/// Runs what the scheduler says; a failing schedule is printed as a string.
fn explore(scheduler: impl Scheduler + 'static) {
    let wrong = Wrong::asked();
    let mut config = Config::new();
    config.stack_size = 1 << 20;
    config.silence_warnings = true;
    let began = std::time::Instant::now();
    let done = Runner::new(scheduler, config).run(move || world(wrong));
    eprintln!("{done} schedules, {:.1} s", began.elapsed().as_secs_f64());
}

fn schedules() -> usize {
    env::var("EMMU_SCHEDULES").map_or(500, |n| n.parse().expect("EMMU_SCHEDULES: a number"))
}

#[test]
fn random_schedules() {
    match env::var("EMMU_REPLAY") {
        Ok(schedule) => explore(ReplayScheduler::new_from_encoded(&schedule)),
        Err(_) => explore(RandomScheduler::new_from_seed(1, schedules())),
    }
}

#[test]
fn pct_schedules() {
    if env::var_os("EMMU_REPLAY").is_none() {
        explore(PctScheduler::new_from_seed(1, 3, schedules()));
    }
}

/// Runs a test of this file in a process of its own, with these variables; what it printed, and whether it passed.
fn run(test: &str, vars: &[(&str, &str)]) -> (String, bool) {
    let done = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env_remove("EMMU_REPLAY")
        .envs(vars.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stderr).into_owned();
    (text, done.status.success())
}

/// The schedule, and where and why it failed: what the panicking task said first.
fn failure(text: &str) -> (&str, &str) {
    let begin = text.split_once("failing schedule:\n\"\n");
    let (_, rest) = begin.unwrap_or_else(|| panic!("no schedule in:\n{text}"));
    let (schedule, rest) = rest.split_once("\n\"\n").expect("the end of it");
    let (_, why) = rest.split_once("panicked at ").expect("a panic");
    (schedule, why.split("\nnote:").next().expect("the first"))
}

/// A twin: the mistake is found by at least one scheduler, and the string that is printed leads to the same place.
fn twin(mistake: &str) {
    if env::var_os("EMMU_REPLAY").is_some() || env::var_os("EMMU_MISTAKE").is_some() {
        return;
    }
    let wrong = ("EMMU_MISTAKE", mistake);
    let mut found_by = 0;
    for test in ["pct_schedules", "random_schedules"] {
        let (found, passed) = run(test, &[wrong, ("EMMU_SCHEDULES", "1000")]);
        if passed {
            continue;
        }
        found_by += 1;
        let (schedule, why) = failure(&found);
        let (again, passed) = run("random_schedules", &[wrong, ("EMMU_REPLAY", schedule)]);
        assert!(!passed, "{mistake}: the replay passes");
        assert_eq!(failure(&again).1, why, "{mistake}: another failure");
        eprintln!("{mistake}, {test}: {why}");
    }
    assert!(found_by > 0, "{mistake}: nothing is found");
}

#[test]
fn a_machine_that_does_not_try_again_is_found() {
    twin("kvm");
}
