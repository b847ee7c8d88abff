//! The limit on locked memory.

use super::error::IoasError;
use crate::sync::{AtomicU64, Ordering};

/// The pages that I/O address spaces of one user may pin together (`RLIMIT_MEMLOCK`).
///
/// A page counts once for each map that has pinned it.
#[derive(Debug)]
pub struct LockedAccount {
    limit: u64,
    used: AtomicU64,
}

impl LockedAccount {
    /// Creates an account with a limit in pages.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }
    /// Returns the number of pages that are pinned now.
    pub fn pages(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }
    /// Counts pages that are about to be pinned, until the result is dropped.
    pub(super) fn charge(&self, pages: u64) -> Result<Charge<'_>, IoasError> {
        let more = |used: u64| used.checked_add(pages).filter(|&sum| sum <= self.limit);
        let order = Ordering::SeqCst;
        match self.used.fetch_update(order, order, more) {
            Ok(_) => Ok(Charge {
                account: self,
                pages,
            }),
            Err(_) => Err(IoasError::Locked(pages)),
        }
    }
    /// Counts pages that are no longer pinned.
    pub(super) fn uncharge(&self, pages: u64) {
        self.used.fetch_sub(pages, Ordering::SeqCst);
    }
}

/// Pages that count as pinned. Dropping this uncounts them, unless it is [kept](Self::keep).
pub(super) struct Charge<'a> {
    account: &'a LockedAccount,
    pages: u64,
}

impl Charge<'_> {
    /// Leaves the pages counted.
    pub(super) fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Charge<'_> {
    fn drop(&mut self) {
        self.account.uncharge(self.pages);
    }
}
