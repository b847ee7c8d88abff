//! `process_madvise`: advice about several ranges, also of another process.

use crate::mm::{entry::flags::Advice, space::Mm};
use crate::{ctx::CallCx, error::MadviseError};

impl Mm {
    /// Gives advice on ranges of `other`, each an address and a length in bytes, one after the
    /// other, for the process with this address space. Returns the number of bytes advised: fewer
    /// than all if a range after the first fails.
    ///
    /// # Errors
    ///
    /// That of [`madvise`](Self::madvise) for the first range;
    /// [`MadviseError::OfAnother`]: another process's memory takes only the advice `Cold`,
    /// `PageOut`, `WillNeed` and `Collapse`.
    pub fn process_madvise(
        &self,
        cx: &mut CallCx<'_>,
        other: &Self,
        ranges: &[(u64, u64)],
        advice: Advice,
    ) -> Result<u64, MadviseError> {
        // `process_madvise_remote_valid`: it changes no data.
        let harmless = matches!(
            advice,
            Advice::Cold | Advice::PageOut | Advice::WillNeed | Advice::Collapse
        );
        if !harmless && !std::ptr::eq(self, other) {
            return Err(MadviseError::OfAnother(advice as i32));
        }
        let mut advised = 0;
        for &(addr, len) in ranges {
            match other.madvise(cx, addr, len, advice) {
                Ok(()) => advised += len,
                Err(e) if advised == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(advised)
    }
}
