//! The KVM model against the address space, watched by the oracle; each mistake is found and named.

use crate::beside::begin_to_drop;
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        References,
        kvm::{
            AccessedBits, Exit, Gfn, KvmMistake, MemSlot, MemoryAttributes, SlotError, SlotFlags,
            Vcpu, Vm, VmConfig, VmType,
        },
    },
    frame::AtomicOp,
    mm::{Advice, MmapArgs, Prot},
    notifier::{AgeKind, ExternalMmu, Registration},
    oracle::{Finding, Invariant, Oracle},
};
use std::{
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
    time::{Duration, Instant},
};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
const PAGES: u64 = 2048;

struct Guest {
    mm: Arc<Mm>,
    vm: Arc<Vm>,
    oracle: Arc<Oracle>,
    registration: Registration,
}

fn machine() -> Arc<Machine> {
    Machine::new(MachineConfig {
        memory: MemConfig {
            swap: 4096,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    })
}

fn slot(id: u16, gfn: u64, pages: u64, flags: SlotFlags) -> MemSlot {
    MemSlot {
        id,
        gfn: Gfn(gfn),
        pages,
        hva: Vpn::containing(BASE + gfn * PAGE),
        flags,
    }
}

fn guest(cx: &mut CallCx<'_>, machine: &Arc<Machine>, config: VmConfig) -> Guest {
    let mm = Mm::new(machine);
    let oracle = Oracle::new(machine);
    // How long a window takes is the machine's matter.
    oracle.set_deadline(Duration::MAX);
    mm.mmap(cx, &MmapArgs::anonymous(PAGES * PAGE).fixed(BASE))
        .unwrap();
    let (vm, registration) = Vm::create(cx, &mm, config);
    oracle.watch(&mm, Arc::clone(&vm) as Arc<dyn ExternalMmu>);
    vm.set_memory(cx, slot(0, 0, PAGES, SlotFlags::empty()))
        .unwrap();
    Guest {
        mm,
        vm,
        oracle,
        registration,
    }
}

impl Guest {
    fn end(self, cx: &mut CallCx<'_>) {
        self.mm.exit(cx);
        self.oracle.audit_end(&self.mm);
        assert_eq!(self.vm.entries(cx), 0);
        assert_eq!(self.vm.in_progress(), (0, 0));
        drop(self.registration);
        self.oracle.audit_empty(cx, 0);
        self.oracle.assert_silent();
    }
}

fn with(config: VmConfig, f: impl FnOnce(&mut CallCx<'_>, &Guest, &Vcpu)) {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let guest = guest(&mut cx, &machine, config);
    let vcpu = guest.vm.vcpu(&mut cx);
    f(&mut cx, &guest, &vcpu);
    guest.oracle.audit();
    guest.end(&mut cx);
}

#[test]
fn guest_and_host_see_the_same_bytes() {
    with(VmConfig::default(), |cx, g, vcpu| {
        g.mm.store(cx, BASE + 5, 7).unwrap();
        assert_eq!(vcpu.load(cx, 5).unwrap(), 7);
        vcpu.store(cx, 5, 8).unwrap();
        assert_eq!(g.mm.load(cx, BASE + 5).unwrap(), 8);
        // Copy-on-write after a fork: the guest keeps to the parent.
        let child = g.mm.fork(cx).unwrap();
        vcpu.store(cx, 5, 9).unwrap();
        assert_eq!(child.load(cx, BASE + 5).unwrap(), 8);
        assert_eq!(g.mm.load(cx, BASE + 5).unwrap(), 9);
        child.exit(cx);
        // Bytes across a page, and pages that the host dropped.
        vcpu.write(cx, PAGE - 2, &[1, 2, 3, 4]).unwrap();
        let mut four = [0; 4];
        g.mm.read_bytes(cx, BASE + PAGE - 2, &mut four).unwrap();
        assert_eq!(four, [1, 2, 3, 4]);
        g.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        vcpu.read(cx, PAGE - 2, &mut four).unwrap();
        assert_eq!(four, [0, 0, 3, 4]);
        let bill = g.vm.bill();
        assert!(
            bill.windows >= 2 && bill.dropped >= 2 && bill.refaults >= 1,
            "{bill:?}"
        );
    });
}

#[test]
fn an_access_that_cannot_be_is_an_exit() {
    with(VmConfig::default(), |cx, g, vcpu| {
        assert_eq!(vcpu.load(cx, PAGES * PAGE), Err(Exit::Mmio(PAGES * PAGE)));
        g.mm.munmap(cx, BASE, PAGE).unwrap();
        assert!(matches!(vcpu.load(cx, 3), Err(Exit::Fault { gpa: 3, .. })));
        g.mm.mprotect(cx, BASE + PAGE, PAGE, Prot::READ).unwrap();
        vcpu.load(cx, PAGE).unwrap();
        assert!(matches!(vcpu.store(cx, PAGE, 1), Err(Exit::Fault { .. })));
        g.vm.set_memory(cx, slot(1, PAGES, 1, SlotFlags::READONLY))
            .unwrap();
        assert_eq!(
            vcpu.store(cx, PAGES * PAGE, 1),
            Err(Exit::ReadOnly(PAGES * PAGE))
        );
    });
}

#[test]
fn a_huge_page_is_one_entry_until_it_is_split() {
    with(VmConfig::default(), |cx, g, vcpu| {
        g.mm.madvise(cx, BASE, PAGES * PAGE, Advice::HugePage)
            .unwrap();
        g.mm.store(cx, BASE, 1).unwrap();
        vcpu.store(cx, 300 * PAGE, 5).unwrap();
        assert_eq!(vcpu.load(cx, 0).unwrap(), 1);
        assert_eq!(g.vm.entries(cx), 1);
        g.mm.munmap(cx, BASE + 10 * PAGE, PAGE).unwrap();
        assert_eq!(g.vm.entries(cx), 0);
        assert_eq!(vcpu.load(cx, 300 * PAGE).unwrap(), 5);
        assert_eq!(vcpu.load(cx, 0).unwrap(), 1);
        assert_eq!(g.vm.entries(cx), 2);
    });
}

#[test]
fn pinned_entries_keep_their_frames_and_give_them_back() {
    let config = VmConfig {
        references: References::Held,
        ..VmConfig::default()
    };
    with(config, |cx, g, vcpu| {
        vcpu.store(cx, 0, 1).unwrap();
        let in_use = g.mm.machine().mem().in_use();
        g.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert_eq!(g.mm.machine().mem().in_use(), in_use - 1);
        vcpu.store(cx, 0, 1).unwrap();
        vcpu.store(cx, 7 * PAGE, 1).unwrap();
    });
}

#[test]
fn aging_is_true_with_and_without_accessed_bits() {
    for accessed in [AccessedBits::Present, AccessedBits::Absent] {
        let config = VmConfig {
            accessed,
            ..VmConfig::default()
        };
        with(config, |cx, g, vcpu| {
            let page = VpnRange::single(Vpn::containing(BASE));
            vcpu.store(cx, 0, 1).unwrap();
            g.mm.age(cx, page, AgeKind::ClearFlush);
            assert!(!g.mm.age(cx, page, AgeKind::Test), "{accessed:?}");
            vcpu.load(cx, 0).unwrap();
            assert!(g.mm.age(cx, page, AgeKind::Test), "{accessed:?}");
            assert!(g.mm.age(cx, page, AgeKind::ClearFlush), "{accessed:?}");
            assert!(!g.mm.age(cx, page, AgeKind::ClearFlush), "{accessed:?}");
        });
    }
}

#[test]
fn the_dirty_log_has_each_page_written_since_the_last_look() {
    with(VmConfig::default(), |cx, g, vcpu| {
        let logging = slot(0, 0, PAGES, SlotFlags::LOG_DIRTY_PAGES);
        vcpu.store(cx, 0, 1).unwrap();
        g.vm.set_memory(cx, logging).unwrap();
        vcpu.load(cx, 9 * PAGE).unwrap();
        vcpu.store(cx, 3 * PAGE, 1).unwrap();
        vcpu.store(cx, 0, 1).unwrap();
        assert_eq!(g.vm.dirty_log(cx, 0).unwrap(), [0, 3]);
        assert!(g.vm.dirty_log(cx, 0).unwrap().is_empty());
        vcpu.store(cx, 3 * PAGE, 2).unwrap();
        assert_eq!(g.vm.dirty_log(cx, 0).unwrap(), [3]);
        // The host writes on the guest's behalf.
        let cache = g.vm.pfn_cache(7 * PAGE);
        cache.read(cx, 0, &mut [0]).unwrap();
        assert!(g.vm.dirty_log(cx, 0).unwrap().is_empty());
        for byte in [1, 2] {
            cache.write(cx, 0, &[byte]).unwrap();
            assert_eq!(g.vm.dirty_log(cx, 0).unwrap(), [7]);
        }
        assert_eq!(g.vm.dirty_log(cx, 5), Err(SlotError::NoLog(5)));
    });
}

#[test]
fn slots_move_and_go() {
    with(VmConfig::default(), |cx, g, vcpu| {
        vcpu.store(cx, PAGE, 4).unwrap();
        let moved = MemSlot {
            gfn: Gfn(1 << 20),
            ..slot(0, 0, PAGES, SlotFlags::empty())
        };
        let before = g.vm.slots().generation();
        g.vm.set_memory(cx, moved).unwrap();
        assert_eq!(g.vm.slots().generation(), before + 2);
        assert_eq!(g.vm.entries(cx), 0);
        assert_eq!(vcpu.load(cx, PAGE), Err(Exit::Mmio(PAGE)));
        assert_eq!(vcpu.load(cx, (1 << 32) + PAGE).unwrap(), 4);
        g.vm.delete_memory(cx, 0).unwrap();
        assert_eq!(vcpu.load(cx, 1 << 32), Err(Exit::Mmio(1 << 32)));
        assert_eq!(g.vm.delete_memory(cx, 0), Err(SlotError::Missing(0)));
    });
}

#[test]
fn what_the_guest_wrote_survives_reclaim_and_lazy_freeing() {
    with(VmConfig::default(), |cx, g, vcpu| {
        for n in 0..16 {
            vcpu.store(cx, n * PAGE, 100 + n as u8).unwrap();
        }
        g.mm.madvise(cx, BASE, 16 * PAGE, Advice::Free).unwrap();
        // Written again through the guest alone: no longer free to go.
        for n in 0..8 {
            vcpu.store(cx, n * PAGE, 50 + n as u8).unwrap();
        }
        g.mm.machine().reclaim_all(cx);
        g.mm.madvise(cx, BASE, 16 * PAGE, Advice::PageOut).unwrap();
        for n in 0..8 {
            assert_eq!(vcpu.load(cx, n * PAGE).unwrap(), 50 + n as u8, "page {n}");
        }
    });
}

#[test]
fn a_pfn_cache_is_valid_until_its_page_moves() {
    with(VmConfig::default(), |cx, g, vcpu| {
        let cache = g.vm.pfn_cache(2 * PAGE);
        assert!(!cache.is_valid());
        cache.write(cx, 8, &[1, 2]).unwrap();
        assert!(cache.is_valid());
        assert_eq!(vcpu.load(cx, 2 * PAGE + 9).unwrap(), 2);
        g.mm.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
        assert!(cache.is_valid());
        let child = g.mm.fork(cx).unwrap();
        assert!(!cache.is_valid());
        cache.write(cx, 8, &[3]).unwrap();
        assert_eq!(child.load(cx, BASE + 2 * PAGE + 8).unwrap(), 1);
        assert_eq!(g.mm.load(cx, BASE + 2 * PAGE + 8).unwrap(), 3);
        child.exit(cx);
    });
}

/// What the oracle says when a driver makes this mistake.
fn verdict(mistake: KvmMistake) -> Vec<Invariant> {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        mistake: Some(mistake),
        ..VmConfig::default()
    };
    let g = guest(&mut cx, &machine, config);
    let vcpu = g.vm.vcpu(&mut cx);
    let cache = g.vm.pfn_cache(0);
    match mistake {
        KvmMistake::EarlyValid | KvmMistake::DeafCache => cache.refresh(&mut cx).unwrap(),
        _ => {
            for n in 0..4 {
                vcpu.store(&mut cx, n * PAGE, 1).unwrap();
            }
        }
    }
    g.mm.madvise(&mut cx, BASE, 4 * PAGE, Advice::DontNeed)
        .unwrap();
    let mut found: Vec<_> = g.oracle.take().iter().map(|f| f.invariant()).collect();
    found.sort_unstable();
    found.dedup();
    g.mm.exit(&mut cx);
    found
}

#[test]
fn the_oracle_names_each_mistake() {
    use Invariant::{Coherent, DirtyKept, NoUseAfterFree};
    for mistake in [
        KvmMistake::NoFlush,
        KvmMistake::LateFlush,
        KvmMistake::ShortFlush,
        KvmMistake::DeafCache,
    ] {
        assert_eq!(verdict(mistake), [NoUseAfterFree, Coherent], "{mistake:?}");
    }
    assert_eq!(verdict(KvmMistake::LostDirty), [DirtyKept]);
    // Of the window itself nothing is seen: the count that stays up is, at exit.
    assert_eq!(verdict(KvmMistake::LostEnd), []);
}

#[test]
fn references_that_go_before_the_flush_are_named() {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        references: References::Held,
        mistake: Some(KvmMistake::LateFlush),
        ..VmConfig::default()
    };
    let g = guest(&mut cx, &machine, config);
    let vcpu = g.vm.vcpu(&mut cx);
    vcpu.store(&mut cx, 0, 1).unwrap();
    g.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    let found = g.oracle.take();
    assert!(
        matches!(found[0], Finding::GivenUpWhileTranslated { mmu: "KVM", range, .. }
            if range == VpnRange::single(Vpn::containing(BASE))),
        "{found:?}"
    );
    g.mm.exit(&mut cx);
}

