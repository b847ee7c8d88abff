//! The effect of each operation on pages.

use super::{
    Reference,
    file_seals::Against,
    kinds::{MmapRequest, asked, is_in_area},
    outcome::{Came, DONE, RWX, Step, errno, must, refusing, whole},
    page::{Kind, Object, PAGE, Page, Pages, pages},
};
use crate::{
    addr::TASK_PAGES,
    mm::{MapFlags, Prot},
    replay::{Op, Outcome},
};
use std::ops::Range;

impl Reference {
    pub(super) fn call(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Mmap { .. } => self.map(actor, op, came),
            Op::Mremap(args) => self.mremap(actor, args, came),
            Op::Fork { child } => self.fork(actor, child, came),
            Op::Exit {} => {
                self.exit(actor);
                must(&DONE, came)
            }
            Op::ExitAndReap { target } => self.exit_and_reap(target, came),
            Op::Pin { .. } | Op::Unpin {} | Op::Vmsplice { .. } | Op::Drain {} => {
                self.hold(actor, op, came)
            }
            Op::MemRead { .. } | Op::MemWrite { .. } => self.force(op, came),
            Op::Munmap { addr, len }
            | Op::Mprotect { addr, len, .. }
            | Op::Madvise { addr, len, .. }
            | Op::Msync { addr, len, .. } => match pages(addr, len) {
                Some(range) => self.on_range(actor, op, range, came),
                None => self.odd(came),
            },
            Op::Ftruncate { .. } | Op::PunchHole { .. } | Op::Pwrite { .. } | Op::Fsync { .. } => {
                self.on_file(op, came)
            }
            Op::Fallocate { .. }
            | Op::DirectWrite { .. }
            | Op::FadviseDontneed { .. }
            | Op::SyncFileRange { .. } => self.on_range_of_file(op, came),
            ref other => self.other_call(actor, other, came),
        }
    }
    fn other_call(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Mbind(_) => self.policy(actor, op, came),
            Op::Reclaim {}
            | Op::Shrink { .. }
            | Op::Swapoff {}
            | Op::Swapon {}
            | Op::DropCaches { .. }
            | Op::Khugepaged { .. }
            | Op::Migrate { .. }
            | Op::Merge {}
            | Op::Ksm { .. } => self.by_the_kernel(op, came),
            Op::Mlock { .. }
            | Op::Mlock2 { .. }
            | Op::Munlock { .. }
            | Op::Mlockall { .. }
            | Op::Munlockall {} => self.lock(actor, op, came),
            // Names are a matter of VMAs.
            Op::AnonName(_) => Ok(()),
            Op::Seal { ref file, seals } => self.add_seals(file, seals, came),
            Op::Shmget(_)
            | Op::Shmat(_)
            | Op::Shmdt { .. }
            | Op::Shmrm {}
            | Op::Shmlock {}
            | Op::Shmunlock {} => self.on_segment(actor, op, came),
            Op::Mseal { addr, len } => self.seal(actor, (addr, len), came),
            Op::ReadInto { .. } => self.read_into(actor, op, came),
            Op::PvmRead { .. } | Op::PvmWrite { .. } => self.copy_between(actor, op, came),
            ref device if device.is_of_device() => self.on_device(actor, device, came),
            ref tracking if tracking.has_results() => self.tracking(tracking, came),
            _ => self.odd(came),
        }
    }
    fn exit(&mut self, process: u32) {
        self.processes.remove(&process);
        self.locks_all.remove(&process);
        self.holds.exit(process);
        self.forget_objects();
    }
    /// A driver that would have to sleep keeps memory until the end, which follows.
    fn exit_and_reap(&mut self, target: u32, came: Came<'_>) -> Step {
        self.exit(target);
        must(&DONE, came).or(must(&errno("EAGAIN"), came))
    }
    /// Returns true if the range lies in the arena, where the model follows entries.
    pub(super) fn looks_at(&self, range: &Range<u64>) -> bool {
        range.start >= self.arena.start().0 && range.end <= self.arena.end().0
    }
    /// Handles an operation outside of the model. A refusal changes nothing.
    pub(super) fn odd(&mut self, came: Came<'_>) -> Step {
        self.lost = matches!(came, Outcome::Ret(_));
        Ok(())
    }
    pub(super) fn pages_of(&mut self, process: u32) -> &mut Pages {
        self.processes.get_mut(&process).expect("it lives")
    }

    fn on_range(&mut self, actor: u32, op: &Op, range: Range<u64>, came: Came<'_>) -> Step {
        if let Some(step) = self.on_part(actor, op, &range, came) {
            return step;
        }
        match *op {
            Op::Munmap { .. } if range.end > TASK_PAGES => must(&errno("EINVAL"), came),
            Op::Munmap { .. } if self.is_sealed(actor, &range) => must(&errno("EPERM"), came),
            Op::Munmap { .. } => {
                self.pages_of(actor).retain(|n, _| !range.contains(n));
                self.forget_objects();
                must(&DONE, came)
            }
            Op::Mprotect { prot, .. } if RWX.contains(prot) => {
                let all = self.pages_of(actor);
                // Pages before a hole change.
                for number in range {
                    match all.get_mut(&number) {
                        Some(page) if page.read_only && prot.contains(Prot::WRITE) => {
                            return must(&errno("EACCES"), came);
                        }
                        Some(page) if page.sealed => return must(&errno("EPERM"), came),
                        Some(page) => page.prot = prot,
                        None => return must(&whole(true), came),
                    }
                }
                must(&DONE, came)
            }
            Op::Msync { .. } => {
                let all = &self.processes[&actor];
                let shared = all.range(range.clone()).filter(|(_, page)| page.shared);
                for (object, index) in shared.filter_map(|(_, page)| page.object) {
                    let object = &mut self.objects[object];
                    if object.tail().is_some_and(|(last, _)| last == index) {
                        object.drop_tail();
                    }
                }
                must(&whole(range.clone().any(|n| !all.contains_key(&n))), came)
            }
            Op::Madvise { advice, .. } => self.advise(actor, range, advice, came),
            _ => self.odd(came),
        }
    }

    fn map(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        let Op::Mmap {
            addr,
            len,
            prot,
            flags,
            ..
        } = *op
        else {
            unreachable!("the caller matched")
        };
        let kind = match asked(op, self.pool) {
            MmapRequest::Never => return refusing(came),
            MmapRequest::Huge(size) => return self.no_huge(actor, op, size, came),
            MmapRequest::Unknown => return self.odd(came),
            MmapRequest::Pages(kind) => kind,
        };
        let Some(wanted) = pages(addr, len) else {
            return self.odd(came);
        };
        let read_only = match self.sealed_against(op) {
            Against::Mapping => return refusing(came),
            Against::Writing => true,
            Against::Nothing => false,
        };
        let Some(range) = self.mapped_to(actor, op, wanted, came)? else {
            return Ok(());
        };
        let object = self.object_of(op, kind.shared);
        let page = Page {
            huge: self.is_of_pool(op, object),
            read_only,
            wipe: kind.droppable,
            droppable: kind.droppable,
            ..Page::new(prot, object, kind.shared)
        };
        self.place(
            actor,
            range.clone(),
            &page,
            flags.contains(MapFlags::POPULATE),
        );
        if flags.contains(MapFlags::LOCKED) || self.locks_all.contains(&actor) {
            self.lock_pages(actor, range);
        }
        self.forget_objects();
        Ok(())
    }
    /// Returns the object behind a mapping, and its first index; makes one for nameless shared
    /// memory.
    fn object_of(&mut self, op: &Op, shared: bool) -> Option<(usize, u64)> {
        match *op {
            Op::Mmap {
                file: Some(ref name),
                off,
                ..
            } => Some((self.files[name], off / PAGE)),
            Op::Mmap { len, flags, .. } if shared => {
                let promised = !flags.intersects(MapFlags::NORESERVE | MapFlags::HUGETLB);
                Some(self.nameless(len, promised))
            }
            _ => None,
        }
    }
    /// Returns the place of a mapping; `None` if the call was refused as it must be, or may be.
    fn mapped_to(
        &mut self,
        actor: u32,
        op: &Op,
        wanted: Range<u64>,
        came: Came<'_>,
    ) -> Result<Option<Range<u64>>, String> {
        let Op::Mmap {
            addr, len, flags, ..
        } = *op
        else {
            unreachable!("the caller matched")
        };
        let refused = |name: &str| must(&errno(name), came).map(|()| None);
        if flags.contains(MapFlags::FIXED_NOREPLACE) && self.is_taken(actor, &wanted) {
            return refused("EEXIST");
        }
        if flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
            if self.is_sealed(actor, &wanted) {
                return refused("EPERM");
            }
            must(&Outcome::Ret(addr), came)?;
            return Ok(Some(wanted));
        }
        let Outcome::Ret(at) = *came else {
            return Ok(None);
        };
        if !is_in_area(op, at) {
            return Err(format!("it returns {at:#x}, which is not low enough"));
        }
        self.chosen(actor, (at, len)).map(Some)
    }
    /// Returns true if a page of the range is mapped.
    pub(super) fn is_taken(&self, process: u32, range: &Range<u64>) -> bool {
        self.processes[&process]
            .range(range.clone())
            .next()
            .is_some()
    }
    /// Returns the pages of a place that the call has chosen, where nothing may lie.
    pub(super) fn chosen(
        &mut self,
        actor: u32,
        (at, len): (u64, u64),
    ) -> Result<Range<u64>, String> {
        match pages(at, len).filter(|range| !self.is_taken(actor, range)) {
            Some(range) => {
                self.lost |= !self.looks_at(&range);
                Ok(range)
            }
            None => Err(format!("it returns {at:#x}, where another mapping lies")),
        }
    }
    /// Returns a new object of shared anonymous memory, and its first index.
    fn nameless(&mut self, len: u64, promised: bool) -> (usize, u64) {
        let size = len.next_multiple_of(PAGE);
        (self.new_object(Kind::Nameless, size, promised), 0)
    }
    /// Makes an object of shared memory that no file is, and returns its number.
    pub(super) fn new_object(&mut self, kind: Kind, size: u64, promised: bool) -> usize {
        self.objects.push(Object {
            kind,
            size,
            pages: std::collections::BTreeMap::new(),
            tail_perhaps: false,
            promised,
            seals: None,
        });
        self.objects.len() - 1
    }
    /// Maps pages like the first one, with the following pages of its object.
    pub(super) fn place(&mut self, actor: u32, range: Range<u64>, first: &Page, populate: bool) {
        for (nth, number) in (0..).zip(range) {
            let object = first.object.map(|(o, index)| (o, index + nth));
            let page = Page {
                object,
                ..first.clone()
            };
            self.pages_of(actor).insert(number, page);
            if populate {
                self.populate(actor, number);
            }
        }
    }

    fn fork(&mut self, actor: u32, child: u32, came: Came<'_>) -> Step {
        must(&Outcome::Ret(child.into()), came)?;
        let mut pages = self.processes[&actor].clone();
        pages.retain(|_, page| !page.no_fork);
        for page in pages.values_mut() {
            if page.wipe {
                *page = page.fresh();
            }
            page.locked = false;
        }
        self.processes.insert(child, pages);
        self.holds.fork(actor, child);
        Ok(())
    }

    /// Nameless objects and removed segments go with their last page.
    pub(super) fn forget_objects(&mut self) {
        let mapped = |nth| {
            let pages = self.processes.values().flat_map(Pages::values);
            pages.filter_map(|p| Some(p.object?.0)).any(|o| o == nth)
        };
        let gone: Vec<usize> = (0..self.objects.len())
            .filter(|&nth| {
                let object = &self.objects[nth];
                let goes = matches!(
                    object.kind,
                    Kind::Nameless | Kind::Segment { removed: true }
                );
                goes && object.size > 0 && !mapped(nth)
            })
            .collect();
        for nth in gone {
            self.objects[nth].size = 0;
            self.objects[nth].promised = false;
            self.objects[nth].pages.clear();
        }
    }
}
