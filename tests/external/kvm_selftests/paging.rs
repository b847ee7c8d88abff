//! `demand_paging_test`, `access_tracking_perf_test`, `pre_fault_memory_test`.

use super::*;
use crate::common::{RW, objects::shmem};
use emmu::{
    Errno, FaultError,
    addr::VpnRange,
    extmmu::kvm::{MemoryAttributes, PreFaultError, VmType},
    mm::{
        Advice, FillMode, MapFlags, PageFaultFlags, RegisterMode, UffdFeatures, UffdMessage,
        Userfault,
    },
    notifier::AgeKind,
};

const CPUS: u64 = 2;
const EACH: u64 = 24;
const BYTE: u8 = 0xab;

/// A load of the guest that waits for its page, as one of Linux's does in the page's fault.
fn load(cx: &mut CallCx<'_>, mm: &Mm, vcpu: &Vcpu, gpa: u64) -> u8 {
    loop {
        match vcpu.load(cx, gpa) {
            Ok(byte) => return byte,
            Err(Exit::Fault {
                why: FaultError::Userfault(addr),
                ..
            }) => mm.wait_for_answer(cx, addr),
            Err(exit) => panic!("{exit}"),
        }
    }
}

/// Runs two processors, each of which loads its part of the memory, and answers their faults.
/// Returns the pages that faulted, in order.
fn demand(
    g: &mut Guest,
    uffd: &Userfault,
    answer: impl Fn(&mut CallCx<'_>, u64, PageFaultFlags),
) -> Vec<u64> {
    let host = g.host();
    let mut faulted = Vec::new();
    std::thread::scope(|s| {
        let run = |cpu: u64| {
            let mm = Arc::clone(&host.mm);
            host.vcpu(s, move |cx, vcpu| {
                for gfn in cpu * EACH..(cpu + 1) * EACH {
                    assert_eq!(load(cx, &mm, vcpu, gfn * PAGE), BYTE);
                }
            })
        };
        let cpus: Vec<_> = (0..CPUS).map(run).collect();
        while cpus.iter().any(|cpu| !cpu.is_finished()) {
            let Some(message) = uffd.read() else {
                std::thread::yield_now();
                continue;
            };
            let UffdMessage::PageFault(fault) = message else {
                panic!("{message:?}");
            };
            faulted.push((fault.addr - at(0)) / PAGE);
            answer(&mut g.w.thread.cx(), fault.addr, fault.flags);
        }
        cpus.into_iter().for_each(|cpu| cpu.join().unwrap());
    });
    faulted.sort_unstable();
    faulted
}

#[test]
fn demand_paging_missing() {
    let mut g = Guest::new();
    g.w.map(0, CPUS * EACH, RW);
    g.set(slot(0, 0, CPUS * EACH, 0, NONE));
    let uffd = g.w.userfaultfd(UffdFeatures::empty());
    g.w.register(&uffd, 0, CPUS * EACH, RegisterMode::MISSING);
    let page = vec![BYTE; PAGE as usize];
    let faulted = demand(&mut g, &uffd, |cx, addr, flags| {
        assert!(!flags.contains(PageFaultFlags::MINOR));
        assert_eq!(uffd.copy(cx, addr, &page, FillMode::empty()), Ok(PAGE));
    });
    assert_eq!(
        faulted,
        (0..CPUS * EACH).collect::<Vec<_>>(),
        "each page once"
    );
    drop(uffd);
    g.end();
}

/// The pages are there, and the process fills them through another mapping.
#[test]
fn demand_paging_minor() {
    const ALIAS: u64 = 1024;
    let mut g = Guest::new();
    let file = shmem(&mut g.w, CPUS * EACH);
    for first in [0, ALIAS] {
        g.w.map_file(first, CPUS * EACH, &file, 0, MapFlags::SHARED);
    }
    for page in 0..CPUS * EACH {
        g.w.put(ALIAS + page, BYTE);
    }
    g.set(slot(0, 0, CPUS * EACH, 0, NONE));
    let uffd = g.w.userfaultfd(UffdFeatures::MINOR_SHMEM);
    g.w.register(&uffd, 0, CPUS * EACH, RegisterMode::MINOR);
    let faulted = demand(&mut g, &uffd, |cx, addr, flags| {
        assert!(flags.contains(PageFaultFlags::MINOR));
        assert_eq!(
            uffd.map_present(cx, addr, PAGE, FillMode::empty()),
            Ok(PAGE)
        );
    });
    assert_eq!(
        faulted,
        (0..CPUS * EACH).collect::<Vec<_>>(),
        "each page once"
    );
    drop((uffd, file));
    g.end();
}

/// The pages that a processor is seen to have used, of those that it used after all were marked
/// idle.
fn seen_young(pages: u64, idle: AgeKind) -> u64 {
    let mut g = Guest::new();
    g.w.map(0, pages, RW);
    g.set(slot(0, 0, pages, 0, NONE));
    let mut cx = g.w.thread.cx();
    let vcpu = g.vm.vcpu(&mut cx);
    let page = |n| VpnRange::single(Vpn::containing(at(n)));
    let mut least = pages;
    let pass = |cx: &mut CallCx<'_>, write: bool| {
        for gfn in 0..pages {
            match write {
                true => vcpu.store(cx, gfn * PAGE, 1).unwrap(),
                false => vcpu.load(cx, gfn * PAGE).map(drop).unwrap(),
            }
        }
    };
    pass(&mut cx, true);
    pass(&mut cx, false);
    for write in [true, false] {
        for n in 0..pages {
            g.w.mm.age(&mut cx, page(n), idle);
            assert!(!g.w.mm.age(&mut cx, page(n), AgeKind::Test));
        }
        pass(&mut cx, write);
        let young = (0..pages).filter(|&n| g.w.mm.age(&mut cx, page(n), AgeKind::Test));
        least = least.min(young.count() as u64);
    }
    g.end();
    least
}

