//! Protection keys: `pkey_mprotect`, `pkey_alloc`. The processor has none.

use crate::mm::{entry::flags::Prot, space::Mm};
use crate::{
    ctx::CallCx,
    error::{KeyError, MprotectError},
};

impl Mm {
    /// Changes rights as [`mprotect`](Self::mprotect) does, and gives the range a protection key;
    /// -1 is none. Every other key is refused, as none could be allocated.
    ///
    /// # Errors
    ///
    /// Those of [`mprotect`](Self::mprotect); [`MprotectError::Key`] after the checks of the
    /// arguments.
    pub fn pkey_mprotect(
        &self,
        cx: &mut CallCx<'_>,
        range: (u64, u64),
        prot: Prot,
        key: i32,
    ) -> Result<(), MprotectError> {
        self.protect_range(cx, range, prot, key)
    }
    /// Asks for a protection key (`pkey_alloc`).
    ///
    /// # Errors
    ///
    /// [`KeyError`], always.
    pub fn pkey_alloc(&self) -> Result<u32, KeyError> {
        Err(KeyError)
    }
}
