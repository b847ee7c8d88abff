//! Vocabulary of the address space: page-table entries, flag words, arguments of calls.
//!
//! Nothing here locks, waits or looks into a table: every other room of `mm` uses this one, and
//! this one uses none.
//!
//! | file | holds |
//! | --- | --- |
//! | `pte` | `RawPte`, the word of an entry, and [`Pte`](pte::Pte), its public reading |
//! | `not_present` | entries of absent pages: migration marks, swap slots, places in an object |
//! | `device` | entries of pages that lie on a device |
//! | `uffd_flags` | flag words of userfaultfd and of `PAGEMAP_SCAN`, with Linux's values |
//! | `userfault` | the mark of write protection by userfaultfd, and its markers |
//! | `release` | [`RemovedPte`](release::RemovedPte): the contents of an entry that left its table |
//! | `flags` | flag words with Linux's values |
//! | `policy` | policies of memory |
//! | `args` | arguments of `mmap` and `mremap`, and their checks |
//! | `errors` | errors of populating |

pub(in crate::mm) mod args;
pub(in crate::mm) mod device;
pub(in crate::mm) mod errors;
pub(in crate::mm) mod flags;
pub(in crate::mm) mod not_present;
pub(in crate::mm) mod policy;
pub(in crate::mm) mod pte;
pub(in crate::mm) mod release;
pub(in crate::mm) mod uffd_flags;
pub(in crate::mm) mod userfault;
