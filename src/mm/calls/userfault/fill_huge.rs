//! Answers that bring huge pages of a pool (`mfill_atomic_hugetlb`).

use super::fill::{Answer, failed};
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte},
    fault::{
        hugetlb::{claim, parts},
        scope::FaultScope,
    },
    vma::Vma,
};
use crate::{
    addr::{Vpn, VpnRange},
    error::{ObjectError, UserfaultError},
    file::HugetlbFile,
    frame::PhysMem,
};

impl FaultScope<'_> {
    /// Answers for the page at `at` (`hugetlb_mfill_atomic_pte`). Markers are replaced, but by
    /// poison.
    pub(super) fn fill_huge_page(
        &mut self,
        (vma, file): (&Vma, &HugetlbFile),
        at: Vpn,
        answer: Answer<'_>,
        protect: bool,
    ) -> Result<(), UserfaultError> {
        let page = vma.huge_page_of(at);
        let exists = UserfaultError::Exists(at.addr());
        let _serial = file.serialize();
        for (part, _) in parts(page) {
            self.with_leaf(part.start(), |_| ())?;
        }
        let seen = self.look(at)?;
        let index = vma.huge_index(at);
        let shared = vma.flags.contains(VmFlags::SHARED);
        let free = match answer {
            Answer::Poison => seen.is_none(),
            _ => seen.is_none_mostly(),
        };
        match answer {
            Answer::Present if !file.has(index) => {
                return Err(UserfaultError::NoPage(at.addr()));
            }
            _ if !free => return Err(exists),
            Answer::Poison => return self.poison_hugetlb(page),
            Answer::Copy(bytes) if shared => {
                let done = file.provide(index, bytes).map_err(|why| empty(why, at))?;
                done.then_some(()).ok_or(exists)?;
            }
            Answer::Copy(bytes) => return self.own_copy(vma, file, page, (bytes, protect)),
            _ => {}
        }
        let rights = vma.object_rights();
        file.with_page(index, |head| {
            let head = head.ok_or(UserfaultError::NoPage(at.addr()))?;
            let first = RawPte::frame(head, rights).mkdirty().protected_if(protect);
            self.map_hugetlb(page, first, PhysMem::share)?;
            self.spread(vma, page, first);
            Ok(())
        })
    }
    /// Gives a private mapping a page with these bytes. Linux says that a page is there if the pool
    /// has none.
    fn own_copy(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        page: VpnRange,
        (bytes, protect): (&[u8], bool),
    ) -> Result<(), UserfaultError> {
        let at = page.start();
        let taken = file.take(claim(vma, vma.huge_index(at)));
        let new = taken.map_err(|why| empty(why, at))?;
        self.own_hugetlb(vma, at, &new)?;
        new.write(bytes);
        let first = RawPte::frame(new.head(), vma.rights()).mkdirty();
        let first = first.protected_if(protect);
        Ok(new.keep_mapped(|| self.map_hugetlb(page, first, PhysMem::map_inc))?)
    }
    /// Puts the marker of poison in the place of every part of an absent page.
    fn poison_hugetlb(&mut self, page: VpnRange) -> Result<(), UserfaultError> {
        for (part, _) in parts(page) {
            self.with_leaf(part.start(), |leaf| {
                part.iter().for_each(|at| leaf.set(at, RawPte::POISON));
            })?;
        }
        Ok(())
    }
}

/// Returns the error of a page that could not be had.
fn empty(why: ObjectError, at: Vpn) -> UserfaultError {
    match why {
        ObjectError::NoHugePage => UserfaultError::Exists(at.addr()),
        ObjectError::Beyond(_) => UserfaultError::Beyond(at.addr()),
        why => failed(why),
    }
}
