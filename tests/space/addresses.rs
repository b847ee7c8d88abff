//! No page above the address space is any page of it, and no number is too large: whatever a caller
//! asks for, an error comes back, or nothing, and what is mapped stays as it is.

use crate::common::{
    BASE, PAGE, at,
    driver::Driver,
    numbered::{ALIAS, filled, machine_with_swap},
};

use emmu::{
    FaultError, Machine, MachineConfig, MemConfig, Mm, TASK_SIZE,
    addr::{TASK_PAGES, Vpn, VpnRange},
    error::{BeyondTask, Errno},
    file::{Backing, File, FileMode, HugePolicy, PageCache, Shmem},
    mm::{Advice, MapFlags, MmapArgs, MremapArgs, MremapFlags, Prot, Pte},
    notifier::{Access, AgeKind, Event},
};

fn page(addr: u64) -> Vpn {
    Vpn::containing(addr)
}
fn one(addr: u64) -> VpnRange {
    VpnRange::single(page(addr))
}

/// Addresses whose pages are, but for bits that a table does not index by, that of page 3.
fn aliases() -> impl Iterator<Item = u64> {
    let multiples = [1, 2, 3, 255, 256, 4096, 0xffff];
    multiples.into_iter().map(|k| at(3).wrapping_add(k * ALIAS))
}

#[test]
fn an_access_above_the_address_space_finds_nothing() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let other = Mm::new(&machine);
    other
        .mmap(&mut cx, &MmapArgs::anonymous(PAGE).fixed(BASE))
        .unwrap();
    for addr in aliases() {
        let none = Err(FaultError::NotMapped(addr));
        assert_eq!(mm.load(&mut cx, addr), none);
        assert_eq!(mm.store(&mut cx, addr, 99).map(|()| 0), none);
        assert_eq!(mm.walker(&mut cx).pte(page(addr)), Pte::None);
        let locked = mm.with_locked_frame(&mut cx, addr, Access::Read, |_, _| 0);
        assert_eq!(locked, none);
        assert_eq!(mm.migrate(&mut cx, addr), Ok(None));
        assert!(!mm.age(&mut cx, one(addr), AgeKind::Clear));
        assert_eq!(mm.pagemap(&mut cx, one(addr)), []);
        assert!(mm.copy_to(&mut cx, addr, (&other, BASE), 1).is_err());
        assert!(other.copy_to(&mut cx, BASE, (&mm, addr), 1).is_err());
        assert_eq!(
            machine.merge_same_pages(&mut cx, &[(&mm, at(4)), (&mm, addr)]),
            0
        );
        assert_eq!(mm.lock_shared(&mut cx).vma_at(page(addr)), None);
        assert_eq!(mm.load(&mut cx, at(3)), Ok(3));
    }
    assert!(
        mm.age(&mut cx, one(at(3)), AgeKind::Test),
        "nobody cleared it"
    );
    other.exit(&mut cx);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

/// Drivers were told nothing of the page, so nothing of it may change.
#[test]
fn a_window_above_the_address_space_reaches_no_entry() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, Driver::new);
    assert_eq!(driver.read(&mut cx, &mm, at(3)), Ok(3));
    for addr in aliases() {
        let mut guard = mm.lock_shared(&mut cx);
        let mut lease = guard.lease();
        let mut window = lease.window(one(addr), Event::Clear);
        let reached = window.lock_ptes(page(addr), |txn| txn.slot(page(addr)).is_some());
        assert_eq!(reached, None, "{addr:#x}");
        window.for_each_leaf(|_| panic!("{addr:#x}"));
    }
    assert_eq!(driver.entries(&mut cx), 1);
    assert_eq!(mm.load(&mut cx, at(3)), Ok(3));
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
}

#[test]
fn a_driver_gets_no_translation_above_the_address_space() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, Driver::new);
    for vpn in aliases().map(page).chain(
        [
            u64::MAX,
            u64::MAX - 1,
            (1 << 52) + page(at(3)).0,
            TASK_PAGES,
        ]
        .map(Vpn),
    ) {
        for access in [Access::Read, Access::Write] {
            let ticket = driver.gate.ticket(vpn, access).allow_huge();
            let found = mm.resolve(&mut cx, ticket).map(drop);
            assert_eq!(found, Err(FaultError::NotMapped(vpn.addr())), "{vpn:?}");
            let ticket = driver.gate.ticket(vpn, access);
            assert!(mm.try_resolve(&mut cx, ticket).unwrap().is_none());
        }
        driver.gate.wait_idle(&mut cx, VpnRange::single(vpn));
    }
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
}

