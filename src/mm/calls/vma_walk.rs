//! Walks over the VMAs of a range: one that passes over holes and reports the first at its end
//! (`madvise_walk_vmas`), and one that changes the VMAs and passes over holes.

use crate::addr::{Vpn, VpnRange};
use crate::mm::{guard::MmapWriteGuard, vma::Vma};

/// The result of a visit at a page.
pub(super) enum Visit {
    /// The range is done up to this page.
    Done(Vpn),
    /// Nothing is mapped from the page up to this one: the walk goes on there.
    HoleUntil(Vpn),
    /// Nothing is mapped from the page on: the walk ends, and reports this page.
    NothingAbove,
}

/// Visits the VMAs of `range`, ascending: `visit` finds the VMA at a page or above it, does the
/// part of the range that lies in it, and returns where to go on. The lock need not be held between
/// visits.
///
/// # Errors
///
/// The visit's, at once. `hole` with the first byte of a hole: of the first, after everything
/// mapped was visited; or of the last, which ends the walk, for a visit that says so.
pub(super) fn each_vma<E>(
    range: VpnRange,
    hole: impl Fn(u64) -> E,
    mut visit: impl FnMut(Vpn) -> Result<Visit, E>,
) -> Result<(), E> {
    let mut first = None;
    let mut at = range.start();
    while at < range.end() {
        at = match visit(at)? {
            Visit::Done(end) => end,
            Visit::NothingAbove => return Err(hole(at.addr())),
            Visit::HoleUntil(start) => {
                first.get_or_insert(at);
                start
            }
        };
    }
    first.map_or(Ok(()), |at| Err(hole(at.addr())))
}

/// Returns the VMA at page `at`, if `found`, the VMA there or above, is that, and the part of
/// `range` from `at` on that it holds; else the outcome of a visit that finds no VMA at the page.
pub(super) fn part_at(
    found: Option<&Vma>,
    at: Vpn,
    range: VpnRange,
) -> Result<(&Vma, VpnRange), Visit> {
    match found {
        Some(vma) if vma.start() <= at => Ok((vma, part_of(vma, at, range))),
        Some(vma) => Err(Visit::HoleUntil(vma.start())),
        None => Err(Visit::NothingAbove),
    }
}

/// Returns the part of `range` from `at` on that `vma` holds; `at` lies in both.
pub(super) fn part_of(vma: &Vma, at: Vpn, range: VpnRange) -> VpnRange {
    VpnRange::new(at, vma.end().min(range.end())).expect("vma holds at")
}

impl MmapWriteGuard<'_> {
    /// Runs `f` on the part of each VMA that lies in `range`, ascending; holes are passed over. `f`
    /// gets the start of the VMA, and returns the start of the VMA that holds the part afterwards:
    /// the VMA may have merged with its neighbours.
    pub(super) fn each_vma_in<E>(
        &mut self,
        range: VpnRange,
        mut f: impl FnMut(&mut Self, Vpn, VpnRange) -> Result<Vpn, E>,
    ) -> Result<(), E> {
        let mut at = range.start();
        while let Some(rest) = VpnRange::new(at, range.end()) {
            let Some(vma) = self.layout.vmas.find(at) else {
                break;
            };
            let Some(part) = vma.range().intersect(rest) else {
                break;
            };
            let start = vma.start();
            let start = f(self, start, part)?;
            at = self.vma(start).end();
        }
        Ok(())
    }
}
