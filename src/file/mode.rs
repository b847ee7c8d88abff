//! The modes of `fallocate`.

use bitflags::bitflags;

bitflags! {
    /// The mode of `fallocate`, with Linux's values. At most one of the flags besides `KEEP_SIZE`
    /// may be set; without any, the call allocates.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FallocateMode: u32 {
        /// The size stays, even if the range ends behind it.
        const KEEP_SIZE = 0x01;
        /// Make the range a hole. Needs `KEEP_SIZE`.
        const PUNCH_HOLE = 0x02;
        /// Take the range out: what lies behind it moves down.
        const COLLAPSE_RANGE = 0x08;
        /// Make the range read zero.
        const ZERO_RANGE = 0x10;
        /// Put a hole in front of what lies there, which moves up.
        const INSERT_RANGE = 0x20;
        /// Give the file blocks of its own. No object here shares blocks, and none knows the mode.
        const UNSHARE_RANGE = 0x40;
        /// Write zeros by the device. No object here has such a device.
        const WRITE_ZEROES = 0x80;
    }
}

impl FallocateMode {
    /// Returns true if Linux knows such a mode.
    pub(super) fn is_known(self) -> bool {
        let keeps = self.contains(Self::KEEP_SIZE);
        match self - Self::KEEP_SIZE {
            Self::PUNCH_HOLE => keeps,
            Self::COLLAPSE_RANGE | Self::INSERT_RANGE | Self::WRITE_ZEROES => !keeps,
            mode => mode.is_empty() || mode == Self::ZERO_RANGE || mode == Self::UNSHARE_RANGE,
        }
    }
}
