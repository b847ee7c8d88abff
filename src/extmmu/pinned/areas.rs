//! The ranges of an I/O address space (`struct io_pagetable`): areas, reserved ranges, and those
//! from which it chooses addresses. Addresses are in bytes; `last` is the last byte of a range, so
//! that one may reach the end of the 64-bit space.

use super::{error::IoasError, pages::Pages};
use crate::addr::PAGE_SIZE;
use std::{collections::BTreeMap, ops::Range, sync::Arc};

/// A range of I/O virtual addresses that maps a part of some pages.
#[derive(Clone, Debug)]
pub(super) struct Area {
    pub(super) iova: u64,
    /// The last byte.
    pub(super) last: u64,
    pub(super) pages: Arc<Pages>,
    /// The offset of the first byte among those of `pages`.
    pub(super) offset: u64,
    pub(super) writable: bool,
    pub(super) state: AreaState,
    /// The number of pins through accesses.
    pub(super) accesses: u32,
    /// The number of pins that are being made.
    pub(super) pinning: u32,
    /// Tells areas apart that have had the same range.
    pub(super) id: u64,
}

/// The phase of an area's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AreaState {
    /// The pages are being put into the domains, or taken out: only the range is taken.
    Changing,
    /// The area can be used.
    Ready,
    /// An unmapping is about to take the area: no access begins to use it.
    Refusing,
}

impl Area {
    /// The length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.last - self.iova + 1
    }
    /// Returns the part that lies in `[first, last]`, which the area meets: the offset of its first
    /// byte among those of `pages`, and its length.
    pub(super) fn part(&self, first: u64, last: u64) -> (u64, u64) {
        let start = self.iova.max(first);
        let len = self.last.min(last) - start + 1;
        (self.offset + (start - self.iova), len)
    }
    /// The indices of its pages among those of the map.
    pub(super) fn indices(&self) -> Range<u64> {
        self.pages.indices(self.offset, self.len())
    }
}

/// The ranges of an I/O address space.
#[derive(Debug, Default)]
pub(super) struct Areas {
    /// The areas, by their first addresses.
    areas: BTreeMap<u64, Area>,
    /// Reserved ranges, each with the number of its owner.
    reserved: Vec<(u64, u64, u64)>,
    /// The ranges from which addresses are chosen; all if there are none.
    allowed: Vec<(u64, u64)>,
    newest: u64,
}

/// Checks a range that is given by its first and its last byte.
pub(super) fn check_order(first: u64, last: u64) -> Result<(), IoasError> {
    match first <= last {
        true => Ok(()),
        false => Err(IoasError::Reversed { first, last }),
    }
}

/// Returns the last byte of a range.
pub(super) fn last_of(iova: u64, len: u64) -> Result<u64, IoasError> {
    if len == 0 {
        return Err(IoasError::Unaligned { iova, len });
    }
    iova.checked_add(len - 1)
        .ok_or(IoasError::Overflow { iova, len })
}

