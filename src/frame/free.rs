//! The free frames of a memory, and the order in which they are allocated.
//!
//! Guarantee: a single thread gets the frame that it gave back last, then the others in that order,
//! then the frames never used, in ascending order. Several threads get frames in that order from
//! their own lanes. Allocation fails only when no lane has a frame left.
//!
//! Each group of threads has a lane with a few frames and changes nothing else; a pool has the rest
//! and exchanges batches with the lanes, like the kernel's per-CPU lists. A lane is the top of one
//! stack of which the pool is the rest, so a single thread sees one stack.

use crate::{
    addr::Pfn,
    sync::{AtomicUsize, CachePadded, Mutex, MutexGuard, Ordering, Sharded},
};
use std::ops::Range;

/// The number of frames that move between a lane and the pool at a time.
pub(super) const BATCH: usize = 64;
/// The most frames that a lane keeps.
const MOST: usize = 2 * BATCH;

/// The number of frames never used that a lane gets at a time: this share of all frames, within
/// these limits. They take no room in the lane, and threads that get long runs of frames seldom
/// meet in the pool, or at the metadata of neighbours.
const FRESH_SHARE: u32 = 64;
const LEAST_FRESH: u32 = 64;
const MOST_FRESH: u32 = 1024;

/// All free frames of a memory.
pub(super) struct FreeFrames {
    frames: u32,
    lanes: Sharded<Mutex<Lane>>,
    pool: CachePadded<Mutex<Pool>>,
    /// The number of retired frames in the pool; written under its lock, read without. It changes
    /// less often than the pool does.
    pooled: CachePadded<AtomicUsize>,
}

/// The frames of one group of threads.
#[derive(Default)]
struct Lane {
    /// Retired frames; the last is allocated first.
    stack: Vec<u32>,
    /// Frames never used.
    fresh: Range<u32>,
    /// Frames allocated by this group, less those that it gave back; the sum over all lanes is the
    /// number in use.
    taken: i64,
}

/// The free frames that are in no lane.
struct Pool {
    stack: Vec<u32>,
    /// The first frame that was never used and is in no lane.
    next: u32,
}

