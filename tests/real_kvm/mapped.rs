//! A real guest whose memory is the memory of an emulated process, while that is forked, moved and
//! reclaimed.

use super::{
    guest::Guest,
    has_kvm, skipped,
    steps::{GPA, PAGE, PAGES},
};
use emmu::{
    Machine, MachineConfig, MemConfig, Mm,
    extmmu::{HostMapping, HostMappingError},
    mm::{Advice, MmapArgs},
    oracle::Oracle,
};
use std::sync::{
    Arc,
    atomic::{
        AtomicBool,
        Ordering::{Acquire, Release},
    },
};

const BASE: u64 = 1 << 30;
/// How often the guest counts on all its pages.
const ROUNDS: u8 = 100;

fn disturb(mm: &Mm, done: &AtomicBool) {
    let machine = mm.machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    while !done.load(Acquire) {
        let child = mm.fork(&mut cx).unwrap();
        for n in 0..PAGES {
            let page = BASE + n * PAGE;
            mm.migrate(&mut cx, page).unwrap();
            child.store(&mut cx, page, 0xdb).unwrap();
            if n % 3 == 0 {
                mm.madvise(&mut cx, page, PAGE, Advice::PageOut).unwrap();
            }
        }
        child.exit(&mut cx);
        machine.reclaim(&mut cx, 2);
        std::thread::yield_now();
    }
}

#[test]
fn a_guest_counts_in_memory_that_moves_under_it() {
    if !has_kvm() {
        return;
    }
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 1024,
            swap: 1024,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let oracle = Oracle::new(&machine);
    let mapping = machine.with_current(|cx| {
        let args = MmapArgs::anonymous(PAGES * PAGE).fixed(BASE);
        mm.mmap(cx, &args).unwrap();
        HostMapping::new(cx, &mm, (BASE, (PAGES * PAGE) as usize))
    });
    let mapping = match mapping.unwrap() {
        Err(HostMappingError::NoUserfaultfd(why)) => {
            return skipped("a guest in a process's memory", &why.to_string());
        }
        other => other.unwrap(),
    };
    if !mapping.serves_kernel() {
        return skipped(
            "a guest in a process's memory",
            "KVM's accesses are not served",
        );
    }
    oracle.watch(&mm, mapping.driver());
    let done = Arc::new(AtomicBool::new(false));
    let mut guest = Guest::new(mapping.as_ptr().addr().get() as u64);
    std::thread::scope(|s| {
        s.spawn(|| disturb(&mm, &done));
        for round in 0..ROUNDS {
            for n in 0..PAGES {
                let at = GPA + n * PAGE + n;
                assert_eq!(guest.load(at), Some(round), "page {n}");
                assert!(guest.store(at, round + 1), "page {n}");
            }
        }
        done.store(true, Release);
    });
    drop(guest);
    machine
        .with_current(|cx| {
            for n in 0..PAGES {
                assert_eq!(mm.load(cx, BASE + n * PAGE + n), Ok(ROUNDS));
            }
            mm.exit(cx);
        })
        .unwrap();
    drop(mapping);
    oracle.audit_end(&mm);
    oracle.assert_silent();
    drop(mm);
    assert_eq!(machine.mem().in_use(), 0);
}
