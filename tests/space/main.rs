//! The address space: calls, faults, page tables, and what each comes to.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/drawn.rs"]
mod drawn;

mod addresses;
mod any_number;
mod copies;
#[cfg(feature = "testkit")]
mod daemons;
mod device_edges;
mod device_entries;
mod device_pages;
#[cfg(feature = "replay")]
mod entries;
mod errno_advice;
mod errno_mmap;
mod errno_mremap;
mod exhaustion;
mod folios;
mod fork_race;
mod fork_shared;
mod growing;
mod holds;
mod host_access;
mod hugetlb;
mod hugetlb_model;
mod leaks;
mod limit_races;
mod limits;
mod loading;
mod memory;
mod moved_pools;
mod moving_huge;
mod nonlinear;
mod not_present;
mod pagemap_scan;
mod refused;
mod remote;
mod rules;
mod segments;
mod semantics;
mod threads;
mod userfault;
mod userfault_pool;
mod vma_cost;
