//! Why neighbouring VMAs are two, and how many VMAs an operation takes, before it is done.

use super::file_kinds::{Source, heed_seals};
use super::{madvise, mprotect};
use crate::mm::{
    edit::{
        agree::{MergeBarrier, Traits},
        plan::{Plan, VmaCost},
    },
    entry::{
        args::{MmapArgs, check_args, size_of_pages},
        flags::{Advice, MlockFlags, Prot, VmFlags},
    },
    space::Mm,
    vma::extras::Extras,
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    error::MmapError,
};

/// An operation on a range, for [`Mm::vma_cost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VmaChange {
    /// [`Mm::munmap`].
    Unmap,
    /// [`Mm::mprotect`].
    Protect(Prot),
    /// [`Mm::madvise`]. Only advice that changes flags changes the number of VMAs.
    Advise(Advice),
    /// [`Mm::mlock2`].
    Lock(MlockFlags),
    /// [`Mm::munlock`].
    Unlock,
}

impl Mm {
    /// Returns the reasons why the VMA that starts at `at` does not merge with the VMA below it.
    ///
    /// The list is empty if the two agree in everything: they came to agree after the operation
    /// that could have merged them, and the next change of flags of either merges them. `None` if
    /// no VMA starts at `at`, or none lies below.
    ///
    /// ```
    /// # use emmu::{Machine, Mm, PAGE_SIZE, addr::Vpn, mm::MmapArgs};
    /// use emmu::mm::{Advice, MergeBarrier, VmFlags};
    /// # let machine = Machine::new(Default::default());
    /// # let mm = Mm::new(&machine);
    /// # let mut thread = machine.enter()?;
    /// # let cx = &mut thread.cx();
    /// let at = mm.mmap(cx, &MmapArgs::anonymous(2 * PAGE_SIZE))?;
    /// mm.madvise(cx, at + PAGE_SIZE, PAGE_SIZE, Advice::DontFork)?;
    /// let upper = Vpn::containing(at + PAGE_SIZE);
    /// let why = mm.merge_barriers(cx, upper);
    /// assert_eq!(why, Some(vec![MergeBarrier::Flags(VmFlags::DONTCOPY)]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn merge_barriers(&self, cx: &mut CallCx<'_>, at: Vpn) -> Option<Vec<MergeBarrier>> {
        let g = self.lock_shared_over(cx, None);
        let vmas = &g.layout.vmas;
        let upper = vmas.get(at).filter(|vma| vma.start() == at)?;
        let lower = vmas.before(at)?;
        Some(Traits::of(lower).barriers(&Traits::of(upper)))
    }
    /// Returns the number of VMAs before and after an operation on `range`, and the limit that it
    /// needs. Changes nothing.
    ///
    /// The answer supposes that the operation has no other reason to fail; holes and VMAs that the
    /// operation does not fit are passed over.
    pub fn vma_cost(&self, cx: &mut CallCx<'_>, range: VpnRange, change: VmaChange) -> VmaCost {
        let g = self.lock_shared_over(cx, None);
        let mut plan = Plan::around(&g.layout.vmas, range);
        match change {
            VmaChange::Unmap => plan.unmap(range),
            VmaChange::Protect(prot) => plan.change(range, |vma| protected(vma, prot)),
            VmaChange::Advise(advice) => plan.change(range, |vma| advised(vma, advice)),
            VmaChange::Lock(flags) if flags.contains(MlockFlags::ONFAULT) => {
                plan.change(range, |vma| locked(vma, VmFlags::LOCK_MASK));
            }
            VmaChange::Lock(_) => plan.change(range, |vma| locked(vma, VmFlags::LOCKED)),
            VmaChange::Unlock => plan.change(range, |vma| locked(vma, VmFlags::empty())),
        }
        plan.cost()
    }
    /// Returns the number of VMAs before and after [`Mm::mmap`] with these arguments, and the
    /// limit that it needs. Changes nothing.
    ///
    /// # Errors
    ///
    /// Those of `mmap` that are found before it changes anything.
    pub fn mmap_cost(&self, cx: &mut CallCx<'_>, args: &MmapArgs) -> Result<VmaCost, MmapError> {
        let g = self.lock_exclusive_some(cx);
        let pages = check_args(args)?;
        let range = g.find_place(args, pages)?;
        let (flags, pgoff) = g.new_mapping(args, range)?;
        let (flags, _coming) = heed_seals(args.file.as_deref(), flags)?;
        let flags = match size_of_pages(args)? {
            Some(_) => flags | VmFlags::HUGETLB | VmFlags::DONTEXPAND,
            None => g.prepare_mapping(args.file.as_deref(), flags, pages)?,
        };
        let source = Source::of(args.file.as_ref(), flags);
        let accounted = match flags.accountable() {
            true => VmFlags::ACCOUNT,
            false => VmFlags::empty(),
        };
        let extras = Extras::of_device(source.device);
        let new = Traits {
            range,
            pgoff,
            flags: g.layout.with_merge_all(flags | accounted),
            file: source.file.as_ref(),
            anon: None,
            extras: &extras,
            stays: false,
        };
        let mut plan = Plan::around(&g.layout.vmas, range);
        plan.check();
        plan.unmap(range);
        plan.map(
            new,
            source.file.is_some() || !flags.contains(VmFlags::SHARED),
        );
        Ok(plan.cost())
    }
}

fn protected(vma: &Traits<'_>, prot: Prot) -> Option<VmFlags> {
    let old = vma.flags;
    let new = old.with_prot(prot);
    let changes = new != old && !old.contains(VmFlags::SEALED) && mprotect::may_have(old, new);
    let unwritten = vma.file.is_none() && vma.anon.is_none();
    changes.then(|| mprotect::accounted(old, new, unwritten))
}

fn advised(vma: &Traits<'_>, advice: Advice) -> Option<VmFlags> {
    let (flags, anonymous) = (vma.flags, vma.file.is_none());
    let sealed = madvise::is_sealed_against(flags, anonymous, advice);
    let nameless = anonymous && vma.extras.device().is_none();
    madvise::advised_flags(flags, nameless, advice).filter(|_| !sealed)
}

fn locked(vma: &Traits<'_>, kind: VmFlags) -> Option<VmFlags> {
    let new = (vma.flags - VmFlags::LOCK_MASK) | kind;
    vma.flags.may_be_locked().then_some(new)
}
