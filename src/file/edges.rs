//! Blocks of a disk file of which only a part is zeroed: at the end of the file, and at the edges
//! of holes.
//!
//! The rules are ext4's (`ext4_block_zero_page_range`), where a block is a page:
//!
//! * a block that is allocated, or will be when its page is written back, is zeroed in the cache,
//!   and so becomes dirty. If it had to be read for that, the page is in the cache, but not up to
//!   date;
//! * in a hole nothing is zeroed and nothing becomes dirty. The page is in the cache afterwards
//!   nevertheless.
//!
//! All that can fail is done by [`DiskFile::edge`], before anything is changed.

use super::{DiskFile, filling::Filling, io::ByteSpan, store::BLOCK};
use crate::{
    addr::PAGE_SIZE,
    error::ObjectError,
    frame::{Frame, FrameFlags},
};
use std::ops::Range;

/// A block in the cache, ready to be zeroed in part.
pub(super) struct Edge<'c> {
    frame: Frame<'c>,
    /// The block is no hole, or will be none after writeback.
    allocated: bool,
}

/// The blocks at both ends of a range that are zeroed in part, and the bytes of them.
pub(super) struct Edges<'c>([Option<(Edge<'c>, Range<u64>)>; 2]);

impl DiskFile {
    /// Returns the blocks that the range covers in part: at most two, or one that it lies inside of
    /// (`ext4_zero_partial_blocks`).
    ///
    /// # Errors
    ///
    /// Those of [`edge`](Self::edge).
    pub(super) fn edges<'c>(
        &'c self,
        filling: &mut Filling<'c, '_>,
        bytes: Range<u64>,
    ) -> Result<Edges<'c>, ObjectError> {
        let first = bytes.start.next_multiple_of(PAGE_SIZE);
        let last = bytes.end - bytes.end % PAGE_SIZE;
        let low = self.edge(filling, bytes.start)?;
        let high = match last < first {
            true => None, // The range lies inside of one block.
            false => self.edge(filling, bytes.end)?,
        };
        Ok(Edges([
            low.map(|edge| (edge, bytes.start..bytes.end.min(first))),
            high.map(|edge| (edge, last..bytes.end)),
        ]))
    }
    /// Zeros the bytes of the range in both blocks, unless they are holes.
    pub(super) fn zero_edges(&self, filling: &mut Filling<'_, '_>, edges: &Edges<'_>) {
        for (edge, bytes) in edges.0.iter().flatten() {
            self.zero_edge(filling, edge, bytes.clone());
        }
    }
    /// Returns the block that `at` lies inside of, read if necessary; `None` if `at` is the
    /// beginning of a block.
    ///
    /// # Errors
    ///
    /// The block could not be read, or no frame is free.
    pub(super) fn edge<'c>(
        &'c self,
        filling: &mut Filling<'c, '_>,
        at: u64,
    ) -> Result<Option<Edge<'c>>, ObjectError> {
        if at.is_multiple_of(PAGE_SIZE) {
            return Ok(None);
        }
        let index = at / PAGE_SIZE;
        let (locked, is_read) = filling.get_or_add(index)?;
        let mem = self.cache.host().mem();
        let mut allocated = mem.flags(locked.pfn()).contains(FrameFlags::DIRTY);
        if is_read {
            allocated = allocated || !self.store.is_hole(index);
        } else if !allocated {
            let mut block = [0; BLOCK];
            allocated = self.store.read(index, &mut block)?;
            if allocated {
                locked.frame().write(0, &block);
            }
        }
        Ok(Some(Edge {
            frame: locked.frame().clone(),
            allocated,
        }))
    }
    /// Zeros bytes of the block, unless it is a hole.
    pub(super) fn zero_edge(
        &self,
        filling: &mut Filling<'_, '_>,
        edge: &Edge<'_>,
        bytes: Range<u64>,
    ) {
        if !edge.allocated || bytes.is_empty() {
            return;
        }
        let mem = self.cache.host().mem();
        let index = bytes.start / PAGE_SIZE;
        let locked = mem.lock(filling.cx(), edge.frame.clone());
        if self.cache.holds(&locked, index) {
            ByteSpan::of(bytes).zero(locked.frame());
            mem.set_flags(locked.pfn(), FrameFlags::DIRTY);
        }
    }
}
