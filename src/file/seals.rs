//! Seals of shared memory: operations that it refuses from then on (`mm/memfd.c`).

use super::PageCache;
use crate::{
    error::{ObjectError, SealError},
    sync::{Mutex, MutexGuard},
};
use bitflags::bitflags;
use std::{sync::Arc, time::Duration};

bitflags! {
    /// Seals of an object, with Linux's values. A seal is never taken off.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Seals: u32 {
        /// No further seal.
        const SEAL = 0x01;
        /// The size does not shrink.
        const SHRINK = 0x02;
        /// The size does not grow.
        const GROW = 0x04;
        /// The contents do not change.
        const WRITE = 0x08;
        /// The contents change through present mappings only.
        const FUTURE_WRITE = 0x10;
        /// The right to be executed as a program does not change. As every object here has that
        /// right, the seals above come with it.
        const EXEC = 0x20;
    }
}

impl Seals {
    /// The seals against writes.
    const WRITES: Self = Self::WRITE.union(Self::FUTURE_WRITE);
    /// The seals that come with `EXEC` for an object that can be executed.
    const BY_EXEC: Self = Self::SHRINK.union(Self::GROW).union(Self::WRITES);
}

/// The seals of an object, and the shared mappings of it that are about to be made.
#[derive(Debug)]
pub struct SealState {
    state: Mutex<State>,
    /// Serializes writes, truncation, hole punching, and new seals (`inode_lock`): a change that
    /// the seals allowed when it began is complete before another seal is added.
    changing: Mutex<()>,
    cache: Arc<PageCache>,
}

/// How often a page is looked at that something holds (`LAST_SCAN`).
const SCANS: u32 = 5;
/// How long a new seal waits for a change. The caller has no token, so it may be a callback of the
/// change itself.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct State {
    seals: Seals,
    /// Mappings that may become writable, and are not in the reverse map yet.
    coming: usize,
}

impl SealState {
    /// Returns the state of a new object. One that takes no seals has the seal against them.
    pub(super) fn new(cache: &Arc<PageCache>, takes_seals: bool) -> Self {
        let seals = match takes_seals {
            true => Seals::empty(),
            false => Seals::SEAL,
        };
        Self {
            state: Mutex::new(State { seals, coming: 0 }),
            changing: Mutex::default(),
            cache: Arc::clone(cache),
        }
    }
    pub(super) fn get(&self) -> Seals {
        self.state.lock().seals
    }
    /// Keeps others from changing the object, and its seals.
    pub(super) fn change(&self) -> MutexGuard<'_, ()> {
        self.changing.lock()
    }
    /// Checks a change of the size.
    pub(super) fn check_size(&self, old: u64, new: u64) -> Result<(), ObjectError> {
        let seals = self.get();
        let forbidden = (new < old && seals.contains(Seals::SHRINK))
            || (new > old && seals.contains(Seals::GROW));
        sealed_if(forbidden)
    }
    /// Checks a write up to byte `end` of an object of `size` bytes.
    pub(super) fn check_write(&self, size: u64, end: u64) -> Result<(), ObjectError> {
        let seals = self.get();
        sealed_if(seals.intersects(Seals::WRITES) || (end > size && seals.contains(Seals::GROW)))
    }
    /// Checks that a hole may be punched.
    pub(super) fn check_punch(&self) -> Result<(), ObjectError> {
        sealed_if(self.get().intersects(Seals::WRITES))
    }
    /// Adds seals. A seal against all writes needs that no mapping can write, and that no page is
    /// held: the holder of a pin writes past all mappings (`memfd_wait_for_pins`).
    pub(super) fn add(&self, mut seals: Seals) -> Result<(), SealError> {
        let mapping = self.cache.mapping();
        let _unchanging = match mapping.is_locked_here() {
            true => None,
            false => self.changing.try_lock_for(PATIENCE),
        }
        .ok_or(SealError::Changing)?;
        let mut state = self.state.lock();
        if state.seals.contains(Seals::SEAL) {
            return Err(SealError::Sealed);
        }
        if seals.contains(Seals::EXEC) {
            seals |= Seals::BY_EXEC;
        }
        let new = seals - state.seals;
        if new.contains(Seals::WRITE) {
            // From here to the end no mapping that can write comes, and so no pin to write.
            if state.coming > 0 || mapping.is_writable() {
                return Err(SealError::Mapped);
            }
            if self.is_held() {
                return Err(SealError::Held);
            }
        }
        state.seals |= seals;
        Ok(())
    }
    /// Returns true if something holds a page, not only for a moment.
    fn is_held(&self) -> bool {
        (0..SCANS).all(|_| {
            std::thread::yield_now();
            self.cache.has_held_page()
        })
    }
}

impl SealState {
    /// Announces a shared mapping that may come to write (`check_write_seal`,
    /// `mapping_map_writable`).
    pub(super) fn announce(&self) -> MayWrite<'_> {
        let mut state = self.state.lock();
        if state.seals.intersects(Seals::WRITES) {
            return MayWrite::Never;
        }
        state.coming += 1;
        MayWrite::Yes(Coming(Some(self)))
    }
}

fn sealed_if(forbidden: bool) -> Result<(), ObjectError> {
    match forbidden {
        true => Err(ObjectError::Sealed),
        false => Ok(()),
    }
}

/// The rights that seals leave to a shared mapping.
#[must_use]
pub(crate) enum MayWrite<'s> {
    /// To write, now or later; no seal against that is added while this lives.
    Yes(Coming<'s>),
    /// Not to write, ever.
    Never,
}

/// The announcement of a mapping that is not in the reverse map yet.
#[must_use]
pub(crate) struct Coming<'s>(Option<&'s SealState>);

impl Coming<'_> {
    /// Returns the announcement of a mapping that no seal concerns.
    pub(super) fn unsealed() -> Self {
        Self(None)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        if let Some(state) = self.0 {
            state.state.lock().coming -= 1;
        }
    }
}
