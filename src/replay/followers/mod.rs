//! External MMUs that access the memory of a recorded process along with it, each behind the same
//! trait.
//!
//! | file | holds |
//! | --- | --- |
//! | `follower` | the trait |
//! | `kvm` | a virtual processor whose guest memory is the whole address space |
//! | `gru` | a GRU context |
//! | `xpmem` | a partition that has the whole address space attached |
//! | `gpu` | a GPU of two engines |
//! | `regcache` | an adapter with a registration cache |
//! | `odp` | an RDMA adapter with a region of everything |
//! | `sva` | a device that shares the page table |

mod follower;
mod gpu;
mod gru;
mod kvm;
mod odp;
mod regcache;
mod sva;
mod xpmem;

use super::mmu_kind::MmuKind;
use crate::{ctx::CallCx, mm::Mm};
use std::sync::Arc;

pub(super) use follower::{Compared, Follower};

/// Attaches a device to an address space.
pub(super) fn attach(
    cx: &mut CallCx<'_>,
    mm: &Arc<Mm>,
    kind: MmuKind,
    compared: Compared,
) -> Box<dyn Follower> {
    match kind {
        MmuKind::Kvm => Box::new(kvm::Guest::attach(cx, mm)),
        MmuKind::Gru => Box::new(gru::Instructions::attach(cx, mm)),
        MmuKind::Xpmem => Box::new(xpmem::Importer::attach(cx, mm)),
        MmuKind::Gpu => Box::new(gpu::Engines::attach(cx, mm, compared)),
        MmuKind::Odp => Box::new(odp::Rdma::attach(cx, mm)),
        MmuKind::Sva => Box::new(sva::Sharing::attach(cx, mm)),
        MmuKind::RegCache => Box::new(regcache::Adapter::attach(cx, mm, compared)),
    }
}
