//! `mremap`: pages that move, shrink and grow.

use super::{
    Reference,
    outcome::{Came, Step, errno, must},
    page::{PAGE, Page, pages},
};
use crate::{
    mm::{MremapArgs, MremapFlags},
    replay::Outcome,
};
use std::ops::Range;

impl Reference {
    pub(super) fn mremap(&mut self, actor: u32, args: MremapArgs, came: Came<'_>) -> Step {
        let MremapArgs {
            addr,
            old_len,
            new_len,
            flags,
            new_addr,
        } = args;
        let (Some(old), Some(new)) = (pages(addr, old_len), pages(addr, new_len)) else {
            return self.odd(came);
        };
        let keep = flags.contains(MremapFlags::DONTUNMAP);
        let from = old.start;
        if flags.contains(MremapFlags::FIXED) {
            // Another length, or no permission to move: other errors come first.
            let plain = flags.contains(MremapFlags::MAYMOVE) && old == new;
            let Some(to) = pages(new_addr, new_len).filter(|_| plain) else {
                // The old pages may be gone before a seal refused the rest.
                let sealed = self.pages_of(actor).values().any(|page| page.sealed);
                self.lost = sealed || matches!(came, Outcome::Ret(_));
                return Ok(());
            };
            if from < to.end && to.start < old.end {
                must(&errno("EINVAL"), came)
            } else if !self.pages_of(actor).contains_key(&from) {
                must(&errno("EFAULT"), came)
            } else if self.is_sealed(actor, &old) || self.is_sealed(actor, &to) {
                // The VMAs before the seal have moved, one by one.
                self.lost = !self.is_sealed(actor, &(from..from + 1));
                must(&errno("EPERM"), came)
            } else if old.end > from + 1
                && self.has_attachment(actor, &old)
                && *came == errno("EFAULT")
            {
                // A piece of a segment moves alone, and what lay before it may have moved.
                self.lost = true;
                Ok(())
            } else {
                must(&Outcome::Ret(new_addr), came)?;
                self.relocate(actor, old, to.start, keep);
                Ok(())
            }
        } else if keep {
            self.odd(came)
        } else if !self.pages_of(actor).contains_key(&from) {
            must(&errno("EFAULT"), came)
        } else if self.is_sealed(actor, &(from..from + 1)) {
            must(&errno("EPERM"), came)
        } else {
            self.resize(actor, (old, new.end - from), flags, came)
        }
    }
    fn has_attachment(&self, process: u32, range: &Range<u64>) -> bool {
        let mut seen = self.processes[&process].range(range.clone());
        seen.any(|(_, page)| page.attachment.is_some())
    }
    /// `mremap` without a target address. Room is a matter of VMAs; but a mapping may not grow over
    /// another.
    fn resize(
        &mut self,
        actor: u32,
        (old, len): (Range<u64>, u64),
        flags: MremapFlags,
        came: Came<'_>,
    ) -> Step {
        let from = old.start;
        if from + len <= old.end {
            if self.is_sealed(actor, &(from + len..old.end)) {
                return must(&errno("EPERM"), came);
            }
            must(&Outcome::Ret(from * PAGE), came)?;
            let cut = from + len..old.end;
            self.pages_of(actor).retain(|n, _| !cut.contains(n));
            self.forget_objects();
            return Ok(());
        }
        let Outcome::Ret(at) = *came else {
            return Ok(());
        };
        let to = at / PAGE;
        if to != from && !flags.contains(MremapFlags::MAYMOVE) {
            return Err("it moved the mapping without MREMAP_MAYMOVE".into());
        }
        let grown = old.end - from..len;
        let all = &self.processes[&actor];
        let begin = if to == from { grown.start } else { 0 };
        if self.is_taken(actor, &(to + begin..to + len)) || !all.contains_key(&(old.end - 1)) {
            return Err(format!("it returns {at:#x}, where another mapping lies"));
        }
        let last = all[&(old.end - 1)].clone();
        self.lost |= !self.looks_at(&(to..to + len));
        if to != from {
            self.relocate(actor, old, to, false);
        }
        for (nth, i) in (1..).zip(grown) {
            let more = Page {
                object: last.object.map(|(o, index)| (o, index + nth)),
                ..last.fresh()
            };
            self.pages_of(actor).insert(to + i, more);
        }
        Ok(())
    }
    fn relocate(&mut self, actor: u32, from: Range<u64>, to: u64, keep: bool) {
        let all = self.pages_of(actor);
        for number in from.clone() {
            if let Some(page) = all.remove(&number) {
                if keep {
                    // The remaining page loses its lock.
                    let locked = false;
                    all.insert(
                        number,
                        Page {
                            locked,
                            ..page.fresh()
                        },
                    );
                }
                all.insert(to + number - from.start, page);
            }
        }
        self.forget_objects();
    }
}
