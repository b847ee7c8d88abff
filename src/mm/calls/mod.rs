//! System calls, a file each: what a process asks of its address space.

pub(in crate::mm) mod anon_name;
pub(in crate::mm) mod brk;
pub(in crate::mm) mod copy_between;
pub(in crate::mm) mod exit;
pub(in crate::mm) mod file_bytes;
pub(in crate::mm) mod fork;
pub(in crate::mm) mod hugetlb;
pub(in crate::mm) mod inspect;
pub(in crate::mm) mod install;
pub(in crate::mm) mod madvise;
pub(in crate::mm) mod mlock;
pub(in crate::mm) mod mmap;
pub(in crate::mm) mod mprotect;
pub(in crate::mm) mod mremap;
pub(in crate::mm) mod msync;
pub(in crate::mm) mod munmap;
pub(in crate::mm) mod proc_maps;
pub(in crate::mm) mod remap_file_pages;
mod vma_walk;
