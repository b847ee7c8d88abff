//! Pages for others than the program itself: for another process, and for the kernel's I/O
//! (`get_user_pages`).
//!
//! Guarantee: a page is handed out under the lock of its entry, while the entry maps it in the way
//! that the user needs. A page that is to be written is the process's own. So is a private page
//! that is pinned for reading: later writes of the process reach it (`FAULT_FLAG_UNSHARE`). A user
//! with force gets private pages that the program itself may not access; the entry keeps the rights
//! of its mapping.

use super::{Patience, scope::FaultScope};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    space::Mm,
    vma::Vma,
};
use crate::{
    addr::{Pfn, TASK_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::FaultError,
    frame::{FrameFlags, HeldFrame, PhysMem},
    notifier::Access,
};

/// How long a page is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinKind {
    /// For one transfer (`FOLL_PIN`).
    Short,
    /// For any time, as by a device that keeps a buffer (`FOLL_LONGTERM`). A file that must know of
    /// each write to its pages refuses this for writing.
    LongTerm,
}

/// How a page is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Hold {
    /// By a reference, which keeps the frame (`FOLL_GET`). A page that is only read this way may be
    /// one that other processes have as well.
    Reference,
    /// By a pin, which also keeps the page in that frame.
    Pin(PinKind),
}

impl Hold {
    /// A pin for any time.
    const LONG_TERM: Self = Self::Pin(PinKind::LongTerm);
    /// Returns true if the frame is pinned.
    pub(in crate::mm) fn is_pin(self) -> bool {
        self != Self::Reference
    }
}

/// The way in which a page is needed.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Follow {
    pub(in crate::mm) access: Access,
    pub(in crate::mm) hold: Hold,
    /// Heeds only the rights that the mapping could have (`FOLL_FORCE`).
    pub(in crate::mm) force: bool,
}

/// The reason why a page that is present cannot be handed out.
enum Lacks {
    /// The process has it perhaps not alone.
    Own,
    /// The access.
    Access,
    /// Memory of the machine: the page lies on a device, which may go.
    Memory,
}

impl Vma {
    /// Returns true if pages of the mapping may be had in this way (`check_vma_flags`). Reading
    /// needs `READ`, though a processor could read with any right.
    fn lets_follow(&self, how: Follow) -> bool {
        let forced = |allowed| how.force && allowed;
        match how.access {
            Access::Read => {
                self.flags.contains(VmFlags::READ) || forced(self.flags.contains(VmFlags::MAYREAD))
            }
            Access::Write if how.hold == Hold::LONG_TERM && self.notes_writes() => false,
            Access::Write => self.flags.contains(VmFlags::WRITE) || forced(self.flags.is_cow()),
        }
    }
}

impl Follow {
    /// Checks that the page behind a present entry can be handed out.
    fn check(self, mem: &PhysMem, vma: &Vma, pte: RawPte) -> Result<(), Lacks> {
        let flags = pte
            .counted()
            .map_or(FrameFlags::empty(), |pfn| mem.flags(pfn));
        let own_anon = flags.contains(FrameFlags::ANON | FrameFlags::ANON_EXCLUSIVE);
        match self.access {
            // `can_follow_write_pte`: copy-on-write is done, though the entry is read-only.
            Access::Write => {
                let forced =
                    self.force && vma.flags.is_cow() && !vma.flags.contains(VmFlags::WRITE);
                let may_write = pte.may_write() || forced && own_anon;
                may_write.then_some(()).ok_or(Lacks::Access)
            }
            // `gup_must_unshare`: only pins see later writes, and of a page that is not private
            // memory yet, only those that stay.
            Access::Read => {
                let private = match self.hold {
                    Hold::Reference => false,
                    Hold::Pin(PinKind::Short) => flags.contains(FrameFlags::ANON),
                    Hold::Pin(PinKind::LongTerm) => {
                        flags.contains(FrameFlags::ANON) || vma.flags.is_cow()
                    }
                };
                let own = own_anon || !private || pte.may_write();
                own.then_some(()).ok_or(Lacks::Own)
            }
        }
    }
}

/// The result of one step towards a page.
enum Step<T> {
    Taken(T),
    /// A fault for this access comes next, if the entry is empty.
    Again(Access),
}

