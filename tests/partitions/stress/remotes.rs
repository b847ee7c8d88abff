//! Two processes use the memory at a time, and are killed.

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

/// Processes that are killed at least.
const KILLED: u64 = 3;

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

/// Every second (every 100 ms in a test) the elder process is killed, and another comes.
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
        let pause = (super::time() / 15).clamp(Duration::from_millis(100), Duration::from_secs(1));
        let mut elder = start(&meeting, owner, segment, 100);
        for id in 101.. {
            let younger = start(&meeting, owner, segment, id);
            let until = Instant::now() + pause;
            while Instant::now() < until {
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
    run(memory, meanwhile, &|| killed.load(Relaxed) >= KILLED);
    println!("{} remote processes killed", killed.into_inner() + 1);
}
