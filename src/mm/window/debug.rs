//! `Debug` of windows and of what they give out, so that a driver or an operation can derive it. It
//! takes no lock.

use super::{InvalidationWindow, Lease, PteSlot, PteTxn};
use crate::ctx::{Context, Rank};
use std::fmt::{Debug, Formatter, Result};

impl<R: Rank, C: Context> Debug for Lease<'_, R, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("Lease").finish_non_exhaustive()
    }
}
impl<C: Context> Debug for InvalidationWindow<'_, C> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("InvalidationWindow")
            .field("range", &self.core.range())
            .finish_non_exhaustive()
    }
}
impl Debug for PteTxn<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("PteTxn")
            .field("range", &self.range())
            .finish_non_exhaustive()
    }
}
impl Debug for PteSlot<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.debug_struct("PteSlot")
            .field("page", &self.vpn())
            .field("entry", &self.get())
            .finish_non_exhaustive()
    }
}
