//! The TLB of a device, the address translation cache (ATS).

use crate::{
    addr::{Vpn, VpnRange},
    extmmu::tlb::{PageSize, Tlb},
    notifier::{Access, TlbEntry, TlbPages, Translation},
    sync::Mutex,
};
use std::collections::BTreeSet;

/// The ATC of one device, with entries of every process that the device works for. Its lock is
/// taken after that of the process's IOTLB.
pub(super) struct Atc(Mutex<State>);

#[derive(Debug)]
struct State {
    entries: Tlb<TlbEntry>,
    /// Flushes that were posted and not done, for the mistake.
    posted: Vec<(u32, VpnRange)>,
    /// Refusals that the device remembers, for the mistake.
    refused: BTreeSet<Refusal>,
}

/// A page that could not be read, or not be written, under a PASID.
type Refusal = (u32, Vpn, bool);

/// An access under way: what, and under which PASID.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    pub(super) pasid: u32,
    pub(super) addr: u64,
    pub(super) access: Access,
}

impl State {
    fn flush(&mut self, pasid: u32, range: VpnRange) -> Vec<VpnRange> {
        let mut gone = Vec::new();
        self.entries
            .for_each_in(pasid, range.start().0, range.end().0, &mut |entry| {
                gone.push(entry.translation().range());
            });
        self.entries
            .remove_in(pasid, range.start().0, range.end().0);
        let is_gone = |(of, at, _): &Refusal| *of == pasid && range.contains(*at);
        self.refused.retain(|refusal| !is_gone(refusal));
        gone
    }
    fn do_posted(&mut self) {
        for (pasid, range) in std::mem::take(&mut self.posted) {
            let _gone = self.flush(pasid, range);
        }
    }
    /// Returns the entry for an access, of the ATC or, filled now, of the IOTLB.
    fn look(&mut self, pages: &TlbPages<'_>, asked: Asked) -> Option<TlbEntry> {
        let page = Vpn::containing(asked.addr);
        let allows = |entry: &TlbEntry| asked.access == Access::Read || entry.is_writable();
        let own = self
            .entries
            .get(asked.pasid, page.0)
            .copied()
            .filter(allows);
        own.or_else(|| {
            let entry = pages.get(page).filter(allows)?;
            let _evicted = self
                .entries
                .insert(asked.pasid, page.0, PageSize::Small, entry);
            Some(entry)
        })
    }
}

impl Atc {
    pub(super) fn new(entries: usize) -> Self {
        Self(Mutex::new(State {
            entries: Tlb::new(entries),
            posted: Vec::new(),
            refused: BTreeSet::new(),
        }))
    }
    pub(super) fn len(&self) -> usize {
        self.0.lock().entries.len()
    }
    /// Returns the entry for an access, of the ATC or, filled now, of the IOTLB.
    pub(super) fn look(&self, pages: &TlbPages<'_>, asked: Asked) -> Option<TlbEntry> {
        let mut state = self.0.lock();
        state.do_posted();
        state.look(pages, asked)
    }
    /// Remembers a refusal, for the mistake.
    pub(super) fn refuse(&self, asked: Asked) {
        self.0.lock().refused.insert(asked.refusal());
    }
    /// Returns true if a refusal is remembered.
    pub(super) fn refuses(&self, asked: Asked) -> bool {
        self.0.lock().refused.contains(&asked.refusal())
    }
    /// Removes the entries of a PASID in a range, and returns their pages.
    pub(super) fn flush(&self, pasid: u32, range: VpnRange) -> Vec<VpnRange> {
        let mut atc = self.0.lock();
        atc.do_posted();
        atc.flush(pasid, range)
    }
    /// Leaves a flush to be done before the next access.
    pub(super) fn post_flush(&self, pasid: u32, range: VpnRange) {
        self.0.lock().posted.push((pasid, range));
    }
    /// Shows the entries of a PASID.
    pub(super) fn show(&self, pasid: u32, visit: &mut dyn FnMut(Translation)) {
        let atc = self.0.lock();
        let mine = atc.entries.iter().filter(|(of, _)| *of == pasid);
        mine.for_each(|(_, entry)| visit(entry.translation()));
    }
}

impl Asked {
    fn refusal(self) -> Refusal {
        (
            self.pasid,
            Vpn::containing(self.addr),
            self.access == Access::Write,
        )
    }
}
