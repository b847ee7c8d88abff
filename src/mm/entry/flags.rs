//! Flag words with Linux's values, so that a recorded call can be passed on as it is.
//!
//! Unknown bits are kept (`from_bits_retain`), because each call decides which of them it refuses.

use bitflags::bitflags;

bitflags! {
    /// Protection bits of `mmap` and `mprotect`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Prot: u32 {
        /// Readable.
        const READ = 1;
        /// Writable; on x86 also readable.
        const WRITE = 2;
        /// Executable; without protection keys also readable.
        const EXEC = 4;
        /// `mprotect` only: extend the change down to the start of a growing stack.
        const GROWSDOWN = 0x0100_0000;
        /// `mprotect` only: extend the change up; no x86 VMA grows up.
        const GROWSUP = 0x0200_0000;
    }

    /// Flags of `mmap`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MapFlags: u32 {
        /// Changes are shared.
        const SHARED = 0x01;
        /// Changes are private.
        const PRIVATE = 0x02;
        /// Both bits: shared, and unknown flags are refused.
        const SHARED_VALIDATE = 0x03;
        /// Pages that the system may drop under pressure; wiped on fork.
        const DROPPABLE = 0x08;
        /// Map exactly at the address given, and replace the mappings there.
        const FIXED = 0x10;
        /// Anonymous memory: no file is mapped.
        const ANONYMOUS = 0x20;
        /// Place the mapping in the second GiB, lowest hole first, for code of the small model
        /// (x86). A hint may lie anywhere below 2 GiB.
        const MAP_32BIT = 0x40;
        /// A stack: a fault just below extends the mapping.
        const GROWSDOWN = 0x0100;
        /// Ignored, as on Linux.
        const DENYWRITE = 0x0800;
        /// Ignored, as on Linux.
        const EXECUTABLE = 0x1000;
        /// Lock the pages in memory and fault them in.
        const LOCKED = 0x2000;
        /// Reserve no swap space.
        const NORESERVE = 0x4000;
        /// Fault the pages in.
        const POPULATE = 0x8000;
        /// With `POPULATE`: do not block; no page is faulted in then.
        const NONBLOCK = 0x0001_0000;
        /// A thread's stack: the mapping gets no huge pages; no other effect.
        const STACK = 0x0002_0000;
        /// Memory of huge pages from a pool ([`HugePoolConfig`](crate::HugePoolConfig)). Without
        /// free pages for it the call fails.
        const HUGETLB = 0x0004_0000;
        /// Promise that stores reach the store of the object at once. Objects without a store
        /// ignore it; no file on disk here keeps the promise.
        const SYNC = 0x0008_0000;
        /// Map exactly at the address given, and fail if a mapping is there.
        const FIXED_NOREPLACE = 0x0010_0000;
        /// With `HUGETLB`: pages of 2 MiB, the default.
        const HUGE_2MB = 21 << 26;
        /// With `HUGETLB`: pages of 1 GiB.
        const HUGE_1GB = 30 << 26;
    }

    /// Flags of `mremap`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MremapFlags: u32 {
        /// The mapping may move.
        const MAYMOVE = 1;
        /// Move to the new address given, and replace the mappings there.
        const FIXED = 2;
        /// Keep the source VMA, without pages.
        const DONTUNMAP = 4;
    }

    /// Flags of `msync`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MsyncFlags: u32 {
        /// Schedule the writeback; today's Linux does nothing.
        const ASYNC = 1;
        /// Refuse locked VMAs.
        const INVALIDATE = 2;
        /// Write back and wait.
        const SYNC = 4;
    }

    /// Flags of `mlock2`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MlockFlags: u32 {
        /// Lock pages as they are faulted in.
        const ONFAULT = 1;
    }

    /// Flags of `mlockall`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MlockallFlags: u32 {
        /// Lock the present mappings.
        const CURRENT = 1;
        /// Lock every later mapping.
        const FUTURE = 2;
        /// Lock pages as they are faulted in.
        const ONFAULT = 4;
    }

    /// Rights, kind and advice of a VMA: the `VM_*` bits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    pub struct VmFlags: u64 {
        /// Readable.
        const READ = 0x1;
        /// Writable.
        const WRITE = 0x2;
        /// Executable.
        const EXEC = 0x4;
        /// Shared: stores reach the object.
        const SHARED = 0x8;
        /// `mprotect` may set READ.
        const MAYREAD = 0x10;
        /// `mprotect` may set WRITE.
        const MAYWRITE = 0x20;
        /// `mprotect` may set EXEC.
        const MAYEXEC = 0x40;
        /// Shown as shared, even if stores are not allowed.
        const MAYSHARE = 0x80;
        /// A stack that grows down.
        const GROWSDOWN = 0x100;
        /// Faults on absent pages go to userfaultfd.
        const UFFD_MISSING = 0x200;
        /// Has or had guard markers. Set for the whole VMA without a split; does not hinder a
        /// merge.
        const MAYBE_GUARD = 0x800;
        /// Writes to protected pages go to userfaultfd.
        const UFFD_WP = 0x1000;
        /// Locked in memory.
        const LOCKED = 0x2000;
        /// `MADV_SEQUENTIAL`.
        const SEQ_READ = 0x8000;
        /// `MADV_RANDOM`.
        const RAND_READ = 0x1_0000;
        /// Not copied by fork.
        const DONTCOPY = 0x2_0000;
        /// Cannot be expanded by `mremap`.
        const DONTEXPAND = 0x4_0000;
        /// Pages are locked as they are faulted in.
        const LOCKONFAULT = 0x8_0000;
        /// The pages are charged to the commit limit.
        const ACCOUNT = 0x10_0000;
        /// Never charged to the commit limit.
        const NORESERVE = 0x20_0000;
        /// Huge pages of a pool.
        const HUGETLB = 0x40_0000;
        /// Entries map pages of the object in any order (`remap_file_pages`).
        const NONLINEAR = 0x80_0000;
        /// Emptied in the child by fork.
        const WIPEONFORK = 0x200_0000;
        /// Left out of core dumps.
        const DONTDUMP = 0x400_0000;
        /// `MADV_HUGEPAGE`.
        const HUGEPAGE = 0x2000_0000;
        /// `MADV_NOHUGEPAGE`.
        const NOHUGEPAGE = 0x4000_0000;
        /// `MADV_MERGEABLE`.
        const MERGEABLE = 0x8000_0000;
        /// `MAP_SYNC`. Not Linux's bit, which `NONLINEAR` has.
        const SYNC = 1 << 48;
        /// `MAP_DROPPABLE`.
        const DROPPABLE = 1 << 40;
        /// Faults on pages that the object has, and the table has not, go to userfaultfd.
        const UFFD_MINOR = 1 << 41;
        /// `mseal`.
        const SEALED = 1 << 42;
    }
}

