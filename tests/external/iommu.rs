//! The IOMMU for rust-vmm's devices: slices are leases, which windows wait for or revoke.

use crate::{
    beside::begin_to_drop,
    common::{PAGE, RW, World, at, calls::ToErrno},
    ring,
};
use emmu::{
    MachineConfig, MemConfig, Mm,
    extmmu::{
        dirty_pages::{DirtyPages, mark_log},
        iommu::{
            IommuConfig, IommuMistake, LeasedMemory, LeasedSlice, OnWindow, ProcessIommu, SliceUse,
        },
        kvm::{Gfn, MemSlot, SlotFlags, Vm, VmConfig},
        vm_memory::GuestRegion,
    },
    mm::{Advice, MmapArgs, PageCategories, Prot, RegisterMode, ScanArgs, ScanFlags, UffdFeatures},
    notifier::Event,
    oracle::{Finding, Oracle},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Release},
        mpsc::channel,
    },
};
use vm_memory::{
    Bytes, GuestAddress, GuestMemory, GuestMemoryError, IommuMemory, Permissions, VolatileSlice,
    bitmap::Bitmap,
};

/// The I/O address of page 0.
pub(crate) const IOVA: u64 = 0x10_0000;
pub(crate) const PAGES: u64 = 8;

pub(crate) fn iova(n: u64) -> GuestAddress {
    GuestAddress(IOVA + n * PAGE)
}

pub(crate) type Memory = IommuMemory<LeasedMemory, ProcessIommu>;

pub(crate) struct Host {
    pub(crate) w: World,
    pub(crate) iommu: ProcessIommu,
    pub(crate) memory: Memory,
    oracle: Arc<Oracle>,
}

/// Eight pages of private memory behind an IOMMU that an oracle watches.
fn host(config: IommuConfig) -> Host {
    host_of(config, PAGES)
}

/// The same with another number of pages.
pub(crate) fn host_of(config: IommuConfig, pages: u64) -> Host {
    let mut w = World::with(MachineConfig {
        memory: MemConfig {
            frames: pages.max(64).try_into().unwrap(),
            swap: 64,
            ..MemConfig::default()
        },
        ..MachineConfig::default()
    });
    w.map(0, pages, RW);
    let oracle = Oracle::new(&w.machine);
    // Two regions that lie side by side: a range crosses them.
    let region = |n| GuestRegion {
        guest: iova(n),
        len: pages / 2 * PAGE,
        process: at(n),
    };
    let regions = [region(0), region(pages / 2)];
    let (iommu, _ends_with_the_space) =
        ProcessIommu::attach(&mut w.thread.cx(), &w.mm, &regions, config);
    oracle.watch(&w.mm, iommu.driver());
    let memory = iommu.memory();
    Host {
        w,
        iommu,
        memory,
        oracle,
    }
}

pub(crate) fn with(on_window: OnWindow) -> Host {
    host(IommuConfig {
        on_window,
        ..IommuConfig::default()
    })
}

/// The first slice of a range; its iterator is gone.
pub(crate) fn slice(
    memory: &Memory,
    at: GuestAddress,
    access: Permissions,
) -> VolatileSlice<'_, LeasedSlice<'_>> {
    let mut slices = memory.get_slices(at, 16, access).unwrap();
    slices.next().unwrap().unwrap()
}

/// The same, for a thread that goes on to use its token.
pub(crate) fn kept_slice<'m>(
    w: &mut World,
    memory: &'m Memory,
    at: GuestAddress,
    access: Permissions,
) -> VolatileSlice<'m, LeasedSlice<'m>> {
    w.thread.cx().lend(|| slice(memory, at, access))
}

impl Host {
    /// Lends the token to `f`, which uses the guest memory.
    pub(crate) fn lend<T>(&mut self, f: impl FnOnce(&Memory) -> T) -> T {
        let Self { w, memory, .. } = self;
        w.thread.cx().lend(|| f(memory))
    }
    pub(crate) fn end(self) {
        assert_eq!(self.iommu.leases(), 0, "a lease is left");
        let Self { w, oracle, .. } = self;
        let mm = Arc::clone(&w.mm);
        w.end();
        oracle.audit_end(&mm);
        oracle.assert_silent();
    }
}

