//! The audit of guest files: the rules that no window of an address space tells of.

use super::{attributes::PageKind, gfn::Gfn, guest_entry::GuestEntry, memslot::MemSlots, vm::Vm};
use crate::addr::VpnRange;
use std::fmt;

/// A rule of guest files that a machine breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GuestFinding {
    /// An entry is of a kind that the guest frame does not have.
    WrongKind {
        /// The guest frame: for a page of the process, the first private one of the range that it
        /// lies in.
        gfn: Gfn,
        /// The kind of the entry.
        kind: PageKind,
    },
    /// An entry shows a frame that is not the guest file's page there.
    Stale(Gfn),
    /// Windows over guest frames have begun and not ended.
    Unended(u64),
}

impl fmt::Display for GuestFinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKind { gfn, kind } => {
                write!(
                    f,
                    "guest frame {:#x} has an entry of kind {kind:?}, and is of the other",
                    gfn.0
                )
            }
            Self::Stale(gfn) => write!(
                f,
                "guest frame {:#x} has an entry of a page that its guest file does not have",
                gfn.0
            ),
            Self::Unended(count) => write!(f, "{count} windows over guest frames have not ended"),
        }
    }
}

impl Vm {
    /// Returns the number of entries of guest files' pages.
    pub fn guest_entries(&self) -> usize {
        self.guest.counts().0
    }
    /// Checks the entries and TLBs of the machine against its attributes and guest files. No fault,
    /// conversion or change of a file may be under way.
    pub fn audit_guest_memory(&self) -> Vec<GuestFinding> {
        let mut found = Vec::new();
        let (_, open) = self.guest.counts();
        found.extend((open > 0).then_some(GuestFinding::Unended(open)));
        let slots = self.current();
        let mut entries = self.guest.all();
        for tlb in self.tlbs.read().iter() {
            entries.extend(tlb.lock().guests());
        }
        for entry in entries {
            found.extend(self.wrong_kind(&entry));
            let stale = !self.is_of_its_file(&slots, &entry);
            found.extend(stale.then_some(GuestFinding::Stale(entry.gfn)));
        }
        self.audit_process_pages(&mut found);
        found
    }
    fn wrong_kind(&self, entry: &GuestEntry) -> Option<GuestFinding> {
        let (gfn, kind) = (entry.gfn, entry.kind);
        let wrong = !self.attributes.all_are(kind, gfn, Gfn(gfn.0 + 1));
        wrong.then_some(GuestFinding::WrongKind { gfn, kind })
    }
    fn is_of_its_file(&self, slots: &MemSlots, entry: &GuestEntry) -> bool {
        let slot = slots.find(entry.gfn);
        let memory = slot.and_then(|slot| Some((slot, slots.memory_of(slot)?)));
        let pages = memory.and_then(|(slot, memory)| {
            let index = memory.index(entry.gfn.0 - slot.gfn.0);
            Some((index, memory.pages()?))
        });
        pages.is_some_and(|(index, pages)| {
            let frame = pages.cache.get(index);
            frame.is_some_and(|frame| frame.pfn() == entry.pfn) && {
                let mem = pages.cache.host().mem();
                mem.generation(entry.pfn) == entry.generation
            }
        })
    }
    /// Finds pages of the process at private guest frames.
    fn audit_process_pages(&self, found: &mut Vec<GuestFinding>) {
        let mut seen = Vec::new();
        let private = self.attributes.private(Gfn(0), Gfn(u64::MAX));
        self.gates.audited(VpnRange::ALL, |store| {
            for &(first, end) in &private {
                store.in_gfns(first, end, &mut |_| seen.push(first));
            }
        });
        for tlb in self.tlbs.read().iter() {
            for &(first, end) in &private {
                let tlb = tlb.lock();
                let visit = &mut |_: &_| seen.push(first);
                tlb.process.for_each_in(0, first.0, end.0, visit);
            }
        }
        let kind = PageKind::Shared;
        found.extend(
            seen.into_iter()
                .map(|gfn| GuestFinding::WrongKind { gfn, kind }),
        );
    }
}
