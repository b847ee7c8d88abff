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
    addr::{PAGE_SIZE, Vpn, VpnRange},
    error::{ObjectError, UserfaultError},
    file::HugetlbFile,
    frame::PhysMem,
};

impl FaultScope<'_> {
    /// Answers page by page; returns the number of bytes before the first failure. There is no huge
    /// page of zeros to be mapped.
    pub(super) fn fill_hugetlb(
        &mut self,
        vma: &Vma,
        range: VpnRange,
        (answer, protect): (Answer<'_>, bool),
    ) -> Result<u64, UserfaultError> {
        let file = vma.hugetlb().expect("the caller found huge pages");
        if matches!(answer, Answer::Zero) {
            return Err(UserfaultError::Unsuitable(range.start().addr()));
        }
        if !vma.is_whole(range.start()) || !vma.is_whole(range.end()) {
            return Err(UserfaultError::InsideHugePage(range.start().addr()));
        }
        let bytes = vma.grain() * PAGE_SIZE;
        let mut done = 0;
        while done < range.pages() * PAGE_SIZE {
            let page = vma.huge_page_of(range.start().plus(done / PAGE_SIZE));
            let answer = answer.of_page(done / bytes, bytes);
            match self.fill_huge_page(vma, file, page, (answer, protect)) {
                Ok(()) => done += bytes,
                Err(why) if done == 0 => return Err(why),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    /// Answers for one page (`hugetlb_mfill_atomic_pte`). Markers are replaced, but by poison.
    fn fill_huge_page(
        &mut self,
        vma: &Vma,
        file: &HugetlbFile,
        page: VpnRange,
        (answer, protect): (Answer<'_>, bool),
    ) -> Result<(), UserfaultError> {
        let at = page.start();
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
        // A private mapping of the file's own page copies it on a write.
        let rights = match shared {
            true => vma.rights(),
            false => vma.read_only(),
        };
        file.with_page(index, |head| {
            let head = head.ok_or(UserfaultError::NoPage(at.addr()))?;
            let first = RawPte::frame(head, rights).mkdirty().protected_if(protect);
            Ok(self.map_hugetlb(page, first, PhysMem::share)?)
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
