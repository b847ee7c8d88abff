//! Answers that bring pages (`mfill_atomic`). They open no window: an entry that maps nothing only
//! gets more rights.

use super::Userfault;
use crate::mm::{
    entry::{flags::VmFlags, pte::RawPte, uffd_flags::FillMode},
    fault::scope::FaultScope,
    space::Mm,
    vma::{Vma, layout::Layout},
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::{NoMemory, ObjectError, UserfaultError},
    file::{MemoryObject, sealed},
    frame::{Frame, FrameFlags},
};

/// The answer for each page of a range.
#[derive(Clone, Copy)]
pub(super) enum Answer<'b> {
    /// Bytes of all pages, one after the other.
    Copy(&'b [u8]),
    /// Zeros.
    Zero,
    /// The page that the object has.
    Present,
    /// Poison.
    Poison,
}

impl Userfault {
    /// Fills absent pages from `addr` on with `bytes`, whole pages of them (`UFFDIO_COPY`). Returns
    /// the number of bytes of the pages that were filled: less than asked for if a later page
    /// failed, where Linux's call fails with EAGAIN.
    ///
    /// Markers of every kind are replaced, as on Linux.
    ///
    /// # Errors
    ///
    /// [`UserfaultError`] of the first page; nothing is filled then.
    pub fn copy(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        bytes: &[u8],
        mode: FillMode,
    ) -> Result<u64, UserfaultError> {
        self.fill(cx, (addr, bytes.len() as u64), Answer::Copy(bytes), mode)
    }
    /// Maps the zero page, or new pages of zeros in shared memory, as [`copy`](Self::copy) would
    /// fill them (`UFFDIO_ZEROPAGE`).
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy); markers are not replaced here.
    pub fn zeropage(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        mode: FillMode,
    ) -> Result<u64, UserfaultError> {
        self.fill(cx, (addr, len), Answer::Zero, mode)
    }
    /// Maps pages that the object has (`UFFDIO_CONTINUE`); otherwise like [`copy`](Self::copy).
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy); [`UserfaultError::NoPage`] if the object has a hole.
    pub fn map_present(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        mode: FillMode,
    ) -> Result<u64, UserfaultError> {
        self.fill(cx, (addr, len), Answer::Present, mode)
    }
    /// Poisons absent pages: an access to one raises SIGBUS (`UFFDIO_POISON`).
    ///
    /// # Errors
    ///
    /// As [`copy`](Self::copy); markers are not replaced here.
    pub fn poison(
        &self,
        cx: &mut CallCx<'_>,
        addr: u64,
        len: u64,
        mode: FillMode,
    ) -> Result<u64, UserfaultError> {
        self.fill(cx, (addr, len), Answer::Poison, mode)
    }

    fn fill(
        &self,
        cx: &mut CallCx<'_>,
        (addr, len): (u64, u64),
        answer: Answer<'_>,
        mode: FillMode,
    ) -> Result<u64, UserfaultError> {
        let (mm, range) = self.begin_answer(addr, len)?;
        if !answer.modes().contains(mode) {
            return Err(UserfaultError::Mode(mode.bits()));
        }
        let mut done = 0;
        while done < len {
            let rest = VpnRange::new(range.start().plus(done / PAGE_SIZE), range.end());
            let rest = rest.expect("pages are left");
            match self.fill_part(&mm, cx, rest, answer.from(done), mode) {
                Ok(more) => done += more,
                Err(why) if mm.machine().make_room(cx, &why) => continue,
                Err(why) if done == 0 => return Err(why),
                Err(_) => break,
            }
            if !mm.machine().mem().is_at_limit() {
                break;
            }
        }
        if !mode.contains(FillMode::DONTWAKE) {
            let end = range.start().plus(done / PAGE_SIZE);
            let woken = VpnRange::new(range.start(), end);
            self.0.wake(woken.expect("a page was filled"));
        }
        Ok(done)
    }
    /// Fills pages up to the first that fails.
    fn fill_part(
        &self,
        mm: &Mm,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        answer: Answer<'_>,
        mode: FillMode,
    ) -> Result<u64, UserfaultError> {
        let protect = mode.contains(FillMode::WP);
        let addr = range.start().addr();
        let filled = |scope: &mut FaultScope<'_>| {
            let vma = scope.layout.vmas.get(range.start());
            if let Some(vma) = vma {
                scope.layout.prepare_private(vma)?;
            }
            let vma = vma.filter(|vma| vma.end() >= range.end() && vma.userfault().is_some());
            let vma = vma.ok_or(UserfaultError::NotRegistered(addr))?;
            self.check_steady()?;
            if protect && !vma.is_uffd_wp() {
                return Err(UserfaultError::Mode(mode.bits()));
            }
            check_kind(vma, range, answer)?;
            scope.fill(vma, range, answer, protect)
        };
        mm.with_fault_scope(cx, range, filled).0
    }
}

