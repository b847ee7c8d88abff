//! Page tables of other crates, and one by hand, behind one trait: single-threaded, without frames,
//! reverse maps or notifiers; each through its plainest safe interface, or its cursor where it has
//! one.
#![allow(unsafe_code, clippy::multiple_unsafe_ops_per_block)]

mod arena;

pub(crate) use arena::reset;

use arena::{PAGE, alloc, base, free};
use std::hint::black_box;

/// A four-level page table.
pub(crate) trait Table: Sized {
    /// An empty one.
    fn new() -> Self;
    /// Maps each page to its frame.
    fn map(&mut self, pages: &[usize]);
    /// Translates each page; the sum of the answers, so that none can be left out.
    fn translate(&self, pages: &[usize]) -> usize;
    /// Unmaps each page.
    fn unmap(&mut self, pages: &[usize]);
}

/// Where the frame of page `n` would be: nothing is ever read there.
const fn frame(n: usize) -> usize {
    0x10_0000_0000 + n * PAGE
}

/// `page_table_multiarch`, by cursor.
pub(crate) struct Multiarch(multiarch::Table);

mod multiarch {
    use super::{alloc, base, free};
    use memory_addr::{PhysAddr, VirtAddr};
    use page_table_multiarch::{PageTable64, PagingHandler, PagingMetaData};

    /// x86-64 without the instruction that flushes, which a process may not execute.
    pub(crate) struct Meta;
    impl PagingMetaData for Meta {
        const LEVELS: usize = 4;
        const PA_MAX_BITS: usize = 52;
        const VA_MAX_BITS: usize = 48;
        type VirtAddr = VirtAddr;
        #[inline]
        fn flush_tlb(_at: Option<VirtAddr>) {}
    }
    pub(crate) struct Frames;
    impl PagingHandler for Frames {
        fn alloc_frames(count: usize, _align: usize) -> Option<PhysAddr> {
            assert_eq!(count, 1);
            alloc().map(PhysAddr::from)
        }
        fn dealloc_frames(at: PhysAddr, _count: usize) {
            free(at.as_usize());
        }
        #[inline]
        fn phys_to_virt(at: PhysAddr) -> VirtAddr {
            VirtAddr::from(base() as usize + at.as_usize())
        }
    }
    pub(crate) type Table = PageTable64<Meta, page_table_entry::x86_64::X64PTE, Frames>;
}

impl Table for Multiarch {
    fn new() -> Self {
        Self(multiarch::Table::try_new().expect("there are frames"))
    }
    fn map(&mut self, pages: &[usize]) {
        use page_table_multiarch::{MappingFlags, PageSize};
        let rights = MappingFlags::READ | MappingFlags::WRITE | MappingFlags::USER;
        let mut cursor = self.0.cursor();
        for (n, &at) in pages.iter().enumerate() {
            cursor
                .map(at.into(), frame(n).into(), PageSize::Size4K, rights)
                .expect("empty");
        }
    }
    fn translate(&self, pages: &[usize]) -> usize {
        let found = |&at: &usize| self.0.query(at.into()).expect("mapped").0.as_usize();
        pages.iter().map(found).fold(0, usize::wrapping_add)
    }
    fn unmap(&mut self, pages: &[usize]) {
        let mut cursor = self.0.cursor();
        for &at in pages {
            black_box(cursor.unmap(at.into()).expect("mapped"));
        }
    }
}

