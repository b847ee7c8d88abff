//! A page of the model, and the objects behind pages.

use crate::{
    error::FaultError,
    file::Seals,
    mm::Prot,
    replay::{FileKind, Header},
};
use std::collections::BTreeMap;

/// Bytes of a page that are not 0, by offset.
pub(super) type Bytes = BTreeMap<u16, u8>;

/// The state of a page after `MADV_FREE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Freed {
    /// The page is in use.
    No,
    /// The page was freed lazily and is still in memory.
    Lazily,
    /// Memory pressure came since: the page reads as before or as zeros.
    Perhaps,
    /// A write came after the pressure: bytes that the model does not know may be anything.
    Hazy,
}

/// A mapped page.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) prot: Prot,
    /// Object and index; `None`: private memory without an object.
    pub(super) object: Option<(usize, u64)>,
    pub(super) shared: bool,
    /// Bytes of private memory or of a private copy. `None`: zeros, or the bytes of the object.
    pub(super) own: Option<Bytes>,
    pub(super) guard: bool,
    pub(super) no_fork: bool,
    pub(super) wipe: bool,
    /// The mapping never gets the right to write: it is shared, and its file was sealed or is open
    /// for reading alone.
    pub(super) read_only: bool,
    /// The attachment of a segment that the page is a part of.
    pub(super) attachment: Option<u32>,
    /// Rights and place are final (`mseal`).
    pub(super) sealed: bool,
    /// Reclaim may drop the page, written or not.
    pub(super) droppable: bool,
    /// The page is a part of a huge page of a pool.
    pub(super) huge: bool,
    /// The page stays in memory.
    pub(super) locked: bool,
    pub(super) freed: Freed,
    /// The page was not used since the last memory pressure.
    pub(super) idle: bool,
}

impl Page {
    pub(super) fn new(prot: Prot, object: Option<(usize, u64)>, shared: bool) -> Self {
        Self {
            prot,
            object,
            shared,
            own: None,
            guard: false,
            no_fork: false,
            wipe: false,
            read_only: false,
            attachment: None,
            sealed: false,
            droppable: false,
            huge: false,
            locked: false,
            freed: Freed::No,
            idle: false,
        }
    }
    /// Drops the private bytes; the object shows again.
    pub(super) fn clear(&mut self) {
        (self.own, self.freed) = (None, Freed::No);
    }
    /// Returns the page that `mremap` leaves behind, and that a mapping grows by.
    pub(super) fn fresh(&self) -> Self {
        Self {
            own: None,
            guard: false,
            freed: Freed::No,
            ..self.clone()
        }
    }
    pub(super) fn allows(&self, write: bool) -> bool {
        match write {
            true => self.prot.contains(Prot::WRITE),
            false => !self.prot.is_empty(),
        }
    }
}

/// The object behind shared and file pages.
#[derive(Clone, Debug)]
pub(super) struct Object {
    pub(super) kind: Kind,
    /// Size in bytes.
    pub(super) size: u64,
    /// The known pages in memory, with their bytes.
    pub(super) pages: BTreeMap<u64, Bytes>,
    /// Memory pressure came: writeback may have zeroed bytes beyond the end of a disk file.
    pub(super) tail_perhaps: bool,
    /// The commit limit counts all of the object.
    pub(super) promised: bool,
    /// The seals of shared memory; `None`: the object takes none.
    pub(super) seals: Option<Seals>,
}

/// Returns the seals of a new file; `None`: a file of its kind takes none.
fn seals_at_first(kind: FileKind) -> Option<Seals> {
    match kind {
        FileKind::Sealable => Some(Seals::empty()),
        FileKind::Disk | FileKind::Xip => None,
        // Memory that was made without the right to take seals has the one against them.
        _ => Some(Seals::SEAL),
    }
}

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Shared anonymous memory: the object goes with its last page.
    Nameless,
    /// A segment of System V: it goes with its last page once it is removed.
    Segment {
        removed: bool,
    },
    File(FileKind),
}