#[test]
fn objects_across_pages_and_regions_are_the_memory_of_the_process() {
    let mut h = with(OnWindow::Strict);
    let across = GuestAddress(iova(PAGES / 2).0 - 3);
    h.lend(|m| m.write_obj(0x0807_0605_0403_0201_u64, across))
        .unwrap();
    let mut bytes = [0; 8];
    h.w.mm
        .read_bytes(&mut h.w.thread.cx(), at(PAGES / 2) - 3, &mut bytes)
        .unwrap();
    assert_eq!(bytes, [1, 2, 3, 4, 5, 6, 7, 8]);
    let lens = h.lend(|m| {
        let all = m.get_slices(GuestAddress(IOVA + 8), 2 * PAGE as usize, Permissions::Read);
        all.unwrap()
            .map(|s| s.unwrap().len())
            .collect::<Vec<usize>>()
    });
    assert_eq!(lens, [4088, 4096, 8]);
    assert_eq!(
        h.w.machine.mem().in_use(),
        2,
        "pages that are only read take none"
    );
    assert_eq!(h.iommu.dirty_pages().take(), [iova(3).0, iova(4).0]);
    h.end();
}

#[test]
fn memory_that_is_not_there_is_refused_with_its_reason() {
    let mut h = with(OnWindow::Wait);
    h.w.protect(0, 1, Prot::READ).unwrap();
    use Permissions::{No, Read, ReadWrite, Write};
    h.lend(|m| {
        let ask = |n, len, access| m.check_range(iova(n), len, access);
        assert!(ask(0, PAGE as usize, Read) && ask(0, 1, No) && ask(1, 1, ReadWrite));
        assert!(ask(0, 0, Write), "nothing is asked for");
        assert!(!ask(0, 1, Write) && !ask(PAGES, 1, Read) && !ask(PAGES, 1, No));
        for (at, len) in [(u64::MAX, 2), (0, 1), (IOVA, usize::MAX), (IOVA, 1 << 40)] {
            assert!(!m.check_range(GuestAddress(at), len, Read), "{at:#x}");
        }
        let why = |m: GuestMemoryError| m.to_string();
        let end = why(m.read_obj::<u8>(iova(PAGES)).unwrap_err());
        assert!(end.contains("0x108000 is in no region"), "{end}");
        let refused = why(m.write_obj(1_u8, iova(0)).unwrap_err());
        assert!(refused.contains("is denied"), "{refused}");
        // No memory lies beside the IOMMU.
        let mut beside = m.clone();
        beside.set_iommu_enabled(false);
        assert!(beside.read_obj::<u8>(GuestAddress(0)).is_err());
    });
    let token = h.memory.read_obj::<u8>(iova(1)).unwrap_err().to_string();
    assert!(token.contains("token"), "{token}");
    h.end();
}

/// A device that has a slice while another thread drops its page: the bytes that it stores, and
/// reads back, before it drops the slice. The twin of a driver waits for nothing, so its drop is
/// waited for.
fn store_during_a_drop(h: &mut Host, is_waited_for: bool) -> [u8; 2] {
    h.lend(|m| {
        m.write_obj(7_u8, iova(0)).unwrap();
        let mm = m.iommu().space();
        std::thread::scope(|s| {
            let slice = slice(m, iova(0), Permissions::Write);
            if is_waited_for {
                begin_to_drop(s, mm, at(0));
            } else {
                let drop = || {
                    mm.machine()
                        .with_current(|cx| mm.munmap(cx, at(0), PAGE).sys())
                };
                assert_eq!(s.spawn(drop).join().unwrap(), Ok(Ok(())));
            }
            slice.write_obj(9_u8, 1).unwrap();
            slice.read_obj(0).unwrap()
        })
    })
}

#[test]
fn a_window_waits_until_slices_are_dropped_that_outlive_their_iterator() {
    let mut h = with(OnWindow::Wait);
    assert_eq!(store_during_a_drop(&mut h, true), [7, 9]);
    assert_eq!(h.w.get(0), Ok(0), "the page went afterwards");
    assert_eq!(h.iommu.stale_use(), None);
    h.end();
}

