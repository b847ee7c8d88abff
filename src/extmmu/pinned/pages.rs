//! The pages of one map, each pinned once (`struct iopt_pages`).
//!
//! A page has as many users as domains that translate it and accesses that pinned it. The first
//! user pins it, the last unpins it. Copies of a map in other I/O address spaces share it.

use super::{account::LockedAccount, error::IoasError, mistake::PinMistake};
use crate::{
    addr::PAGE_SIZE,
    ctx::CallCx,
    mm::{HeldPages, Mm, PinKind},
    notifier::Access,
    sync::Mutex,
};
use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Weak},
};

/// The bytes `[addr, addr + len)` of a process.
#[derive(Debug)]
pub(super) struct Pages {
    mm: Weak<Mm>,
    /// The address of the first byte in the process.
    addr: u64,
    /// True if areas may map the pages for writing.
    pub(super) writable: bool,
    account: Arc<LockedAccount>,
    mistake: Option<PinMistake>,
    /// The pages that are pinned, by their index from the page of the first byte on.
    pinned: Mutex<BTreeMap<u64, PinnedPage>>,
}

#[derive(Debug)]
struct PinnedPage {
    page: Arc<HeldPages>,
    users: u32,
}

impl Pages {
    pub(super) fn new(
        mm: &Arc<Mm>,
        (addr, writable): (u64, bool),
        account: &Arc<LockedAccount>,
        mistake: Option<PinMistake>,
    ) -> Self {
        Self {
            mm: Arc::downgrade(mm),
            addr,
            writable,
            account: Arc::clone(account),
            mistake,
            pinned: Mutex::default(),
        }
    }
    /// Returns the address of the byte at `offset` in the process.
    pub(super) fn byte(&self, offset: u64) -> u64 {
        self.addr + offset
    }
    /// Returns how far the byte at `offset` is from the beginning of the first page.
    pub(super) fn byte_in_pages(&self, offset: u64) -> u64 {
        self.addr % PAGE_SIZE + offset
    }
    /// Returns the indices of the pages of the bytes `[offset, offset + len)`.
    pub(super) fn indices(&self, offset: u64, len: u64) -> Range<u64> {
        let page = |offset| self.byte_in_pages(offset) / PAGE_SIZE;
        page(offset)..page(offset + len - 1) + 1
    }
    /// Adds a user to each of these pages, and returns them in order. Pins those that are not.
    ///
    /// # Errors
    ///
    /// [`IoasError::Locked`], [`IoasError::Pin`], [`IoasError::NoProcess`]. No page has a user more
    /// then.
    pub(super) fn add_user(
        &self,
        cx: &mut CallCx<'_>,
        indices: Range<u64>,
    ) -> Result<Vec<Arc<HeldPages>>, IoasError> {
        let mut taken = Vec::new();
        let mut users = NewUsers {
            pages: self,
            indices: indices.start..indices.start,
        };
        for index in indices {
            taken.push(self.add_user_of(cx, index)?);
            users.indices.end = index + 1;
        }
        std::mem::forget(users);
        Ok(taken)
    }
    /// No lock is held while the page is pinned: a fault calls memory objects. If another call has
    /// pinned it meanwhile, that pin stays.
    fn add_user_of(&self, cx: &mut CallCx<'_>, index: u64) -> Result<Arc<HeldPages>, IoasError> {
        if let Some(known) = self.pinned.lock().get_mut(&index) {
            known.users += 1;
            return Ok(Arc::clone(&known.page));
        }
        let charge = self.account.charge(1)?;
        let page = Arc::new(self.pin(cx, index, PinKind::LongTerm)?);
        let mut pinned = self.pinned.lock();
        let known = pinned.entry(index).or_insert(PinnedPage { page, users: 0 });
        known.users += 1;
        if known.users == 1 {
            charge.keep();
        }
        Ok(Arc::clone(&known.page))
    }
    /// Takes a user from each of these pages; the last one unpins.
    pub(super) fn remove_user(&self, indices: Range<u64>) {
        let mut pinned = self.pinned.lock();
        for index in indices {
            let page = pinned.get_mut(&index).expect("a user had it pinned");
            page.users -= 1;
            if page.users == 0 {
                pinned.remove(&index);
                self.account.uncharge(1);
            }
        }
    }
    /// Returns the page for one transfer: as it is pinned, or by a pin of its own.
    pub(super) fn page_now(
        &self,
        cx: &mut CallCx<'_>,
        index: u64,
    ) -> Result<Arc<HeldPages>, IoasError> {
        if let Some(known) = self.pinned.lock().get(&index) {
            return Ok(Arc::clone(&known.page));
        }
        Ok(Arc::new(self.pin(cx, index, PinKind::Short)?))
    }
    /// Returns the number of pages that are pinned.
    pub(super) fn count(&self) -> u64 {
        self.pinned.lock().len() as u64
    }
    /// Pins one page.
    fn pin(&self, cx: &mut CallCx<'_>, index: u64, kind: PinKind) -> Result<HeldPages, IoasError> {
        let mm = self.mm.upgrade().ok_or(IoasError::NoProcess)?;
        let addr = self.addr - self.addr % PAGE_SIZE + index * PAGE_SIZE;
        let len = usize::try_from(PAGE_SIZE).expect("small");
        if self.mistake == Some(PinMistake::ReadsShared) && !self.writable {
            return Ok(mm.get_pages(cx, addr, len)?);
        }
        let access = if self.writable {
            Access::Write
        } else {
            Access::Read
        };
        Ok(mm.pin(cx, addr, len, access, kind)?)
    }
}

/// Maps that were dropped with their I/O address space, and not unmapped, still count until here.
impl Drop for Pages {
    fn drop(&mut self) {
        if self.mistake != Some(PinMistake::KeepsPins) {
            self.account.uncharge(self.count());
        }
    }
}

/// Pages that have a user more. Dropping this takes it from them.
struct NewUsers<'p> {
    pages: &'p Pages,
    indices: Range<u64>,
}

impl Drop for NewUsers<'_> {
    fn drop(&mut self) {
        if self.pages.mistake == Some(PinMistake::KeepsPins) {
            let pinned = self.pages.pinned.lock();
            for (_, known) in pinned.range(self.indices.clone()) {
                std::mem::forget(Arc::clone(&known.page));
            }
        } else {
            self.pages.remove_user(self.indices.clone());
        }
    }
}
