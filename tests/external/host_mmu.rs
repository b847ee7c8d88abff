//! Slices of a process's memory that a window waits for.

use crate::beside::{begin_to_drop, churn};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    ctx::CallCx,
    extmmu::{HostMmu, HostSlice, SliceError},
    frame::Contents,
    mm::MmapArgs,
    notifier::{Access, ExternalMmu, Registration},
    oracle::Oracle,
};
use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{Relaxed, Release},
    },
};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 8;

struct World {
    machine: Arc<Machine>,
    mm: Arc<Mm>,
    host: Arc<HostMmu>,
    oracle: Arc<Oracle>,
    registration: Registration,
}

fn machine(memory: MemConfig) -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory,
        ..MachineConfig::default()
    })
}

fn world(cx: &mut CallCx<'_>, machine: &Arc<Machine>) -> World {
    let mm = Mm::new(machine);
    let oracle = Oracle::new(machine);
    mm.mmap(cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let (host, registration) = mm.register(cx, HostMmu::new);
    oracle.watch(&mm, Arc::clone(&host) as Arc<dyn ExternalMmu>);
    World {
        machine: Arc::clone(machine),
        mm,
        host,
        oracle,
        registration,
    }
}

impl World {
    fn end(self, cx: &mut CallCx<'_>) {
        self.mm.exit(cx);
        self.registration.unregister(cx);
        self.oracle.audit_end(&self.mm);
        self.oracle.assert_silent();
        assert_eq!(self.machine.mem().in_use(), 0);
    }
}

/// The first word of a slice.
fn word(slice: &HostSlice) -> &AtomicU64 {
    assert!(slice.len >= 8);
    // SAFETY: the frame keeps its address as long as the machine lives, which each test has; its
    // bytes are accessed by atomics alone.
    unsafe { AtomicU64::from_ptr(slice.address.as_ptr().cast()) }
}

#[test]
fn a_window_waits_until_the_slices_are_given_back() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine);
    w.mm.write_bytes(&mut cx, BASE, &[7; 8]).unwrap();
    let all = (BASE, (PAGES * PAGE) as usize);
    std::thread::scope(|s| {
        let seen = w
            .host
            .with_slices(&mut cx, &w.mm, all, Access::Write, |all| {
                assert_eq!(all.len() as u64, PAGES);
                begin_to_drop(s, &w.mm, BASE);
                let before = word(&all[0]).swap(9, Relaxed);
                (before, word(&all[0]).load(Relaxed))
            });
        assert_eq!(seen, Ok((0x0707_0707_0707_0707, 9)));
    });
    assert_eq!(w.mm.load(&mut cx, BASE), Ok(0), "the page went afterwards");
    w.end(&mut cx);
}

#[test]
fn pages_that_are_only_read_take_no_frame_and_are_not_kept_when_they_are_written() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine);
    let part = (BASE + PAGE - 8, PAGE as usize);
    let lens = |slices: &[HostSlice]| {
        assert!(slices.iter().all(|s| word(s).load(Relaxed) == 0));
        [slices[0].len, slices[1].len]
    };
    let read = w.host.with_slices(&mut cx, &w.mm, part, Access::Read, lens);
    assert_eq!((read, machine.mem().in_use()), (Ok([8, 4088]), 0));
    w.mm.store(&mut cx, BASE + PAGE, 5).unwrap();
    let second = |slices: &[HostSlice]| word(&slices[1]).load(Relaxed);
    let read = w
        .host
        .with_slices(&mut cx, &w.mm, part, Access::Read, second);
    assert_eq!((read, machine.mem().in_use()), (Ok(5), 1));
    w.end(&mut cx);
}

#[test]
fn memory_that_cannot_be_had_is_refused() {
    let machine = machine(MemConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine);
    let mut ask = |at: (u64, usize), access| {
        let got = w.host.with_slices(&mut cx, &w.mm, at, access, <[_]>::len);
        got.map_err(|why| (why, why.errno()))
    };
    assert_eq!(ask((BASE, 0), Access::Write), Ok(0));
    // However much it is: the first page ends the search, with as much memory as it needs.
    let (why, _) = ask((0, 1 << 46), Access::Read).unwrap_err();
    assert!(matches!(why, SliceError::Translate(_)), "{why}");
    let end = BASE + PAGES * PAGE;
    let unmapped = SliceError::Translate(FaultError::NotMapped(end).into());
    let unmapped = Err((unmapped, emmu::Errno::EFAULT));
    let rest = usize::try_from(emmu::TASK_SIZE - BASE).unwrap();
    assert_eq!(ask((BASE, rest), Access::Read), unmapped);
    assert_eq!(ask((end - 1, 2), Access::Write), unmapped);
    for (addr, len) in [(u64::MAX, 2), (emmu::TASK_SIZE - 1, 2)] {
        let why = SliceError::Range { addr, len };
        assert_eq!(ask((addr, len), Access::Read), Err((why, why.errno())));
    }
    w.end(&mut cx);
}

#[test]
fn frames_without_contents_have_no_address() {
    let machine = machine(MemConfig {
        contents: Contents::None,
        ..MemConfig::default()
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine);
    let refused = w
        .host
        .with_slices(&mut cx, &w.mm, (BASE, 1), Access::Write, <[_]>::len);
    let page = emmu::addr::Vpn::containing(BASE);
    assert_eq!(refused, Err(SliceError::NoAddress(page)));
    w.end(&mut cx);
}

/// No store through a slice is lost, whatever happens to the pages meanwhile.
#[test]
fn stores_reach_the_memory_while_its_pages_are_copied_moved_and_swapped() {
    const ROUNDS: u64 = 2000;
    let machine = machine(MemConfig {
        swap: 64,
        ..MemConfig::default()
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let w = world(&mut cx, &machine);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| churn(&w.mm, BASE..BASE + PAGES * PAGE, 2, &done));
        for n in 0..ROUNDS {
            let across = (BASE + n % PAGES * PAGE, 8);
            let added = w
                .host
                .with_slices(&mut cx, &w.mm, across, Access::Write, |s| {
                    word(&s[0]).fetch_add(1, Relaxed)
                });
            assert_eq!(added, Ok(n / PAGES));
        }
        done.store(true, Release);
    });
    for n in 0..PAGES {
        let mut bytes = [0; 8];
        w.mm.read_bytes(&mut cx, BASE + n * PAGE, &mut bytes)
            .unwrap();
        assert_eq!(u64::from_le_bytes(bytes), ROUNDS / PAGES);
    }
    w.end(&mut cx);
}
