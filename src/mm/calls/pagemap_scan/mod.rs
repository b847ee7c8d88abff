//! `PAGEMAP_SCAN`: reports pages by category, and write-protects those that it reports.
//!
//! A page is *written* if it does not have the mark of write protection: of memory that is
//! registered with an asynchronous userfaultfd, the pages that were written since the last scan.
//! What a device writes counts as well: the window of the scan takes its translations, so it must
//! fault again, and that lifts the mark.
//!
//! | file | holds |
//! | --- | --- |
//! | `args` | arguments and results |
//! | `scanner` | a scan that is going on |
//! | `pooled` | … over huge pages of a pool |
//! | `walk` | the page table as a scan walks it |

mod args;
mod pooled;
mod scanner;
mod walk;

pub use args::{PageRegion, Scan, ScanArgs};

use crate::mm::{guard::MmapSharedClaim, space::Mm};
use crate::{addr::VpnRange, ctx::CallCx, error::ScanError, notifier::Event};
use args::check;
use scanner::{Part, Scanner, Stop};

impl Mm {
    /// Scans `[start, end)` (`do_pagemap_scan`). With [`ScanFlags::WP_MATCHING`] one window opens
    /// over all of the range, and every page that is reported and written gets the mark of write
    /// protection, under the lock under which it was read: no write is lost or reported twice.
    ///
    /// [`ScanFlags::WP_MATCHING`]: crate::mm::ScanFlags::WP_MATCHING
    ///
    /// # Errors
    ///
    /// [`ScanError`]. [`ScanError::NotTracked`]: the pages below were protected.
    ///
    /// # Examples
    ///
    /// ```
    /// use emmu::{PAGE_SIZE, mm::*};
    /// # let machine = emmu::Machine::new(Default::default());
    /// # let mut thread = machine.enter()?;
    /// # let mut cx = thread.cx();
    /// # let mm = emmu::Mm::new(&machine);
    ///
    /// let at = mm.mmap(&mut cx, &MmapArgs::anonymous(8 * PAGE_SIZE))?;
    /// let uffd = mm.userfaultfd();
    /// uffd.api(Userfault::VERSION, UffdFeatures::WP_ASYNC)?; // writes are tracked, without messages
    /// uffd.register(&mut cx, at, 8 * PAGE_SIZE, RegisterMode::WP)?;
    /// let written = ScanArgs {
    ///     start: at,
    ///     end: at + 8 * PAGE_SIZE,
    ///     flags: ScanFlags::WP_MATCHING,
    ///     regions: 64, // at most
    ///     pages: 0,    // no limit
    ///     inverted: PageCategories::empty(),
    ///     mask: PageCategories::WRITTEN,
    ///     any_of: PageCategories::empty(),
    ///     reported: PageCategories::WRITTEN,
    /// };
    /// mm.pagemap_scan(&mut cx, &written)?; // protects all pages
    /// mm.store(&mut cx, at + PAGE_SIZE, 1)?;
    /// let found = mm.pagemap_scan(&mut cx, &written)?.regions;
    /// assert_eq!((found.len(), found[0].start), (1, at + PAGE_SIZE));
    /// assert!(mm.pagemap_scan(&mut cx, &written)?.regions.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn pagemap_scan(&self, cx: &mut CallCx<'_>, args: &ScanArgs) -> Result<Scan, ScanError> {
        let range = check(args)?;
        let mut scan = Scanner::new(args, self.machine().mem());
        let mut end = range.map_or(args.start, |range| range.end().addr());
        let mut rest = range;
        while let Some(now) = rest {
            rest = match self.scan_once(cx, now, &mut scan) {
                Ok(()) => None,
                Err(Stop::Failed(why)) => return Err(why),
                Err(Stop::Full(at)) => {
                    scan.flush();
                    if scan.is_done() {
                        end = at.addr();
                        break;
                    }
                    VpnRange::new(at, now.end())
                }
            };
        }
        scan.flush();
        Ok(Scan {
            regions: scan.out,
            end,
        })
    }
    fn scan_once(
        &self,
        cx: &mut CallCx<'_>,
        range: VpnRange,
        scan: &mut Scanner<'_>,
    ) -> Result<(), Stop> {
        let g = self.lock_shared_over(cx, Some(range));
        let parts: Vec<Part> = g
            .layout
            .vmas
            .range(range)
            .map(|v| Part::of(v, range))
            .collect();
        let claim = MmapSharedClaim::new(self, &g, range);
        drop(g);
        let mut lease = claim.lease(cx);
        let scanned = match scan.protects() {
            true => {
                let mut window = lease.window(range, Event::ProtectionVma);
                parts
                    .iter()
                    .try_for_each(|part| scan.part(&mut window, part))
            }
            false => parts
                .iter()
                .try_for_each(|part| scan.part(&mut lease, part)),
        };
        lease.settle_exports();
        scanned
    }
}
