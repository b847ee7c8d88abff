//! A stack that extends down to the page of a fault (`expand_stack`).
//!
//! Growth changes a VMA, so it takes the mmap lock exclusively; the fault has left the lock before.

use crate::mm::{entry::flags::VmFlags, guard::MmapWriteGuard, space::Mm};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::{Below, Cx, Sleepable, rank},
};

impl Mm {
    /// Extends the stack above `at` down to `at`. Fails where no stack is above, or a limit or
    /// a neighbour forbids it.
    pub(in crate::mm) fn grow_stack<R: Below<rank::Mmap>>(
        &self,
        cx: &mut Cx<'_, R, Sleepable>,
        at: Vpn,
    ) -> Result<(), ()> {
        let mut g = self.lock_exclusive_some(cx);
        loop {
            let vma = g.layout.vmas.find(at).ok_or(())?;
            let range = VpnRange::new(at.min(vma.start()), vma.end()).expect("not empty");
            if g.wait_for_conflicts(&[range]) {
                break;
            }
        }
        g.expand_down(at).ok_or(())
    }
}

impl MmapWriteGuard<'_> {
    /// Extends the VMA above `at` down to `at` (`expand_downwards`); `None` where a limit or a
    /// neighbour forbids it.
    fn expand_down(&mut self, at: Vpn) -> Option<()> {
        let layout = &self.layout;
        let vma = layout.vmas.find(at)?;
        if vma.start() <= at {
            return Some(()); // Another thread was first.
        }
        let config = layout.machine.config();
        if !vma.flags.contains(VmFlags::GROWSDOWN) || at.addr() < config.mmap_min_addr {
            return None;
        }
        let too_near = layout.vmas.before(at).is_some_and(|prev| {
            !prev.flags.contains(VmFlags::GROWSDOWN)
                && prev.flags.accessible()
                && at.0 - prev.end().0 < config.stack_guard_gap
        });
        let (start, end, flags) = (vma.start(), vma.end(), vma.flags);
        let more = start.0 - at.0;
        if too_near || more > vma.pgoff {
            return None;
        }
        layout.prepare_anon(start).ok()?;
        let size = (end.0 - at.0) * PAGE_SIZE;
        let locked = flags.contains(VmFlags::LOCKED);
        if layout.may_expand(flags, more).is_err()
            || size > layout.limits.stack
            || (locked && !layout.may_lock(more))
        {
            return None;
        }
        // Linux charges every stack, also one whose mapping is not accounted. Here only accounted
        // memory is charged, since only that is given back: counts stay exact.
        if flags.contains(VmFlags::ACCOUNT) {
            layout.charge(more).ok()?;
        }
        self.layout.account(flags, more);
        if locked {
            self.layout.locked_vm += more;
        }
        self.layout.change(start, |v| {
            let pgoff = v.pgoff - more;
            v.set_range(VpnRange::new(at, end).expect("at lies below"), pgoff);
        });
        Some(())
    }
}