/// The twin: without leases the frame is given up while a slice leads to it.
#[test]
fn a_window_that_ignores_slices_is_found() {
    let mut h = host(IommuConfig {
        mistake: Some(IommuMistake::IgnoresSlices),
        ..IommuConfig::default()
    });
    store_during_a_drop(&mut h, false);
    let found = h.oracle.take();
    let of_the_slice = |finding: &Finding| match finding {
        Finding::InsideWindow { mmu, .. } | Finding::FreedWhileTranslated { mmu, .. } => {
            *mmu == "iommu"
        }
        _ => false,
    };
    assert!(found.iter().any(of_the_slice), "{found:?}");
}

#[test]
fn a_store_to_a_revoked_slice_reaches_no_process_and_is_reported() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(0, 5);
    let Host {
        w, memory, iommu, ..
    } = &mut h;
    let hog = Mm::new(&w.machine);
    let slice = kept_slice(w, memory, iova(0), Permissions::Write);
    w.munmap(0, 1).unwrap();
    let fill = MmapArgs::anonymous(60 * PAGE);
    let fill = hog.mmap(&mut w.thread.cx(), &fill).unwrap();
    for page in 0..60 {
        hog.store(&mut w.thread.cx(), fill + page * PAGE, 0xdb)
            .unwrap();
    }
    assert_eq!(slice.read_obj::<u8>(0).unwrap(), 5);
    slice.write_slice(&[9; 16], 0).unwrap();
    for page in 0..60 {
        let seen = hog.load(&mut w.thread.cx(), fill + page * PAGE);
        assert_eq!(seen, Ok(0xdb));
    }
    let wrong = iommu.stale_use().unwrap();
    assert_eq!((wrong.iova, wrong.len), (IOVA, 16));
    assert_eq!(wrong.used, SliceUse::Part { iova: IOVA });
    assert_eq!(wrong.window, Some((World::pages(0, 1), Event::Unmap)));
    drop(slice);
    hog.exit(&mut h.w.thread.cx());
    h.end();
}

/// A fork shares pages, but not one that a revoked slice may write to.
#[test]
fn a_store_to_a_slice_that_a_fork_revoked_does_not_reach_the_child() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(0, 5);
    let Host { w, memory, .. } = &mut h;
    let slice = kept_slice(w, memory, iova(0), Permissions::Write);
    let child = w.mm.fork(&mut w.thread.cx()).unwrap();
    slice.write_slice(&[9; 16], 0).unwrap();
    assert_eq!(child.load(&mut w.thread.cx(), at(0)), Ok(5));
    drop(slice);
    child.exit(&mut h.w.thread.cx());
    h.end();
}

#[test]
fn strict_mode_names_slice_use_and_window() {
    let mut h = with(OnWindow::Strict);
    let Host { w, memory, .. } = &mut h;
    let message = |f: &mut dyn FnMut()| {
        let panic = catch_unwind(AssertUnwindSafe(f)).unwrap_err();
        panic.downcast_ref::<String>().unwrap().clone()
    };
    let written = kept_slice(w, memory, iova(0), Permissions::Write);
    written.store(1_u8, 4, Release).unwrap();
    w.advise(0, 2, Advice::DontNeed).unwrap();
    let said = message(&mut || written.bitmap().mark_dirty(4, 2));
    assert_eq!(
        said,
        "slice [0x100000, +0x10) for Write: a store to [0x100004, +0x2), \
         after a window (Clear) over 0x10000000000-0x10000002000"
    );
    let said = message(&mut || drop(written.load::<u8>(8, Acquire)));
    assert!(said.contains("a use of its part at 0x100008"), "{said}");
    drop(written);
    // Memory that is shown as zeros stays so.
    let read = kept_slice(w, memory, iova(1), Permissions::Read);
    let said = message(&mut || read.write_slice(&[1], 0).unwrap());
    assert!(
        said.ends_with("though it was not asked for writing"),
        "{said}"
    );
    drop(read);
    assert_eq!(h.lend(|m| m.read_obj::<u8>(iova(1)).unwrap()), 0);
    h.end();
}

