//! The effect of `madvise` on pages.

use super::{
    Reference,
    outcome::{Came, Step, errno, must, whole},
    page::{Bytes, Freed, PAGE, Page},
};
use crate::{mm::Advice, replay::Outcome};
use std::ops::Range;

impl Page {
    /// Applies advice to the page, or returns the errno of the refusal.
    fn advised(&mut self, advice: Advice) -> Option<&'static str> {
        if self.keeps_from(advice) {
            return Some("EPERM");
        }
        if self.stays_in(advice) || self.is_too_large_for(advice) {
            return Some("EINVAL");
        }
        match advice {
            Advice::KeepOnFork | Advice::DoDump if self.droppable => return Some("EINVAL"),
            Advice::Free | Advice::WipeOnFork if self.object.is_some() => return Some("EINVAL"),
            Advice::DontNeed | Advice::DontNeedLocked => self.clear(),
            Advice::Free if self.freed == Freed::Hazy => self.own = None,
            // A page that is out goes at once.
            Advice::Free if self.idle => self.freed = Freed::Perhaps,
            Advice::Free if self.freed == Freed::No => self.freed = Freed::Lazily,
            Advice::WipeOnFork => self.wipe = true,
            Advice::KeepOnFork => self.wipe = false,
            Advice::DontFork => self.no_fork = true,
            Advice::DoFork => self.no_fork = false,
            Advice::GuardInstall => {
                self.clear();
                self.guard = true;
            }
            Advice::GuardRemove => self.guard = false,
            _ => {}
        }
        None
    }
}

impl Reference {
    pub(super) fn advise(
        &mut self,
        actor: u32,
        range: Range<u64>,
        advice: Advice,
        came: Came<'_>,
    ) -> Step {
        match advice {
            Advice::PopulateRead | Advice::PopulateWrite => {
                self.bring_in(actor, range, advice == Advice::PopulateWrite);
                return Ok(());
            }
            Advice::Remove => return self.remove(actor, range, came),
            Advice::PageOut => self.pages_out(),
            // The size of pages is a matter of frames; but a page without a use so far may come in
            // with its neighbours.
            Advice::HugePage | Advice::NoHugePage => self.resident = false,
            Advice::Collapse => {
                self.resident = false;
                return Ok(());
            }
            Advice::WillNeed => self.resident = false,
            Advice::Normal | Advice::Random | Advice::Sequential | Advice::Cold => {}
            Advice::DontNeed | Advice::DontNeedLocked | Advice::Free => {}
            Advice::DontFork | Advice::DoFork => {}
            Advice::WipeOnFork | Advice::KeepOnFork => {}
            Advice::GuardInstall | Advice::GuardRemove => {}
            // Sharing of frames is a matter of frames.
            Advice::Mergeable | Advice::Unmergeable => {}
            Advice::DontDump | Advice::DoDump => {}
        }
        let mut hole = false;
        for number in range {
            let Some(page) = self.pages_of(actor).get_mut(&number) else {
                hole = true;
                continue;
            };
            if let Some(why) = page.advised(advice) {
                return must(&errno(why), came);
            }
        }
        must(&whole(hole), came)
    }

    /// Brings pages in one by one, up to the first one that must be refused. A write makes a
    /// private page a copy.
    fn bring_in(&mut self, actor: u32, range: Range<u64>, write: bool) {
        self.resident = false;
        for number in range {
            let addr = number * PAGE;
            if self.refusal(actor, addr, write).is_some() {
                return;
            }
            self.make_present(actor, addr, write);
        }
    }
    /// Makes a page present for a permitted access. A write makes a private page a copy, and one
    /// that was perhaps freed lazily is a new page or the old one.
    pub(super) fn make_present(&mut self, process: u32, addr: u64, write: bool) {
        if self.is_hazy(&self.processes[&process][&(addr / PAGE)]) {
            return;
        }
        self.touch(process, addr);
        if write && !self.page(process, addr).shared {
            self.copy_now(process, addr);
            let page = self.page(process, addr);
            if page.freed == Freed::Perhaps {
                (page.own, page.freed) = (Some(Bytes::new()), Freed::Hazy);
            }
        }
    }
    /// `MADV_REMOVE` punches holes VMA by VMA, past unmapped pages. A VMA that cannot have holes
    /// ends the call, and the model does not know the ends of VMAs.
    fn remove(&mut self, actor: u32, range: Range<u64>, came: Came<'_>) -> Step {
        let begun = self.pages_of(actor).range(range).next().is_some();
        self.lost = begun || matches!(came, Outcome::Ret(_));
        Ok(())
    }
}
