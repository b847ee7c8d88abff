//! Random scripts with the models on them: correct ones stay silent whatever happens beside,
//! mistakes are found, and what is found is short and can be run again.

use emmu::{
    FaultError, Mm,
    ctx::CallCx,
    extmmu::{
        gru::{self, GruConfig},
        kvm::{self, VmConfig},
        xpmem::{Manners, OwnerConfig},
    },
    replay::{Script, Step, replay},
    testkit::{
        Attached, Declared, Device, Disturbances, Fault, Kit, Profile, Refused, Suite, gru, kvm,
        xpmem,
    },
};
use std::{sync::Arc, time::Duration};

fn all() -> [Kit; 3] {
    [correct_kvm(), correct_gru(), correct_xpmem()]
}
fn correct_kvm() -> Kit {
    kvm(VmConfig::default())
}
fn correct_gru() -> Kit {
    let config = GruConfig {
        preload: 2,
        ..GruConfig::default()
    };
    gru(config, None)
}
fn correct_xpmem() -> Kit {
    xpmem(OwnerConfig::default(), Manners::Prompt)
}

/// A script of these steps, without files.
fn of_steps(steps: &str) -> Script {
    const HEADER: &str = r#"{"profile":"testkit","seed":0,"kernel":"emmu","page":4096,"arena":["0x10000000000","0x10040000000"],"files":{}}"#;
    Script::parse("steps", format!("{HEADER}\n{steps}").as_bytes()).expect("ours")
}

#[track_caller]
fn silent(suite: &Suite) {
    match suite.run() {
        Ok(scripts) => println!("{scripts} scripts"),
        Err(failure) => panic!("\n{failure}"),
    }
}

#[test]
fn correct_devices_stay_silent() {
    silent(&Suite::new(all()).regressions(crate::drawn::kept("devices")));
}

#[test]
fn correct_devices_stay_silent_whatever_happens_beside() {
    let disturbed = Disturbances {
        windows: true,
        ..Disturbances::default()
    };
    let suite = Suite::new(all()).disturbed(disturbed);
    silent(&suite.regressions(crate::drawn::kept("disturbed")));
}

#[test]
fn correct_devices_stay_silent_under_threads() {
    let disturbed = Disturbances {
        windows: true,
        threads: 2,
        ..Disturbances::default()
    };
    silent(&Suite::new(all()).disturbed(disturbed));
}

#[test]
fn a_mistake_is_found_made_short_and_run_again() {
    let mistaken = kvm(VmConfig {
        mistake: Some(kvm::KvmMistake::NoFlush),
        ..VmConfig::default()
    });
    let folder = std::env::temp_dir().join(format!("emmu-suite-{}", std::process::id()));
    let suite = Suite::new([mistaken]).cases(500).regressions(&folder);
    let failure = suite.run().expect_err("TLBs are not flushed");
    println!("{failure}");
    let steps = failure.script.steps.len();
    assert!(steps <= 4, "{steps} steps are not short:\n{failure}");
    // The saved script reads, goes here as it says, and still shows the mistake, but no correct
    // device does.
    let saved = failure.saved.clone().expect("saved");
    let text = std::fs::read(&saved).unwrap();
    let script = Script::parse("saved", &text).unwrap();
    let replayed = replay(&script).unwrap();
    assert!(replayed.is_whole(), "{:?}", replayed.first);
    assert!(suite.again(&script).is_err());
    assert!(Suite::new(all()).again(&script).is_ok());
    // It is run first from now on.
    let first = suite.cases(0).run().expect_err("the kept script");
    assert_eq!(first.script.steps.len(), steps);
    std::fs::remove_dir_all(folder).unwrap();
}