/// The iterator is a lease in each mode: a window waits for it, so `Bytes` never fails.
#[test]
fn a_window_waits_for_iterators_in_strict_mode() {
    let mut h = with(OnWindow::Strict);
    h.lend(|m| {
        let mm = m.iommu().space();
        std::thread::scope(|s| {
            let mut slices = m.get_slices(iova(0), 16, Permissions::Write).unwrap();
            let slice = slices.next().unwrap().unwrap();
            begin_to_drop(s, mm, at(0));
            slice.write_obj(9_u8, 1).unwrap();
            assert_eq!(slice.read_obj::<u8>(1).unwrap(), 9);
        });
    });
    assert_eq!(h.w.get(0), Ok(0));
    h.end();
}

/// A thread that has a slice and asks for the page that a window waits to open: neither would ever
/// get further if the window waited for the slice.
#[test]
fn a_window_revokes_the_slices_of_a_thread_that_waits_for_it() {
    let mut h = with(OnWindow::Wait);
    h.w.put(0, 5);
    h.w.put(1, 6);
    h.lend(|m| {
        let mm = m.iommu().space();
        std::thread::scope(|s| {
            let (says, hears) = channel();
            s.spawn(move || {
                let slice = slice(m, iova(0), Permissions::Write);
                says.send(()).unwrap();
                while mm.windows_open() == 0 {
                    std::thread::yield_now();
                }
                assert_eq!(m.read_obj::<u8>(iova(1)).unwrap(), 0);
                slice.write_slice(&[9; 16], 0).unwrap();
            });
            hears.recv().unwrap();
            let machine = mm.machine();
            let advised =
                machine.with_current(|cx| mm.madvise(cx, at(0), 2 * PAGE, Advice::DontNeed).sys());
            assert_eq!(advised, Ok(Ok(())));
        });
    });
    assert_eq!(h.w.get(0), Ok(0), "the store went nowhere");
    assert!(h.iommu.stale_use().is_some());
    h.end();
}

fn written() -> ScanArgs {
    ScanArgs {
        start: at(0),
        end: at(PAGES),
        flags: ScanFlags::WP_MATCHING | ScanFlags::CHECK_WPASYNC,
        regions: 64,
        pages: 0,
        inverted: PageCategories::empty(),
        mask: PageCategories::WRITTEN,
        any_of: PageCategories::empty(),
        reported: PageCategories::WRITTEN,
    }
}

/// Pages that `Mm::pagemap_scan` finds written after stores through slices to pages 2 and 5.
fn found_written(h: &mut Host) -> Vec<u64> {
    let uffd = h.w.userfaultfd(UffdFeatures::WP_ASYNC);
    h.w.register(&uffd, 0, PAGES, RegisterMode::WP);
    h.w.fill(0, PAGES);
    let scan = |h: &mut Host| {
        let scan = h.w.mm.pagemap_scan(&mut h.w.thread.cx(), &written());
        let regions = scan.unwrap().regions.into_iter();
        let page = |addr: u64| (addr - at(0)) / PAGE;
        regions
            .flat_map(|r| page(r.start)..page(r.end))
            .collect::<Vec<_>>()
    };
    assert_eq!(scan(h), (0..PAGES).collect::<Vec<_>>());
    h.lend(|m| {
        m.read_obj::<u64>(iova(1)).unwrap();
        m.write_obj(1_u64, iova(2)).unwrap();
        slice(m, iova(5), Permissions::Write)
            .store(1_u8, 0, Release)
            .unwrap();
    });
    let found = scan(h);
    assert!(scan(h).is_empty(), "each is found once");
    found
}

#[test]
fn the_address_space_sees_the_pages_that_slices_write() {
    let mut h = with(OnWindow::Wait);
    assert_eq!(found_written(&mut h), [2, 5]);
    h.end();
}

/// The twin: a store that was translated for reading is seen by nothing.
#[test]
fn stores_that_are_translated_for_reading_are_not_seen() {
    let mut h = host(IommuConfig {
        mistake: Some(IommuMistake::WritesUnseen),
        ..IommuConfig::default()
    });
    assert!(found_written(&mut h).is_empty());
}

