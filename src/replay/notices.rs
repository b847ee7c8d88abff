//! The invalidations that process 0 receives, step by step.

use super::{
    came::failed,
    hex::Hex,
    observe::notice,
    script::{Notified, Outcome},
};
use crate::{
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    error::Errno,
    extmmu::{Recorded, Recorder},
    mm::{Mm, Pte},
};
use std::{collections::BTreeMap, iter, ops::Range, sync::Arc};

/// The invalidations within the arena of a script.
pub(super) struct Notices {
    recorder: Arc<Recorder>,
    arena: VpnRange,
    /// Those of the pages that the last operation has moved, page by page.
    moved: Vec<Vec<Notified>>,
}

impl Notices {
    pub(super) fn new(recorder: Arc<Recorder>, arena: Range<u64>) -> Self {
        let arena = VpnRange::new(Vpn::containing(arena.start), Vpn::containing(arena.end));
        Self {
            recorder,
            arena: arena.expect("a header with an empty arena is refused"),
            moved: Vec::new(),
        }
    }
    /// Returns the observed addresses.
    pub(super) fn arena(&self) -> VpnRange {
        self.arena
    }
    /// Drops the invalidations so far.
    pub(super) fn forget(&self) {
        let _notices = self.recorder.take();
    }
    /// Returns the invalidations since the last call. Those of pages that moved come in the order
    /// of `recorded`, if they can: see [`in_order_of`].
    pub(super) fn take(&mut self, recorded: &[Notified]) -> Vec<Notified> {
        let mut notified = in_order_of(recorded, std::mem::take(&mut self.moved));
        notified.extend(self.since());
        notified
    }
    fn since(&self) -> Vec<Notified> {
        let all = self.recorder.take();
        let here = all
            .iter()
            .filter(|t: &&Recorded| self.arena.overlaps(t.range()));
        here.map(notice).collect()
    }
    /// Migrates page after page and returns the number of moved pages.
    ///
    /// The kernel moves frames. A process that is named for one may have given up its table for the
    /// page before: then the page moves from another one, which has the frame at the same address.
    pub(super) fn migrate(
        &mut self,
        cx: &mut CallCx<'_>,
        processes: &BTreeMap<u32, Arc<Mm>>,
        moves: &[(u32, Hex)],
    ) -> Outcome {
        let mut count = 0;
        let frame = |cx: &mut CallCx<'_>, mm: &Mm, Hex(addr): Hex| {
            let pte = mm.walker(cx).pte(Vpn::containing(addr));
            match pte {
                Pte::Present { pfn, .. } => Some(pfn),
                _ => None,
            }
        };
        let first = moves.iter();
        let first = first.map(|&(process, addr)| frame(cx, &processes[&process], addr));
        let before: Vec<_> = first.collect();
        for (&(process, addr), before) in moves.iter().zip(before) {
            let named = &processes[&process];
            let has = |mm: &&Arc<Mm>| before.is_some() && frame(cx, mm, addr) == before;
            let mm = iter::once(named).chain(processes.values()).find(has);
            match mm.unwrap_or(named).migrate(cx, addr.0) {
                Ok(to) => count += u64::from(to.is_some()),
                Err(_) => return failed(Errno::ENOMEM),
            }
            let its_own = self.since();
            self.moved.push(its_own);
        }
        Outcome::Ret(count)
    }
}

/// Puts the invalidations of one page after those of another in the order of a recording.
///
/// The kernel moves pages in an order of its own, which only their windows show. Windows of two
/// pages may begin at one address, as with a page that a process has and one that its child has in
/// the same place: a recorder cannot tell which of them came first, and names them in one of the
/// possible orders. So the pages may come in any order, but all windows of a page come in theirs.
fn in_order_of(recorded: &[Notified], mut pages: Vec<Vec<Notified>>) -> Vec<Notified> {
    let mut ordered = Vec::new();
    while !pages.is_empty() {
        let rest = recorded.get(ordered.len()..).unwrap_or_default();
        let fitting = (0..pages.len()).filter(|&nth| rest.starts_with(&pages[nth]));
        // Of those that fit, the one with the most windows, and of these the first.
        let next = fitting.rev().max_by_key(|&nth| pages[nth].len());
        ordered.extend(pages.remove(next.unwrap_or(0)));
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::{Notified, in_order_of};
    use crate::replay::Notice;

    fn window(start: u64, end: u64) -> Notified {
        let notice = Notice::Unmap;
        Notified { notice, start, end }
    }

    #[test]
    fn pages_come_in_the_recorded_order() {
        let (small, large, two) = (window(8, 9), window(8, 16), window(1, 2));
        let recorded = [large, two, small, small];
        let ordered = in_order_of(&recorded, vec![vec![small], vec![large], vec![two, small]]);
        assert_eq!(ordered, recorded);
    }

    #[test]
    fn windows_of_one_page_keep_their_order() {
        let (low, high) = (window(1, 2), window(3, 4));
        let ordered = in_order_of(&[low, high], vec![vec![high, low]]);
        assert_eq!(ordered, [high, low]);
        let other = in_order_of(&[low], vec![vec![high], vec![low]]);
        assert_eq!(
            other,
            [low, high],
            "what was not recorded comes after the rest"
        );
    }
}
