//! What advice does to pages.

use super::{
    Reference, must,
    ops::{Came, Step, errno, whole},
    page::{Freed, PAGE},
};
use crate::{mm::Advice, replay::Outcome};
use std::ops::Range;

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
            // What size pages have is a matter of frames; but one that was never used may come in with its neighbours.
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
            // Which pages share a frame is a matter of frames.
            Advice::Mergeable | Advice::Unmergeable => {}
            Advice::DontDump | Advice::DoDump => {}
        }
        let mut hole = false;
        for number in range {
            let Some(page) = self.pages_of(actor).get_mut(&number) else {
                hole = true;
                continue;
            };
            if page.keeps_from(advice) {
                return must(&errno("EPERM"), came);
            }
            if page.stays_in(advice) {
                return must(&errno("EINVAL"), came);
            }
            match advice {
                Advice::KeepOnFork | Advice::DoDump if page.droppable => {
                    return must(&errno("EINVAL"), came);
                }
                Advice::Free | Advice::WipeOnFork if page.object.is_some() => {
                    return must(&errno("EINVAL"), came);
                }
                Advice::DontNeed | Advice::DontNeedLocked => page.clear(),
                Advice::Free if page.freed == Freed::Hazy => page.own = None,
                // What is out goes at once.
                Advice::Free if page.idle => page.freed = Freed::Perhaps,
                Advice::Free if page.freed == Freed::No => page.freed = Freed::Lazily,
                Advice::WipeOnFork => page.wipe = true,
                Advice::KeepOnFork => page.wipe = false,
                Advice::DontFork => page.no_fork = true,
                Advice::DoFork => page.no_fork = false,
                Advice::GuardInstall => {
                    page.clear();
                    page.guard = true;
                }
                Advice::GuardRemove => page.guard = false,
                _ => {}
            }
        }
        must(&whole(hole), came)
    }

    /// Pages are brought in one by one, up to the first that must be refused. Written to, a private one is a copy from then on.
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
    /// A page is there for an access that may be made. Written to, a private one is a copy.
    pub(super) fn make_present(&mut self, process: u32, addr: u64, write: bool) {
        if self.is_hazy(&self.processes[&process][&(addr / PAGE)]) {
            return;
        }
        self.touch(process, addr);
        let bytes = self.bytes(process, addr);
        let page = self.page(process, addr);
        if write && !page.shared {
            page.own = Some(bytes);
        }
    }
    /// Holes are punched VMA by VMA, past what is not mapped; one that cannot have any ends it, and where VMAs end is not
    /// known.
    fn remove(&mut self, actor: u32, range: Range<u64>, came: Came<'_>) -> Step {
        let begun = self.pages_of(actor).range(range).next().is_some();
        self.lost = begun || matches!(came, Outcome::Ret(_));
        Ok(())
    }
}
