//! Memory of processes that the kernel's I/O holds: a buffer of io_uring, pages in pipes.

use super::{
    came::{counted, done, failed},
    op::Op,
    script::Outcome,
};
use crate::{
    ctx::CallCx,
    error::Errno,
    mm::{HeldPages, Mm, PinKind},
    notifier::Access,
};
use std::{collections::BTreeMap, sync::Arc};

/// The pages that are held for each process.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    pinned: BTreeMap<u32, HeldPages>,
    /// The pipes that a process has open, the last one last, with their pages if there are any;
    /// forked processes have the same.
    pipes: BTreeMap<u32, Vec<Option<Arc<HeldPages>>>>,
}

impl Buffers {
    /// Executes an operation of process `actor` on its buffers.
    pub(super) fn act(&mut self, cx: &mut CallCx<'_>, mm: &Mm, actor: u32, op: &Op) -> Outcome {
        let bytes = |len: u64| usize::try_from(len).unwrap_or(usize::MAX);
        match *op {
            Op::Pin { addr, len } => {
                // A ring takes its buffers only while it has none.
                self.pinned.remove(&actor);
                // `io_buffer_validate`.
                if len == 0 || len > 1 << 30 {
                    return failed(Errno::EFAULT);
                }
                let pinned = mm.pin(cx, addr, bytes(len), Access::Write, PinKind::LongTerm);
                done(pinned.map(|pages| {
                    self.pinned.insert(actor, pages);
                }))
            }
            Op::Unpin {} => closed(self.pinned.remove(&actor)),
            Op::Vmsplice { addr, len } => {
                let spliced = mm.get_pages(cx, addr, bytes(len)).map(Arc::new);
                let pipe = spliced.as_ref().ok().map(Arc::clone);
                self.pipes.entry(actor).or_default().push(pipe);
                counted(spliced.map(|pages| pages.len()))
            }
            Op::Drain {} => closed(self.pipes.get_mut(&actor).and_then(Vec::pop)),
            ref other => unreachable!("{other:?} is not of a buffer"),
        }
    }
    /// Gives a forked process the pipes of its parent.
    pub(super) fn fork(&mut self, parent: u32, child: u32) {
        if let Some(pipes) = self.pipes.get(&parent).cloned() {
            self.pipes.insert(child, pipes);
        }
    }
    /// Closes what a process that ended had open.
    pub(super) fn exit(&mut self, process: u32) {
        self.pinned.remove(&process);
        self.pipes.remove(&process);
    }
}

/// Returns the outcome of closing a descriptor, which may not be open.
fn closed<T>(open: Option<T>) -> Outcome {
    match open {
        Some(_) => Outcome::Ret(0),
        None => failed(Errno::EBADF),
    }
}
