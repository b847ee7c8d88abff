//! Background memory of recorded processes: pages outside of the arena, which every operation of
//! the recorder touched.
//!
//! These pages matter only under memory pressure, because reclaim works on them too. The pages and
//! the moments of their accesses come from the page faults of recorded processes. Memory from
//! before the script did not belong to the reclaimed control group; copies after a fork did.

use super::{limits::met, op::Op, script::Outcome};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    ctx::CallCx,
    error::FaultError,
    mm::{Machine, Mm, MmapArgs, PageState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// The address of the pages.
const BASE: u64 = 1 << 30;

/// A page of the background.
#[derive(Clone, Copy)]
enum Page {
    /// Variables of the program, its buffer for commands among them.
    Data,
    /// Variables of the thread: `errno`, its locale.
    Thread,
    /// The thread's restartable sequence, which the kernel writes whenever the thread resumes.
    Rseq,
    /// Locks of the C library.
    Library,
    /// Variables of the loader.
    Loader,
    /// More variables of the loader.
    Loader2,
    Stack,
}

const PAGES: u64 = Page::Stack as u64 + 1;

/// The background memory of all processes of a script.
#[derive(Default)]
pub(super) struct Background {
    parents: BTreeMap<u32, u32>,
    /// Processes that have waited for a child before: the loader resolves a function at its first
    /// call.
    waited: BTreeSet<u32>,
}

type Processes = BTreeMap<u32, Arc<Mm>>;

fn read(cx: &mut CallCx<'_>, mm: &Mm, pages: &[Page]) {
    for &page in pages {
        let _no_frame = mm.load(cx, BASE + page as u64 * PAGE_SIZE);
    }
}
fn write(cx: &mut CallCx<'_>, mm: &Mm, pages: &[Page]) {
    for &page in pages {
        let _no_frame = mm.store(cx, BASE + page as u64 * PAGE_SIZE, 1);
    }
}
/// Touches the pages of a command's arrival.
fn wake(cx: &mut CallCx<'_>, mm: &Mm) {
    write(cx, mm, &[Page::Data, Page::Rseq]);
    read(cx, mm, &[Page::Stack, Page::Thread]);
    write(cx, mm, &[Page::Stack]);
}

impl Background {
    /// Maps the background of the first process, before its script begins. The error names the
    /// limit that the process met.
    pub(super) fn begin(cx: &mut CallCx<'_>, machine: &Machine, mm: &Mm) -> Result<Self, String> {
        let before = machine.mem().refused();
        let pages = MmapArgs::anonymous(PAGES * PAGE_SIZE).fixed(BASE);
        mm.mmap(cx, &pages).map_err(|why| why.to_string())?;
        for page in 0..PAGES {
            let at = BASE + page * PAGE_SIZE;
            let limit = |why: FaultError| met(machine, before).unwrap_or_else(|| why.to_string());
            mm.store(cx, at, 1).map_err(limit)?;
        }
        let first = Vpn::containing(BASE);
        let own = VpnRange::new(first, first.plus(PAGES)).expect("not empty");
        for (_, state) in mm.pagemap(cx, own) {
            if let PageState::Anon(pfn) = state {
                machine.mem().lru_remove(pfn);
            }
        }
        Ok(Self::default())
    }
    /// Touches pages before an operation of a process.
    pub(super) fn before(&self, cx: &mut CallCx<'_>, processes: &Processes, actor: u32, op: &Op) {
        let Some(mm) = processes.get(&actor) else {
            return;
        };
        match op {
            // Operations from outside of the process touch no page of it.
            Op::Reclaim {} | Op::Ftruncate { .. } | Op::PunchHole { .. } | Op::Pwrite { .. } => {}
            Op::Load { .. } | Op::Store { .. } | Op::Fork { .. } => wake(cx, mm),
            Op::Exit {} => {
                wake(cx, mm);
                read(cx, mm, &[Page::Loader2]);
                write(cx, mm, &[Page::Loader]);
            }
            _ => {
                wake(cx, mm);
                write(cx, mm, &[Page::Thread]);
            }
        }
    }
    /// Touches pages after an operation of a process.
    pub(super) fn after(
        &mut self,
        cx: &mut CallCx<'_>,
        processes: &Processes,
        (actor, op): (u32, &Op),
        outcome: &Outcome,
    ) {
        match *op {
            Op::Fork { child } => self.forked(cx, processes, (actor, child)),
            Op::Exit {} => self.ended(cx, processes, actor),
            Op::Load { .. } | Op::Store { .. } if !matches!(outcome, Outcome::Ret(_)) => {
                if let Some(mm) = processes.get(&actor) {
                    write(cx, mm, &[Page::Stack, Page::Thread]);
                }
            }
            _ => {}
        }
    }
    /// Touches pages of parent, then child, after a fork.
    fn forked(&mut self, cx: &mut CallCx<'_>, processes: &Processes, (actor, child): (u32, u32)) {
        if let Some(mm) = processes.get(&actor) {
            write(cx, mm, &[Page::Stack]);
            if self.parents.is_empty() {
                write(cx, mm, &[Page::Loader, Page::Data]);
            }
        }
        if let Some(mm) = processes.get(&child) {
            write(cx, mm, &[Page::Thread, Page::Rseq, Page::Library]);
            read(cx, mm, &[Page::Loader2]);
            write(
                cx,
                mm,
                &[Page::Loader, Page::Loader2, Page::Stack, Page::Data],
            );
            self.parents.insert(child, actor);
            if self.waited.contains(&actor) {
                self.waited.insert(child);
            }
        }
    }
    /// Lets the parent, if there still is one, wait for the process.
    fn ended(&mut self, cx: &mut CallCx<'_>, processes: &Processes, actor: u32) {
        let parent = self.parents.get(&actor);
        let Some((&parent, mm)) = parent.and_then(|p| processes.get_key_value(p)) else {
            return;
        };
        wake(cx, mm);
        if self.waited.insert(parent) {
            read(cx, mm, &[Page::Loader2]);
            write(cx, mm, &[Page::Loader]);
        }
    }
}
