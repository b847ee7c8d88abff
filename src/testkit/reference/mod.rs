//! The expected outcomes of scripts, from a model of nothing but pages.
//!
//! [`Reference`] follows the steps of a script and checks each outcome: rights, contents and
//! sharing of pages, over forks, moves, files, guards, reclaim. The model has no VMAs, no page
//! tables and no frames. Where the address space counts and splits, the model has a map from page
//! numbers to pages, so an agreement of the two is a result computed in two ways.
//!
//! A [`Suite`](super::Suite) runs a model next to every script. With a machine at hand,
//! [`Reference::check`] compares the structures of the processes with the model: VMAs with pages,
//! entries with contents, the counts of frames with entries, reverse maps with page tables,
//! accounts with objects.
//!
//! # Covered operations
//!
//! Operations on mapped pages: `mmap` (private, shared, files; fixed or not, populated), `munmap`,
//! `mprotect`, `mremap` in all forms, `madvise`, `msync`, `mseal`, `mlock` and its variants, loads
//! and stores of any byte, reads of files into memory, copies between processes, pins, references
//! in pipes, accesses by force, `fork`, `exit`, `ftruncate`, `fallocate`, `pwrite`, also direct,
//! `fsync`, advice, seals, segments of System V, `mbind`, reclaim, migration, merging; files of
//! every size and offset, with ext4's and shmem's rules for the bytes beyond their ends; droppable
//! memory; and a machine without a pool of huge pages, or with one that is large enough.
//!
//! The model accepts the recorded outcome where only VMAs determine it: the place of a mapping
//! without `FIXED`, and growth in place. After the success of any other operation
//! (`remap_file_pages`, stacks, locks of private pages of files, odd addresses) the model is
//! [lost](Reference::is_lost) and accepts every outcome.
//!
//! | file | holds |
//! | --- | --- |
//! | `model` | the state, and the dispatch of a step |
//! | `ops` | mappings, forks, rights |
//! | `moves` | `mremap` |
//! | `kernel` | operations of the kernel by itself |
//! | `kinds` | the flags of `mmap` |
//! | `advise` | `madvise` |
//! | `locks` | `mlock` and its variants |
//! | `policy` | `mbind` |
//! | `seals` | `mseal` |
//! | `file_seals` | seals of shared memory |
//! | `segments` | the segment of System V |
//! | `files` | operations on files |
//! | `ranges` | `fallocate`, transfers past the cache of a file |
//! | `copies` | reads into memory, copies between processes |
//! | `tracked` | tracked writes |
//! | `device` | pages on a device |
//! | `holds` | pinning and referencing pages, accesses by force |
//! | `held` | the processes with pinned buffers and open pipes |
//! | `check` | the comparison with the structures of the processes |
//! | `pool` | huge pages of a pool |
//! | `page` | pages and objects |
//! | `outcome` | expected outcomes |

mod advise;
mod check;
mod copies;
mod device;
mod file_seals;
mod files;
mod held;
mod holds;
mod kernel;
mod kinds;
mod locks;
mod model;
mod moves;
mod ops;
mod outcome;
mod page;
mod policy;
mod pool;
mod ranges;
mod seals;
mod segments;
mod tracked;

pub use check::Checks;
pub use model::Reference;
