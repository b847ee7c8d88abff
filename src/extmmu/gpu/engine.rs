//! An engine: accesses through its TLB, with the gate held.

use super::{
    error::GpuError,
    gpu::{Gpu, Guard},
    mistake::GpuMistake,
};
use crate::{
    addr::{Vpn, by_page},
    ctx::CallCx,
    notifier::{Access, Cached},
};
use std::sync::Arc;

/// A part of a GPU that accesses memory, with a TLB of its own.
#[derive(Debug)]
pub struct Engine {
    pub(super) gpu: Arc<Gpu>,
    number: usize,
}

impl Gpu {
    /// Returns an engine. Numbers beyond the last begin again at 0.
    pub fn engine(self: &Arc<Self>, number: usize) -> Engine {
        Engine {
            gpu: Arc::clone(self),
            number: number % self.config.engines,
        }
    }
}

impl Engine {
    /// Reads `out.len()` bytes from `addr` on; those of one page at once.
    ///
    /// # Errors
    ///
    /// [`GpuError::Fault`], [`GpuError::Gone`]; bytes before the page that failed have been read.
    pub fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> Result<(), GpuError> {
        by_page(addr, out, |at, offset, part| {
            self.access(cx, (at, Access::Read), |gate, cached| {
                gate.follow(cached, at)?.read(offset, part);
                Some(())
            })
        })
    }
    /// Writes all of `bytes` from `addr` on; those of one page at once.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); bytes before the page that failed have been written.
    pub fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) -> Result<(), GpuError> {
        by_page(addr, bytes, |at, offset, part| {
            self.access(cx, (at, Access::Write), |gate, cached| {
                let mut view = gate.follow_mut(cached, at)?;
                view.write_deferring_dirty(offset, part);
                Some(())
            })
        })
    }
    /// Runs `f` on the translation of a page, with the gate held. Faults until there is one.
    fn access(
        &self,
        cx: &mut CallCx<'_>,
        (at, access): (Vpn, Access),
        mut f: impl FnMut(&mut Guard<'_>, &Cached) -> Option<()>,
    ) -> Result<(), GpuError> {
        loop {
            let mut gate = self.gpu.gate.lock(cx);
            if let Some(cached) = self.translation(&mut gate, at, access)
                && f(&mut gate, &cached).is_some()
            {
                return Ok(());
            }
            drop(gate);
            self.gpu.fault(cx, (at, access), self.number)?;
        }
    }
    /// Returns the translation of a page from the TLB, or from the page table, which fills the TLB.
    ///
    /// A writable translation in a TLB is one whose entry is dirty: a page that was only read is
    /// entered without the right, so that the first store walks the table and sets the bit.
    fn translation(&self, gate: &mut Guard<'_>, at: Vpn, access: Access) -> Option<Cached> {
        let serves = |cached: &Cached| access == Access::Read || cached.is_writable();
        if let Some(cached) = gate.state().get(self.number, at).filter(serves) {
            return Some(cached);
        }
        let lost = self.gpu.made(GpuMistake::LostDirty);
        let cached = gate.cached_if(&at, |entry| match access {
            Access::Read => {
                entry.set_accessed();
                true
            }
            Access::Write if entry.is_writable() => {
                if lost {
                    entry.set_accessed();
                } else {
                    entry.set_dirty();
                }
                true
            }
            Access::Write => false,
        })?;
        let cached = match access {
            Access::Read => cached.read_only(),
            Access::Write => cached,
        };
        gate.state().enter(self.number, cached);
        Some(cached)
    }
}
