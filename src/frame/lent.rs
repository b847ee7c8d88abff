//! Loans: memory that other processes have mapped, in which the bytes of lent frames lie until they
//! are taken home.
//!
//! Guarantee: the bytes of a frame are in one place at any time, at home or in one [`Loan`], and
//! every access of this process goes there. After they were taken home, no store of another process
//! to the memory of the loan reaches the frame. A frame is retired only with its bytes at home, so
//! its next owner finds zeros, even if other processes still have the memory mapped.

use super::{
    host_page::HostPage, page_bytes::PageBytes, pfn::PAGE_BYTES, shared::SharedMemory,
    word::WordAccess,
};
use crate::{
    addr::Vpn,
    ctx::CallCx,
    sync::{AtomicBool, IdSource, Mutex, Ordering},
};
use std::{fmt, io, ptr::NonNull, sync::Arc};

/// Numbers of loans.
static NEXT: IdSource = IdSource::starting_at(1);

/// The lender of a loan, which can make the borrowers give pages back.
pub(crate) trait Lender: Send + Sync {
    /// Has a page given back and its frame taken home. Returns false if the lender is gone.
    fn recall(&self, cx: &mut CallCx<'_>, page: Vpn) -> bool;
}

/// A piece of memory that other processes have mapped, for frames that are lent to them.
pub(crate) struct Loan {
    id: u64,
    memory: SharedMemory,
    lender: Box<dyn Lender>,
    over: AtomicBool,
}

impl Loan {
    /// Creates memory for `pages` frames. `others_write`: processes that get its descriptor may
    /// write.
    pub(crate) fn new(
        pages: u32,
        others_write: bool,
        lender: Box<dyn Lender>,
    ) -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            id: NEXT.next(),
            memory: SharedMemory::new(pages, others_write)?,
            lender,
            over: AtomicBool::new(false),
        }))
    }
    /// Returns the number of the loan, unique in this process.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
    /// Returns the memory.
    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }
    /// Ends the loan: no more frames are lent to it.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
    /// Returns true if the loan has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// The place of a lent frame's bytes in a loan, and the page that the frame is to its lender.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The loan.
    pub(crate) loan: Arc<Loan>,
    /// The page of the loan's memory.
    pub(crate) slot: u32,
    /// The page of the lender.
    pub(crate) page: Vpn,
}

impl Place {
    /// Returns the offset of the first byte in the memory.
    pub(crate) fn at(&self) -> usize {
        self.slot as usize * PAGE_BYTES
    }
    /// Returns true if both are one place.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.loan, &other.loan) && self.slot == other.slot
    }
    fn bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        self.loan.memory.read(self.at(), &mut bytes);
        bytes
    }
    /// Has the lender take the frame home. Returns false if the lender is gone.
    pub(crate) fn recall(&self, cx: &mut CallCx<'_>) -> bool {
        self.loan.lender.recall(cx, self.page)
    }
}

/// The reason for which the bytes of a frame are not lent.
#[derive(Debug)]
pub(crate) enum Kept {
    /// They are lent to this place.
    Elsewhere(Place),
    /// They were given an address in this process, whose holders would lose them.
    AtAnAddress,
}

/// The bytes of a frame that can be lent. One lock orders the accesses of this process, at home and
/// in a loan alike.
#[derive(Default)]
pub(super) struct LendableBytes {
    lent: Mutex<Option<Box<Place>>>,
    /// The bytes while they are not lent; empty otherwise.
    home: PageBytes,
}

impl LendableBytes {
    /// Copies `out.len()` bytes from `offset` on.
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE_BYTES, "a read leaves its page");
        match &*self.lent.lock() {
            Some(place) => place.loan.memory.read(place.at() + offset, out),
            None => self.home.read(offset, out),
        }
    }
    /// Stores `bytes` from `offset` on.
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(
            offset + bytes.len() <= PAGE_BYTES,
            "a write leaves its page"
        );
        match &*self.lent.lock() {
            Some(place) => place.loan.memory.write(place.at() + offset, bytes),
            None => self.home.write(offset, bytes),
        }
    }
    /// Does an atomic access of a word, and returns what it was before.
    pub(super) fn access(&self, offset: usize, access: &WordAccess) -> u64 {
        access.check(offset);
        match &*self.lent.lock() {
            Some(place) => place.loan.memory.access(place.at() + offset, access),
            None => self.home.access(offset, access),
        }
    }
    /// Gives the bytes an address in this process, in a page that `new` makes if they have none;
    /// `None` while they are lent.
    pub(super) fn address(&self, new: impl FnOnce() -> HostPage) -> Option<NonNull<u8>> {
        let lent = self.lent.lock();
        lent.is_none().then(|| self.home.address(new))
    }
    fn bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        self.read(0, &mut bytes);
        bytes
    }
    /// Takes over a copy of the contents of another frame.
    pub(super) fn copy_from(&self, other: &Self) {
        let from = other.is_made().then(|| other.bytes());
        match from {
            Some(bytes) => self.write(0, &bytes),
            None if self.is_made() => self.write(0, &[0; PAGE_BYTES]),
            None => {}
        }
    }
    /// Returns true if the bytes are equal.
    pub(super) fn equals(&self, other: &Self) -> bool {
        // One lock at a time: two threads may compare two frames in either order.
        let mine = self.bytes();
        mine == other.bytes()
    }
    /// Returns true if all bytes are zero.
    pub(super) fn is_zero(&self) -> bool {
        match &*self.lent.lock() {
            Some(place) => place.bytes().iter().all(|b| *b == 0),
            None => self.home.is_zero(),
        }
    }
    /// Returns true if the frame may have been written: a lent frame may have been, by a borrower.
    pub(super) fn is_made(&self) -> bool {
        self.lent.lock().is_some() || self.home.is_made()
    }
    /// Releases the bytes, at home or lent.
    pub(super) fn clear(&self) {
        let mut lent = self.lent.lock();
        *lent = None;
        self.home.clear();
    }
    /// Moves the bytes to a place in a loan.
    ///
    /// # Errors
    ///
    /// [`Kept`]: they are lent elsewhere, or have an address in this process.
    pub(super) fn lend(&self, to: &Place) -> Result<(), Kept> {
        let mut lent = self.lent.lock();
        match &*lent {
            Some(place) if place.is(to) => Ok(()),
            Some(place) => Err(Kept::Elsewhere((**place).clone())),
            None if self.home.has_address() => Err(Kept::AtAnAddress),
            None => {
                let mut bytes = [0; PAGE_BYTES];
                self.home.read(0, &mut bytes);
                // All of the page: old bytes of the place are no part of the frame.
                to.loan.memory.write(to.at(), &bytes);
                *lent = Some(Box::new(to.clone()));
                self.home.clear();
                Ok(())
            }
        }
    }
    /// Moves the bytes back from a place, if they are there.
    pub(super) fn take_home(&self, from: &Place) {
        let mut lent = self.lent.lock();
        if lent.as_ref().is_some_and(|place| place.is(from)) {
            let bytes = from.bytes();
            if bytes.iter().any(|b| *b != 0) {
                self.home.write(0, &bytes);
            }
            *lent = None;
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan")
            .field("id", &self.id)
            .field("memory", &self.memory)
            .field("over", &self.is_over())
            .finish_non_exhaustive()
    }
}
