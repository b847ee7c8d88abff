//! Frames whose bytes are lent: they lie in memory that other processes have mapped, until they are taken home.
//!
//! Guarantee: a frame's bytes are in one place at any time, here or in one [`Loan`]; every access of this process goes
//! there. Once taken home, nothing that others do to the loan's memory reaches the frame, and a frame is given out only
//! from home, so that its next owner finds zeros, whoever still has what mapped.

use super::{page_bytes::PageBytes, pfn::PAGE_BYTES, shared::SharedMemory};
use crate::{
    addr::Vpn,
    ctx::CallCx,
    sync::{AtomicBool, IdSource, Mutex, Ordering},
};
use std::{fmt, io, sync::Arc};

static NEXT: IdSource = IdSource::starting_at(1);

/// Whoever lends frames, and can make others give them back.
pub(crate) trait Lender: Send + Sync {
    /// Has the page given back, and its frame taken home; `false` if there is no lender any more.
    fn recall(&self, cx: &mut CallCx<'_>, page: Vpn) -> bool;
}

/// Memory that others have mapped.
pub(crate) struct Loan {
    id: u64,
    memory: SharedMemory,
    lender: Box<dyn Lender>,
    over: AtomicBool,
}

impl Loan {
    /// Memory for so many frames; `others_write`: those that have its descriptor.
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
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
    pub(crate) fn memory(&self) -> &SharedMemory {
        &self.memory
    }
    /// Nothing more is lent there.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
    pub(crate) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Where the bytes of a lent frame lie, and as which page of its lender.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) loan: Arc<Loan>,
    /// Page of the loan's memory.
    pub(crate) slot: u32,
    pub(crate) page: Vpn,
}

impl Place {
    /// First byte in the memory.
    pub(crate) fn at(&self) -> usize {
        self.slot as usize * PAGE_BYTES
    }
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.loan, &other.loan) && self.slot == other.slot
    }
    fn bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        self.loan.memory.read(self.at(), &mut bytes);
        bytes
    }
    /// Has its lender take the frame home.
    pub(crate) fn recall(&self, cx: &mut CallCx<'_>) -> bool {
        self.loan.lender.recall(cx, self.page)
    }
}

/// What is in a frame that may be lent. The lock orders accesses of this process, wherever the bytes are.
#[derive(Default)]
pub(super) struct LendableBytes {
    lent: Mutex<Option<Box<Place>>>,
    /// Empty while the frame is lent.
    home: PageBytes,
}

impl LendableBytes {
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= PAGE_BYTES, "a read leaves its page");
        match &*self.lent.lock() {
            Some(place) => place.loan.memory.read(place.at() + offset, out),
            None => self.home.read(offset, out),
        }
    }
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
    fn bytes(&self) -> [u8; PAGE_BYTES] {
        let mut bytes = [0; PAGE_BYTES];
        self.read(0, &mut bytes);
        bytes
    }
    pub(super) fn copy_from(&self, other: &Self) {
        let from = other.is_made().then(|| other.bytes());
        match from {
            Some(bytes) => self.write(0, &bytes),
            None if self.is_made() => self.write(0, &[0; PAGE_BYTES]),
            None => {}
        }
    }
    pub(super) fn equals(&self, other: &Self) -> bool {
        // One lock at a time.
        let mine = self.bytes();
        mine == other.bytes()
    }
    pub(super) fn is_zero(&self) -> bool {
        match &*self.lent.lock() {
            Some(place) => place.bytes().iter().all(|b| *b == 0),
            None => self.home.is_zero(),
        }
    }
    /// Whether anything may have been written.
    pub(super) fn is_made(&self) -> bool {
        self.lent.lock().is_some() || self.home.is_made()
    }
    pub(super) fn clear(&self) {
        let mut lent = self.lent.lock();
        *lent = None;
        self.home.clear();
    }
    /// Moves the bytes there, unless they are lent elsewhere: then that place is returned.
    pub(super) fn lend(&self, to: &Place) -> Result<(), Place> {
        let mut lent = self.lent.lock();
        match &*lent {
            Some(place) if place.is(to) => Ok(()),
            Some(place) => Err((**place).clone()),
            None => {
                let mut bytes = [0; PAGE_BYTES];
                self.home.read(0, &mut bytes);
                // All of the page: what was there before is no part of the frame.
                to.loan.memory.write(to.at(), &bytes);
                *lent = Some(Box::new(to.clone()));
                self.home.clear();
                Ok(())
            }
        }
    }
    /// Moves the bytes back from there.
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
