//! The metadata of a frame: 22 bytes.

use super::{counts::Counts, flags::FrameFlags};
use crate::sync::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// The number of frames whose metadata lie together.
const TOGETHER: usize = 4;

/// The metadata of four frames: those of one frame alone would have two bytes of padding.
#[derive(Default)]
struct Four {
    counts: [Counts; TOGETHER],
    owner: [AtomicU64; TOGETHER],
    generation: [AtomicU32; TOGETHER],
    flags: [AtomicU16; TOGETHER],
}

/// References to the metadata of one frame.
#[derive(Clone, Copy)]
pub(super) struct Meta<'m> {
    pub(super) counts: &'m Counts,
    /// The owner of the frame and the frame's index there, as a word of [`Owner`](super::Owner).
    pub(super) owner: &'m AtomicU64,
    /// The number of times that the frame was retired.
    pub(super) generation: &'m AtomicU32,
    pub(super) flags: &'m AtomicU16,
}

impl Meta<'_> {
    /// Returns the flags, by a relaxed load.
    #[inline]
    pub(super) fn flags(&self) -> FrameFlags {
        FrameFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }
}

/// The metadata of consecutive frames.
pub(super) struct Metas(Box<[Four]>);

impl Metas {
    /// Returns the metadata of `frames` free frames.
    pub(super) fn new(frames: u32) -> Self {
        let fours = (frames as usize).div_ceil(TOGETHER);
        Self((0..fours).map(|_| Four::default()).collect())
    }
    /// Returns the metadata of frame `nth`.
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
