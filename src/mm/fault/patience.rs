//! How often an access faults again because the object behind the page says so.
//!
//! A fault finds that its page was brought in only now, or was cut off before it could be locked; then it begins anew.
//! Each time somebody has got on, so nobody loses for ever but by an object that never gives out its page.

use crate::error::{FaultError, ObjectError};

/// Far more than a page can be brought in, and reclaimed or cut off again, between two steps of one access.
const MOST: u32 = 4096;

/// Counts the steps of one access that came to nothing.
#[derive(Debug, Default)]
pub(in crate::mm) struct Patience(u32);

impl Patience {
    /// A step of a fault came to this: an error that the access ends with, or it is to look again.
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