/// A mark that is not flushed is not seen by a processor that has the page in its TLB. Of memory
/// twice as large as a TLB, nine of ten pages must be seen.
#[test]
fn access_tracking_perf() {
    const LARGE: u64 = 2 * 1536;
    assert!(seen_young(LARGE, AgeKind::Clear) >= LARGE / 10 * 9);
    assert_eq!(seen_young(64, AgeKind::Clear), 0, "all in the TLB");
    assert_eq!(seen_young(64, AgeKind::ClearFlush), 64);
}

/// Huge pages and one more page, at the end of the guest's address space.
const SIZE: u64 = HUGE * PAGE + PAGE;
const GFN: u64 = (1 << 36) - 2 * HUGE;

/// The outcome of the ioctl, until all bytes are done or it fails: the bytes that are left, and the
/// error.
fn pre_fault(g: &mut Guest, offset: u64, size: u64) -> (u64, Option<Errno>) {
    let mut cx = g.w.thread.cx();
    let vcpu = g.vm.vcpu(&mut cx);
    let end = GFN * PAGE + offset + size;
    let mut left = size;
    while left > 0 {
        match vcpu.pre_fault_memory(&mut cx, end - left, left) {
            Ok(rest) => {
                assert!(rest < left, "it got on");
                left = rest;
            }
            Err(why) => return (left, Some(why.errno())),
        }
    }
    (0, None)
}

#[test]
fn pre_fault_memory() {
    let types = [
        (VmType::Default, false),
        (VmType::SwProtected, false),
        (VmType::SwProtected, true),
        (VmType::Snp, true),
    ];
    for (vm_type, private) in types {
        let mut g = Guest::with(VmConfig {
            vm_type,
            ..VmConfig::default()
        });
        g.w.map(0, HUGE + 1, RW);
        g.w.advise(0, HUGE + 1, Advice::HugePage).unwrap();
        let flags = if private {
            SlotFlags::GUEST_MEMFD
        } else {
            NONE
        };
        let slot = slot(10, GFN, HUGE + 1, 0, flags);
        let vm = Arc::clone(&g.vm);
        let mut cx = g.w.thread.cx();
        let memfd = private.then(|| {
            let memfd = vm.create_guest_memfd(SIZE, Default::default()).unwrap();
            vm.set_guest_memory(&mut cx, slot, &memfd, 0).unwrap();
            let kind = MemoryAttributes::PRIVATE;
            vm.set_memory_attributes(&mut cx, GFN * PAGE, SIZE, kind)
                .unwrap();
            memfd
        });
        if !private {
            vm.set_memory(&mut cx, slot).unwrap();
        }
        assert_eq!(pre_fault(&mut g, 0, HUGE * PAGE), (0, None));
        let beyond = (PAGE, Some(Errno::ENOENT));
        assert_eq!(pre_fault(&mut g, HUGE * PAGE, 2 * PAGE), beyond);
        assert_eq!(pre_fault(&mut g, SIZE, PAGE), beyond);
        let entries = (g.entries(), g.vm.guest_entries() as u64);
        let in_use = u64::from(g.w.machine.mem().in_use());
        match private {
            true => assert_eq!((entries, in_use), ((0, HUGE + 1), HUGE + 1)),
            // 2 MiB and 4 KiB, both zero pages: nothing was written.
            false => assert_eq!((entries, in_use), ((2, 0), 0)),
        }
        drop(memfd);
        g.end();
    }
}

#[test]
fn pre_fault_memory_of_no_pages() {
    let mut g = Guest::new();
    let mut cx = g.w.thread.cx();
    let vcpu = g.vm.vcpu(&mut cx);
    for (gpa, size) in [
        (0, 0),
        (1, PAGE),
        (0, PAGE - 1),
        (PAGE.wrapping_neg(), PAGE),
    ] {
        let refused = vcpu.pre_fault_memory(&mut cx, gpa, size);
        assert_eq!(refused, Err(PreFaultError::Range { gpa, size }));
        assert_eq!(refused.unwrap_err().errno(), Errno::EINVAL);
    }
    g.end();
}
