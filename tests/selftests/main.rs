//! Linux's own self tests (`tools/testing/selftests/mm`), one test a case, by the name of its suite
//! and its case. `docs/selftests.md` lists the cases that other tests hold, and those left out.

#[path = "../common/mod.rs"]
mod common;

mod area;
mod guard_regions;
mod hugetlb_madvise;
mod ksm_functional;
mod madv_populate;
mod merge;
mod mkdirty;
mod mremap_dontunmap;
mod pagemap_ioctl;
mod pagemap_ioctl_memory;
mod uffd_events;
mod uffd_unit;
mod uffd_wp;
mod uffd_wp_mremap;
