//! Huge pages of a pool, which is large enough: calls on their parts, and files of them.

use super::{
    Reference,
    outcome::{Came, Step, errno, must},
    page::{Kind, PAGE, Page},
};
use crate::{
    mm::{Advice, MapFlags, Prot},
    replay::{FileKind, Header, Op},
};
use std::ops::Range;

/// Pages of a huge page.
pub(super) const HUGE: u64 = 512;

/// Returns true if a script has a pool.
pub(super) fn has_pool(header: &Header) -> bool {
    header.huge_pages().iter().any(|&pages| pages > 0)
}

impl Page {
    /// Returns true for a huge page of a pool, for which the advice has no meaning.
    pub(super) fn is_too_large_for(&self, advice: Advice) -> bool {
        let refused = matches!(
            advice,
            Advice::Free
                | Advice::Cold
                | Advice::PageOut
                | Advice::WipeOnFork
                | Advice::GuardInstall
                | Advice::GuardRemove
        );
        self.huge && refused
    }
}

impl Reference {
    /// Returns true if a huge page of a pool reaches from before page `at` to behind it.
    fn cuts(&self, process: u32, at: u64) -> bool {
        let page = self.processes[&process].get(&at);
        !at.is_multiple_of(HUGE) && page.is_some_and(|page| page.huge)
    }
    /// Follows a call on a range that begins inside of a huge page, which is refused, or ends inside
    /// of one, from which on the model is lost; `None` for any other.
    pub(super) fn on_part(
        &mut self,
        actor: u32,
        op: &Op,
        range: &Range<u64>,
        came: Came<'_>,
    ) -> Option<Step> {
        let splits = matches!(
            op,
            Op::Munmap { .. }
                | Op::Mprotect { .. }
                | Op::Madvise {
                    advice: Advice::DontNeed | Advice::DontFork | Advice::DoFork,
                    ..
                }
        );
        if splits && self.cuts(actor, range.start) {
            return Some(must(&errno("EINVAL"), came));
        }
        if splits && self.cuts(actor, range.end) {
            self.lost = true;
            return Some(Ok(()));
        }
        None
    }
    /// Returns true if a mapping has huge pages of a pool, by its flags or its file; a file grows to
    /// the end of a mapping that may write.
    pub(super) fn is_of_pool(&mut self, op: &Op, object: Option<(usize, u64)>) -> bool {
        let Op::Mmap {
            len, prot, flags, ..
        } = *op
        else {
            return false;
        };
        let of_file =
            |(nth, _): (usize, u64)| self.objects[nth].kind == Kind::File(FileKind::Hugetlb);
        if !object.is_some_and(of_file) {
            return flags.contains(MapFlags::HUGETLB);
        }
        if let (Some((nth, index)), true) = (object, prot.contains(Prot::WRITE)) {
            let end = index * PAGE + len;
            self.objects[nth].size = self.objects[nth].size.max(end);
        }
        true
    }
}
