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
//! entries of guest files: gfn -> frame  their own lock   windows of their own
//! attributes: gfn -> shared, private    changed inside of a window over both kinds of entry
//! ```
//!
//! Memory that is the guest's alone comes from a [guest file](GuestMemfd), which is bound to memory
//! slots. A guest frame is shared or private ([`MemoryAttributes`]), and so is an access; the guest
//! gets a page of the process, or one of the file. No notifier of an address space tells of a page
//! of a guest file, so the machine's own account has to: a conversion, a hole in the file, the end
//! of a binding and the end of the file each remove the guest's entries first.
//!
//! | file | holds |
//! | --- | --- |
//! | `gfn` | numbers of guest frames |
//! | `config` | configuration, and mistakes made on purpose |
//! | `memslot` | the map of guest frames to pages |
//! | `shadow` | the shadow page table |
//! | `account` | the count of windows under one lock, and the range that they forbid |
//! | `tlbs` | TLBs of processors |
//! | `guest_pages` | the pages of a guest file, and the slots that they are bound to |
//! | `attributes` | the guest frames that are private |
//! | `guest_entry`, `guest_entries` | entries of guest files' pages, and windows over them |
//! | `active` | the count of open windows, for which changes of slots wait |
//! | `cached_page` | the page of a gfn-to-pfn cache, as windows see it |
//! | `vm` | the machine: gates, slots, TLBs, sequences |
//! | `exit` | the reasons for which an access leaves the guest |
//! | `vcpu` | loads and stores of a processor |
//! | `fault` | the fault path |
//! | `pre_fault` | guest frames that are faulted in before the guest uses them |
//! | `notify` | the callbacks: windows and aging |
//! | `guest_error` | errors of guest files and attributes |
//! | `guest_memfd` | guest files |
//! | `slots` | changes of slots |
//! | `dirty_log` | the pages that the guest has written |
//! | `convert` | conversions of guest frames |
//! | `guest_fault` | the fault path of machines with guest files |
//! | `guest_audit` | the audit of guest files |
//! | `pfncache` | gfn-to-pfn caches: pages that the host uses itself |
//! | `models` | loom models of the sequences |

mod account;
mod active;
mod attributes;
mod cached_page;
mod config;
mod convert;
mod dirty_log;
mod exit;
mod fault;
mod gfn;
mod guest_audit;
mod guest_entries;
mod guest_entry;
mod guest_error;
mod guest_fault;
mod guest_memfd;
mod guest_pages;
mod memslot;
#[cfg(all(test, loom))]
mod models;
mod notify;
mod pfncache;
mod pre_fault;
mod shadow;
mod slots;
mod tlbs;
mod vcpu;
mod vm;

pub use attributes::{MemoryAttributes, PageKind};
pub use config::{AccessedBits, GuestMemoryMistake, KvmMistake, VmConfig, VmType};
pub use exit::Exit;
pub use gfn::{C_BIT, Gfn};
pub use guest_audit::GuestFinding;
pub use guest_error::GuestMemoryError;
pub use guest_memfd::GuestMemfd;
pub use guest_pages::GuestMemfdFlags;
pub use memslot::{MemSlot, MemSlots, SlotError, SlotFlags};
pub use pfncache::PfnCache;
pub use pre_fault::PreFaultError;
pub use shadow::ShadowPages;
pub use slots::NewSlots;
pub use vcpu::Vcpu;
pub use vm::Vm;
