//! Historical mistakes with external MMUs, each with the test that catches it and a sound twin.
//!
//! A piece is one of three kinds ([`Shown`]):
//!
//! * a **device** with the mistake, on trial on a real machine of this library: a property catches
//!   the device;
//! * a **schedule** on paper, step by step, for mistakes of the kernel itself. This library cannot
//!   make them: windows are values, entries change only inside of a window, the chain keeps its
//!   drivers;
//! * a **type**: the mistake does not compile, and a case of `tests/ui/` shows the error.
//!
//! ```sh
//! cargo run --features testkit --example museum           all of them
//! cargo run --features testkit --example museum B22 gVisor  some
//! ```
//!
//! The catalogue has 51 families of mistakes of Linux and its drivers (`B`), some of IOMMUs and of
//! RDMA (`C`), and those of other systems.
//! Two are costs rather than mistakes and have no piece: B10, windows for each table instead of one
//! for the range (Linux since 2014; a matter of windows for each call), and B48, hardware without
//! accessed bits, for which "young" means "was mapped", and which pays with refaults
//! ([`Declared::ages`](super::Declared) asks a device for no more: after an access, the answer is
//! yes). A family that led to several kinds of mistake has several pieces: `B11`, `B11'`, `B11''`.
//! Later families, of devices with memory, of IOMMUs and of pins, have numbers of their own (`C4`).
//! Those that a model of this library can make have a piece.
//!
//! | file | holds |
//! | --- | --- |
//! | `pairing` | begins, ends and the shape of windows |
//! | `ordering` | look-ups against windows |
//! | `bits` | rights, dirty bits, aging |
//! | `lifetime` | registration, release, sleeping, locks |
//! | `entries` | userfaultfd, huge pages of a pool |
//! | `page_faulters` | IOMMUs that share the page table, RDMA that pages on demand: `C21` and on |
//! | `pins` | devices behind an IOMMU whose pages are pinned |
//! | `tables` | entries of several tables, or in several places |
//! | `mirrors` | GPUs that mirror an address space, caches of registered memory |
//! | `peers` | mistakes that other systems found in themselves |
//! | `piece` | the type of a piece, and its run |
//! | `specimen`, `interface` | a driver with one of thirty-three flaws |
//! | `paper` | a kernel that executes a schedule step by step |

mod bits;
mod entries;
mod interface;
mod lifetime;
mod mirrors;
mod ordering;
mod page_faulters;
mod pairing;
mod paper;
mod peers;
mod piece;
mod pins;
mod specimen;
mod tables;

pub use paper::{PaperStep, Violation};
pub use piece::{Piece, Showing, Shown};
pub use specimen::Flaw;

impl Piece {
    /// Returns every piece, by family.
    pub fn all() -> Vec<Self> {
        [
            pairing::PIECES,
            ordering::PIECES,
            bits::PIECES,
            lifetime::PIECES,
            entries::PIECES,
            page_faulters::PIECES,
            pins::PIECES,
            tables::PIECES,
            mirrors::PIECES,
            peers::PIECES,
        ]
        .concat()
    }
}