/// The script of a report goes here as it says, also where userfaultfd protects pages.
#[test]
fn a_report_says_which_pages_are_write_protected() {
    let script = of_steps(
        r#"{"as":0,"op":"uffd","features":36864,"ret":0}
{"as":0,"op":"mmap","addr":"0x10000000000","len":16384,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000000000"}
{"as":0,"op":"uffd_register","addr":"0x10000000000","len":8192,"mode":2,"ret":0}
{"as":0,"op":"store","addr":"0x10000001000","byte":1,"ret":0}
{"as":0,"op":"uffd_writeprotect","addr":"0x10000000000","len":8192,"mode":1,"ret":0}
{"as":0,"op":"store","addr":"0x10000002000","byte":1,"ret":0}
{"as":0,"op":"madvise","addr":"0x10000002000","len":4096,"advice":"dontneed","ret":0}"#,
    );
    let mistaken = kvm(VmConfig {
        mistake: Some(kvm::KvmMistake::NoFlush),
        ..VmConfig::default()
    });
    let failure = Suite::new([mistaken]).again(&script).expect_err("stale");
    let says = |step: &Step| step.more.protected.values().any(|pages| !pages.is_empty());
    assert!(failure.script.steps.iter().any(says));
    let replayed = replay(&failure.script).expect("no limit is met");
    assert!(replayed.is_whole(), "{:?}", replayed.first);
}

#[test]
fn each_mistake_that_one_thread_shows_is_found() {
    for mistake in [gru::GruMistake::NoPurge, gru::GruMistake::LatePurge] {
        let kit = gru(GruConfig::default(), Some(mistake));
        let found = Suite::new([kit]).cases(2000).run();
        assert!(found.is_err(), "{mistake:?}");
    }
    for mistake in [kvm::KvmMistake::LateFlush, kvm::KvmMistake::ShortFlush] {
        let config = VmConfig {
            mistake: Some(mistake),
            ..VmConfig::default()
        };
        let found = Suite::new([kvm(config)]).cases(2000).run();
        assert!(found.is_err(), "{mistake:?}");
    }
}

/// A family, files, moves and swap, in a few lines.
const BUSY: &str = include_str!("../../src/testkit/property/busy.jsonl");

#[test]
fn each_of_what_can_fail_in_a_busy_script_may_fail() {
    let script = Script::parse("busy", BUSY.as_bytes()).unwrap();
    let patient = OwnerConfig {
        deadline: Duration::from_millis(20),
        ..OwnerConfig::default()
    };
    let xpmem = xpmem(patient, Manners::Prompt);
    let all = Suite::new([correct_kvm(), correct_gru(), xpmem]);
    assert!(all.again(&script).is_ok());
    // An owner of exported memory refuses such windows itself.
    let spinning = Suite::new([correct_kvm(), correct_gru()]);
    for fault in Fault::ALL {
        let refused = *fault == Fault::WouldBlock;
        let suite = if refused { &spinning } else { &all };
        match suite.fail_each(&script, *fault) {
            Ok(failed) => {
                println!("{failed:3} times {fault}");
                let least = if refused { 2 } else { 10 };
                assert!(failed >= least, "{fault}: {failed}");
            }
            Err(failure) => panic!("{fault}\n{failure}"),
        }
    }
}

#[test]
fn correct_devices_stay_silent_whatever_fails() {
    let failing = Disturbances {
        windows: true,
        random_faults: true,
        ..Disturbances::default()
    };
    let patient = OwnerConfig {
        deadline: Duration::from_millis(20),
        ..OwnerConfig::default()
    };
    let xpmem = xpmem(patient, Manners::Prompt);
    let suite = Suite::new([correct_kvm(), correct_gru(), xpmem]).disturbed(failing);
    silent(&suite.regressions(crate::drawn::kept("failing")));
}

/// Correct, until memory is wanting: it has its own word for that, which nobody takes.
struct Brusque(Arc<dyn Device>);

impl Brusque {
    fn word(why: Refused) -> Refused {
        match why {
            Refused::Fault(FaultError::NoMemory(_)) => Refused::Other("out of order".into()),
            other => other,
        }
    }
}
impl Device for Brusque {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        self.0.read(cx, mm, addr).map_err(Self::word)
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.0.write(cx, mm, addr, byte).map_err(Self::word)
    }
    fn declares(&self) -> Declared {
        self.0.declares()
    }
}

