//! KVM: a virtual machine whose memory is pages of an address space, translated by page tables of
//! its own.
//!
//! Its callbacks never sleep. The rules are those of `virt/kvm/kvm_main.c` (5.12 and later), with
//! one difference: the one mmu lock is split into several [gates](crate::notifier::Gates), each for
//! some 2-MiB blocks of pages, with a count, a forbidden range and a sequence of its own. So
//! windows and faults on other blocks do not contend.
//!
//! * A window first invalidates the [gfn-to-pfn caches](PfnCache). Then, gate by gate, it takes the
//!   mmu lock, counts itself in, widens the forbidden range of guest frames, zaps, and flushes the
//!   zapped pages from the TLBs of the processors before it releases the lock
//!   (`kvm_mmu_notifier_invalidate_range_start`).
//! * The end of a window advances the sequence before it counts itself out (`…_range_end`).
//! * A fault reads the sequence, looks the page up, takes the lock, and tries again if its frame is
//!   in the forbidden range or the sequence has moved (`mmu_invalidate_retry_gfn`).
//! * Memory slots do not change while a window is open.
//!
//! ```text
//! shadow page table: gfn -> frame       its page's gate  4 levels, 4 KiB and 2 MiB
//! TLB of a processor: gfn -> frame      its own lock     filled and flushed under the page's gate
//! PfnCache: gpa -> frame                its own lock     validated under its own lock
//! slots: gfn -> page                    replaced gate by gate, with no window open
//! ```
//!
//! | file | holds |
//! | --- | --- |
//! | `config` | configuration, and mistakes made on purpose |
//! | `memslot` | the map of guest frames to pages |
//! | `shadow` | the shadow page table |
//! | `active` | the count of open windows, for which changes of slots wait |
//! | `cached_page` | the page of a gfn-to-pfn cache, as windows see it |
//! | `vm` | the machine: gates, slots, TLBs, sequences |
//! | `exit` | the reasons for which an access leaves the guest |
//! | `vcpu` | loads and stores of a processor |
//! | `fault` | the fault path |
//! | `notify` | the callbacks: windows and aging |
//! | `slots` | changes of slots, and the dirty log |
//! | `pfncache` | gfn-to-pfn caches: pages that the host uses itself |
//! | `models` | loom models of the sequence |

mod active;
mod cached_page;
mod config;
mod exit;
mod fault;
mod memslot;
#[cfg(all(test, loom))]
mod models;
mod notify;
mod pfncache;
mod shadow;
mod slots;
mod vcpu;
mod vm;

pub use config::{AccessedBits, KvmMistake, VmConfig};
pub use exit::Exit;
pub use memslot::{Gfn, MemSlot, MemSlots, SlotError, SlotFlags};
pub use pfncache::PfnCache;
pub use shadow::ShadowPages;
pub use slots::NewSlots;
pub use vcpu::Vcpu;
pub use vm::Vm;
