//! Frames whose bytes are lent: they lie in memory that other processes have mapped, until they are taken home.
//!
//! Guarantee: a frame's bytes are in one place at any time, here or in one [`Loan`]; every access of this process goes
//! there. Once taken home, nothing that others do to the loan's memory reaches the frame, and a frame is given out only
//! from home, so that its next owner finds zeros, whoever still has what mapped.

use super::{
    PhysMem, SharedMemory,
    contents::{Cell, LEN, Page},
};
use crate::ctx::CallCx;

use crate::{
    addr::{Pfn, Vpn},
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
        self.slot as usize * LEN
    }
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.loan, &other.loan) && self.slot == other.slot
    }
    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
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
pub(super) struct Spot {
    lent: Mutex<Option<Box<Place>>>,
    /// Empty while the frame is lent.
    home: Cell,
}

impl Spot {
    pub(super) fn read(&self, offset: usize, out: &mut [u8]) {
        assert!(offset + out.len() <= LEN, "a read leaves its page");
        match &*self.lent.lock() {
            Some(place) => place.loan.memory.read(place.at() + offset, out),
            None => self.home.read(offset, out),
        }
    }
    pub(super) fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= LEN, "a write leaves its page");
        match &*self.lent.lock() {
            Some(place) => place.loan.memory.write(place.at() + offset, bytes),
            None => self.home.write(offset, bytes),
        }
    }
    fn bytes(&self) -> [u8; LEN] {
        let mut bytes = [0; LEN];
        self.read(0, &mut bytes);
        bytes
    }
    pub(super) fn copy_from(&self, other: &Self) {
        let from = other.is_made().then(|| other.bytes());
        match from {
            Some(bytes) => self.write(0, &bytes),
            None if self.is_made() => self.write(0, &[0; LEN]),
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
    fn lend(&self, to: &Place) -> Result<(), Place> {
        let mut lent = self.lent.lock();
        match &*lent {
            Some(place) if place.is(to) => Ok(()),
            Some(place) => Err((**place).clone()),
            None => {
                let mut bytes = [0; LEN];
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
    fn take_home(&self, from: &Place) {
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

impl PhysMem {
    /// Whether frames can be lent to other processes.
    pub(crate) fn lends(&self) -> bool {
        self.contents() == super::Contents::Shared
    }
    fn spot(&self, pfn: Pfn) -> &Spot {
        match self.page(pfn) {
            Some(Page::Shared(spot)) => spot,
            _ => unreachable!("frames are lent of memory that lends"),
        }
    }
    /// Moves a frame's bytes to a place in a loan, where others find them.
    ///
    /// # Errors
    ///
    /// Where they are lent already.
    pub(crate) fn lend(&self, pfn: Pfn, to: &Place) -> Result<(), Place> {
        self.spot(pfn).lend(to)
    }
    /// Moves them back. Whoever had them has a copy at most, and who comes later finds none.
    pub(crate) fn take_home(&self, pfn: Pfn, from: &Place) {
        self.spot(pfn).take_home(from);
        // Not punched: whoever may write the memory can hold that up.
        from.loan.memory.write(from.at(), &[0; LEN]);
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

#[cfg(test)]
mod tests {
    use super::{super::MemConfig, *};
    use crate::frame::Contents;

    struct Nobody;
    impl Lender for Nobody {
        fn recall(&self, _: &mut CallCx<'_>, _: Vpn) -> bool {
            false
        }
    }

    fn mem() -> PhysMem {
        PhysMem::new(MemConfig {
            frames: 64,
            contents: Contents::Shared,
            swap: 0,
        })
    }
    fn place(loan: &Arc<Loan>, slot: u32) -> Place {
        Place {
            loan: Arc::clone(loan),
            slot,
            page: Vpn(0),
        }
    }
    fn peer(loan: &Loan) -> SharedMemory {
        SharedMemory::open(loan.memory.fd().try_clone_to_owned().unwrap(), true).unwrap()
    }

    #[test]
    fn bytes_are_in_one_place() {
        let mem = mem();
        let loan = Loan::new(4, true, Box::new(Nobody)).unwrap();
        let (peer, there) = (peer(&loan), place(&loan, 2));
        let (a, b) = (mem.alloc().unwrap(), mem.alloc().unwrap());
        a.write(7, &[1, 2]);
        // What lay there before is not the frame's.
        peer.write(there.at(), &[5]);
        mem.lend(a.pfn(), &there).unwrap();
        let mut seen = [0; 9];
        peer.read(there.at(), &mut seen);
        assert_eq!(seen, [0, 0, 0, 0, 0, 0, 0, 1, 2]);
        peer.write(there.at() + 8, &[3]);
        b.write(7, &[1, 3]);
        assert!(mem.equal(a.pfn(), b.pfn()));
        let elsewhere = mem.lend(a.pfn(), &place(&loan, 3)).unwrap_err();
        assert_eq!(elsewhere.slot, 2);
        mem.copy(mem.zero_pfn(), b.pfn());
        assert!(mem.is_unused(b.pfn()) && !mem.is_unused(a.pfn()));
        mem.take_home(a.pfn(), &there);
        peer.read(there.at(), &mut seen);
        assert_eq!(seen, [0; 9], "nothing is left for those who come later");
        peer.write(there.at() + 7, &[9, 9]);
        let mut mine = [0; 2];
        a.read(7, &mut mine);
        assert_eq!(mine, [1, 3], "nobody reaches it at home");
    }

    #[test]
    fn the_next_owner_of_a_frame_finds_zeros_whoever_writes_where_it_was() {
        let mem = mem();
        let loan = Loan::new(1, true, Box::new(Nobody)).unwrap();
        let (peer, there) = (peer(&loan), place(&loan, 0));
        for taken_home in [true, false] {
            let frame = mem.alloc().unwrap();
            mem.lend(frame.pfn(), &there).unwrap();
            peer.write(0, &[6]);
            if taken_home {
                mem.take_home(frame.pfn(), &there);
            }
            let pfn = frame.pfn();
            drop(frame);
            peer.write(1, &[7]);
            let next = mem.alloc().unwrap();
            assert_eq!(next.pfn(), pfn, "the frame is used again");
            let mut seen = [1; 2];
            next.write(100, &[1]);
            next.read(0, &mut seen);
            assert_eq!(seen, [0, 0]);
        }
    }
}
