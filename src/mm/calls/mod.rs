//! System calls, one file each: the requests of a process to its address space.
//!
//! A call that changes VMAs takes the mmap lock exclusively and declares the pages on which it
//! works (`claim_range`, `wait_for_conflicts`): calls on other memory run while it is in a window
//! (ADR 0009). A call that fails leaves memory as it was, or as Linux leaves it; after a driver's
//! panic each change is done or undone (ADR 0024). The other rooms of `mm` do the work that several
//! calls share.
//!
//! | file | holds |
//! | --- | --- |
//! | `mmap` | `mmap` |
//! | `munmap` | `munmap`, and the taking out of VMAs for the other calls |
//! | `mprotect` | `mprotect` |
//! | `pkeys` | `pkey_mprotect`, `pkey_alloc` |
//! | `change_protection` | the change of rights in entries, for `mprotect` and userfaultfd |
//! | `mremap` | `mremap` |
//! | `file_kinds` | rules of a mapping by the kind of its file |
//! | `shm` | `shmget`, `shmat`, `shmdt`, `shmctl` |
//! | `mbind` | `mbind` |
//! | `thp_disable` | the setting that keeps huge pages from a process |
//! | `brk` | the heap; the addresses of heap and stack |
//! | `madvise` | `madvise`, a file for each kind of advice; the setting to merge all memory |
//! | `mlock` | `mlock`, `mlock2`, `munlock`, `mlockall`, `munlockall` |
//! | `msync` | `msync` |
//! | `inspect` | `find_vma`, `mincore`, `mseal` |
//! | `remap_file_pages` | `remap_file_pages` |
//! | `anon_name` | names of anonymous memory |
//! | `hugetlb` | `MAP_HUGETLB` |
//! | `fork` | `fork` |
//! | `install` | mappings that a program loader makes |
//! | `exit` | the end of an address space |
//! | `copy_between` | `process_vm_readv`, `process_vm_writev` |
//! | `access_remote` | `/proc/PID/mem`, `ptrace` |
//! | `pin` | pages for I/O: pins and references |
//! | `process_mrelease` | `process_mrelease` |
//! | `file_bytes` | `pread`, `pwrite` |
//! | `direct_io` | `pread`, `pwrite` past the cache of a file |
//! | `proc_maps` | `/proc/PID/maps`, the pagemap |
//! | `userfault` | userfaultfd: registration, answers, messages |
//! | `pagemap_scan` | `PAGEMAP_SCAN` |
//! | `clear_refs` | `/proc/PID/clear_refs` |
//! | `migrate_vma` | pages that go to a device, or come home |
//! | `device_exclusive` | a page of memory that a device gets alone |
//! | `devices` | devices with memory of their own, added and removed |
//! | `swapoff` | `swapoff`, `swapon` |
//! | `khugepaged` | huge pages of small ones, without advice for the moment |
//! | `vma_cost` | reasons against merges; the number of VMAs that an operation takes |
//! | `vma_walk` | walks over the VMAs of a range |

pub(in crate::mm) mod access_remote;
pub(in crate::mm) mod anon_name;
pub(in crate::mm) mod brk;
mod change_protection;
pub(in crate::mm) mod clear_refs;
pub(in crate::mm) mod copy_between;
pub(in crate::mm) mod device_exclusive;
mod devices;
pub(in crate::mm) mod direct_io;
pub(in crate::mm) mod exit;
pub(in crate::mm) mod file_bytes;
pub(in crate::mm) mod file_kinds;
pub(in crate::mm) mod fork;
pub(in crate::mm) mod hugetlb;
pub(in crate::mm) mod inspect;
pub(in crate::mm) mod install;
pub(in crate::mm) mod khugepaged;
pub(in crate::mm) mod madvise;
pub(in crate::mm) mod mbind;
pub(in crate::mm) mod migrate_vma;
pub(in crate::mm) mod mlock;
pub(in crate::mm) mod mmap;
pub(in crate::mm) mod mprotect;
pub(in crate::mm) mod mremap;
pub(in crate::mm) mod msync;
pub(in crate::mm) mod munmap;
pub(in crate::mm) mod pagemap_scan;
pub(in crate::mm) mod pin;
pub(in crate::mm) mod pkeys;
pub(in crate::mm) mod proc_maps;
pub(in crate::mm) mod process_mrelease;
pub(in crate::mm) mod remap_file_pages;
pub(in crate::mm) mod shm;
mod swapoff;
pub(in crate::mm) mod thp_disable;
pub(in crate::mm) mod userfault;
pub(in crate::mm) mod vma_cost;
mod vma_walk;