#[test]
fn a_processor_that_waits_for_a_window_that_is_over_is_named() {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        mistake: Some(KvmMistake::LostEnd),
        ..VmConfig::default()
    };
    let g = guest(&mut cx, &machine, config);
    g.oracle.set_deadline(Duration::from_millis(50));
    let vcpu = g.vm.vcpu(&mut cx);
    vcpu.store(&mut cx, 0, 1).unwrap();
    g.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    let mut found = Vec::new();
    std::thread::scope(|s| {
        let machine = &machine;
        let spins = s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            vcpu.load(&mut thread.cx(), 0)
        });
        // It comes, however long the processor that spins has to wait for one to spin on.
        let until = Instant::now() + Duration::from_secs(600);
        let both = |found: &[Finding]| {
            let has = |what: fn(&Finding) -> bool| found.iter().any(what);
            has(|f| matches!(f, Finding::NoProgress { mmu: "KVM", .. }))
                && has(|f| matches!(f, Finding::CountsWindows { count: 1, .. }))
        };
        while !both(&found) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
            g.oracle.audit_liveness();
            found.extend(g.oracle.take());
        }
        assert!(both(&found), "{found:?}");
        // Only the end of the address space sets it free.
        g.mm.exit(&mut cx);
        assert!(spins.join().unwrap().is_err());
    });
    // Taking it off at exit was a window too.
    let mut at_exit = g.oracle.take();
    // It went on to try, and took its time.
    at_exit.retain(|f| matches!(f, Finding::CountsAtExit { .. }));
    let [
        Finding::CountsAtExit {
            mmu: "KVM",
            count: 2,
        },
    ] = at_exit[..]
    else {
        panic!("{at_exit:?}");
    };
}

