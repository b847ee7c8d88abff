//! The segment of System V of a script.

use super::{
    Reference,
    outcome::{Came, DONE, Step, errno, must, refusing},
    page::{Kind, PAGE, Page, pages},
};
use crate::{
    addr::TASK_SIZE,
    mm::{Prot, ShmFlags, ShmGetFlags},
    replay::{Op, Outcome, Shmat, Shmget},
};
use std::ops::Range;

/// The largest segment that the model follows.
const LARGE: u64 = 1 << 30;

impl Reference {
    pub(super) fn on_segment(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Shmget(Shmget { len, flags }) => self.new_segment(len, flags, came),
            Op::Shmdt { addr } => self.detach(actor, addr, came),
            _ => match self.segment {
                None => must(&errno("EINVAL"), came),
                // It went with its last page.
                Some(nth) if self.objects[nth].size == 0 => refusing(came),
                Some(nth) => match *op {
                    Op::Shmat(Shmat { addr, flags }) => {
                        let flags = ShmFlags::from_bits_retain(flags);
                        self.attach(actor, nth, (addr, flags), came)
                    }
                    Op::Shmrm {} => {
                        self.objects[nth].kind = Kind::Segment { removed: true };
                        self.forget_objects();
                        must(&DONE, came)
                    }
                    // Reclaim alone looks at the lock.
                    _ => must(&DONE, came),
                },
            },
        }
    }
    fn new_segment(&mut self, len: u64, flags: u32, came: Came<'_>) -> Step {
        let flags = ShmGetFlags::from_bits_retain(flags);
        let known = ShmGetFlags::CREAT | ShmGetFlags::NORESERVE;
        if len == 0 {
            return must(&errno("EINVAL"), came);
        }
        if len > LARGE || !known.contains(flags) {
            return self.odd(came);
        }
        must(&DONE, came)?;
        let promised = !flags.contains(ShmGetFlags::NORESERVE);
        let segment = Kind::Segment { removed: false };
        self.segment = Some(self.new_object(segment, len, promised));
        Ok(())
    }
    /// `shmat`: a mapping of all of the segment.
    fn attach(
        &mut self,
        actor: u32,
        nth: usize,
        (addr, flags): (u64, ShmFlags),
        came: Came<'_>,
    ) -> Step {
        let size = self.objects[nth].size;
        let at = match flags.contains(ShmFlags::RND) {
            true => addr - addr % PAGE,
            false => addr,
        };
        let replaces = flags.contains(ShmFlags::REMAP);
        if !at.is_multiple_of(PAGE) || (at == 0 && replaces) {
            return must(&errno("EINVAL"), came);
        }
        let wanted = pages(at, size).filter(|_| at.saturating_add(size) < TASK_SIZE);
        let (Some(wanted), true) = (wanted, (addr == 0) == (at == 0)) else {
            return self.odd(came);
        };
        let Some(range) = self.attached_to(actor, (addr, wanted), replaces, came)? else {
            return Ok(());
        };
        let mut prot = Prot::READ;
        let read_only = flags.contains(ShmFlags::RDONLY);
        prot.set(Prot::WRITE, !read_only);
        prot.set(Prot::EXEC, flags.contains(ShmFlags::EXEC));
        self.attachments += 1;
        let page = Page {
            read_only,
            attachment: Some(self.attachments),
            ..Page::new(prot, Some((nth, 0)), true)
        };
        self.place(actor, range.clone(), &page, false);
        if self.locks_all.contains(&actor) {
            self.lock_pages(actor, range);
        }
        self.forget_objects();
        Ok(())
    }
    /// Returns the place of an attachment; `None` if it was refused as it must be, or may be.
    fn attached_to(
        &mut self,
        actor: u32,
        (addr, wanted): (u64, Range<u64>),
        replaces: bool,
        came: Came<'_>,
    ) -> Result<Option<Range<u64>>, String> {
        if addr != 0 {
            if !replaces && self.is_taken(actor, &wanted) {
                return must(&errno("EINVAL"), came).map(|()| None);
            }
            if self.is_sealed(actor, &wanted) {
                return must(&errno("EPERM"), came).map(|()| None);
            }
            must(&Outcome::Ret(wanted.start * PAGE), came)?;
            return Ok(Some(wanted));
        }
        let Outcome::Ret(at) = *came else {
            return Ok(None);
        };
        let len = (wanted.end - wanted.start) * PAGE;
        self.chosen(actor, (at, len)).map(Some)
    }
    /// `shmdt`: the pages of an attachment go that lie where it put them.
    fn detach(&mut self, actor: u32, addr: u64, came: Came<'_>) -> Step {
        if !addr.is_multiple_of(PAGE) {
            return must(&errno("EINVAL"), came);
        }
        let at = addr / PAGE;
        let in_place = |(number, page): (&u64, &Page)| {
            let index = page.attachment.and(page.object).map(|(_, index)| index);
            index.is_some_and(|index| number.checked_sub(at) == Some(index))
        };
        let all = &self.processes[&actor];
        let mut pieces = all.range(at..).filter(|&(n, page)| in_place((n, page)));
        let Some((_, first)) = pieces.next() else {
            return must(&errno("EINVAL"), came);
        };
        let beyond = |page: &Page| {
            let reaches = |(o, index): (usize, u64)| self.objects[o].reaches(index);
            !page.object.is_some_and(reaches)
        };
        // What has grown beyond the segment goes with the first piece or not at all.
        if beyond(first) || pieces.any(|(_, page)| beyond(page) || page.sealed) || first.sealed {
            return self.odd(came);
        }
        let attachment = first.attachment;
        must(&DONE, came)?;
        self.pages_of(actor).retain(|number, page| {
            *number < at || page.attachment != attachment || !in_place((number, page))
        });
        self.forget_objects();
        Ok(())
    }
}