impl Object {
    /// Returns the files of a script, by name, with the contents that the [`Header`] describes.
    pub(super) fn files(header: &Header) -> (Vec<Self>, BTreeMap<String, usize>) {
        let one = |file: &crate::replay::FileSpec| {
            let byte = |page| u8::try_from(page % 200 + 1).expect("at most 200");
            // A file of huge pages begins as a hole.
            let pages = match file.kind {
                FileKind::Hugetlb => 0..0,
                _ => 0..file.size.div_ceil(PAGE),
            };
            Self {
                kind: Kind::File(file.kind),
                size: file.size,
                tail_perhaps: false,
                promised: false,
                seals: seals_at_first(file.kind),
                pages: pages.map(|p| (p, Bytes::from([(0, byte(p))]))).collect(),
            }
        };
        let objects = header.files.values().map(one).collect();
        let names = header.files.keys().cloned().zip(0..).collect();
        (objects, names)
    }
    pub(super) fn reaches(&self, index: u64) -> bool {
        index < self.size.div_ceil(PAGE)
    }
    /// Zeroes the bytes of `[from, to)` and removes whole pages.
    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.pages.retain(|&index, bytes| {
            let first = index * PAGE;
            let gone = |offset: u16| (from..to).contains(&(first + u64::from(offset)));
            bytes.retain(|&offset, _| !gone(offset));
            from > first || to < first + PAGE
        });
    }
    fn is_disk(&self) -> bool {
        self.kind == Kind::File(FileKind::Disk)
    }
    /// Zeroes the bytes of `[from, to)` and removes no page.
    fn zero(&mut self, from: u64, to: u64) {
        let index = from / PAGE;
        if let Some(bytes) = self.pages.get_mut(&index) {
            bytes.retain(|&offset, _| !(from..to).contains(&(index * PAGE + u64::from(offset))));
        }
    }
    /// `ftruncate`. A cut zeroes the rest of the last page, for most files even at an unchanged
    /// size; a disk file that grows loses the bytes beyond its end.
    pub(super) fn resize(&mut self, size: u64) {
        if size > self.size && self.is_disk() {
            self.drop_tail();
        }
        let is_cut = match self.kind {
            Kind::File(FileKind::Xip) => size < self.size,
            _ => size <= self.size,
        };
        if is_cut {
            self.cut(size, u64::MAX);
            self.tail_perhaps = false;
        }
        self.size = size;
    }
    /// `fallocate` with `FALLOC_FL_PUNCH_HOLE`. Of a disk file, nothing after the page with its end
    /// changes.
    pub(super) fn punch(&mut self, from: u64, to: u64) {
        if !self.is_disk() {
            self.cut(from, to);
        } else if from < self.size {
            let last = self.size.next_multiple_of(PAGE);
            self.cut(from, if to > self.size { last } else { to });
        }
    }
    /// Writes one byte. A disk file that grows by it loses the bytes beyond its end.
    pub(super) fn write(&mut self, at: u64, byte: u8) {
        if at > self.size && self.is_disk() {
            self.zero(self.size, at.min(self.size.next_multiple_of(PAGE)));
            // The rest of the tail lies after the byte, in the same page: a full page has none.
            self.tail_perhaps &= at / PAGE == self.size / PAGE;
        }
        self.size = self.size.max(at + 1);
        let (index, offset) = split(at);
        let bytes = self.pages.entry(index).or_default();
        match byte {
            0 => bytes.remove(&offset),
            _ => bytes.insert(offset, byte),
        };
    }
    /// Returns the bytes beyond the end in the last page: the page, and their first offset.
    pub(super) fn tail(&self) -> Option<(u64, u16)> {
        let (index, offset) = split(self.size);
        (self.is_disk() && offset > 0).then_some((index, offset))
    }
    /// Zeroes the tail.
    pub(super) fn drop_tail(&mut self) {
        if self.tail().is_none() {
            return;
        }
        self.zero(self.size, self.size.next_multiple_of(PAGE));
        self.tail_perhaps = false;
    }
    /// Returns the offset from which bytes are either unchanged or zeros.
    pub(super) fn uncertain(&self, index: u64) -> Option<u16> {
        let (last, offset) = self.tail().filter(|_| self.tail_perhaps)?;
        (last == index).then_some(offset)
    }
}

pub(super) const PAGE: u64 = crate::addr::PAGE_SIZE;

/// Returns page number and offset of a byte address.
pub(super) fn split(addr: u64) -> (u64, u16) {
    let offset = u16::try_from(addr % PAGE).expect("less than a page");
    (addr / PAGE, offset)
}

/// Returns the page numbers of `[addr, addr + len)`; `None` if the range begins inside of a page,
/// is empty or is too long.
pub(super) fn pages(addr: u64, len: u64) -> Option<std::ops::Range<u64>> {
    let n = len.div_ceil(PAGE);
    let first = addr / PAGE;
    (addr.is_multiple_of(PAGE) && len > 0 && n < 1 << 14).then(|| first..first + n)
}

/// A process: its pages by number.
pub(super) type Pages = BTreeMap<u64, Page>;

/// Returns the reason to refuse an access, or `None`.
pub(super) fn refusal(
    page: Option<&Page>,
    objects: &[Object],
    addr: u64,
    write: bool,
) -> Option<FaultError> {
    let Some(page) = page else {
        return Some(FaultError::NotMapped(addr));
    };
    if !page.allows(write) {
        return Some(FaultError::Denied(addr));
    }
    if page.guard {
        return Some(FaultError::Guarded(addr));
    }
    let beyond = page
        .object
        .is_some_and(|(o, index)| !objects[o].reaches(index));
    beyond.then_some(FaultError::Beyond(addr))
}