#[test]
fn a_stale_entry_is_found_though_nobody_asks_about_its_page() {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        mistake: Some(KvmMistake::NoFlush),
        ..VmConfig::default()
    };
    let g = guest(&mut cx, &machine, config);
    let vcpu = g.vm.vcpu(&mut cx);
    vcpu.load(&mut cx, 0).unwrap();
    // The zero page is never given back: the window alone tells of the entry that stays.
    g.mm.madvise(&mut cx, BASE, PAGE, Advice::DontNeed).unwrap();
    assert!(!g.oracle.take().is_empty());
    let elsewhere = BASE + (PAGES - 1) * PAGE;
    for _ in 0..1100 {
        g.mm.madvise(&mut cx, elsewhere, PAGE, Advice::DontNeed)
            .unwrap();
    }
    let found = g.oracle.take();
    let pages = VpnRange::single(Vpn::containing(BASE));
    assert!(
        found
            .iter()
            .any(|f| matches!(f, Finding::Incoherent { mmu: "KVM", range, .. } if *range == pages)),
        "{found:?}"
    );
    g.mm.exit(&mut cx);
}

/// A queue of virtio: the guest and the process move one index. A window waits for a view.
#[test]
fn a_guest_does_atomic_accesses_and_has_addresses_under_its_lock() {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let g = guest(&mut cx, &machine, VmConfig::default());
    let vcpu = g.vm.vcpu(&mut cx);
    for n in 0..4 {
        let add = AtomicOp::Add(1_u16);
        assert_eq!(vcpu.atomic(&mut cx, 2, add, Relaxed), Ok(2 * n));
        assert_eq!(g.mm.atomic(&mut cx, BASE + 2, add, Relaxed), Ok(2 * n + 1));
    }
    let load = AtomicOp::<u16>::Load;
    assert_eq!(vcpu.atomic(&mut cx, 2, load, Acquire), Ok(8));
    let why = FaultError::Misaligned(3);
    let refused = vcpu.atomic(&mut cx, 3, load, Acquire);
    assert_eq!(refused, Err(Exit::Fault { gpa: 3, why }));

    let page = vcpu
        .view_mut(&mut cx, 8, |mut page| page.as_mut_ptr())
        .unwrap();
    let page = page.expect("frames have contents");
    let same = vcpu.view(&mut cx, 8, |frame| frame.as_ptr() == Some(page));
    assert_eq!(same, Ok(true));
    let stored = vcpu.view_mut(&mut cx, 8, |_held| {
        // SAFETY: the frame is the guest's as long as it is held; nobody has references to it.
        unsafe { page.as_ptr().wrapping_add(8).write_volatile(9) };
    });
    assert_eq!((stored, g.mm.load(&mut cx, BASE + 8)), (Ok(()), Ok(9)));

    // The page goes only after the view.
    std::thread::scope(|s| {
        let seen = vcpu.view(&mut cx, 8, |frame| {
            begin_to_drop(s, &g.mm, BASE);
            // SAFETY: as above.
            let byte = unsafe { page.as_ptr().wrapping_add(8).read_volatile() };
            (byte, frame.read_u8(8), frame.is_stale())
        });
        assert_eq!(seen, Ok((9, 9, false)));
    });
    assert_eq!(vcpu.load(&mut cx, 8), Ok(0));
    g.end(&mut cx);
}

