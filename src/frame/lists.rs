//! The lists that reclaim works through: who was used lately, who was not.
//!
//! Guarantee: a frame is on one list at most, in the order in which it came there; a free frame is on none. Lists are
//! kept only on a machine that has a swap device: where nothing can be given up, nobody pays for them.

use super::flags::FrameFlags;
use crate::sync::Mutex;

/// A list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LruList {
    /// Private and shared memory, next to go to swap.
    InactiveAnon,
    /// Private and shared memory, used more than once.
    ActiveAnon,
    /// Pages that can be had again, and lazily freed ones.
    InactiveFile,
    /// The same, used more than once.
    ActiveFile,
}

impl LruList {
    pub(crate) const ALL: [Self; 4] = [
        Self::InactiveAnon,
        Self::ActiveAnon,
        Self::InactiveFile,
        Self::ActiveFile,
    ];
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

/// A frame's neighbours towards head and tail, and its list; 0 is the end of a list, as the zero page is on none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Link {
    pub(super) head: u32,
    tail: u32,
    list: Option<u8>,
}

#[derive(Debug, Default)]
pub(super) struct Ends {
    head: u32,
    pub(super) tail: u32,
    pub(super) len: u64,
}

#[derive(Debug, Default)]
pub(super) struct Lists {
    links: Vec<Link>,
    pub(super) ends: [Ends; 4],
    pub(super) cost: LruCost,
}

/// What work on the lists has cost of late: pages written out and pages looked at for nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LruCost {
    pub(crate) anon: u64,
    pub(crate) file: u64,
}

/// All lists of a machine.
#[derive(Debug, Default)]
pub(super) struct Lru(pub(super) Mutex<Lists>);

impl Lists {
    pub(super) fn link(&mut self, pfn: u32) -> &mut Link {
        let i = pfn as usize;
        if i >= self.links.len() {
            self.links.resize(i + 1, Link::default());
        }
        &mut self.links[i]
    }
    pub(super) fn push(&mut self, list: u8, pfn: u32) {
        let old = std::mem::replace(&mut self.ends[usize::from(list)].head, pfn);
        let link = Link {
            head: 0,
            tail: old,
            list: Some(list),
        };
        *self.link(pfn) = link;
        let ends = &mut self.ends[usize::from(list)];
        ends.len += 1;
        match old {
            0 => ends.tail = pfn,
            old => self.link(old).head = pfn,
        }
    }
    /// Says whether it was on a list.
    pub(super) fn remove(&mut self, pfn: u32) -> bool {
        let Link { head, tail, list } = *self.link(pfn);
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
        self.ends[usize::from(list)].len -= 1;
        true
    }
}
