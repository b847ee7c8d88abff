//! The setting that keeps huge pages from a process (`prctl(PR_SET_THP_DISABLE)`).

use crate::ctx::CallCx;
use crate::mm::{entry::flags::ThpDisable, space::Mm};

impl Mm {
    /// Keeps huge pages from memory of this process and its later children. Those that it has stay.
    pub fn set_thp_disable(&self, cx: &mut CallCx<'_>, setting: ThpDisable) {
        self.lock_exclusive(cx).layout.thp = setting;
    }
    /// Returns the memory that gets no huge pages (`PR_GET_THP_DISABLE`).
    pub fn thp_disable(&self, cx: &mut CallCx<'_>) -> ThpDisable {
        self.lock_shared_over(cx, None).layout.thp
    }
}
