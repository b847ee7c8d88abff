//! Bytes that calls move: from a file into memory, from one process to another.

use super::{
    Reference,
    outcome::{Came, Step, errno, must},
    page::{Freed, PAGE, split},
};
use crate::{
    addr::TASK_SIZE,
    mm::Prot,
    replay::{Op, Outcome},
};

/// The most bytes that one call moves.
const MOST: u64 = (1 << 31) - PAGE;
/// Pages of the other side that must be present before any byte moves.
const AT_ONCE: usize = 1024;

/// Returns the number of bytes up to the end of the page.
fn rest(addr: u64) -> u64 {
    PAGE - addr % PAGE
}
/// Returns true if the bytes lie in the range of user addresses.
fn is_user(addr: u64, len: u64) -> bool {
    addr.checked_add(len).is_some_and(|end| end <= TASK_SIZE)
}
/// Returns the number of moved bytes, or `EFAULT` if none moved because a page was missing.
fn moved(bytes: u64, missing: bool) -> Outcome {
    match missing && bytes == 0 {
        true => errno("EFAULT"),
        false => Outcome::Ret(bytes),
    }
}

/// A part of the other side, within a page: address and bytes.
type Piece = (u64, u64);

impl Reference {
    /// Returns the bytes that a process reads within a readable page. An unknown byte makes the
    /// model lost.
    fn seen(&mut self, process: u32, addr: u64, len: u64) -> Vec<u8> {
        let page = &self.processes[&process][&(addr / PAGE)];
        let unknown = self.is_hazy(page)
            || self.tail_of(page).is_some()
            || matches!(page.freed, Freed::Perhaps | Freed::Hazy);
        self.lost |= unknown;
        self.touch(process, addr);
        let bytes = self.bytes(process, addr);
        let at = |n: u64| bytes.get(&split(addr + n).1).copied().unwrap_or_default();
        (0..len).map(at).collect()
    }

    /// `pread` into memory: page after page, up to the end of the file or to the first page that
    /// the process cannot write.
    pub(super) fn read_into(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        let Op::ReadInto {
            ref file,
            off,
            addr,
            len,
        } = *op
        else {
            unreachable!("the caller matched")
        };
        if !is_user(addr, len) {
            return must(&errno("EFAULT"), came);
        }
        let nth = self.files[file];
        self.resident = false;
        let (mut done, mut missing) = (0, false);
        while done < len.min(MOST) && !missing {
            let (to, from) = (addr + done, off.saturating_add(done));
            let left = self.objects[nth].size.saturating_sub(from);
            let n = left.min(len - done).min(rest(to)).min(rest(from));
            if n == 0 {
                break;
            }
            let (index, first) = split(from);
            let bytes = self.objects[nth].pages.get(&index);
            let byte = |o| bytes.and_then(|b| b.get(&o)).copied().unwrap_or_default();
            let new: Vec<u8> = (first..).take(n as usize).map(byte).collect();
            missing = self.refusal(actor, to, true).is_some();
            if !missing {
                self.put(actor, to, &new);
                done += n;
            }
        }
        must(&moved(done, missing), came)
    }

    /// `process_vm_readv` and `process_vm_writev`: the pages of the other side come first, and only
    /// then bytes move.
    pub(super) fn copy_between(&mut self, actor: u32, op: &Op, came: Came<'_>) -> Step {
        let (addr, len, other, remote, write) = match *op {
            Op::PvmRead {
                addr,
                len,
                target,
                remote,
            } => (addr, len, target, remote, false),
            Op::PvmWrite {
                addr,
                len,
                target,
                remote,
            } => (addr, len, target, remote, true),
            _ => unreachable!("the caller matched"),
        };
        if i64::try_from(len).is_err() {
            return must(&errno("EINVAL"), came);
        }
        let len = len.min(MOST);
        if !is_user(addr, len) {
            return must(&errno("EFAULT"), came);
        }
        let (mut done, mut next) = (0, 0);
        loop {
            let (present, missing) = self.present(other, (remote, len), &mut next, write);
            let last = missing || present.is_empty();
            for (at, n) in present {
                let part = match write {
                    false => self.take(actor, addr + done, (other, at, n)),
                    true => self.give(actor, addr + done, (other, at, n)),
                };
                done += part;
                if part < n {
                    return must(&moved(done, true), came);
                }
            }
            if last {
                return must(&moved(done, missing), came);
            }
        }
    }
    /// Returns the other side's next pieces, now present, and true if a page after them is missing.
    fn present(
        &mut self,
        other: u32,
        (remote, len): (u64, u64),
        next: &mut u64,
        write: bool,
    ) -> (Vec<Piece>, bool) {
        let mut present = Vec::new();
        while *next < len && present.len() < AT_ONCE {
            let at = remote.saturating_add(*next);
            if !self.is_open(other, at, write) {
                return (present, true);
            }
            self.make_present(other, at, write);
            let n = rest(at).min(len - *next);
            present.push((at, n));
            *next += n;
        }
        (present, false)
    }
    /// Returns true if another process may read or write this byte: a reader needs the right to
    /// read, though the processor accepts any right.
    pub(super) fn is_open(&self, process: u32, addr: u64, write: bool) -> bool {
        let page = self.processes[&process].get(&(addr / PAGE));
        let readable = page.is_some_and(|page| page.prot.contains(Prot::READ));
        (write || readable) && self.refusal(process, addr, write).is_none()
    }
    /// Moves bytes from the other side to this one and returns their number.
    fn take(&mut self, actor: u32, to: u64, (other, at, n): (u32, u64, u64)) -> u64 {
        let bytes = self.seen(other, at, n);
        let mut done = 0;
        while done < n && self.refusal(actor, to + done, true).is_none() {
            let part = rest(to + done).min(n - done);
            let range = done as usize..(done + part) as usize;
            self.put(actor, to + done, &bytes[range]);
            done += part;
        }
        done
    }
    /// Moves bytes from this side to the other and returns their number.
    fn give(&mut self, actor: u32, from: u64, (other, at, n): (u32, u64, u64)) -> u64 {
        let mut bytes = Vec::new();
        let mut done = 0;
        while done < n && self.refusal(actor, from + done, false).is_none() {
            let part = rest(from + done).min(n - done);
            bytes.extend(self.seen(actor, from + done, part));
            done += part;
        }
        self.put(other, at, &bytes);
        done
    }
}