/// A range over everything costs what is there.
#[test]
fn a_range_may_be_larger_than_the_address_space() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    assert!(mm.age(&mut cx, VpnRange::ALL, AgeKind::Clear));
    assert!(!mm.age(&mut cx, VpnRange::ALL, AgeKind::Test));
    assert_eq!(mm.pagemap(&mut cx, VpnRange::ALL).len(), 16);
    let mut leaves = 0;
    {
        let mut guard = mm.lock_shared(&mut cx);
        let mut lease = guard.lease();
        let mut window = lease.window(VpnRange::ALL, Event::Clear);
        window.for_each_leaf(|_| leaves += 1);
    }
    assert_eq!(leaves, 1);
    let (_, registration) = mm.subscribe(&mut cx, VpnRange::ALL, Driver::new);
    registration.unregister(&mut cx);
    mm.exit(&mut cx);
}

/// `MADV_PAGEOUT` of 64 TiB with a page at each end visits two leaves, not 33 million blocks.
#[test]
fn paging_out_costs_what_is_there() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let len = 64 << 40;
    let args = MmapArgs::anonymous(len).flags(MapFlags::NORESERVE);
    let addr = mm.mmap(&mut cx, &args).unwrap();
    for at in [addr, addr + len - 1] {
        mm.store(&mut cx, at, 1).unwrap();
    }
    mm.madvise(&mut cx, addr, len, Advice::PageOut).unwrap();
    assert_eq!(machine.mem().swap().used(), 2);
    mm.exit(&mut cx);
}

/// `MADV_DONTNEED` and khugepaged over 64 TiB of an object that has a page at each end visit two
/// tables and two blocks.
#[test]
fn dropping_and_collapsing_cost_what_is_there() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let len = 64 << 40;
    let object = Shmem::tmpfs(machine.host(), "/f", len, HugePolicy::Always).unwrap();
    let file = File::open(object, FileMode::ReadWrite);
    let args = MmapArgs::anonymous(len).file(&file, 0).shared();
    let addr = mm.mmap(&mut cx, &args.flags(MapFlags::NORESERVE)).unwrap();
    for at in [addr, addr + len - 1] {
        mm.store(&mut cx, at, 1).unwrap();
    }
    machine.khugepaged(&mut cx);
    mm.madvise(&mut cx, addr, len, Advice::DontNeed).unwrap();
    assert_eq!(mm.load(&mut cx, addr + len - 1), Ok(1));
    mm.exit(&mut cx);
}

#[test]
fn where_mappings_begin_lies_in_the_address_space() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    for addr in [TASK_SIZE + 1, ALIAS + BASE, 1 << 63, u64::MAX] {
        let refused = Err(BeyondTask(addr));
        assert_eq!(mm.set_mmap_base(&mut cx, addr), refused);
        assert_eq!(mm.set_start_brk(&mut cx, addr), refused);
        assert_eq!(mm.set_start_stack(&mut cx, addr), refused);
        assert_eq!(mm.brk(&mut cx, addr), 0, "the break stays");
    }
    assert_eq!(BeyondTask(u64::MAX).errno(), Errno::EINVAL);
    mm.set_mmap_base(&mut cx, TASK_SIZE).unwrap();
    let top = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE));
    assert_eq!(top, Ok(TASK_SIZE - PAGE));
    mm.set_start_brk(&mut cx, TASK_SIZE).unwrap();
    assert_eq!(mm.brk(&mut cx, u64::MAX), TASK_SIZE);
    mm.exit(&mut cx);
}

/// `fault_around_bytes_set`: rounded down to a power of two, one page at the least, a table at the
/// most.
#[test]
fn any_setting_of_fault_around_maps_the_page() {
    for (setting, mapped) in [(0, 1), (1, 1), (3, 2), (16, 16), (u64::MAX, 32)] {
        let machine = Machine::new(MachineConfig {
            fault_around: setting,
            stack_guard_gap: u64::MAX,
            ..MachineConfig::default()
        });
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let object = Shmem::memfd(machine.host(), "around", 32 * PAGE).unwrap();
        let file = File::open(object, FileMode::ReadWrite);
        file.write_at(cx.reborrow(), 0, &vec![7; 32 * 4096])
            .unwrap();
        let mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(32 * PAGE).file(&file, 0).fixed(BASE);
        mm.mmap(&mut cx, &args.shared().prot(Prot::READ)).unwrap();
        assert_eq!(mm.load(&mut cx, BASE), Ok(7));
        assert_eq!(
            mm.pagemap(&mut cx, VpnRange::ALL).len(),
            mapped,
            "{setting}"
        );
        mm.exit(&mut cx);
    }
}