impl FreeFrames {
    /// Returns the free list of frames 1 to `frames`, all free.
    pub(super) fn new(frames: u32) -> Self {
        Self {
            frames,
            lanes: Sharded::new(),
            pool: CachePadded(Mutex::new(Pool {
                stack: Vec::new(),
                next: 1,
            })),
            pooled: CachePadded(AtomicUsize::new(0)),
        }
    }
    /// Takes a frame; `None` when all are in use.
    pub(super) fn take(&self) -> Option<Pfn> {
        let mut lane = self.lanes.mine().lock();
        if let Some(pfn) = self.take_from(&mut lane) {
            return Some(pfn);
        }
        drop(lane);
        self.take_any()
    }
    /// Takes up to `out.len()` frames, as many as the lane has, and returns how many. Returns 0
    /// only if all frames are in use.
    pub(super) fn take_many(&self, out: &mut [Pfn]) -> usize {
        let mut lane = self.lanes.mine().lock();
        let mut got = 0;
        while got < out.len()
            && let Some(pfn) = self.take_from(&mut lane)
        {
            out[got] = pfn;
            got += 1;
        }
        drop(lane);
        if got == 0
            && let Some(first) = out.first_mut()
            && let Some(pfn) = self.take_any()
        {
            *first = pfn;
            got = 1;
        }
        got
    }
    /// Takes a frame of the lane, which gets a batch from the pool if it must. Retired frames of
    /// the pool go before frames never used: hence the look at `pooled`.
    #[inline(always)]
    fn take_from(&self, lane: &mut Lane) -> Option<Pfn> {
        if lane.stack.is_empty()
            && (lane.fresh.is_empty() || self.pooled.0.load(Ordering::Relaxed) > 0)
        {
            self.refill(lane);
        }
        let pfn = lane.stack.pop().or_else(|| lane.fresh.next())?;
        lane.taken += 1;
        Some(Pfn(pfn))
    }
    /// Moves a batch from the pool to the lane.
    #[cold]
    fn refill(&self, lane: &mut Lane) {
        let mut pool = self.pool.0.lock();
        let rest = pool.stack.len().saturating_sub(BATCH);
        lane.stack.extend(pool.stack.drain(rest..));
        self.note_pooled(rest);
        if lane.stack.is_empty() && lane.fresh.is_empty() {
            let batch = (self.frames / FRESH_SHARE).clamp(LEAST_FRESH, MOST_FRESH);
            // Whole batches: the metadata of two lanes' frames share no line.
            let end = (pool.next + batch) / LEAST_FRESH * LEAST_FRESH;
            let end = end.min(self.frames + 1);
            lane.fresh = pool.next..end;
            pool.next = end;
        }
    }
    /// Notes the number of retired frames in the locked pool. All threads read it, so it is not
    /// written if it stays.
    fn note_pooled(&self, count: usize) {
        if self.pooled.0.load(Ordering::Relaxed) != count {
            self.pooled.0.store(count, Ordering::Relaxed);
        }
    }
    /// Takes a frame out of any lane. All lanes are locked at once, so that no frame is missed
    /// while it moves between lane and pool.
    #[cold]
    fn take_any(&self) -> Option<Pfn> {
        let mut lanes = self.lock_all();
        self.empty_lanes(&mut lanes);
        let mut pool = self.pool.0.lock();
        let pfn = match pool.stack.pop() {
            Some(pfn) => pfn,
            None if pool.next <= self.frames => {
                pool.next += 1;
                pool.next - 1
            }
            None => return None,
        };
        self.note_pooled(pool.stack.len());
        lanes[0].taken += 1;
        Some(Pfn(pfn))
    }
    /// Puts a frame back.
    pub(super) fn put(&self, pfn: Pfn) {
        self.put_many(&[pfn.0]);
    }
    /// Puts at most [`BATCH`] frames back; the last of them is allocated first.
    pub(super) fn put_many(&self, pfns: &[u32]) {
        debug_assert!(pfns.len() <= BATCH);
        let mut lane = self.lanes.mine().lock();
        lane.taken -= i64::try_from(pfns.len()).expect("few");
        lane.stack.extend_from_slice(pfns);
        if lane.stack.len() > MOST {
            let mut pool = self.pool.0.lock();
            pool.stack.extend(lane.stack.drain(..BATCH));
            self.note_pooled(pool.stack.len());
        }
    }
    /// Returns the number of frames in use.
    pub(super) fn in_use(&self) -> u32 {
        let taken: i64 = self.lock_all().iter().map(|lane| lane.taken).sum();
        u32::try_from(taken).expect("only what was taken is put back")
    }
    /// Locks all lanes, always in one order: two threads that do so cannot deadlock.
    fn lock_all(&self) -> Vec<MutexGuard<'_, Lane>> {
        self.lanes.iter().map(Mutex::lock).collect()
    }
    /// Moves the frames of all lanes into the pool.
    fn empty_lanes(&self, lanes: &mut [MutexGuard<'_, Lane>]) {
        let mut pool = self.pool.0.lock();
        let mut fresh: Vec<Range<u32>> = lanes
            .iter_mut()
            .map(|lane| std::mem::take(&mut lane.fresh))
            .filter(|fresh| !fresh.is_empty())
            .collect();
        fresh.sort_by_key(|fresh| std::cmp::Reverse(fresh.start));
        for fresh in fresh {
            if fresh.end == pool.next {
                pool.next = fresh.start;
            } else {
                pool.stack.extend(fresh.rev());
            }
        }
        for lane in lanes {
            pool.stack.append(&mut lane.stack);
        }
        self.note_pooled(pool.stack.len());
    }
    /// Takes `size` frames in a row, the first at a multiple of `size`, and returns the first. A
    /// block of frames never used is preferred to a block whose frames have all been given back.
    pub(super) fn take_block(&self, size: u32) -> Option<Pfn> {
        let mut lanes = self.lock_all();
        self.empty_lanes(&mut lanes);
        let mut pool = self.pool.0.lock();
        let head = pool.block(size, self.frames)?;
        self.note_pooled(pool.stack.len());
        lanes[0].taken += i64::from(size);
        Some(Pfn(head))
    }
    /// Puts a block back.
    pub(super) fn put_block(&self, head: Pfn, size: u32) {
        let pfns: Vec<u32> = (head.0..head.0 + size).rev().collect();
        pfns.chunks(BATCH).for_each(|batch| self.put_many(batch));
    }
    /// Returns the bytes that the lists take.
    #[cfg(test)]
    pub(super) fn overhead(&self) -> usize {
        let at_hand: usize = self.lock_all().iter().map(|l| l.stack.capacity()).sum();
        (at_hand + self.pool.0.lock().stack.capacity()) * size_of::<u32>()
    }
}

