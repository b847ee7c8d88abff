//! Aging: finds and clears the accessed state of pages, in the page table and in external MMUs.

use crate::mm::space::Mm;
use crate::{
    addr::VpnRange,
    ctx::{Below, CallCx, Cx, Sleepable, rank},
    notifier::AgeKind,
};

impl Mm {
    /// Returns true if a page of `range` was used since its accessed state was last cleared, by the
    /// processor or through an external MMU. Asks every MMU, also after one answered that the page
    /// was used, and clears the accessed state of all, unless `kind` is `Test`.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, addr::{Vpn, VpnRange}, mm::MmapArgs, notifier::AgeKind};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE_SIZE))?;
    /// let page = VpnRange::single(Vpn::containing(at));
    /// mm.store(&mut cx, at, 7)?;
    /// assert!(mm.age(&mut cx, page, AgeKind::Clear), "used since it was mapped");
    /// assert!(!mm.age(&mut cx, page, AgeKind::Clear), "not used since then");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn age(&self, cx: &mut CallCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let mut g = self.lock_shared_over(cx, Some(range));
        self.age_range(&mut g.cx, range, kind)
    }
    /// Does as [`age`](Self::age) does, under any lock that keeps the mappings of `range`: reverse
    /// maps call it under theirs.
    pub(in crate::mm) fn age_range<R: Below<rank::Callback>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        range: VpnRange,
        kind: AgeKind,
    ) -> bool {
        let mut young = false;
        self.for_each_locked_leaf(cx, range, |part, leaf| {
            for at in part.iter() {
                let pte = leaf.get(at);
                if pte.is_present() && pte.is_young() {
                    young = true;
                    if kind != AgeKind::Test {
                        leaf.set(at, pte.mkold());
                    }
                }
            }
        });
        self.notifiers.age(&mut cx.non_blocking(), range, kind) | young
    }
}
