//! KVM: a virtual machine whose memory is pages of an address space, translated by page tables of its own.
//!
//! It never sleeps in a callback. The rules are those of `virt/kvm/kvm_main.c` (5.12 and later), with one difference: there
//! is not one mmu lock but several, the [gates](crate::notifier::Gates), each for some 2-MiB blocks of pages, with a count, a forbidden range
//! and a sequence of its own. Windows and faults elsewhere meet none of it.
//!
//! * a window first ends the validity of [gfn-to-pfn caches](PfnCache), then takes the mmu lock, counts itself in, widens the
//!   forbidden range of guest frames, zaps, and flushes what it zapped from the TLBs of the processors before the lock goes
//!   (`kvm_mmu_notifier_invalidate_range_start`); so lock by lock, for each that has pages of it;
//! * its end advances the sequence before it counts itself out (`…_range_end`);
//! * a fault takes the sequence, looks the page up, takes the lock, and tries again if its frame is in the forbidden
//!   range or the sequence has moved (`mmu_invalidate_retry_gfn`);
//! * memory slots do not change while a window is open.
//!
//! ```text
//! shadow page table: gfn -> frame       its page's gate  4 levels, 4 KiB and 2 MiB
//! TLB of a processor: gfn -> frame      its own lock     filled under the page's gate, flushed under it
//! PfnCache: gpa -> frame                its own lock     validated under its own lock
//! slots: gfn -> page                    replaced gate by gate, with no window open
//! ```
//!
//! | file | |
//! | --- | --- |
//! | `vm` | the machine: gates, slots, TLBs, counts |
//! | `config` | how it behaves |
//! | `memslot` | which guest frames are which pages |
//! | `shadow` | the page table |
//! | `vcpu` | loads and stores of a processor |
//! | `exit` | why an access leaves the guest |
//! | `fault` | how an entry comes to be |
//! | `notify` | what a window does |
//! | `active` | windows that are open; changes of slots wait for none |
//! | `slots` | changing slots; the dirty log |
//! | `cached_page` | … as windows see it |
//! | `pfncache` | the second consumer |

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
