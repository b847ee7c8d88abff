//! The kit of a GPU.

use crate::{
    ctx::CallCx,
    extmmu::gpu::{Engine, Gpu, GpuBoard, GpuConfig, GpuError},
    frame::DeviceKind,
    mm::Mm,
    notifier::ExternalMmu,
    sync::{AtomicUsize, Ordering},
    testkit::{
        Kit,
        device::{Attached, Declared, Device, Refused},
    },
};
use std::sync::Arc;

/// Frames of a board.
const FRAMES: u32 = 64;

/// The engines of a GPU, which take turns.
struct Engines {
    gpu: Arc<Gpu>,
    turn: AtomicUsize,
}

/// Returns the kit of a GPU, with a board of memory of this kind if there is one. Its engines take
/// turns.
pub fn gpu(config: GpuConfig, memory: Option<DeviceKind>) -> Kit {
    Kit::attaching(move |cx, mm| {
        let board = memory.map(|kind| {
            let added = GpuBoard::add(mm.machine(), kind, FRAMES);
            added.expect("a machine has room for a few boards").0
        });
        let (gpu, registration) = Gpu::attach(cx, mm, board.as_ref(), config);
        let turn = AtomicUsize::new(0);
        Attached {
            mmu: Arc::clone(&gpu) as Arc<dyn ExternalMmu>,
            device: Arc::new(Engines { gpu, turn }),
            registration,
        }
    })
}

fn stopped(why: GpuError) -> Refused {
    match why {
        GpuError::Fault(fault) => Refused::Fault(fault.why),
        GpuError::Gone => Refused::Gone,
        other => Refused::Other(other.to_string()),
    }
}

impl Engines {
    fn next(&self) -> Engine {
        self.gpu.engine(self.turn.fetch_add(1, Ordering::Relaxed))
    }
}

impl Device for Engines {
    fn read(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let mut byte = [0];
        let done = self.next().read(cx, addr, &mut byte);
        done.map(|()| byte[0]).map_err(stopped)
    }
    fn write(&self, cx: &mut CallCx<'_>, _mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.next().write(cx, addr, &[byte]).map_err(stopped)
    }
    fn fetch_update(
        &self,
        cx: &mut CallCx<'_>,
        _mm: &Mm,
        addr: u64,
        f: &mut dyn FnMut(u64) -> u64,
    ) -> Result<u64, Refused> {
        self.next().update(cx, addr, f).map_err(stopped)
    }
    fn declares(&self) -> Declared {
        Declared {
            ages: true,
            atomics: true,
            ..Declared::default()
        }
    }
}