/// A processor has a copy of a small entry; then another processor's miss makes a huge one of its
/// block. The copy goes with the entry: no window over the page finds it any more.
#[test]
fn a_huge_entry_takes_the_copies_of_small_ones_with_it() {
    let machine = machine();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let config = VmConfig {
        vm_type: VmType::SwProtected,
        ..VmConfig::default()
    };
    let g = guest(&mut cx, &machine, config);
    let block = 512 * PAGE;
    g.mm.madvise(&mut cx, BASE, block, Advice::HugePage)
        .unwrap();
    g.mm.store(&mut cx, BASE + 5 * PAGE, 5).unwrap();
    let [one, other] = [(); 2].map(|()| g.vm.vcpu(&mut cx));
    // A private frame of the block keeps its entries small.
    for (attributes, vcpu) in [
        (MemoryAttributes::PRIVATE, &one),
        (MemoryAttributes::empty(), &other),
    ] {
        let private = (100 * PAGE, PAGE);
        g.vm.set_memory_attributes(&mut cx, private.0, private.1, attributes)
            .unwrap();
        assert_eq!(vcpu.load(&mut cx, 5 * PAGE), Ok(5));
    }
    // The first window takes the huge entry, the second one finds none.
    for page in [7, 5] {
        g.mm.madvise(&mut cx, BASE + page * PAGE, PAGE, Advice::DontNeed)
            .unwrap();
    }
    assert_eq!(one.load(&mut cx, 5 * PAGE), Ok(0));
    g.end(&mut cx);
}
