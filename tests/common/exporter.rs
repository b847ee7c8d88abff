//! A process that exports all of its memory, watched by an oracle, and partitions in other
//! processes that it serves.
#![allow(unreachable_pub, dead_code)] // Each test uses its part.

#[path = "skipped.rs"]
pub mod skipped;

use super::process::{Meeting, Process};
use emmu::{
    Contents, Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::xpmem::{
        Owner, OwnerConfig, PartitionId, SegId,
        remote::{Remote, RemoteConfig, RemotePartition},
    },
    mm::MmapArgs,
    notifier::{Access, ExternalMmu, Registration},
    oracle::Oracle,
};
use std::{
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

pub const BASE: u64 = 1 << 30;
pub const PAGE: u64 = emmu::PAGE_SIZE;
pub const PAGES: u64 = 64;
/// For what comes for certain: however busy the machine is, it is there long before.
pub const LONG: Duration = Duration::from_secs(600);

pub struct World {
    pub machine: Arc<Machine>,
    pub mm: Arc<Mm>,
    pub owner: Arc<Owner>,
    pub oracle: Arc<Oracle>,
    pub segment: SegId,
    pub meeting: Meeting,
    /// Partitions that outlive the test.
    pub kept: AtomicUsize,
    _registration: Registration,
}

fn config() -> MachineConfig {
    MachineConfig {
        memory: MemConfig {
            contents: Contents::Shared,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    }
}

pub fn pages(from: u64, to: u64) -> VpnRange {
    let page = |n| Vpn::containing(BASE + n * PAGE);
    VpnRange::new(page(from), page(to)).unwrap()
}

/// Runs `f` in a world; afterwards everything has been given back and the oracle is silent.
pub fn with(deadline: Duration, f: impl FnOnce(&mut CallCx<'_>, &World)) {
    let machine = match Machine::try_new(config()) {
        Ok(machine) => machine,
        Err(why) => {
            return skipped::skipped("memory of remotes", &format!("none is sealed: {why}"));
        }
    };
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    oracle.set_deadline(LONG);
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let config = OwnerConfig {
        deadline,
        ..OwnerConfig::default()
    };
    let (owner, registration) = Owner::attach(&mut cx, &mm, config);
    oracle.watch(&mm, Arc::clone(&owner) as Arc<dyn ExternalMmu>);
    let segment = owner.make(pages(0, PAGES), Access::Write);
    let w = World {
        machine: Arc::clone(&machine),
        mm,
        owner,
        oracle,
        segment,
        meeting: Meeting::new(),
        kept: AtomicUsize::new(0),
        _registration: registration,
    };
    f(&mut cx, &w);
    // Those that have gone are still taken their pages home from.
    wait_until(|| w.owner.connections() == w.kept.load(Relaxed));
    w.oracle.audit();
    w.mm.exit(&mut cx);
    w.oracle.audit_end(&w.mm);
    assert_eq!((w.owner.exported(&mut cx), w.owner.recalls()), (0, 0));
    assert_eq!(w.owner.lent(), 0);
    w.oracle.audit_empty(&mut cx, 0);
    w.oracle.assert_silent();
    assert_eq!(machine.mem().in_use(), 0);
}

impl World {
    /// A process that has the whole segment attached.
    pub fn process(&self, id: u32) -> (Process, Remote) {
        self.process_as(id, RemoteConfig::default())
    }
    pub fn process_as(&self, id: u32, config: RemoteConfig) -> (Process, Remote) {
        let (mut process, stream) = self.meeting.start("other_process");
        let served = self.owner.serve(stream, PartitionId(id), config);
        assert_eq!(process.call(&attach(self.segment)), "ok");
        (process, served.unwrap())
    }
    /// A partition in this process, at the other end of a socket.
    pub fn near(&self, id: u32, config: RemoteConfig) -> (RemotePartition, Remote) {
        let (mine, theirs) = UnixStream::pair().unwrap();
        let served = self.owner.serve(mine, PartitionId(id), config).unwrap();
        (RemotePartition::new(theirs).unwrap(), served)
    }
}

/// The order to attach a whole segment.
pub fn attach(segment: SegId) -> String {
    format!("attach {} 0 {PAGES}", segment.number())
}

pub fn wait_until(done: impl Fn() -> bool) {
    let limit = Instant::now() + LONG;
    while !done() {
        assert!(Instant::now() < limit, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}
