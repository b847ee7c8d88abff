//! Splitting the huge pages of which a part was given back (`deferred_split_scan`).

use crate::ctx::CallCx;
use crate::mm::machine::Machine;

impl Machine {
    /// Splits every huge page of private memory of which a part was given back, so that the rest of
    /// it is single pages, and returns how many were split. Pages that hold only zeros are given
    /// back as well: the zero page takes their place.
    ///
    /// Linux does this under memory pressure (the shrinker of its deferred list, also at
    /// `/proc/sys/vm/drop_caches`). Reclaim of single pages splits the huge pages that it meets by
    /// itself. The huge page that was allocated last is split first, as the kernel's scan does
    /// with pages that it has not met before; each VMA that maps one sees a window over its part.
    ///
    /// # Panics
    ///
    /// If the token is of a thread that entered another machine.
    pub fn split_deferred(&self, cx: &mut CallCx<'_>) -> usize {
        self.check_token(cx);
        let partly = self.mem().partly_given_back();
        let split = partly
            .into_iter()
            .rev()
            .filter(|&pfn| self.split_huge_page(cx, pfn));
        split.count()
    }
}