#[test]
fn what_fails_by_a_fault_is_kept_with_it() {
    let brusque = Kit::attaching(|cx, mm| {
        let attached = correct_kvm().attach(cx, mm);
        let device = Arc::new(Brusque(Arc::clone(&attached.device)));
        Attached { device, ..attached }
    });
    let folder = std::env::temp_dir().join(format!("emmu-faults-{}", std::process::id()));
    let suite = |kit: Kit| Suite::new([kit]).cases(0).regressions(&folder);
    let script = Script::parse("busy", BUSY.as_bytes()).unwrap();
    let failure = suite(brusque.clone()).fail_each(&script, Fault::Allocation);
    let failure = failure.expect_err("memory is made to be wanting");
    assert!(
        matches!(failure.fault, Some((Fault::Allocation, _))),
        "{failure}"
    );
    println!("{failure}");
    // The kept script fails again, by the same fault, and only for who is wrong.
    let again = suite(brusque).run().expect_err("kept");
    assert_eq!((again.fault, again.seen), (failure.fault, failure.seen));
    assert!(suite(correct_kvm()).run().is_ok());
    std::fs::remove_dir_all(folder).unwrap();
}

/// Write protection by userfaultfd that sends no messages changes no outcome, and no write is
/// missing in a scan, whoever made it.
#[test]
fn tracked_writes_are_reported() {
    for devices in [Vec::new(), all().into()] {
        let suite = Suite::new(devices).profile(Profile::Tracked).cases(32);
        let suite = suite.regressions(crate::drawn::kept("tracked"));
        silent(&suite.disturbed(Disturbances {
            windows: true,
            ..Disturbances::default()
        }));
    }
}

#[test]
fn huge_pages_are_split_moved_and_collapsed() {
    for devices in [Vec::new(), all().into()] {
        let suite = Suite::new(devices).profile(Profile::Huge).cases(32);
        let suite = suite.regressions(crate::drawn::kept("huge"));
        silent(&suite.disturbed(Disturbances {
            windows: true,
            ..Disturbances::default()
        }));
    }
}

#[test]
fn huge_pages_of_a_pool_are_followed_as_whole_pages() {
    for devices in [Vec::new(), all().into()] {
        let suite = Suite::new(devices).profile(Profile::Pool).cases(32);
        let suite = suite.regressions(crate::drawn::kept("pool"));
        silent(&suite.disturbed(Disturbances {
            windows: true,
            ..Disturbances::default()
        }));
    }
}

#[test]
fn pages_are_pinned_referenced_and_written_by_force() {
    for devices in [Vec::new(), all().into()] {
        let suite = Suite::new(devices).profile(Profile::Holds).cases(64);
        let suite = suite.regressions(crate::drawn::kept("holds"));
        silent(&suite.steps(50));
    }
}

/// Devices translate segments and sealed files as processes do.
#[test]
fn segments_are_attached_and_files_are_sealed() {
    let suite = Suite::new(all()).profile(Profile::Shared).cases(64);
    let suite = suite.regressions(crate::drawn::kept("shared"));
    silent(&suite.steps(60).disturbed(Disturbances {
        windows: true,
        ..Disturbances::default()
    }));
}

/// Pages go to the memory of a device and come home, and no byte, right or count changes.
#[test]
fn pages_go_to_a_device_and_come_home() {
    for devices in [Vec::new(), all().into()] {
        let suite = Suite::new(devices).profile(Profile::Device).cases(96);
        let suite = suite.regressions(crate::drawn::kept("device")).steps(60);
        silent(&suite.disturbed(Disturbances {
            windows: true,
            ..Disturbances::default()
        }));
    }
}

