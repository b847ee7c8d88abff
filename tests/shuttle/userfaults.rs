//! Answers of a handler against accesses, operations and each other, and scans of written pages
//! against a device.

use crate::run::{How, explore};
use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm,
    addr::Vpn,
    ctx::CallCx,
    error::UserfaultError,
    extmmu::kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
    mm::{
        Advice, FillMode, MmapArgs, PageCategories, ProtectMode, RegisterMode, ScanArgs, ScanFlags,
        UffdFeatures, UffdMessage, Userfault,
    },
    oracle::Oracle,
};
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
/// Three threads have too many schedules for a sweep.
const DRAWN: [How; 2] = [How::Random(150), How::Pct(150)];

/// One page, registered.
fn world(features: UffdFeatures, mode: RegisterMode) -> (Arc<Machine>, Arc<Mm>, Userfault) {
    let machine = Machine::new(MachineConfig {
        memory: MemConfig {
            frames: 16,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    let mm = Mm::new(&machine);
    let uffd = mm.userfaultfd();
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE).fixed(BASE))
            .unwrap();
        uffd.api(Userfault::VERSION, features).unwrap();
        uffd.register(&mut cx, BASE, PAGE, mode).unwrap();
    }
    (machine, mm, uffd)
}
fn task<T: Send + 'static>(
    machine: &Arc<Machine>,
    work: impl FnOnce(&mut CallCx<'_>) -> T + Send + 'static,
) -> shuttle::thread::JoinHandle<T> {
    let machine = Arc::clone(machine);
    shuttle::thread::spawn(move || work(&mut machine.enter().unwrap().cx()))
}
/// Loads, and waits as long as the access does.
fn load(cx: &mut CallCx<'_>, mm: &Mm) -> Result<u8, FaultError> {
    loop {
        match mm.load(cx, BASE) {
            Err(FaultError::Userfault(addr)) => mm.wait_for_answer(cx, addr),
            done => return done,
        }
    }
}
/// Answers without reading a message: the access may come later, or never.
fn copy(cx: &mut CallCx<'_>, uffd: &Userfault, byte: u8) -> Result<u64, UserfaultError> {
    let done = uffd.copy(cx, BASE, &[byte; PAGE as usize], FillMode::empty());
    if done.is_err() {
        // Accesses that wait try again.
        uffd.wake(BASE, PAGE).unwrap();
    }
    done
}
fn end(machine: &Arc<Machine>, mm: &Mm) {
    mm.exit(&mut machine.enter().unwrap().cx());
    assert_eq!(machine.mem().in_use(), 0, "frames are left");
}

/// An access does not miss the answer, whenever it comes.
fn answer_and_access() {
    let (machine, mm, uffd) = world(UffdFeatures::empty(), RegisterMode::MISSING);
    let loads = Arc::clone(&mm);
    let access = task(&machine, move |cx| load(cx, &loads));
    let answer = task(&machine, move |cx| copy(cx, &uffd, 7));
    assert_eq!(answer.join().unwrap(), Ok(PAGE));
    assert_eq!(access.join().unwrap(), Ok(7));
    end(&machine, &mm);
}

/// Of two answers one is taken, and none in a mapping that is gone.
fn answers_and_unmap() {
    let (machine, mm, uffd) = world(UffdFeatures::empty(), RegisterMode::MISSING);
    let answers = [7, 8].map(|byte| {
        let uffd = uffd.clone();
        task(&machine, move |cx| copy(cx, &uffd, byte))
    });
    let (loads, unmaps) = (Arc::clone(&mm), Arc::clone(&mm));
    let access = task(&machine, move |cx| load(cx, &loads));
    let unmap = task(&machine, move |cx| unmaps.munmap(cx, BASE, PAGE).unwrap());
    let answered = answers.map(|answer| answer.join().unwrap());
    unmap.join().unwrap();
    uffd.wake(BASE, PAGE).unwrap();
    let got = access.join().unwrap();
    let taken = answered.iter().filter(|done| done.is_ok()).count();
    assert!(taken <= 1, "two answers for one page: {answered:?}");
    match got {
        Ok(byte) => {
            let nth = usize::from(byte) - 7;
            assert!(answered[nth].is_ok(), "{byte}, which was refused");
        }
        Err(error) => assert_eq!(error, FaultError::NotMapped(BASE)),
    }
    assert_eq!(machine.mem().in_use(), 0, "a page without a mapping");
    end(&machine, &mm);
}