impl Pool {
    /// Takes a block out of the pool, which holds all free frames now.
    fn block(&mut self, size: u32, frames: u32) -> Option<u32> {
        let first = self.next.next_multiple_of(size);
        if first + size <= frames + 1 {
            self.stack.extend((self.next..first).rev());
            self.next = first + size;
            return Some(first);
        }
        if self.stack.len() < size as usize {
            return None;
        }
        // Sizes are powers of two. All free frames are looked at, and each costs an addition.
        let shift = size.trailing_zeros();
        let mut count = vec![0_u32; (frames >> shift) as usize + 1];
        for pfn in &self.stack {
            count[(pfn >> shift) as usize] += 1;
        }
        let block = (0..).zip(count).find(|&(_, n)| n == size)?.0;
        self.stack.retain(|pfn| pfn >> shift != block);
        Some(block << shift)
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH, FreeFrames, MOST};
    use crate::addr::Pfn;

    /// The free list as a single thread sees it.
    struct Plain {
        stack: Vec<u32>,
        next: u32,
    }

    #[test]
    fn one_thread_cannot_tell_it_from_one_stack() {
        let free = FreeFrames::new(4096);
        let mut plain = Plain {
            stack: Vec::new(),
            next: 1,
        };
        let mut held = Vec::new();
        for step in 0..40_000_usize {
            // Batches too: they take and put the frames that as many single calls would.
            if step % 97 == 0 && held.len() + BATCH <= 4096 {
                let mut out = [Pfn(0); BATCH];
                let got = free.take_many(&mut out);
                for pfn in &out[..got] {
                    let want = plain.stack.pop().unwrap_or_else(|| {
                        plain.next += 1;
                        plain.next - 1
                    });
                    assert_eq!(*pfn, Pfn(want), "step {step}");
                    held.push(want);
                }
            } else if step % 89 == 0 && held.len() > BATCH {
                let gone = held.split_off(held.len() - BATCH);
                plain.stack.extend(&gone);
                free.put_many(&gone);
            }
            // Long runs of either kind, so that batches move both ways.
            if step / 700 % 5 % 2 == 0 && held.len() < 4096 {
                let want = plain.stack.pop().unwrap_or_else(|| {
                    plain.next += 1;
                    plain.next - 1
                });
                assert_eq!(free.take(), Some(Pfn(want)), "step {step}");
                held.push(want);
            } else if !held.is_empty() {
                let pfn = held.swap_remove(step * 13 % held.len());
                plain.stack.push(pfn);
                free.put(Pfn(pfn));
            }
            assert_eq!(free.in_use() as usize, held.len());
        }
    }

    #[test]
    fn what_another_thread_has_at_hand_is_found() {
        let most = u32::try_from(MOST + BATCH / 2).unwrap();
        let free = FreeFrames::new(most);
        let taken = |n: u32| (0..n).map(|_| free.take().unwrap()).collect::<Vec<_>>();
        let all = taken(most);
        assert_eq!(free.take(), None);
        std::thread::scope(|s| {
            s.spawn(|| all.into_iter().for_each(|pfn| free.put(pfn)));
        });
        assert_eq!(free.in_use(), 0);
        assert_eq!(taken(most).len(), most as usize);
        assert_eq!((free.take(), free.in_use()), (None, most));
    }

    #[test]
    fn a_block_leaves_the_frames_before_it_to_others() {
        let free = FreeFrames::new(2047);
        assert_eq!(free.take(), Some(Pfn(1)));
        assert_eq!(free.take_block(512), Some(Pfn(512)));
        assert_eq!((free.take(), free.in_use()), (Some(Pfn(2)), 514));
        for n in 512..1024 {
            free.put(Pfn(n));
        }
        assert_eq!(free.take_block(512), Some(Pfn(1024)));
        assert_eq!(free.take_block(512), Some(Pfn(1536)));
        assert_eq!(free.take_block(512), Some(Pfn(512)));
        assert_eq!(free.take_block(512), None);
    }
}