impl Areas {
    /// The areas that meet `[first, last]`, in ascending order.
    pub(super) fn meeting(&self, first: u64, last: u64) -> impl Iterator<Item = &Area> {
        let before = self.areas.range(..first).next_back();
        let before = before.filter(|(_, area)| area.last >= first);
        before
            .into_iter()
            .chain(self.areas.range(first..=last))
            .map(|(_, area)| area)
    }
    /// All areas, in ascending order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Area> {
        self.areas.values()
    }
    pub(super) fn get_mut(&mut self, iova: u64) -> Option<&mut Area> {
        self.areas.get_mut(&iova)
    }
    pub(super) fn remove(&mut self, iova: u64) -> Option<Area> {
        self.areas.remove(&iova)
    }
    /// Returns the areas that cover `[iova, last]` without a hole, each of which can be used.
    pub(super) fn covering(&self, iova: u64, last: u64) -> Result<Vec<&Area>, IoasError> {
        let mut at = iova;
        let mut found = Vec::new();
        for area in self.meeting(iova, last) {
            if area.iova > at || area.state == AreaState::Changing {
                break;
            }
            found.push(area);
            if area.last >= last {
                return Ok(found);
            }
            at = area.last + 1;
        }
        Err(IoasError::NotMapped(at))
    }
    /// Returns an error if no area may be put at `iova` (`iopt_check_iova`).
    pub(super) fn check(&self, iova: u64, len: u64, align: u64) -> Result<(), IoasError> {
        let last = last_of(iova, len)?;
        if !iova.is_multiple_of(align) || !len.is_multiple_of(align) {
            return Err(IoasError::Unaligned { iova, len });
        }
        if let Some((start, ..)) = self.reserved_in(iova, last) {
            return Err(IoasError::Reserved(start.max(iova)));
        }
        match self.meeting(iova, last).next() {
            Some(area) => Err(IoasError::Mapped(area.iova.max(iova))),
            None => Ok(()),
        }
    }
    /// Chooses an address for `len` bytes from `addr` of a process, with as much of its alignment
    /// as a page of that length may need (`iopt_alloc_iova`).
    pub(super) fn choose(&self, addr: u64, len: u64, align: u64) -> Result<u64, IoasError> {
        if len >= u64::MAX / 2 {
            return Err(IoasError::Overflow { iova: 0, len });
        }
        let whole = len.next_power_of_two();
        let natural = match addr {
            0 => whole,
            _ => whole.min(1 << addr.trailing_zeros()),
        };
        let step = natural.max(align);
        let everywhere = [(PAGE_SIZE, u64::MAX - PAGE_SIZE)];
        let allowed = if self.allowed.is_empty() {
            &everywhere[..]
        } else {
            &self.allowed
        };
        let found = allowed.iter().find_map(|&(first, last)| {
            let first = first.max(PAGE_SIZE);
            self.first_hole((first, last), len, (step, addr % PAGE_SIZE))
        });
        found.ok_or(IoasError::NoSpace(len))
    }
    /// Returns the first address in `[first, last]` for `len` free bytes that is a multiple of
    /// `step`, plus the offset in its page that the process's address has.
    fn first_hole(&self, (first, last): (u64, u64), len: u64, step: (u64, u64)) -> Option<u64> {
        let (step, offset) = step;
        let mut at = first;
        loop {
            at = at.checked_next_multiple_of(step)? | offset;
            let end = at.checked_add(len - 1).filter(|&end| end <= last)?;
            let area = self.meeting(at, end).map(|area| area.last).last();
            let taken = self.reserved_in(at, end).map(|(_, last, _)| last);
            match area.max(taken) {
                None => return Some(at),
                Some(end) => at = end.checked_add(1)?,
            }
        }
    }
    fn reserved_in(&self, first: u64, last: u64) -> Option<(u64, u64, u64)> {
        let meets = |r: &&(u64, u64, u64)| r.0 <= last && r.1 >= first;
        self.reserved.iter().find(meets).copied()
    }
    /// Reserves `[first, last]` for an owner (`iopt_reserve_iova`).
    pub(super) fn reserve(&mut self, first: u64, last: u64, owner: u64) -> Result<(), IoasError> {
        check_order(first, last)?;
        let allowed = self.allowed.iter().any(|r| r.0 <= last && r.1 >= first);
        if allowed || self.meeting(first, last).next().is_some() {
            return Err(IoasError::InUse(first));
        }
        self.reserved.push((first, last, owner));
        Ok(())
    }
    /// Frees what an owner had reserved.
    pub(super) fn unreserve(&mut self, owner: u64) {
        self.reserved.retain(|&(.., of)| of != owner);
    }
    /// Sets the ranges from which addresses are chosen (`iopt_set_allow_iova`).
    pub(super) fn allow(&mut self, ranges: Vec<(u64, u64)>) -> Result<(), IoasError> {
        for &(first, last) in &ranges {
            check_order(first, last)?;
            if self.reserved_in(first, last).is_some() {
                return Err(IoasError::InUse(first));
            }
        }
        self.allowed = ranges;
        Ok(())
    }
    /// Puts in an area whose range was [checked](Self::check), and returns it with its number.
    pub(super) fn insert(&mut self, area: Area) -> Area {
        self.newest += 1;
        let id = self.newest;
        let area = Area { id, ..area };
        self.areas.insert(area.iova, area.clone());
        area
    }
    /// Returns the number of the area that was put in last.
    pub(super) fn newest(&self) -> u64 {
        self.newest
    }
    /// Lets accesses use the area with this number again.
    pub(super) fn admit(&mut self, iova: u64, id: u64) {
        let area = self.areas.get_mut(&iova).filter(|area| area.id == id);
        if let Some(area) = area.filter(|area| area.state == AreaState::Refusing) {
            area.state = AreaState::Ready;
        }
    }
    /// Sets the phase of the area that begins at `iova`.
    pub(super) fn set_state(&mut self, iova: u64, state: AreaState) {
        if let Some(area) = self.areas.get_mut(&iova) {
            area.state = state;
        }
    }
}
