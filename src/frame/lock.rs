//! The lock of a frame: one bit in its flags, and a table of places to wait.
//!
//! Guarantee: while a [`FrameLock`] lives, the frame keeps its owner and its place in it, also that in the swap cache, and
//! nobody else unmaps, migrates or writes it back (`folio_lock`).

use super::{
    flags::FrameFlags,
    mem::{Frame, PhysMem},
    owner::Owner,
};
use crate::{
    addr::Pfn,
    ctx::{Cx, Rank, Sleepable},
};

/// The frame is locked by this thread, and has a reference.
#[derive(Debug)]
#[must_use]
pub struct FrameLock<'m> {
    mem: &'m PhysMem,
    frame: Frame<'m>,
}

impl PhysMem {
    /// Locks a frame unless somebody has it locked.
    pub(crate) fn try_lock<'m>(&'m self, frame: Frame<'m>) -> Result<FrameLock<'m>, Frame<'m>> {
        let old = self.fetch_set(frame.pfn(), FrameFlags::LOCKED);
        if old.contains(FrameFlags::LOCKED) {
            return Err(frame);
        }
        Ok(FrameLock { mem: self, frame })
    }
    /// Locks a frame; waits for whoever has it.
    pub(crate) fn lock<'m, R: Rank>(
        &'m self,
        cx: &mut Cx<'_, R, Sleepable>,
        mut frame: Frame<'m>,
    ) -> FrameLock<'m> {
        let _may_sleep = cx;
        loop {
            frame = match self.try_lock(frame) {
                Ok(locked) => return locked,
                Err(frame) => frame,
            };
            let (mutex, changed) = self.waiters.of(frame.pfn());
            let mut held = mutex.lock();
            let old = self.fetch_set(frame.pfn(), FrameFlags::WAITERS);
            // The holder clears both bits and takes the mutex before it wakes: no wake-up is lost.
            if old.contains(FrameFlags::LOCKED) {
                changed.wait(&mut held);
            }
        }
    }
    /// Waits until whoever has a frame locked lets go of it. Takes no reference, which would tell that holder that the frame
    /// is in use (`migration_entry_wait_on_locked`); so the frame may be another page's by then.
    pub(crate) fn wait_unlocked<R: Rank>(&self, cx: &mut Cx<'_, R, Sleepable>, pfn: Pfn) {
        let _may_sleep = cx;
        let (mutex, changed) = self.waiters.of(pfn);
        let mut held = mutex.lock();
        if !self.flags(pfn).contains(FrameFlags::LOCKED) {
            return;
        }
        let old = self.fetch_set(pfn, FrameFlags::WAITERS);
        if old.contains(FrameFlags::LOCKED) {
            changed.wait(&mut held);
        } else {
            // Nobody has it, and nobody waits for it.
            self.clear_flags(pfn, FrameFlags::WAITERS);
        }
    }
}

impl<'m> FrameLock<'m> {
    /// The frame's number.
    pub fn pfn(&self) -> Pfn {
        self.frame.pfn()
    }
    /// Who has it; stands still while it is locked.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.mem.owner(self.pfn())
    }
    pub(crate) fn set_exported(&self) {
        self.mem.export(self.pfn());
    }
    /// The reference that came with the lock.
    pub fn frame(&self) -> &Frame<'m> {
        &self.frame
    }
}

impl Drop for FrameLock<'_> {
    fn drop(&mut self) {
        let pfn = self.frame.pfn();
        let both = FrameFlags::LOCKED | FrameFlags::WAITERS;
        if self
            .mem
            .fetch_clear(pfn, both)
            .contains(FrameFlags::WAITERS)
        {
            let (mutex, changed) = self.mem.waiters.of(pfn);
            drop(mutex.lock());
            changed.notify_all();
        }
        // What went meanwhile left this frame to whoever had it locked.
        if self.mem.in_swap_cache(pfn) {
            let _in_use = self.mem.swap_cache_drop_idle(pfn);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Contents, MemConfig, PhysMem};
    use crate::ctx::{Epoch, Thread};
    use crate::sync::{AtomicU32, Ordering};

    #[test]
    fn one_thread_at_a_time_has_a_frame_locked() {
        let mem = PhysMem::new(MemConfig {
            frames: 4,
            contents: Contents::None,
            swap: 0,
        });
        let frame = mem.alloc().unwrap();
        let epoch = Epoch::new();
        let (inside, most) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    let mut thread = Thread::enter(&epoch).unwrap();
                    for _ in 0..500 {
                        let locked = mem.lock(&mut thread.cx(), frame.clone());
                        let now = inside.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(now, Ordering::SeqCst);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(locked);
                    }
                });
            }
        });
        assert_eq!(most.load(Ordering::SeqCst), 1);
        drop(mem.try_lock(frame.clone()).unwrap());
    }
}