/// The memory of a process that gets no huge pages (`PR_SET_THP_DISABLE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ThpDisable {
    /// None.
    #[default]
    No,
    /// All but memory for which they were advised, or that is collapsed by advice.
    ExceptAdvised,
    /// All.
    Completely,
}

/// How `remap_file_pages` works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RemapMode {
    /// A new mapping replaces the old one (Linux since 4.0).
    #[default]
    Emulated,
    /// The mapping stays one, and its entries name the pages of the object (Linux before 4.0, and
    /// the proposal).
    Nonlinear,
}

impl VmFlags {
    /// All three rights: read, write, execute.
    pub const ACCESS: Self = Self::READ.union(Self::WRITE).union(Self::EXEC);
    /// Both lock bits.
    pub const LOCK_MASK: Self = Self::LOCKED.union(Self::LOCKONFAULT);
    /// Bits that do not hinder a merge; the merged VMA has those of both (`VM_STICKY`).
    pub const STICKY: Self = Self::MAYBE_GUARD;
    /// The ways in which a VMA is registered with userfaultfd (`__VM_UFFD_FLAGS`).
    pub const UFFD: Self = Self::UFFD_MISSING
        .union(Self::UFFD_WP)
        .union(Self::UFFD_MINOR);
    /// Bits of VMAs that `mlock` and same-page merging skip (`VM_SPECIAL`).
    pub const SPECIAL: Self = Self::DONTEXPAND;

