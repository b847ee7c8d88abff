//! The ground that random scripts use: pages, files, processes, and the helpers that all profiles
//! share.

use crate::{
    addr::PAGE_SIZE,
    mm::{MremapArgs, MremapFlags, Prot},
    replay::Op,
};

/// The address of page 0.
pub(super) const BASE: u64 = 1 << 40;
/// The protection of memory that is readable and writable.
pub(super) const RW: Prot = Prot::READ.union(Prot::WRITE);
/// Pages of the mixed profile; moves reach as many pages beyond.
pub(super) const PAGES: u64 = 32;
/// Pages of the profile of anonymous memory.
pub(super) const ARENA: u64 = 40;
/// Pages after [`ARENA`] that moves reach and looks include.
pub(super) const AROUND: u64 = 16;
/// Pages of the profile of swap.
pub(super) const FEW: u64 = 12;
/// Pages of each file.
pub(super) const FILE_PAGES: u64 = 8;
/// Most processes of a script.
pub(super) const PROCESSES: usize = 6;

/// Returns the address of a page.
pub(super) const fn at(page: u64) -> u64 {
    BASE + page * PAGE_SIZE
}

/// Returns the FNV-1a hash of a text, from a salt on.
pub(super) fn hash_of(salt: u64, text: &str) -> u64 {
    text.bytes()
        .fold(salt ^ 0xcbf2_9ce4_8422_2325, |sum, byte| {
            (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
}

/// Returns the entry that `number` selects; the weights add up to 100.
pub(super) fn weighed<T: Copy>(number: u32, all: &[(u32, T)]) -> T {
    let mut left = number;
    for &(weight, one) in all {
        if left < weight {
            return one;
        }
        left -= weight;
    }
    all[all.len() - 1].1
}

/// Returns the entry at `number`, modulo the length.
pub(super) fn any<T: Copy>(from: &[T], number: u64) -> T {
    let nth = number % from.len() as u64;
    from[usize::try_from(nth).expect("small")]
}

/// The operations that profiles weigh.
#[derive(Clone, Copy)]
pub(super) enum On {
    Load,
    Store,
    Private,
    Map,
    Unmap,
    Protect,
    Move,
    Resize,
    Advise,
    Out,
    Free,
    Reclaim,
    Shrink,
    Migrate,
    Merge,
    Write,
    Truncate,
    Punch,
    Blocks,
    Sync,
    Fork,
    Exit,
    Look,
    Huge,
    Collapse,
    /// `khugepaged` scans, or huge pages that were given back in part are split.
    Scan,
    /// The swap device is taken out of use, or put in use.
    Swap,
    Pin,
    Splice,
    Force,
    /// A call on a part of a huge page of a pool.
    Part,
    /// A device with memory of its own takes pages and gives them back.
    Device,
    /// A file is sealed.
    Seal,
    /// A segment is attached, or detached.
    Attach,
    Detach,
    /// A segment is made, removed, locked or unlocked.
    Segment,
}

/// Returns a distance in bytes from the beginning of a page, for ends and holes.
pub(super) fn odd(number: u64) -> u64 {
    any(&[0, 0, 1, 7, 100, 2048, PAGE_SIZE - 1], number)
}

/// Returns an `mremap` of `n` pages to a fixed place.
pub(super) fn remap(from: u64, n: u64, to: u64, keep: bool) -> Op {
    let mut flags = MremapFlags::MAYMOVE | MremapFlags::FIXED;
    flags.set(MremapFlags::DONTUNMAP, keep);
    Op::Mremap(MremapArgs {
        addr: at(from),
        old_len: n * PAGE_SIZE,
        new_len: n * PAGE_SIZE,
        flags,
        new_addr: at(to),
    })
}
