//! The lists of reclaim: frames by kind, and by recent use.
//!
//! Guarantee: a frame is on at most one list, in the order in which it was added; a free frame is
//! on none. One frame stands for a large page of private memory, and counts as all of its pages.
//! Only a machine with a swap device has lists: a machine that can reclaim nothing pays nothing.

use super::{flags::FrameFlags, queue::Queue};
use crate::{addr::Pfn, sync::Mutex};

/// One of the lists of reclaim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LruList {
    /// Private and shared memory, next to go to swap.
    InactiveAnon,
    /// Private and shared memory that was used more than once.
    ActiveAnon,
    /// Pages that can be read again, and lazily freed ones.
    InactiveFile,
    /// Pages of this kind that were used more than once.
    ActiveFile,
}

impl LruList {
    /// All lists, in the order in which reclaim visits them.
    pub(crate) const ALL: [Self; 4] = [
        Self::InactiveAnon,
        Self::ActiveAnon,
        Self::InactiveFile,
        Self::ActiveFile,
    ];
    /// Returns the list that the flags of a frame choose.
    pub(super) fn of(flags: FrameFlags) -> Self {
        let active = flags.contains(FrameFlags::ACTIVE);
        match (flags.contains(FrameFlags::SWAP_BACKED), active) {
            (true, false) => Self::InactiveAnon,
            (true, true) => Self::ActiveAnon,
            (false, false) => Self::InactiveFile,
            (false, true) => Self::ActiveFile,
        }
    }
}

/// The neighbours of a frame towards head and tail, and its list. 0 marks the end of a list, as the
/// zero page is on none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) head: u32,
    tail: u32,
    /// The number of pages for which the frame stands.
    pub(super) pages: u16,
    list: Option<u8>,
}

/// Head and tail of a list, and the number of its pages.
#[derive(Debug, Default)]
pub(super) struct Ends {
    head: u32,
    pub(super) tail: u32,
    pub(super) len: u64,
}

/// Links by frame number, the four lists, and the cost of work on them.
#[derive(Debug, Default)]
pub(super) struct Lists {
    links: Vec<Link>,
    pub(super) ends: [Ends; 4],
    pub(super) cost: LruCost,
    /// Private pages that reclaim has written to swap, in the order of their writing.
    pub(super) written: Queue<Pfn>,
}

/// The recent cost of work on the lists: pages written out, and pages that were looked at in vain.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LruCost {
    /// Cost of the lists of private and shared memory.
    pub(crate) anon: u64,
    /// Cost of the lists of files.
    pub(crate) file: u64,
}

/// All lists of a machine, under one lock.
#[derive(Debug, Default)]
pub(super) struct Lru(pub(super) Mutex<Lists>);

impl Lists {
    /// Returns the link of a frame.
    pub(super) fn link(&mut self, pfn: u32) -> &mut Link {
        let i = pfn as usize;
        if i >= self.links.len() {
            self.links.resize(i + 1, Link::default());
        }
        &mut self.links[i]
    }
    /// Returns the link of a frame that is on no list: a second place would make the list a circle.
    fn unlinked(&mut self, pfn: u32) -> &mut Link {
        let link = self.link(pfn);
        assert!(link.list.is_none(), "frame {pfn} is on a list already");
        link
    }
    /// Returns true if a frame is on this list.
    pub(super) fn is_on(&mut self, list: LruList, pfn: u32) -> bool {
        self.link(pfn).list == Some(list as u8)
    }
    /// Adds a frame that stands for so many pages to the head of a list.
    pub(super) fn push(&mut self, list: u8, pfn: u32, pages: u16) {
        let old = std::mem::replace(&mut self.ends[usize::from(list)].head, pfn);
        let link = Link {
            head: 0,
            tail: old,
            pages,
            list: Some(list),
        };
        *self.unlinked(pfn) = link;
        let ends = &mut self.ends[usize::from(list)];
        ends.len += u64::from(pages);
        match old {
            0 => ends.tail = pfn,
            old => self.link(old).head = pfn,
        }
    }
    /// Adds a frame next to another, towards the head of that one's list, if it is on one. Returns
    /// true if it is.
    pub(super) fn push_next_to(&mut self, other: u32, pfn: u32, pages: u16) -> bool {
        let Link { head, list, .. } = *self.link(other);
        let Some(list) = list else {
            return false;
        };
        if head == 0 {
            self.push(list, pfn, pages);
            return true;
        }
        *self.unlinked(pfn) = Link {
            head,
            tail: other,
            pages,
            list: Some(list),
        };
        self.link(head).tail = pfn;
        self.link(other).head = pfn;
        self.ends[usize::from(list)].len += u64::from(pages);
        true
    }
    /// Changes the number of pages for which a frame on a list stands.
    pub(super) fn set_pages(&mut self, pfn: u32, pages: u16) {
        let Link {
            list, pages: old, ..
        } = *self.link(pfn);
        if let Some(list) = list {
            self.link(pfn).pages = pages;
            let len = &mut self.ends[usize::from(list)].len;
            *len = *len + u64::from(pages) - u64::from(old);
        }
    }
    /// Removes a frame from its list. Returns true if it was on one.
    pub(super) fn remove(&mut self, pfn: u32) -> bool {
        let Link {
            head,
            tail,
            pages,
            list,
        } = *self.link(pfn);
        let Some(list) = list else {
            return false;
        };
        self.link(pfn).list = None;
        if head == 0 {
            self.ends[usize::from(list)].head = tail;
        } else {
            self.link(head).tail = tail;
        }
        if tail == 0 {
            self.ends[usize::from(list)].tail = head;
        } else {
            self.link(tail).head = head;
        }
        self.ends[usize::from(list)].len -= u64::from(pages);
        true
    }
}
