//! A limit to how often one access faults again because of the object behind its page.
//!
//! A fault may find that its page was read in only now, or was cut off before it could be locked;
//! then it begins anew. Each time another thread has made progress, so only an object that never
//! gives out its page keeps an access for ever.

use crate::error::{FaultError, ObjectError};

/// Far more often than a page can be read in, and reclaimed or cut off again, between two steps of
/// one access.
const MOST: u32 = 4096;

/// The number of steps of one access that had to be repeated.
#[derive(Debug, Default)]
pub(in crate::mm) struct Patience(u32);

impl Patience {
    /// Returns `Ok` if the access may fault again after the outcome `step`; else the error with
    /// which it ends.
    pub(in crate::mm) fn allow_retry(
        &mut self,
        step: Result<(), FaultError>,
    ) -> Result<(), FaultError> {
        let again = |why| matches!(why, ObjectError::Again | ObjectError::NotItsPage(_));
        match step {
            Err(FaultError::Object { why, .. }) if again(why) && self.0 < MOST => {
                self.0 += 1;
                Ok(())
            }
            step => step,
        }
    }
}