/// `x86_64`'s `MappedPageTable`.
pub(crate) struct X64(x86_64::structures::paging::MappedPageTable<'static, x64::Offset>);

mod x64 {
    use super::{alloc, base};
    use x86_64::{
        PhysAddr,
        structures::paging::{
            FrameAllocator, PageTable, PhysFrame, Size4KiB, mapper::PageTableFrameMapping,
        },
    };

    pub(crate) struct Frames;
    // SAFETY: frames are handed out once.
    unsafe impl FrameAllocator<Size4KiB> for Frames {
        fn allocate_frame(&mut self) -> Option<PhysFrame> {
            alloc().map(|at| PhysFrame::containing_address(PhysAddr::new(at as u64)))
        }
    }
    pub(crate) struct Offset;
    // SAFETY: a frame's address is its offset in the block.
    unsafe impl PageTableFrameMapping for Offset {
        #[inline]
        fn frame_to_pointer(&self, frame: PhysFrame) -> *mut PageTable {
            base()
                .wrapping_add(frame.start_address().as_u64() as usize)
                .cast()
        }
    }
}

impl Table for X64 {
    fn new() -> Self {
        use x86_64::structures::paging::{MappedPageTable, PageTable};
        let at: *mut PageTable = base()
            .wrapping_add(alloc().expect("there are frames"))
            .cast();
        // SAFETY: a frame of our own, aligned, zeroed here, and used by this table alone until the
        // block is reset.
        Self(unsafe {
            (*at).zero();
            MappedPageTable::new(&mut *at, x64::Offset)
        })
    }
    fn map(&mut self, pages: &[usize]) {
        use x86_64::{
            PhysAddr, VirtAddr,
            structures::paging::{Mapper, Page, PageTableFlags, PhysFrame, Size4KiB},
        };
        let rights =
            PageTableFlags::PRESENT | PageTableFlags::WRITABLE | PageTableFlags::USER_ACCESSIBLE;
        for (n, &at) in pages.iter().enumerate() {
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new(at as u64));
            let to = PhysFrame::containing_address(PhysAddr::new(frame(n) as u64));
            // SAFETY: no processor uses this table.
            unsafe { self.0.map_to(page, to, rights, &mut x64::Frames) }
                .expect("empty")
                .ignore();
        }
    }
    fn translate(&self, pages: &[usize]) -> usize {
        use x86_64::{VirtAddr, structures::paging::Translate};
        let found = |&at: &usize| {
            let to = self.0.translate_addr(VirtAddr::new(at as u64));
            to.expect("mapped").as_u64() as usize
        };
        pages.iter().map(found).fold(0, usize::wrapping_add)
    }
    fn unmap(&mut self, pages: &[usize]) {
        use x86_64::{
            VirtAddr,
            structures::paging::{Mapper, Page, Size4KiB},
        };
        for &at in pages {
            let page = Page::<Size4KiB>::containing_address(VirtAddr::new(at as u64));
            let (to, flush) = self.0.unmap(page).expect("mapped");
            flush.ignore();
            black_box(to);
        }
    }
}

/// By hand: no flags, no locks, no checks but for an empty entry.
pub(crate) struct ByHand(usize);

const FRAME: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 7;

impl ByHand {
    #[inline]
    fn slot(table: usize, at: usize, level: usize) -> *mut u64 {
        let entries: *mut u64 = base().wrapping_add(table).cast();
        entries.wrapping_add((at >> (12 + 9 * level)) & 511)
    }
    fn zeroed() -> usize {
        let table = alloc().expect("there are frames");
        // SAFETY: a frame of our own.
        unsafe { base().add(table).write_bytes(0, PAGE) };
        table
    }
    #[inline]
    fn entry(&self, at: usize) -> Option<*mut u64> {
        let mut table = self.0;
        for level in (1..4).rev() {
            // SAFETY: a slot of a table that was made below.
            let entry = unsafe { *Self::slot(table, at, level) };
            if entry & 1 == 0 {
                return None;
            }
            table = (entry & FRAME) as usize;
        }
        Some(Self::slot(table, at, 0))
    }
}

impl Table for ByHand {
    fn new() -> Self {
        Self(Self::zeroed())
    }
    fn map(&mut self, pages: &[usize]) {
        for (n, &at) in pages.iter().enumerate() {
            let mut table = self.0;
            for level in (1..4).rev() {
                let slot = Self::slot(table, at, level);
                // SAFETY: a slot of a table that was made here.
                unsafe {
                    if *slot == 0 {
                        *slot = Self::zeroed() as u64 | PRESENT;
                    }
                    table = (*slot & FRAME) as usize;
                }
            }
            let slot = Self::slot(table, at, 0);
            // SAFETY: as above.
            unsafe {
                assert_eq!(*slot, 0);
                *slot = frame(n) as u64 | PRESENT;
            }
        }
    }
    fn translate(&self, pages: &[usize]) -> usize {
        let found = |&at: &usize| {
            // SAFETY: a slot of a table that was made above.
            let entry = unsafe { *self.entry(at).expect("mapped") };
            assert_ne!(entry & 1, 0);
            (entry & FRAME) as usize
        };
        pages.iter().map(found).fold(0, usize::wrapping_add)
    }
    fn unmap(&mut self, pages: &[usize]) {
        for &at in pages {
            let slot = self.entry(at).expect("mapped");
            // SAFETY: as above.
            unsafe {
                black_box(*slot);
                *slot = 0;
            }
        }
    }
}