impl Layout {
    /// Gives private memory its anonymous family, as Linux does before any check of the memory
    /// (`find_vma_and_prepare_anon`): a later fork shows it.
    pub(super) fn prepare_private(&self, vma: &Vma) -> Result<(), NoMemory> {
        match vma.flags.contains(VmFlags::SHARED) {
            true => Ok(()),
            false => self.anon_of(vma).map(drop),
        }
    }
}

/// Fails for memory that cannot be filled so. There is no huge page of zeros to be mapped.
fn check_kind(vma: &Vma, range: VpnRange, answer: Answer<'_>) -> Result<(), UserfaultError> {
    if vma.flags.contains(VmFlags::HUGETLB) {
        let at = range.start().addr();
        return match answer {
            Answer::Zero => Err(UserfaultError::Unsuitable(at)),
            _ if vma.is_whole(range.start()) && vma.is_whole(range.end()) => Ok(()),
            _ => Err(UserfaultError::InsideHugePage(at)),
        };
    }
    let memory = vma.object().is_some_and(|object| object.is_memory());
    let fits = memory || (vma.is_anonymous() && !matches!(answer, Answer::Present));
    match fits {
        true => Ok(()),
        false => Err(UserfaultError::Unsuitable(vma.start().addr())),
    }
}

impl FaultScope<'_> {
    /// Answers page by page; returns the number of bytes before the first failure.
    fn fill(
        &mut self,
        vma: &Vma,
        range: VpnRange,
        answer: Answer<'_>,
        protect: bool,
    ) -> Result<u64, UserfaultError> {
        let size = vma.grain() * PAGE_SIZE;
        let mut done = 0;
        while done < range.pages() * PAGE_SIZE {
            let at = range.start().plus(done / PAGE_SIZE);
            let answer = answer.of_page(done / size, size);
            let filled = match vma.hugetlb() {
                Some(file) => self.fill_huge_page((vma, file), at, answer, protect),
                None => self.fill_page(vma, at, answer, protect),
            };
            match filled {
                Ok(()) => done += size,
                Err(why) if done == 0 => return Err(why),
                Err(_) => break,
            }
        }
        Ok(done)
    }
    fn fill_page(
        &mut self,
        vma: &Vma,
        at: Vpn,
        answer: Answer<'_>,
        protect: bool,
    ) -> Result<(), UserfaultError> {
        let exists = UserfaultError::Exists(at.addr());
        // The table is made in any case.
        let seen = self.with_leaf(at, |leaf| leaf.get(at))?;
        if self.lease.mm.is_huge(&mut self.lease.cx, at) {
            return Err(exists);
        }
        let object = vma.object().map(std::convert::AsRef::as_ref);
        let index = vma.pgoff_at(at);
        if object.is_some_and(|object| index >= object.pages()) {
            return Err(match answer {
                Answer::Present => UserfaultError::Unsuitable(at.addr()),
                _ => UserfaultError::Beyond(at.addr()),
            });
        }
        let shared = vma.flags.contains(VmFlags::SHARED);
        match (answer, object) {
            (Answer::Poison, _) => self.put(at, RawPte::POISON),
            (Answer::Zero, _) if !shared => {
                let zero = self.lease.mm.machine().mem().zero_pfn();
                self.put(at, RawPte::zero(zero, vma.read_only()))
            }
            // A page is not given to the object if it cannot be mapped. One that the object has is
            // looked for first.
            (Answer::Copy(_) | Answer::Zero, _) if !seen.is_none_mostly() => Err(exists),
            (Answer::Copy(bytes), _) if !shared => {
                let frame = self.new_anon(vma, at)?;
                frame.write(0, bytes);
                let pte = RawPte::frame(frame.pfn(), vma.rights()).mkdirty();
                self.map(at, frame, pte.protected_if(protect))
            }
            (answer, Some(object)) => self.fill_shared(vma, object, (at, answer), protect),
            (_, None) => unreachable!("shared memory has an object"),
        }
    }
    /// Gives the object a page, or takes the one that it has, and maps it.
    fn fill_shared(
        &mut self,
        vma: &Vma,
        object: &dyn MemoryObject,
        (at, answer): (Vpn, Answer<'_>),
        protect: bool,
    ) -> Result<(), UserfaultError> {
        let index = vma.pgoff_at(at);
        let cx = self.lease.cx.reborrow();
        let (page, none) = match answer {
            Answer::Present => (
                object.page_there(cx, index, sealed::Ours),
                UserfaultError::NoPage(at.addr()),
            ),
            _ => (
                object.provide(cx, index, answer.bytes(), sealed::Ours),
                UserfaultError::Exists(at.addr()),
            ),
        };
        let frame = page.map_err(failed)?.ok_or(none)?;
        let mem = self.lease.mm.machine().mem();
        let locked = mem.lock(&mut self.lease.cx, frame);
        if !object.is_page(&locked, index, sealed::Ours) {
            return Err(UserfaultError::Beyond(at.addr())); // It was cut off meanwhile.
        }
        let pte = RawPte::frame(locked.pfn(), vma.object_rights()).mkdirty();
        self.map(at, locked.frame().clone(), pte.protected_if(protect))?;
        if vma.flags.contains(VmFlags::LOCKED) {
            mem.lru_lock(locked.pfn());
        }
        Ok(())
    }
    /// Puts an entry without a frame in the place of an empty one.
    fn put(&mut self, at: Vpn, pte: RawPte) -> Result<(), UserfaultError> {
        let put = self.with_leaf(at, |leaf| {
            let empty = leaf.get(at).is_none();
            if empty {
                leaf.set(at, pte);
            }
            empty
        })?;
        put.then_some(()).ok_or(UserfaultError::Exists(at.addr()))
    }
    /// Maps the frame where no page is, but perhaps a marker (`mfill_atomic_install_pte`).
    fn map(&mut self, at: Vpn, frame: Frame<'_>, pte: RawPte) -> Result<(), UserfaultError> {
        let mem = self.lease.mm.machine().mem();
        let mapped = self.with_leaf(at, |leaf| {
            let free = leaf.get(at).is_none_mostly();
            if free {
                let pfn = frame.into_raw();
                mem.map_inc(pfn);
                leaf.set(at, pte);
                if mem.flags(pfn).contains(FrameFlags::ANON) {
                    mem.lru_add(pfn);
                }
            }
            free
        })?;
        mapped
            .then_some(())
            .ok_or(UserfaultError::Exists(at.addr()))
    }
}

