//! Sealing an object through an open file of it (`fcntl(F_ADD_SEALS)`).

use super::{
    File, Seals, sealed,
    seals::{Coming, MayWrite},
};
use crate::error::SealError;

impl File {
    /// Adds seals to the object, on top of those that it has: `fcntl(F_ADD_SEALS)`. Waits for a
    /// write, a truncation and the like that are under way.
    ///
    /// # Errors
    ///
    /// [`SealError`]; no seal was added.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, error::ObjectError, file::{File, FileMode, Seals, Shmem}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    ///
    /// let memory = Shmem::sealable(machine.host(), "example", PAGE_SIZE)?;
    /// let file = File::open(memory, FileMode::ReadWrite);
    /// file.add_seals(Seals::SHRINK)?;
    /// assert_eq!(file.truncate(cx.reborrow(), 0), Err(ObjectError::Sealed));
    /// file.truncate(cx.reborrow(), 2 * PAGE_SIZE)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn add_seals(&self, seals: Seals) -> Result<(), SealError> {
        if !self.is_writable() {
            return Err(SealError::NotWritable);
        }
        if !Seals::all().contains(seals) {
            return Err(SealError::Unknown(seals.bits()));
        }
        let state = self.object().seal_state(sealed::Ours);
        let state = state.ok_or(SealError::Unsupported)?;
        state.add(seals)
    }
    /// Returns the seals of the object: `fcntl(F_GET_SEALS)`.
    ///
    /// # Errors
    ///
    /// [`SealError::Unsupported`] for an object of another kind.
    pub fn seals(&self) -> Result<Seals, SealError> {
        let state = self.object().seal_state(sealed::Ours);
        state.map_or(Err(SealError::Unsupported), |state| Ok(state.get()))
    }
    /// Announces a shared mapping that may come to write (`check_write_seal`,
    /// `mapping_map_writable`).
    pub(crate) fn announce_shared(&self) -> MayWrite<'_> {
        match self.object().seal_state(sealed::Ours) {
            Some(state) => state.announce(),
            None => MayWrite::Yes(Coming::unsealed()),
        }
    }
}
