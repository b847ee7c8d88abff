//! What is known of each frame: 22 bytes.

use super::{counts::Counts, flags::FrameFlags};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

const TOGETHER: usize = 4;

/// The metadata of four frames beside each other: those of one alone would have two bytes of padding.
#[derive(Default)]
struct Four {
    counts: [Counts; TOGETHER],
    owner: [AtomicU64; TOGETHER],
    generation: [AtomicU32; TOGETHER],
    flags: [AtomicU16; TOGETHER],
}

/// The metadata of one frame.
#[derive(Clone, Copy)]
pub(super) struct Meta<'m> {
    pub(super) counts: &'m Counts,
    /// Who has the frame, and where in him: see [`Owner`](super::Owner).
    pub(super) owner: &'m AtomicU64,
    /// Times that the frame was retired.
    pub(super) generation: &'m AtomicU32,
    pub(super) flags: &'m AtomicU16,
}

impl Meta<'_> {
    #[inline]
    pub(super) fn flags(&self) -> FrameFlags {
        FrameFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
}

/// The metadata of frames in a row.
pub(super) struct Metas(Box<[Four]>);

impl Metas {
    /// Of so many frames, nobody's.
    pub(super) fn new(frames: u32) -> Self {
        let fours = (frames as usize).div_ceil(TOGETHER);
        Self((0..fours).map(|_| Four::default()).collect())
    }
    /// Of one of them.
    #[inline(always)]
    pub(super) fn of(&self, nth: usize) -> Meta<'_> {
        let (four, i) = (&self.0[nth / TOGETHER], nth % TOGETHER);
        Meta {
            counts: &four.counts[i],
            owner: &four.owner[i],
            generation: &four.generation[i],
            flags: &four.flags[i],
        }
    }
    #[cfg(test)]
    pub(super) fn overhead(&self) -> usize {
        size_of_val(&*self.0)
    }
}
