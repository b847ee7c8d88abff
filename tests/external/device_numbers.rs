//! The models of external MMUs are asked for addresses, pages and settings of all of 64 bits: an
//! error comes back, and what the devices hold stays right.

use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{
        gpu::{Gpu, GpuConfig},
        gru::{Gru, GruConfig, GruContext, GruFault, GruSpace, NoGru},
        kvm::{Exit, Gfn, MemSlot, SlotError, SlotFlags, Vm, VmConfig},
        xpmem::{Owner, OwnerConfig, Partition, PartitionId, XpmemError},
    },
    mm::MmapArgs,
    notifier::Access,
};
use std::{sync::Arc, time::Duration};

const BASE: u64 = 1 << 30;
const PAGE: u64 = emmu::PAGE_SIZE;
/// Whose pages are, but for bits that a table does not index by, those from `BASE` on; and borders.
const ODD: [u64; 8] = [
    BASE + (1 << 48),
    BASE + (1 << 60),
    BASE + (1 << 61),
    1 << 47,
    1 << 48,
    1 << 63,
    u64::MAX - 4096,
    u64::MAX,
];

fn with(f: impl FnOnce(&mut CallCx<'_>, &Arc<Mm>)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(&mut cx, &MmapArgs::anonymous(16 * PAGE).fixed(BASE))
        .unwrap();
    mm.store(&mut cx, BASE, 7).unwrap();
    f(&mut cx, &mm);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

#[test]
fn a_gru_instruction_on_no_address_of_the_process_is_an_exception() {
    with(|cx, mm| {
        let config = GruConfig {
            preload: u64::MAX,
            tlb_entries: 8,
            max_asid: u32::MAX,
        };
        let (space, _stays) = GruSpace::attach(cx, mm, &Gru::several(1, config), None);
        let context = GruContext::new(&space, usize::MAX).unwrap();
        context.read(cx, BASE, &mut [0]).unwrap();
        for addr in ODD {
            for done in [
                context.read(cx, addr, &mut [0; 2]),
                context.write(cx, addr, &[9; 2]),
            ] {
                assert!(matches!(done, Err(GruFault::Fault { .. })), "{addr:#x}");
            }
        }
        let mut byte = [0];
        context.read(cx, BASE, &mut byte).unwrap();
        assert_eq!(byte, [7]);
    });
}

#[test]
fn an_address_space_without_grus_has_no_context() {
    with(|cx, mm| {
        let (space, _stays) = GruSpace::attach(cx, mm, &[], None);
        assert_eq!(GruContext::new(&space, 3).map(drop), Err(NoGru));
    });
}

#[test]
fn a_guest_address_without_a_slot_is_its_devices() {
    with(|cx, mm| {
        let (vm, _stays) = Vm::create(cx, mm, VmConfig::default());
        let slot = |gfn, pages, hva| MemSlot {
            id: 0,
            gfn: Gfn(gfn),
            pages,
            hva: Vpn(hva),
            flags: SlotFlags::empty(),
        };
        for odd in [1 << 36, 1 << 52, u64::MAX] {
            for bad in [slot(odd, 16, 0), slot(0, odd, 0), slot(0, 16, odd)] {
                assert_eq!(vm.set_memory(cx, bad), Err(SlotError::Range(0)));
            }
        }
        vm.set_memory(cx, slot(0, 16, BASE / PAGE)).unwrap();
        let cpu = vm.vcpu(cx);
        assert_eq!(cpu.load(cx, 0), Ok(7));
        for gpa in ODD {
            assert_eq!(cpu.load(cx, gpa), Err(Exit::Mmio(gpa)));
            assert_eq!(cpu.store(cx, gpa, 9), Err(Exit::Mmio(gpa)));
            assert_eq!(vm.pfn_cache(gpa).refresh(cx), Err(Exit::Mmio(gpa)));
        }
        assert_eq!(cpu.load(cx, 0), Ok(7));
    });
}

#[test]
fn pages_that_no_segment_has_are_not_imported() {
    with(|cx, mm| {
        let config = OwnerConfig {
            deadline: Duration::MAX,
            ..OwnerConfig::default()
        };
        let (owner, _stays) = Owner::attach(cx, mm, config);
        let first = Vpn::containing(BASE);
        let pages = VpnRange::new(first, first.plus(16)).unwrap();
        let segment = owner.make(pages, Access::Write);
        let partition = Partition::new(PartitionId(1));
        let attachment = owner.import(&partition, segment, 0, 16).unwrap();
        for odd in [16, 1 << 36, 1 << 52, u64::MAX] {
            for (from, count) in [
                (odd, 1),
                (0, odd + u64::from(odd == 16)),
                (odd, odd),
                (odd, 0),
            ] {
                let refused = Err(XpmemError::Range(Vpn(from).addr()));
                let import = owner.import(&partition, segment, from, count);
                assert_eq!(import.map(drop), refused, "{from:#x} {count:#x}");
                let made = attachment.make(from, count, Access::Read);
                assert_eq!(made.map(drop), refused, "{from:#x} {count:#x}");
            }
        }
        for at in ODD {
            let out = attachment.read(cx, at, &mut [0]);
            assert_eq!(out, Err(XpmemError::Range(at)));
        }
        // The memory of a segment need not be mapped; here it can never be.
        for at in ODD {
            let page = Vpn(at >> 12);
            let segment = owner.make(VpnRange::single(page), Access::Write);
            let attachment = owner.import(&partition, segment, 0, 1).unwrap();
            let fault = attachment.write(cx, 0, &[9]);
            assert!(matches!(fault, Err(XpmemError::Fault { .. })), "{at:#x}");
        }
        attachment.write(cx, 0, &[8]).unwrap();
        assert_eq!(mm.load(cx, BASE), Ok(8));
    });
}

/// Engines and batches that no memory of the host could hold count as the most that there are.
#[test]
fn a_gpu_of_any_settings_reads_what_is_there() {
    with(|cx, mm| {
        for number in [0, 1, 3, 512, 513, (1 << 31) + 1, 1 << 52, 1 << 63, u64::MAX] {
            for config in [
                GpuConfig {
                    engines: usize::try_from(number).unwrap_or(usize::MAX),
                    ..GpuConfig::default()
                },
                GpuConfig {
                    batch: number,
                    ..GpuConfig::default()
                },
            ] {
                let (gpu, registration) = Gpu::attach(cx, mm, None, config);
                let mut byte = [0];
                gpu.engine(usize::MAX).read(cx, BASE, &mut byte).unwrap();
                assert_eq!(byte, [7], "{config:?}");
                registration.unregister(cx);
            }
        }
    });
}