/// An access sleeps. Another one to the same protected page joins its message, and finds that the
/// page was dropped meanwhile. The first one is still answered.
fn equal_accesses_and_discard() {
    let (machine, mm, uffd) = world(UffdFeatures::empty(), RegisterMode::WP);
    {
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        mm.store(&mut cx, BASE, 1).unwrap();
        uffd.write_protect(&mut cx, BASE, PAGE, ProtectMode::WP)
            .unwrap();
        let waits = Err(FaultError::Userfault(BASE));
        assert_eq!(mm.store(&mut cx, BASE, 2), waits);
    }
    let done = Arc::new(AtomicUsize::new(0));
    let discards = Arc::clone(&mm);
    let discard = task(&machine, move |cx| {
        discards.madvise(cx, BASE, PAGE, Advice::DontNeed).unwrap();
    });
    let accesses = [true, false].map(|sleeps| {
        let (stores, done) = (Arc::clone(&mm), Arc::clone(&done));
        task(&machine, move |cx| {
            if sleeps {
                stores.wait_for_answer(cx, BASE);
            }
            while let Err(FaultError::Userfault(addr)) = stores.store(cx, BASE, 3) {
                stores.wait_for_answer(cx, addr);
            }
            done.fetch_add(1, Ordering::SeqCst);
        })
    });
    discard.join().unwrap();
    let handler = task(&machine, move |cx| {
        while done.load(Ordering::SeqCst) < 2 {
            while uffd.read().is_some() {
                uffd.write_protect(cx, BASE, PAGE, ProtectMode::empty())
                    .unwrap();
            }
            shuttle::thread::yield_now();
        }
    });
    for access in accesses {
        access.join().unwrap();
    }
    handler.join().unwrap();
    end(&machine, &mm);
}

/// A fork has the page if the answer was taken, and the answer comes too early if not.
fn answer_and_fork() {
    let (machine, mm, uffd) = world(UffdFeatures::EVENT_FORK, RegisterMode::MISSING);
    let (forks, answers) = (Arc::clone(&mm), uffd.clone());
    let fork = task(&machine, move |cx| forks.fork(cx).unwrap());
    let answer = task(&machine, move |cx| copy(cx, &answers, 7));
    let child = fork.join().unwrap();
    let answered = answer.join().unwrap();
    let Some(UffdMessage::Fork(of_child)) = uffd.read() else {
        panic!("no event")
    };
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (parents, childs) = (mm.load(&mut cx, BASE), child.load(&mut cx, BASE));
    match answered {
        Ok(_) => assert_eq!(
            (parents, childs),
            (Ok(7), Ok(7)),
            "the child lacks the page"
        ),
        Err(error) => {
            assert_eq!(error, UserfaultError::Changing);
            let waits = Err(FaultError::Userfault(BASE));
            assert_eq!((parents, childs), (waits, waits));
        }
    }
    of_child.close(&mut cx);
    child.exit(&mut cx);
    drop(thread);
    end(&machine, &mm);
}

/// A write of a device is in the scan that it comes before, or in the next one.
fn scan_and_device() {
    let (machine, mm, _uffd) = world(UffdFeatures::WP_ASYNC, RegisterMode::WP);
    let args = ScanArgs {
        start: BASE,
        end: BASE + PAGE,
        flags: ScanFlags::WP_MATCHING | ScanFlags::CHECK_WPASYNC,
        regions: 1,
        pages: 0,
        inverted: PageCategories::empty(),
        mask: PageCategories::WRITTEN,
        any_of: PageCategories::empty(),
        reported: PageCategories::WRITTEN,
    };
    let oracle = Oracle::new(&machine);
    oracle.set_deadline(std::time::Duration::MAX);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    mm.store(&mut cx, BASE, 1).unwrap();
    let (vm, _stays) = Vm::create(&mut cx, &mm, VmConfig::default());
    let slot = MemSlot {
        id: 0,
        gfn: Gfn(0),
        pages: 1,
        hva: Vpn::containing(BASE),
        flags: SlotFlags::empty(),
    };
    vm.set_memory(&mut cx, slot).unwrap();
    oracle.watch(&mm, vm.clone());
    let vcpu = vm.vcpu(&mut cx);
    // It can write, until the first scan takes its translation.
    vcpu.write(&mut cx, 0, &[2]).unwrap();
    mm.pagemap_scan(&mut cx, &args).unwrap();
    drop(thread);
    let scans = Arc::clone(&mm);
    let device = task(&machine, move |cx| {
        vcpu.write(cx, 0, &[3]).unwrap();
        vcpu
    });
    let scan = task(&machine, move |cx| scans.pagemap_scan(cx, &args).unwrap());
    let vcpu = device.join().unwrap();
    let early = scan.join().unwrap().regions.len();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let late = mm.pagemap_scan(&mut cx, &args).unwrap().regions.len();
    assert!(early + late > 0, "no scan reports the write");
    assert_eq!(mm.load(&mut cx, BASE), Ok(3));
    oracle.audit();
    mm.exit(&mut cx);
    drop(vcpu);
    oracle.audit_end(&mm);
    oracle.assert_silent();
}

#[test]
fn answer_against_access() {
    explore(
        &[How::Sweep(2, 2), How::Random(100), How::Pct(100)],
        answer_and_access,
    );
}

#[test]
fn answers_against_unmap() {
    explore(&DRAWN, answers_and_unmap);
}

#[test]
fn equal_accesses_against_discard() {
    explore(&DRAWN, equal_accesses_and_discard);
}

#[test]
fn answer_against_fork() {
    explore(
        &[How::Sweep(2, 8), How::Random(100), How::Pct(100)],
        answer_and_fork,
    );
}

#[test]
fn scan_against_device() {
    explore(
        &[How::Sweep(2, 4), How::Random(100), How::Pct(100)],
        scan_and_device,
    );
}