    /// Returns true for a private mapping that `mprotect` may make writable: its pages are copied
    /// on write.
    pub const fn is_cow(self) -> bool {
        self.bits() & (Self::SHARED.bits() | Self::MAYWRITE.bits()) == Self::MAYWRITE.bits()
    }
    /// Returns true if a new mapping is charged to the commit limit: private, writable, not
    /// `NORESERVE` (`accountable_mapping`).
    pub(in crate::mm) const fn accountable(self) -> bool {
        self.bits() & (Self::NORESERVE.bits() | Self::SHARED.bits() | Self::WRITE.bits())
            == Self::WRITE.bits()
    }
    /// Returns true if the pages count against `RLIMIT_DATA`: private, writable, not a stack
    /// (`is_data_mapping`).
    pub(in crate::mm) const fn is_data(self) -> bool {
        self.bits() & (Self::WRITE.bits() | Self::SHARED.bits() | Self::GROWSDOWN.bits())
            == Self::WRITE.bits()
    }
    /// Returns true if the VMA has any right; one of `PROT_NONE` has none (`vma_is_accessible`).
    pub(in crate::mm) const fn accessible(self) -> bool {
        self.intersects(Self::ACCESS)
    }
    /// Returns true if `mlock` may lock the VMA: special and droppable memory is never locked
    /// (`vma_supports_mlock`).
    pub(in crate::mm) fn may_be_locked(self) -> bool {
        !self.intersects(Self::SPECIAL | Self::DROPPABLE)
    }
    /// Replaces the rights by those of `prot`.
    pub(in crate::mm) fn with_prot(self, prot: Prot) -> Self {
        (self - Self::ACCESS) | Self::from_prot(prot)
    }
    /// The rights that `prot` names, without its other bits.
    pub(in crate::mm) fn from_prot(prot: Prot) -> Self {
        Self::from_bits_truncate(u64::from(prot.bits())) & Self::ACCESS
    }
}

macro_rules! advices {
    ($($(#[$m:meta])* $name:ident = $value:literal,)*) => {
        /// An advice of `madvise`, with Linux's numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum Advice { $($(#[$m])* $name = $value,)* }

        impl Advice {
            /// Every known advice.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// The advice with number `raw`; `None` if the number is unknown (EINVAL on Linux).
            pub const fn from_raw(raw: i32) -> Option<Self> {
                match raw { $($value => Some(Self::$name),)* _ => None }
            }
        }
    };
}

advices! {
    /// No special treatment.
    Normal = 0,
    /// Expect random access.
    Random = 1,
    /// Expect sequential access.
    Sequential = 2,
    /// Will be needed: the mapped objects read their pages in from disk or swap; no page is mapped.
    WillNeed = 3,
    /// Not needed: the pages are dropped, and anonymous memory reads zero afterwards.
    DontNeed = 4,
    /// The pages may be freed lazily, until they are written again.
    Free = 8,
    /// Punch a hole in the object.
    Remove = 9,
    /// Leave out of forks.
    DontFork = 10,
    /// Undo `DontFork`.
    DoFork = 11,
    /// Same-page merging wanted.
    Mergeable = 12,
    /// Undo `Mergeable`.
    Unmergeable = 13,
    /// Huge pages wanted.
    HugePage = 14,
    /// Huge pages not wanted.
    NoHugePage = 15,
    /// Leave out of core dumps.
    DontDump = 16,
    /// Undo `DontDump`.
    DoDump = 17,
    /// Empty in the child of a fork.
    WipeOnFork = 18,
    /// Undo `WipeOnFork`.
    KeepOnFork = 19,
    /// Deactivate the pages.
    Cold = 20,
    /// Reclaim the pages.
    PageOut = 21,
    /// Fault in for reading.
    PopulateRead = 22,
    /// Fault in for writing.
    PopulateWrite = 23,
    /// `DontNeed`, also on locked VMAs.
    DontNeedLocked = 24,
    /// Collapse into huge pages.
    Collapse = 25,
    /// Install guard markers: access is SIGSEGV.
    GuardInstall = 102,
    /// Remove guard markers.
    GuardRemove = 103,
}
