//! The lock of a frame: one bit of its flags, and a table of places to wait.
//!
//! Guarantee: while a [`FrameLock`] lives, the frame keeps its owner and its index, and its slot in
//! the swap cache, and no other thread unmaps, migrates or writes back the page (`folio_lock`).
//! docs/adr/0007-pages-of-objects-are-mapped-under-their-lock.md says why faults take it.

use super::{
    flags::FrameFlags,
    mem::{Frame, PhysMem},
    owner::Owner,
};
use crate::{
    addr::Pfn,
    ctx::{Cx, Rank, Sleepable},
};

/// A locked frame, with a reference; unlocked on drop.
#[derive(Debug)]
#[must_use]
pub struct FrameLock<'m> {
    mem: &'m PhysMem,
    frame: Frame<'m>,
    /// The holder may write the frame.
    writable: bool,
}

impl PhysMem {
    /// Locks a frame, or gives the reference back if another thread has it locked.
    pub(crate) fn try_lock<'m>(&'m self, frame: Frame<'m>) -> Result<FrameLock<'m>, Frame<'m>> {
        let old = self.fetch_set(frame.pfn(), FrameFlags::LOCKED);
        if old.contains(FrameFlags::LOCKED) {
            return Err(frame);
        }
        Ok(FrameLock {
            mem: self,
            frame,
            writable: true,
        })
    }
    /// Locks a frame; waits while another thread has it locked.
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
            // The holder clears both bits, then takes the mutex, then wakes. This thread holds the
            // mutex from before it sets the waiter bit until it sleeps: no wake-up is lost.
            if old.contains(FrameFlags::LOCKED) {
                changed.wait(&mut held);
            }
        }
    }
    /// Waits until the thread that has the frame locked unlocks it.
    ///
    /// Takes no reference: the holder counts references, and one more would tell it that the frame
    /// is in use (`migration_entry_wait_on_locked`). So the frame may belong to another page on
    /// return.
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
            // The lock was released, and no thread waits.
            self.clear_flags(pfn, FrameFlags::WAITERS);
        }
    }
}

impl<'m> FrameLock<'m> {
    /// Returns the number of the frame.
    pub fn pfn(&self) -> Pfn {
        self.frame.pfn()
    }
    /// Returns the owner of the frame, which does not change while the frame is locked.
    pub(crate) fn owner(&self) -> Option<Owner> {
        self.mem.owner(self.pfn())
    }
    /// Returns true if the frame is part of a huge page of a pool.
    pub(crate) fn is_of_pool(&self) -> bool {
        self.mem.is_of_pool(self.pfn())
    }
    /// Marks the frame as exported to a driver.
    pub(crate) fn set_exported(&self) {
        self.mem.export(self.pfn());
    }
    /// Lets the holder read the frame, and not write it.
    pub(crate) fn forbid_writing(&mut self) {
        self.writable = false;
    }
    /// Reads the bytes of the frame from `offset` on.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    pub fn read(&self, offset: usize, out: &mut [u8]) {
        self.frame.read(offset, out);
    }
    /// Writes bytes to the frame from `offset` on. Returns false, and writes nothing, if the frame
    /// was locked for reading.
    ///
    /// # Panics
    ///
    /// If they leave the page.
    #[must_use]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        if self.writable {
            self.frame.write(offset, bytes);
        }
        self.writable
    }
    /// Returns the reference that the lock holds.
    pub(crate) fn frame(&self) -> &Frame<'m> {
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
        // A thread that dropped the last mapping meanwhile found the frame locked and left its
        // cached copy to the holder.
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
