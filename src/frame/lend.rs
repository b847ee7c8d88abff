//! Lending the bytes of a frame to other processes, and taking them home.
//!
//! See `lent` for the guarantee, and docs/adr/0011-other-processes-share-the-memory.md for the
//! design.

use super::{
    config::Contents,
    contents::Page,
    lent::{Kept, LendableBytes, Place},
    mem::PhysMem,
    pfn::PAGE_BYTES,
};
use crate::addr::Pfn;

impl PhysMem {
    /// Returns true if frames of this memory can be lent to other processes.
    pub(crate) fn lends(&self) -> bool {
        self.contents() == Contents::Shared
    }
    /// Returns the bytes of a frame of memory that lends.
    fn lendable(&self, pfn: Pfn) -> &LendableBytes {
        match self.page(pfn) {
            Some(Page::Shared(spot)) => spot,
            _ => unreachable!("frames are lent of memory that lends"),
        }
    }
    /// Moves the bytes of a frame to a place in a loan, where other processes reach them. A frame
    /// that lies there already stays.
    ///
    /// # Errors
    ///
    /// [`Kept`]: the bytes are lent elsewhere, or have an address in this process.
    pub(crate) fn lend(&self, pfn: Pfn, to: &Place) -> Result<(), Kept> {
        self.lendable(pfn).lend(to)
    }
    /// Moves the bytes of a frame back from a place in a loan, and zeroes that place: other
    /// processes may have kept a copy, but a process that maps the memory later finds nothing.
    pub(crate) fn take_home(&self, pfn: Pfn, from: &Place) {
        self.lendable(pfn).take_home(from);
        // Written, not punched: a process that may write to the memory can delay a punch for any
        // time.
        from.loan.memory().write(from.at(), &[0; PAGE_BYTES]);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Contents, MemConfig, SharedMemory},
        *,
    };
    use crate::{
        addr::Vpn,
        ctx::CallCx,
        frame::{Lender, Loan},
    };
    use std::sync::Arc;

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
        SharedMemory::open(loan.memory().fd().try_clone_to_owned().unwrap(), true).unwrap()
    }

    #[test]
    fn bytes_are_in_one_place() {
        let mem = mem();
        let loan = Loan::new(4, true, Box::new(Nobody)).unwrap();
        let (peer, there) = (peer(&loan), place(&loan, 2));
        let (a, b) = (mem.alloc().unwrap(), mem.alloc().unwrap());
        a.write(7, &[1, 2]);
        // Old bytes of the place are no part of the frame.
        peer.write(there.at(), &[5]);
        mem.lend(a.pfn(), &there).unwrap();
        let mut seen = [0; 9];
        peer.read(there.at(), &mut seen);
        assert_eq!(seen, [0, 0, 0, 0, 0, 0, 0, 1, 2]);
        peer.write(there.at() + 8, &[3]);
        b.write(7, &[1, 3]);
        assert!(mem.equal(a.pfn(), b.pfn()));
        let elsewhere = mem.lend(a.pfn(), &place(&loan, 3)).unwrap_err();
        assert!(matches!(elsewhere, Kept::Elsewhere(place) if place.slot == 2));
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

    /// Else the holder of the address writes where no process reads.
    #[test]
    fn bytes_with_an_address_are_not_lent_before_the_frame_has_another_owner() {
        let mem = mem();
        let loan = Loan::new(1, true, Box::new(Nobody)).unwrap();
        let frame = mem.alloc().unwrap();
        let at = mem.address(frame.pfn()).unwrap();
        let kept = mem.lend(frame.pfn(), &place(&loan, 0));
        assert!(matches!(kept, Err(Kept::AtAnAddress)));
        let pfn = frame.pfn();
        drop(frame);
        let next = mem.alloc().unwrap();
        assert_eq!(next.pfn(), pfn, "the frame is used again");
        mem.lend(pfn, &place(&loan, 0)).unwrap();
        assert!(mem.address(pfn).is_none(), "its bytes are in the loan");
        mem.take_home(pfn, &place(&loan, 0));
        assert_eq!(mem.address(pfn), Some(at));
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