impl FaultScope<'_> {
    /// Runs `take` on the frame of page `at` under the lock of its entry, if the page can be handed
    /// out; else takes one step towards that, by a fault for `makes`. The zero page is a frame like
    /// any other.
    fn follow<T>(
        &mut self,
        (vma, at): (&Vma, Vpn),
        (how, makes): (Follow, Access),
        take: impl FnOnce(Pfn) -> T,
    ) -> Result<Step<T>, FaultError> {
        let mm = self.lease.mm;
        let mem = mm.machine().mem();
        let followed = mm.with_leaf_of(&mut self.lease.cx, at, |leaf| {
            let pte = leaf.get(at);
            if !pte.is_present() {
                return Err((Lacks::Access, pte));
            }
            how.check(mem, vma, pte).map_err(|lacks| (lacks, pte))?;
            let on_device = pte.counted().is_some_and(|pfn| mem.is_device(pfn));
            if on_device && how.hold == Hold::LONG_TERM {
                return Err((Lacks::Memory, pte));
            }
            if let Some(pfn) = pte.counted() {
                if how.access == Access::Write {
                    mem.set_flags(pfn, FrameFlags::DIRTY);
                }
                mem.mark_accessed(pfn);
            }
            Ok(take(pte.pfn()))
        });
        let pte = match followed {
            Some(Ok(taken)) => return Ok(Step::Taken(taken)),
            Some(Err((Lacks::Own, pte))) => pte,
            Some(Err((Lacks::Memory, pte))) => {
                self.bring_coherent_home(at, pte)?;
                return Ok(Step::Again(makes));
            }
            Some(Err((Lacks::Access, _))) | None => {
                self.fault(vma, at, makes)?;
                return Ok(Step::Again(makes));
            }
        };
        // The mapping of an object's huge page is dropped as a whole, and a read would map it as a
        // whole again.
        let of_file = !vma.is_anonymous() && vma.hugetlb().is_none();
        let huge = of_file && mm.is_huge(&mut self.lease.cx, at);
        self.unshare(vma, at, pte)?;
        Ok(Step::Again(if huge { Access::Write } else { makes }))
    }
}

impl Mm {
    /// Faults until the page at `at` can be handed out, and runs `take` on its frame under the lock
    /// of its entry (`get_user_pages_remote`). Stacks do not grow.
    ///
    /// # Errors
    ///
    /// [`FaultError`] at byte `addr`, as for an access.
    pub(in crate::mm) fn follow_page<T>(
        &self,
        cx: &mut CallCx<'_>,
        (at, addr): (Vpn, u64),
        how: Follow,
        mut take: impl FnMut(Pfn) -> T,
    ) -> Result<T, FaultError> {
        if addr >= TASK_SIZE {
            return Err(FaultError::NotMapped(addr));
        }
        let mut patience = Patience::default();
        let mut makes = how.access;
        loop {
            let (step, _) = self.with_fault_scope(cx, VpnRange::single(at), |scope| {
                let layout = scope.layout;
                let vma = layout.vmas.get(at).ok_or(FaultError::NotMapped(addr))?;
                if vma.is_secret() {
                    return Err(FaultError::Secret(addr));
                }
                if !vma.lets_follow(how) {
                    return Err(FaultError::Denied(addr));
                }
                let step = scope.follow((vma, at), (how, makes), &mut take);
                step.map_err(|e| e.at_byte(addr))
            });
            match step {
                Ok(Step::Taken(taken)) => return Ok(taken),
                Ok(Step::Again(next)) => makes = next,
                Err(e) if self.machine().make_room(cx, &e) => {}
                Err(e) => patience.allow_retry(Err(e))?,
            }
        }
    }
    /// Faults a page in as [`follow_page`](Self::follow_page) does, and holds it; `None` for the
    /// zero page, which needs no hold.
    pub(in crate::mm) fn hold_page(
        &self,
        cx: &mut CallCx<'_>,
        page: (Vpn, u64),
        how: Follow,
    ) -> Result<Option<HeldFrame<'_>>, FaultError> {
        let mem = self.machine().mem();
        self.follow_page(cx, page, how, |pfn| {
            (!pfn.is_zero()).then(|| mem.hold(pfn, how.hold.is_pin()))
        })
    }
}
