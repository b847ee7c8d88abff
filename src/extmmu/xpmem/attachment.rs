//! Attachments: pages of a segment, as memory of an importer's partition (`xpmem_attach`).

use super::{
    config::XpmemMistake,
    error::XpmemError,
    fault::{Delivery, Here, PageRequest},
    owner::Owner,
    partition::Partition,
    segment::{Parent, SegId, Segment},
    serial::fresh,
};
use crate::{
    addr::{PAGE_SIZE, Vpn, VpnRange, by_page, within_page},
    ctx::CallCx,
    notifier::{Access, Cached},
};
use std::sync::Arc;

/// Pages of a segment in a partition.
///
/// Dropping an attachment detaches it, and ends the segments that were made of it. The entries that
/// partitions still have of the pages go with the next recall.
#[derive(Debug)]
pub struct Attachment {
    id: u64,
    owner: Arc<Owner>,
    partition: Arc<Partition>,
    segment: SegId,
    of: Arc<Segment>,
    range: VpnRange,
}

impl Owner {
    /// Attaches `pages` pages of a segment, from its page `first` on, in a partition (`xpmem_get`
    /// and `xpmem_attach`).
    ///
    /// # Errors
    ///
    /// [`XpmemError`]: the segment is gone or smaller, or the partition is cut off.
    pub fn import(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        segment: SegId,
        first: u64,
        pages: u64,
    ) -> Result<Attachment, XpmemError> {
        let of = self.segment(segment)?;
        let range = part(of.range, first, pages)?;
        if partition.is_cut_off() {
            return Err(XpmemError::CutOff(partition.id()));
        }
        self.introduce(partition);
        Ok(Attachment {
            id: fresh(),
            owner: Arc::clone(self),
            partition: Arc::clone(partition),
            segment,
            of,
            range,
        })
    }
}

/// Returns `pages` pages of `whole`, from its page `first` on.
fn part(whole: VpnRange, first: u64, pages: u64) -> Result<VpnRange, XpmemError> {
    let end = first.checked_add(pages).filter(|e| *e <= whole.pages());
    let range =
        end.and_then(|end| VpnRange::new(whole.start().plus(first), whole.start().plus(end)));
    range.ok_or(XpmemError::Range(Vpn(first).addr()))
}

