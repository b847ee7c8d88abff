//! A GPU of two engines that take turns. Where page tables are not compared, pages with many faults
//! move to its memory.

use super::follower::{Compared, Follower};
use crate::{
    ctx::CallCx,
    extmmu::{
        Meter,
        gpu::{Engine, Gpu, GpuBoard, GpuConfig},
    },
    frame::DeviceKind,
    mm::Mm,
    oracle::Oracle,
    sync::{AtomicUsize, Ordering},
};
use std::sync::Arc;

/// Frames of the board.
const FRAMES: u32 = 1024;

pub(super) struct Engines {
    gpu: Arc<Gpu>,
    turn: AtomicUsize,
}

impl Engines {
    pub(super) fn attach(cx: &mut CallCx<'_>, mm: &Arc<Mm>, compared: Compared) -> Self {
        let mut config = GpuConfig::default();
        let mut board = None;
        if compared == Compared::Layout {
            let added = GpuBoard::add(mm.machine(), DeviceKind::Private, FRAMES);
            // Without frame numbers for it the GPU has no memory.
            board = added.ok().map(|(board, _stays)| board);
            config.migrate_after = Some(4);
        }
        let (gpu, _stays) = Gpu::attach(cx, mm, board.as_ref(), config);
        let turn = AtomicUsize::new(0);
        Self { gpu, turn }
    }
    fn next(&self) -> Engine {
        self.gpu.engine(self.turn.fetch_add(1, Ordering::Relaxed))
    }
}

impl Follower for Engines {
    fn show_to(&self, oracle: &Arc<Oracle>, mm: &Arc<Mm>) {
        oracle.watch(mm, self.gpu.clone());
    }
    fn meter(&self) -> &Meter {
        self.gpu.meter()
    }
    fn held(&self, cx: &mut CallCx<'_>) -> usize {
        self.gpu.entries(cx)
    }
    fn read(&self, cx: &mut CallCx<'_>, addr: u64, out: &mut [u8]) -> bool {
        self.next().read(cx, addr, out).is_ok()
    }
    fn write(&self, cx: &mut CallCx<'_>, addr: u64, bytes: &[u8]) {
        let _refused = self.next().write(cx, addr, bytes);
    }
}
