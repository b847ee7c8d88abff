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

/// Maps the memory of a process in the host; none if its kernel's accesses cannot wait.
fn map(machine: &Machine, mm: &Arc<Mm>) -> Option<HostMapping> {
    let mapping = machine.with_current(|cx| {
        let args = MmapArgs::anonymous(PAGES * PAGE).fixed(BASE);
        mm.mmap(cx, &args).unwrap();
        HostMapping::new(cx, mm, (BASE, (PAGES * PAGE) as usize))
    });
    let why = match mapping.unwrap() {
        Ok(mapping) if mapping.serves_kernel() => return Some(mapping),
        Ok(_) => "KVM's accesses are not served".to_owned(),
        Err(HostMappingError::NoUserfaultfd(why)) => why.to_string(),
        Err(why) => panic!("{why}"),
    };
    skipped("a guest in a process's memory", &why);
    None
}

/// Has the guest count on all its pages.
fn count(guest: &mut Guest) {
    for round in 0..ROUNDS {
        for n in 0..PAGES {
            let at = GPA + n * PAGE + n;
            assert_eq!(guest.load(at), Some(round), "page {n}");
            assert!(guest.store(at, round + 1), "page {n}");
        }
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
    let Some(mapping) = map(&machine, &mm) else {
        return;
    };
    oracle.watch(&mm, mapping.driver());
    let done = AtomicBool::new(false);
    let mut guest = Guest::new(mapping.as_ptr().addr().get() as u64);
    std::thread::scope(|s| {
        s.spawn(|| disturb(&mm, &done));
        count(&mut guest);
        done.store(true, Release);
    });
    drop(guest);
    let ended = machine.with_current(|cx| {
        for n in 0..PAGES {
            assert_eq!(mm.load(cx, BASE + n * PAGE + n), Ok(ROUNDS));
        }
        mm.exit(cx);
    });
    ended.unwrap();
    drop(mapping);
    oracle.audit_end(&mm);
    oracle.assert_silent();
    drop(mm);
    assert_eq!(machine.mem().in_use(), 0);
}
