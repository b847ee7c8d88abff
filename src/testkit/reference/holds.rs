//! Pages that the kernel's I/O holds, and memory that another process reads and writes by force.
//!
//! A hold keeps frames, and the model has none: what counts is which pages a call brings in and
//! copies, and where it ends.

use super::{
    Reference,
    outcome::{Came, DONE, RWX, Step, errno, must},
    page::{Kind, PAGE, Page, refusal},
};
use crate::{
    addr::TASK_SIZE,
    replay::{FileKind, Op, Outcome},
};

impl Reference {
    /// A buffer or a pipe.
    pub(super) fn hold(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        match *op {
            Op::Pin { addr, len } => {
                self.holds.pinned.remove(&actor);
                let bounded = len > 0 && len <= 1 << 30;
                let whole = bounded && self.hold_up_to(actor, (addr, len), true) == Some(len);
                if !whole {
                    return must(&errno("EFAULT"), came);
                }
                self.holds.pinned.insert(actor);
                must(&DONE, came)
            }
            Op::Vmsplice { addr, len } => {
                let held = self.hold_up_to(actor, (addr, len), false);
                *self.holds.pipes.entry(actor).or_default() += 1;
                match held {
                    Some(held) if held > 0 || len == 0 => must(&Outcome::Ret(held), came),
                    _ => must(&errno("EFAULT"), came),
                }
            }
            Op::Unpin {} => match self.holds.pinned.remove(&actor) {
                true => must(&DONE, came),
                false => must(&errno("EBADF"), came),
            },
            Op::Drain {} => match self.holds.pipes.get_mut(&actor) {
                Some(open) if *open > 0 => {
                    *open -= 1;
                    must(&DONE, came)
                }
                _ => must(&errno("EBADF"), came),
            },
            _ => unreachable!("the caller matched"),
        }
    }
    /// Brings in the pages of the bytes up to the first that cannot be held, and returns the number
    /// of bytes in them; `None` for a range that leaves the address space. Writers hold for any
    /// time.
    fn hold_up_to(&mut self, actor: u32, (addr, len): (u64, u64), write: bool) -> Option<u64> {
        let end = addr.checked_add(len).filter(|&end| end <= TASK_SIZE)?;
        let mut at = addr;
        while at < end && self.is_open(actor, at, write) && !(write && self.tracks(actor, at)) {
            self.make_present(actor, at, write);
            at = (at / PAGE + 1) * PAGE;
        }
        Some(at.min(end) - addr)
    }
    /// Returns true if the object of a shared page must know of each write to it.
    fn tracks(&self, process: u32, addr: u64) -> bool {
        let page = &self.processes[&process][&(addr / PAGE)];
        let kind = page.object.map(|(nth, _)| self.objects[nth].kind);
        page.shared && matches!(kind, Some(Kind::File(FileKind::Disk | FileKind::Xip)))
    }

    /// A byte of `/proc/PID/mem`.
    pub(super) fn force(&mut self, op: &Op, came: Came<'_>) -> Step {
        let (target, addr, byte) = match *op {
            Op::MemRead { addr, target } => (target, addr, None),
            Op::MemWrite { addr, target, byte } => (target, addr, Some(byte)),
            _ => unreachable!("the caller matched"),
        };
        let page = self.processes[&target].get(&(addr / PAGE));
        let bound = |page: &Page| byte.is_some() && page.shared && !page.allows(true);
        let forced = page.filter(|page| !bound(page)).map(|page| Page {
            prot: RWX,
            ..page.clone()
        });
        if refusal(forced.as_ref(), &self.objects, addr, byte.is_some()).is_some() {
            return must(&errno("EIO"), came);
        }
        match byte {
            None => self.read(target, addr, came),
            Some(byte) => {
                must(&Outcome::Ret(1), came)?;
                self.put(target, addr, &[byte]);
                Ok(())
            }
        }
    }
}