impl RawPte {
    pub(super) fn protected_if(self, protect: bool) -> Self {
        if protect { self.mkuffd_wp() } else { self }
    }
}

impl<'b> Answer<'b> {
    /// The modes that the call knows.
    const fn modes(self) -> FillMode {
        match self {
            Self::Copy(_) | Self::Present => FillMode::DONTWAKE.union(FillMode::WP),
            Self::Zero | Self::Poison => FillMode::DONTWAKE,
        }
    }
    /// The bytes of new pages; what lies behind them is zero.
    const fn bytes(self) -> &'b [u8] {
        match self {
            Self::Copy(bytes) => bytes,
            _ => &[],
        }
    }
    /// Returns the answer for the pages after the first `done` bytes.
    fn from(self, done: u64) -> Self {
        match self {
            Self::Copy(bytes) => {
                let done = usize::try_from(done).expect("in memory");
                Self::Copy(bytes.get(done..).unwrap_or_default())
            }
            other => other,
        }
    }
    /// Returns the answer for the page with that number, of pages of `size` bytes.
    fn of_page(self, nth: u64, size: u64) -> Self {
        match self {
            Self::Copy(bytes) => {
                let bounds = [nth, nth + 1].map(|n| usize::try_from(n * size).expect("in memory"));
                Self::Copy(bytes.get(bounds[0]..bounds[1]).unwrap_or_default())
            }
            other => other,
        }
    }
}

pub(super) fn failed(why: ObjectError) -> UserfaultError {
    match why {
        ObjectError::NoMemory(e) => e.into(),
        why => UserfaultError::Object(why),
    }
}