/// Each allocation of a script with a device fails in turn: in the migration there, in the fault
/// that brings a page home, in the eviction.
#[test]
fn nothing_is_lost_on_a_device_where_memory_runs_out() {
    for coherent in ["false", "true"] {
        let script = of_steps(&format!(
            r#"{{"as":0,"op":"mmap","addr":"0x10000000000","len":32768,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000000000"}}
{{"as":0,"op":"device","frames":6,"coherent":{coherent},"ret":0}}
{{"as":0,"op":"store","addr":"0x10000000000","byte":1,"ret":0}}
{{"as":0,"op":"store","addr":"0x10000001000","byte":2,"ret":0}}
{{"as":0,"op":"store","addr":"0x10000002000","byte":3,"ret":0}}
{{"as":0,"op":"to_device","addr":"0x10000000000","len":24576,"ret":6}}
{{"as":0,"op":"fork","child":1,"ret":1}}
{{"as":1,"op":"load","addr":"0x10000000000","ret":1}}
{{"as":1,"op":"store","addr":"0x10000001000","byte":7,"ret":0}}
{{"as":0,"op":"from_device","addr":"0x10000002000","len":4096,"ret":1}}
{{"as":0,"op":"exclusive","addr":"0x10000003000","ret":0}}
{{"as":0,"op":"pin","addr":"0x10000004000","len":4096,"ret":0}}
{{"as":0,"op":"to_device","addr":"0x10000000000","len":8192,"ret":2}}
{{"as":0,"op":"evict_device","ret":0}}
{{"as":0,"op":"remove_device","ret":0}}"#
        ));
        let suite = Suite::new(all());
        let failed = suite.fail_each(&script, Fault::Allocation);
        let failed = failed.unwrap_or_else(|failure| panic!("{failure}"));
        assert!(failed > 12, "{failed}");
    }
}

/// Each allocation of a script with huge pages fails in turn. A pool that has no page raises SIGBUS
/// where memory would be wanting: that one side meets it, and the other does not, blames no device.
#[test]
fn a_page_of_a_pool_that_is_wanting_for_one_side_blames_no_device() {
    let script = r#"{"profile":"testkit","seed":0,"kernel":"emmu","page":4096,"arena":["0x10000000000","0x10040000000"],"files":{"h0":{"kind":"hugefd","size":4194304}},"huge_pages":8}
{"as":0,"op":"mmap","addr":"0x10000000000","len":4194304,"prot":"rw-","flags":["shared","fixed"],"file":"h0","off":0,"ret":"0x10000000000"}
{"as":0,"op":"store","addr":"0x10000001000","byte":1,"ret":0}
{"as":0,"op":"load","addr":"0x10000200000","ret":0}
{"as":0,"op":"mmap","addr":"0x10000400000","len":4194304,"prot":"rw-","flags":["private","fixed","hugetlb"],"file":null,"off":0,"ret":"0x10000400000"}
{"as":0,"op":"store","addr":"0x10000400000","byte":2,"ret":0}
{"as":0,"op":"fork","child":1,"ret":1}
{"as":0,"op":"store","addr":"0x10000400000","byte":3,"ret":0}
{"as":0,"op":"load","addr":"0x10000600000","ret":0}"#;
    let script = Script::parse("pool", script.as_bytes()).expect("ours");
    let suite = Suite::new([correct_kvm(), correct_gru()]);
    let failed = suite.fail_each(&script, Fault::Allocation);
    let failed = failed.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(failed > 12, "{failed}");
}

/// Each allocation of a script with pins fails in turn, those of a fork's copies among them.
#[test]
fn nothing_is_lost_where_pages_are_held_and_memory_runs_out() {
    let script = of_steps(
        r#"{"as":0,"op":"mmap","addr":"0x10000000000","len":16384,"prot":"rw-","flags":["private","fixed"],"file":null,"off":0,"ret":"0x10000000000"}
{"as":0,"op":"store","addr":"0x10000000000","byte":1,"ret":0}
{"as":0,"op":"pin","addr":"0x10000000000","len":12288,"ret":0}
{"as":0,"op":"fork","child":1,"ret":1}
{"as":0,"op":"vmsplice","addr":"0x10000001000","len":8192,"ret":8192}
{"as":1,"op":"mem_write","addr":"0x10000003000","target":0,"byte":7,"ret":1}
{"as":0,"op":"fork","child":2,"ret":2}
{"as":1,"op":"pin","addr":"0x10000000000","len":16384,"ret":0}
{"as":0,"op":"store","addr":"0x10000002000","byte":2,"ret":0}
{"as":0,"op":"unpin","ret":0}"#,
    );
    let suite = Suite::new([]);
    let failed = suite.fail_each(&script, Fault::Allocation);
    assert!(failed.expect("nothing is lost") > 12);
}