#[test]
fn settings_without_sense_are_errors() {
    let config = MachineConfig {
        memory: MemConfig {
            frames: (1 << 28) + 1,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    };
    let refused = Machine::try_new(config).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    // No place is high enough, but nothing overflows.
    let machine = Machine::new(MachineConfig {
        mmap_min_addr: u64::MAX,
        stack_guard_gap: u64::MAX,
        ..MachineConfig::default()
    });
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let _placed = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE));
    let mut hint = MmapArgs::anonymous(PAGE);
    hint.addr = BASE;
    let _placed = mm.mmap(&mut cx, &hint);
    mm.exit(&mut cx);
}

#[test]
fn an_object_has_no_page_that_its_owner_cannot_name() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let cache = PageCache::new(machine.host(), Backing::Swap).unwrap();
    for index in [1 << 36, (1 << 36) + 5, 1 << 52, u64::MAX] {
        let refused = cache.filling(&mut cx).get_or_make(index, |_| Ok(()));
        let errno = refused.map(|_| ()).unwrap_err().errno();
        assert_eq!(errno, Errno::EINVAL, "{index:#x}");
        assert!(cache.get(index).is_none() && cache.next(index, u64::MAX).is_none());
    }
    let new = cache.filling(&mut cx).get_or_make(5, |_| Ok(()));
    assert!(new.unwrap().1);
    cache.cutting(&mut cx).punch(u64::MAX, u64::MAX);
    cache.cutting(&mut cx).truncate(u64::MAX);
    assert_eq!(cache.len(), 1);
    cache.cutting(&mut cx).remove(0, u64::MAX);
    assert!(cache.is_empty());
    drop(cache);
    assert_eq!(machine.mem().in_use(), 0);
}

/// Recorded on Linux 6.18.44: the place is chosen, and is an error with its sign changed.
#[test]
fn a_fixed_address_at_the_very_top_is_the_error_of_that_number() {
    let machine = machine_with_swap();
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let mut errno = |back: u64, len: u64, more: MapFlags| {
        let args = MmapArgs::anonymous(len).fixed(back.wrapping_neg());
        mm.mmap(&mut cx, &args.flags(more)).unwrap_err().errno()
    };
    let none = MapFlags::empty();
    assert_eq!(errno(1, PAGE, none), Errno::EPERM);
    assert_eq!(errno(1, PAGE, MapFlags::FIXED_NOREPLACE), Errno::EPERM);
    assert_eq!(errno(17, PAGE, none), Errno::EEXIST);
    assert_eq!(errno(22, PAGE, none), Errno::EINVAL);
    assert_eq!(errno(4096, PAGE, none), Errno::ENOMEM);
    assert_eq!(
        errno(1, 1 << 60, none),
        Errno::ENOMEM,
        "too long comes first"
    );
}

/// Recorded on Linux 6.18.44: what is cut off before a move is asked for once more, if the mapping
/// is accounted.
#[test]
fn a_move_that_cuts_off_more_than_there_is_may_not_be_promised() {
    let moved = |prot, more: MapFlags, cut: u64| {
        let machine = machine_with_swap();
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = Mm::new(&machine);
        let args = MmapArgs::anonymous(16 * PAGE).fixed(BASE).prot(prot);
        mm.mmap(&mut cx, &args.flags(more)).unwrap();
        let args = MremapArgs {
            addr: at(15),
            old_len: cut,
            new_len: PAGE,
            flags: MremapFlags::MAYMOVE | MremapFlags::FIXED,
            new_addr: 3 << 40,
        };
        let done = mm.mremap(&mut cx, args).map_err(|e| e.errno());
        let stays = mm.lock_shared(&mut cx).vma_at(page(at(15))).is_some();
        mm.exit(&mut cx);
        assert_eq!(machine.commit().pages(), 0);
        (done, stays)
    };
    let (rw, none) = (Prot::READ | Prot::WRITE, MapFlags::empty());
    let done = (Ok(3 << 40), false);
    assert_eq!(moved(rw, none, 1 << 40), (Err(Errno::ENOMEM), true));
    assert_eq!(moved(rw, MapFlags::NORESERVE, 1 << 40), done);
    assert_eq!(moved(Prot::READ, none, 1 << 40), done);
    assert_eq!(moved(rw, none, 64 * PAGE), done);
}

#[test]
fn page_numbers_and_ranges_do_not_wrap() {
    assert_eq!(Vpn(u64::MAX).addr(), u64::MAX - 4095);
    assert_eq!(Vpn((1 << 52) + 5).addr(), u64::MAX - 4095);
    assert_eq!(Vpn(u64::MAX).align_up(512), Vpn(u64::MAX - 511));
    for at in [0, TASK_PAGES, u64::MAX - 1, u64::MAX].map(Vpn) {
        let range = VpnRange::single(at);
        assert_eq!((range.pages(), range.iter().count()), (1, 1));
        assert!(range.start() < range.end());
    }
}
