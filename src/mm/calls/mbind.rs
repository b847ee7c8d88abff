//! `mbind`: the nodes from which the memory of a range comes (`do_mbind`).

use crate::mm::{
    entry::policy::{MbindFlags, MemPolicy, PolicyMode},
    guard::MmapWriteGuard,
    space::Mm,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{ByteRange, MbindError},
};

impl Mm {
    /// Gives `[addr, addr + len)`, `len` rounded up to pages, a policy for `nodes`, a bit each.
    /// A machine has one node, so the policy decides only which VMAs merge: those of equal ones.
    ///
    /// # Errors
    ///
    /// [`MbindError`]. A hole is found before anything is changed; with the default policy only a
    /// range without any mapping is one.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::{MbindFlags, MmapArgs, PolicyMode}};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// let upper = (at + PAGE_SIZE, PAGE_SIZE);
    /// mm.mbind(&mut cx, upper, (PolicyMode::Bind, 1), MbindFlags::empty())?;
    /// assert_eq!(mm.map_count(&mut cx), 2);
    /// mm.mbind(&mut cx, upper, (PolicyMode::Default, 0), MbindFlags::empty())?;
    /// assert_eq!(mm.map_count(&mut cx), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn mbind(
        &self,
        cx: &mut CallCx<'_>,
        (addr, len): (u64, u64),
        (mode, nodes): (PolicyMode, u64),
        flags: MbindFlags,
    ) -> Result<(), MbindError> {
        if !MbindFlags::all().contains(flags) {
            return Err(MbindError::Flags(flags.bits()));
        }
        let bad = MbindError::Range(ByteRange { addr, len });
        let len = len.wrapping_add(PAGE_SIZE - 1) & !(PAGE_SIZE - 1);
        let end = addr.checked_add(len).ok_or(bad)?;
        if !addr.is_multiple_of(PAGE_SIZE) {
            return Err(bad);
        }
        let Some(range) = VpnRange::new(Vpn::containing(addr), Vpn::containing(end)) else {
            return Ok(());
        };
        let policy = MemPolicy::new(mode, nodes)?;
        let mut g = self.lock_exclusive_some(cx);
        g.claim_range(range);
        g.set_policy(range, policy)
    }
}

impl MmapWriteGuard<'_> {
    /// Fails if the range has a hole (`queue_pages_test_walk`).
    fn check_mapped(&self, range: VpnRange, policy: Option<MemPolicy>) -> Result<(), MbindError> {
        let hole = |at: Vpn| Err(MbindError::Hole(at.addr()));
        let mut at = range.start();
        let mut vmas = self.layout.vmas.range(range).peekable();
        if vmas.peek().is_none() {
            return hole(at);
        }
        for vma in vmas.take_while(|_| policy.is_some()) {
            if vma.start() > at {
                return hole(at);
            }
            at = vma.end();
        }
        match policy.is_some() && at < range.end() {
            true => hole(at),
            false => Ok(()),
        }
    }
    fn set_policy(&mut self, range: VpnRange, policy: Option<MemPolicy>) -> Result<(), MbindError> {
        self.check_mapped(range, policy)?;
        self.each_vma_in(range, |g, start, part| {
            let mut wanted = g.wanted(start);
            match wanted.extras.policy() == policy {
                true => Ok(start),
                false => {
                    wanted.extras.change(|rare| rare.policy = policy);
                    Ok(g.modify_as(start, part, wanted)?)
                }
            }
        })
    }
}
