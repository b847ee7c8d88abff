//! Tracked writes: an access cannot see the effect of userfaultfd and of scans, but no write may be
//! missing in a scan.

use super::{model::Reference, outcome::must};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    mm::{PageCategories, RegisterMode, ScanFlags, UffdFeatures},
    replay::{Hex, Op, Outcome, Results, ScanOf},
};

impl Reference {
    /// Follows an operation on a userfaultfd that sends no messages, or on the pagemap; after any
    /// other on a userfaultfd the model is lost.
    pub(super) fn tracking(&mut self, op: &Op, came: &Outcome) -> Result<(), String> {
        match op {
            Op::Uffd(open) => {
                let features = UffdFeatures::from_bits_retain(open.features.unwrap_or(0));
                self.lost = !features.contains(UffdFeatures::WP_ASYNC);
                must(&Outcome::Ret(0), came)
            }
            Op::UffdRegister(r) => {
                self.lost |= r.mode != RegisterMode::WP.bits();
                Ok(())
            }
            Op::UffdWriteprotect(r) => {
                self.protected(r.addr, r.addr.saturating_add(r.len));
                Ok(())
            }
            Op::PagemapScan(of) => {
                let flags = ScanFlags::from_bits_retain(of.flags);
                if flags.contains(ScanFlags::WP_MATCHING) {
                    self.protected(of.start, of.end);
                }
                Ok(())
            }
            Op::UffdUnregister(_) | Op::UffdWake(_) | Op::UffdClose {} | Op::ClearRefs(_) => Ok(()),
            _ => {
                self.lost |= matches!(came, Outcome::Ret(_));
                Ok(())
            }
        }
    }
    fn protected(&mut self, start: u64, end: u64) {
        let (start, end) = (Vpn::containing(start), Vpn::containing(end));
        if let Some(range) = VpnRange::new(start, end) {
            self.written.retain(|page| !range.contains(*page));
        }
    }
    /// Notes the page that a step of process `actor` wrote; forgets pages that it may have unmapped
    /// or moved.
    pub(super) fn note_written(&mut self, actor: u32, op: &Op, came: &Outcome) {
        let keeps = matches!(
            op,
            Op::Load { .. }
                | Op::Mprotect { .. }
                | Op::Fork { .. }
                | Op::Mlock { .. }
                | Op::Munlock { .. }
                | Op::Msync { .. }
        );
        match *op {
            _ if actor != 0 || keeps || op.has_results() => {}
            Op::Store { addr, .. } if *came == Outcome::Ret(0) => {
                self.written.insert(Vpn::containing(addr));
            }
            Op::Store { .. } => {}
            _ => self.written.clear(),
        }
    }
    /// Checks the results of a scan of process 0 for all that was written.
    ///
    /// # Errors
    ///
    /// A page that was written since it was last protected, and that the scan does not report.
    pub fn scanned(&self, op: &Op, results: &Results) -> Result<(), String> {
        let Op::PagemapScan(ScanOf { start, end, .. }) = *op else {
            return Ok(());
        };
        let plain = matches!(op, Op::PagemapScan(of) if of.flags == 0
            && of.mask == PageCategories::WRITTEN.bits()
            && of.inverted.is_none()
            && of.anyof.is_none());
        let Some(regions) = results.regions.as_ref().filter(|_| plain && !self.lost) else {
            return Ok(());
        };
        let reported = |page: u64| {
            let mut all = regions.iter();
            all.any(|(Hex(start), Hex(end), _)| (*start..*end).contains(&page))
        };
        let pages = self.written.iter().map(|page| page.0 * PAGE_SIZE);
        let mut scanned = pages.filter(|page| (start..end).contains(page));
        match scanned.find(|page| !reported(*page)) {
            Some(page) => Err(format!("it does not report {page:#x}, which was written")),
            None => Ok(()),
        }
    }
}