impl Attachment {
    /// Returns the number of pages.
    pub fn pages(&self) -> u64 {
        self.range.pages()
    }
    /// Returns the partition that it is attached in.
    pub fn partition(&self) -> &Arc<Partition> {
        &self.partition
    }
    /// Exports part of the attachment to others, as a segment of its own.
    ///
    /// The memory stays that of the first owner: faults ask that owner for pages, and that owner
    /// recalls them. The new segment ends with this attachment.
    ///
    /// # Errors
    ///
    /// [`XpmemError`]: the segment below is gone, or smaller.
    pub fn make(&self, first: u64, pages: u64, access: Access) -> Result<SegId, XpmemError> {
        let below = self.below()?;
        if access == Access::Write && below.access == Access::Read {
            return Err(XpmemError::ReadOnly(self.segment));
        }
        let range = part(self.range, first, pages)?;
        let parent = Parent {
            segment: self.segment,
            attachment: self.id,
        };
        let segment = Segment::new(range, access, Some(parent));
        self.owner.segments.write().add_made(segment, parent)
    }
    /// Returns the segment that was attached, unless it is gone.
    fn below(&self) -> Result<&Segment, XpmemError> {
        let there = self.of.is_there();
        there
            .then_some(&*self.of)
            .ok_or(XpmemError::NoSegment(self.segment))
    }
    /// Loads bytes from byte `at` of the attachment on; the bytes of one page are loaded at once.
    ///
    /// # Errors
    ///
    /// [`XpmemError`]; the bytes before the page that failed have been loaded.
    #[inline]
    pub fn read(&self, cx: &mut CallCx<'_>, at: u64, out: &mut [u8]) -> Result<(), XpmemError> {
        let place = within_page(at, out.len());
        let hit = place.and_then(|(_, offset)| {
            self.hit(at, |cached, page| {
                self.owner.gate.follow(cached, page)?.read(offset, out);
                Some(())
            })
        });
        match hit {
            Some(()) => Ok(()),
            None => self.read_slowly(cx, at, out),
        }
    }
    #[cold]
    #[inline(never)]
    fn read_slowly(&self, cx: &mut CallCx<'_>, at: u64, out: &mut [u8]) -> Result<(), XpmemError> {
        by_page(at, out, |nth, offset, part| {
            let from = nth.addr() + offset as u64;
            self.touch(cx, from, Access::Read, |cached, page| {
                let view = self.owner.gate.follow(cached, page)?;
                view.read(offset, part);
                Some(())
            })
        })
    }
    /// Stores bytes from byte `at` of the attachment on; the bytes of one page are stored at once.
    ///
    /// # Errors
    ///
    /// [`XpmemError`]; the bytes before the page that failed have been stored.
    pub fn write(&self, cx: &mut CallCx<'_>, at: u64, bytes: &[u8]) -> Result<(), XpmemError> {
        by_page(at, bytes, |nth, offset, part| {
            let from = nth.addr() + offset as u64;
            self.touch(cx, from, Access::Write, |cached, page| {
                let mut view = self.owner.gate.follow_mut(cached, page)?;
                if self.owner.made(XpmemMistake::LostDirty) {
                    view.write_deferring_dirty(offset, part);
                } else {
                    view.write(offset, part);
                }
                Some(())
            })
        })
    }
    /// Runs `f` on the partition's entry for byte `at`, to be read, if there is one and the segment
    /// is there: all that most accesses are, so it is apart from all else.
    ///
    /// With the partition's entries locked: a removal ends the segment, then recalls, and the
    /// partition may have the page again by another segment.
    #[inline(always)]
    fn hit(&self, at: u64, f: impl FnOnce(&Cached, Vpn) -> Option<()>) -> Option<()> {
        let page = self.range.start().0.checked_add(at / PAGE_SIZE).map(Vpn)?;
        if !self.range.contains(page) {
            return None;
        }
        let key = (self.owner.id, page);
        let use_it = |cached: &Cached| self.of.is_there().then(|| f(cached, page))?;
        self.partition.with_entry(key, use_it).ok()?
    }
    /// Runs `f` on the partition's entry for byte `at`, and faults for as long as there is none
    /// that `f` accepts.
    fn touch(
        &self,
        cx: &mut CallCx<'_>,
        at: u64,
        access: Access,
        mut f: impl FnMut(&Cached, Vpn) -> Option<()>,
    ) -> Result<(), XpmemError> {
        loop {
            let page = self.page(at, access)?;
            let key = (self.owner.id, page);
            let mut use_it = |cached: &Cached| self.of.is_there().then(|| f(cached, page))?;
            let hit = self.partition.with_entry(key, &mut use_it);
            if hit.map_err(XpmemError::CutOff)?.is_some() {
                return Ok(());
            }
            self.fault(cx, at, access, &mut Here)?;
        }
    }
    /// Returns the page of byte `at`, if the segment still allows the access.
    #[inline]
    fn page(&self, at: u64, access: Access) -> Result<Vpn, XpmemError> {
        let page = self.range.start().0.checked_add(at / PAGE_SIZE).map(Vpn);
        let page = page.filter(|p| self.range.contains(*p));
        let page = page.ok_or(XpmemError::Range(at))?;
        let segment = self.below()?;
        if access == Access::Write && segment.access == Access::Read {
            return Err(XpmemError::ReadOnly(self.segment));
        }
        Ok(page)
    }
    /// Faults: makes the partition's entry for byte `at`.
    #[cold]
    #[inline(never)]
    pub(super) fn fault(
        &self,
        cx: &mut CallCx<'_>,
        at: u64,
        access: Access,
        delivery: &mut dyn Delivery,
    ) -> Result<(), XpmemError> {
        let page = self.page(at, access)?;
        let request = PageRequest {
            partition: &self.partition,
            of: &self.of,
            page,
            access,
        };
        let made = self.owner.fault(cx, &request, delivery);
        made.map_err(|e| e.at(at, self.segment))
    }
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) fn segment(&self) -> SegId {
        self.segment
    }
    /// Returns the pages, and the access that the segment allows.
    #[cfg(all(feature = "remote", target_os = "linux"))]
    pub(super) fn extent(&self) -> Result<(VpnRange, Access), XpmemError> {
        Ok((self.range, self.below()?.access))
    }
    /// Detaches (`xpmem_detach`), and removes the segments that were made of the attachment, with
    /// all that were made of these: when this returns, no importer has an entry of their pages
    /// through them.
    pub fn detach(self, cx: &mut CallCx<'_>) {
        let gone = self.owner.segments.write().end_made_of(self.id);
        self.owner.recall_ended(cx, &gone);
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let gone = self.owner.segments.write().end_made_of(self.id);
        self.owner.forget_ended(&gone);
    }
}