/// A guest's processors and a device write the same memory; one bitmap has the pages of both.
#[test]
fn a_bitmap_has_the_pages_that_processors_and_devices_wrote() {
    let mut h = with(OnWindow::Strict);
    let Host { w, .. } = &mut h;
    let (vm, _ends_with_the_space) = Vm::create(&mut w.thread.cx(), &w.mm, VmConfig::default());
    let slot = MemSlot {
        id: 1,
        gfn: Gfn(IOVA / PAGE),
        pages: PAGES,
        hva: World::pages(0, 1).start(),
        flags: SlotFlags::LOG_DIRTY_PAGES,
    };
    vm.set_memory(&mut w.thread.cx(), slot).unwrap();
    let vcpu = vm.vcpu(&mut w.thread.cx());
    for page in [1, 6] {
        vcpu.store(&mut w.thread.cx(), iova(page).0, 1).unwrap();
    }
    h.lend(|m| {
        m.write_obj(1_u64, GuestAddress(iova(3).0 - 4)).unwrap();
        m.read_obj::<u64>(iova(5)).unwrap();
        assert!(m.bitmap().dirty_at(iova(2).0 as usize));
    });
    let Host { w, iommu, .. } = &mut h;
    let log = vm.dirty_log(&mut w.thread.cx(), 1).unwrap();
    mark_log(iommu.dirty_pages(), iova(0), &log);
    let dirty = iommu.dirty_pages().take();
    assert_eq!(dirty, [1, 2, 3, 6].map(|page| iova(page).0));
    drop(vcpu);
    h.end();
}

#[test]
fn sets_of_pages_take_any_numbers() {
    let dirty = DirtyPages::default();
    dirty.mark(0, 0);
    dirty.mark(u64::MAX, 5);
    dirty.mark(63 * PAGE, 2 * PAGE);
    let half = dirty.slice_at(0x8000);
    half.mark_dirty(0, 1);
    half.slice_at(0x1000).mark_dirty(0xfff, 2);
    assert!(half.dirty_at(0x2000) && !half.dirty_at(0x3000));
    half.slice_at(usize::MAX).mark_dirty(usize::MAX, usize::MAX);
    let last = u64::MAX - (PAGE - 1);
    let pages = [0x8000, 0x9000, 0xa000, 63 * PAGE, 64 * PAGE, last];
    assert_eq!(dirty.take(), pages);
    // Marks that touch are one range, in whatever order they come.
    for page in [7, 3, 5, 4, 9, 6] {
        dirty.mark(page * PAGE, 1);
    }
    dirty.mark(4 * PAGE + 1, 2 * PAGE);
    let ranges = [3 * PAGE..=8 * PAGE - 1, 9 * PAGE..=10 * PAGE - 1];
    assert_eq!(dirty.clone().take_ranges(), ranges);
    dirty.mark(PAGE, PAGE);
    dirty.mark(0, u64::MAX);
    assert!(dirty.is_marked(u64::MAX - PAGE));
    assert_eq!(dirty.take_ranges(), [0..=u64::MAX]);
}

/// In strict mode nothing panics, as each access has its iterator.
#[test]
fn a_device_sees_each_slot_whole_behind_its_index() {
    const ROUNDS: u16 = 1000;
    for on_window in [OnWindow::Wait, OnWindow::Strict] {
        let mut h = with(on_window);
        h.lend(|m| {
            let pages = (&**m.iommu().space(), at(0)..at(PAGES));
            ring::run(|| m, (GuestAddress(IOVA + 2), iova(4)), ROUNDS, pages);
        });
        assert_eq!(h.iommu.stale_use(), None);
        h.end();
    }
}

/// A slice is dropped without a token.
#[test]
fn slices_outlive_the_address_space() {
    let mut h = with(OnWindow::Revoke);
    h.w.put(0, 5);
    let Host { w, memory, .. } = &mut h;
    let slice = kept_slice(w, memory, iova(0), Permissions::Write);
    w.mm.exit(&mut w.thread.cx());
    assert_eq!(slice.read_obj::<u8>(0).unwrap(), 5);
    assert_eq!(w.machine.mem().in_use(), 1, "its page is kept");
    drop(slice);
    assert_eq!(w.machine.mem().in_use(), 0);
    assert!(h.lend(|m| m.read_obj::<u8>(iova(0))).is_err());
}
