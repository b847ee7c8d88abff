//! Flag words of userfaultfd and of `PAGEMAP_SCAN`, with Linux's values.
//!
//! Unknown bits are kept (`from_bits_retain`), because each call decides which of them it refuses.

use bitflags::bitflags;

bitflags! {
    /// Features of a userfaultfd, asked for by `UFFDIO_API`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct UffdFeatures: u64 {
        /// Messages tell writes to protected pages.
        const PAGEFAULT_FLAG_WP = 1 << 0;
        /// A fork makes a userfaultfd for the child, and sends it in a message.
        const EVENT_FORK = 1 << 1;
        /// A moved mapping stays registered, and `mremap` sends a message.
        const EVENT_REMAP = 1 << 2;
        /// `MADV_DONTNEED`, `MADV_FREE` and `MADV_REMOVE` send a message.
        const EVENT_REMOVE = 1 << 3;
        /// Absent pages of the pool of huge pages.
        const MISSING_HUGETLBFS = 1 << 4;
        /// Absent pages of shared memory.
        const MISSING_SHMEM = 1 << 5;
        /// Unmapping sends a message.
        const EVENT_UNMAP = 1 << 6;
        /// A fault raises SIGBUS instead of sending a message.
        const SIGBUS = 1 << 7;
        /// Minor faults of the pool of huge pages.
        const MINOR_HUGETLBFS = 1 << 9;
        /// Minor faults of shared memory.
        const MINOR_SHMEM = 1 << 10;
        /// Messages have the address of the byte instead of that of its page.
        const EXACT_ADDRESS = 1 << 11;
        /// Write protection of shared memory and of the pool of huge pages.
        const WP_HUGETLBFS_SHMEM = 1 << 12;
        /// Write protection of absent pages of private memory.
        const WP_UNPOPULATED = 1 << 13;
        /// `UFFDIO_POISON`.
        const POISON = 1 << 14;
        /// A write lifts the protection of its page at once and sends no message.
        const WP_ASYNC = 1 << 15;
        /// `UFFDIO_MOVE`.
        const MOVE = 1 << 16;
    }

    /// The faults for which memory is registered (`UFFDIO_REGISTER`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct RegisterMode: u64 {
        /// Faults on absent pages.
        const MISSING = 1;
        /// Writes to protected pages.
        const WP = 2;
        /// Faults on pages that the object has and the table has not.
        const MINOR = 4;
    }

    /// Modes of `UFFDIO_COPY`, `UFFDIO_ZEROPAGE`, `UFFDIO_CONTINUE` and `UFFDIO_POISON`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FillMode: u64 {
        /// The waiting accesses are not woken.
        const DONTWAKE = 1;
        /// The pages are write-protected (`UFFDIO_COPY` and `UFFDIO_CONTINUE`).
        const WP = 2;
    }

    /// Modes of `UFFDIO_WRITEPROTECT`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ProtectMode: u64 {
        /// Protect; without this bit the protection is lifted.
        const WP = 1;
        /// The waiting accesses are not woken.
        const DONTWAKE = 2;
    }

    /// Modes of `UFFDIO_MOVE`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MoveMode: u64 {
        /// The waiting accesses are not woken.
        const DONTWAKE = 1;
        /// Holes of the source are passed over.
        const ALLOW_SRC_HOLES = 2;
    }

    /// The kind of a fault in a message.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PageFaultFlags: u64 {
        /// A write.
        const WRITE = 1;
        /// The page is write-protected.
        const WP = 2;
        /// The object has the page.
        const MINOR = 4;
    }

    /// Flags of `PAGEMAP_SCAN`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ScanFlags: u64 {
        /// Write-protect the pages that are reported.
        const WP_MATCHING = 1;
        /// Fail at memory whose writes are not tracked.
        const CHECK_WPASYNC = 2;
    }

    /// Categories of pages in `PAGEMAP_SCAN`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PageCategories: u64 {
        /// Writes to the memory are tracked.
        const WPALLOWED = 1;
        /// Written since the page was protected; also every page that never was.
        const WRITTEN = 1 << 1;
        /// A page of an object.
        const FILE = 1 << 2;
        /// In memory.
        const PRESENT = 1 << 3;
        /// In swap, or a marker.
        const SWAPPED = 1 << 4;
        /// The zero page.
        const PFNZERO = 1 << 5;
        /// Mapped by a huge page.
        const HUGE = 1 << 6;
        /// Soft-dirty. This library keeps no such bits: a page never has it, as on a kernel
        /// without them.
        const SOFT_DIRTY = 1 << 7;
        /// A guard marker.
        const GUARD = 1 << 8;
    }
}
