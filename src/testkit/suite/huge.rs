//! The profile of huge pages: three of them, of private and of shared memory, split, protected,
//! moved and dropped in parts, migrated, and collapsed again.

use super::{
    arena::{On, RW, any, at, remap, weighed},
    draw::Draw,
};
use crate::{
    addr::{PAGE_SIZE, PMD_PAGES},
    mm::{Advice, MapFlags, Prot},
    replay::Op,
};

/// Huge pages of the first mapping; moves reach one more.
const HUGE: u64 = 3;
/// Pages of the profile.
pub(super) const ARENA: u64 = (HUGE + 1) * PMD_PAGES;
/// The pages of each huge page that operations name: near its ends and its middle.
const CORNERS: [u64; 7] = [0, 1, 255, 256, 257, 510, 511];

/// Returns a mapping and the advice that makes its faults huge.
pub(super) fn opening() -> Vec<Op> {
    let (addr, len) = (at(0), HUGE * PMD_PAGES * PAGE_SIZE);
    vec![
        map(0, HUGE - 1, MapFlags::PRIVATE),
        map(HUGE - 1, 1, MapFlags::SHARED),
        huge(addr, len),
    ]
}

/// Returns the pages of a look.
pub(super) fn looked_at() -> Vec<u64> {
    let huge = 0..=HUGE;
    huge.flat_map(|h| CORNERS.map(|n| h * PMD_PAGES + n))
        .collect()
}

const OPERATIONS: &[(u32, On)] = &[
    (30, On::Store),
    (12, On::Load),
    (9, On::Advise),
    (7, On::Protect),
    (4, On::Unmap),
    (4, On::Map),
    (5, On::Huge),
    (5, On::Collapse),
    (5, On::Move),
    (4, On::Out),
    (2, On::Reclaim),
    (6, On::Migrate),
    (2, On::Scan),
    (1, On::Merge),
    (3, On::Fork),
    (1, On::Exit),
];

fn map(first: u64, n: u64, kind: MapFlags) -> Op {
    Op::Mmap {
        addr: at(first * PMD_PAGES),
        len: n * PMD_PAGES * PAGE_SIZE,
        prot: RW,
        flags: kind | MapFlags::FIXED,
        file: None,
        off: 0,
    }
}
fn huge(addr: u64, len: u64) -> Op {
    let advice = Advice::HugePage;
    Op::Madvise { addr, len, advice }
}

/// Returns the operation of a draw.
pub(super) fn op(d: Draw) -> Option<Op> {
    let (nth, other) = (d.page % HUGE, d.other % (HUGE + 1));
    let whole = (at(nth * PMD_PAGES), PMD_PAGES * PAGE_SIZE);
    let corner = any(&CORNERS, d.other);
    let page = nth * PMD_PAGES + corner;
    // One page, a few, a half, the rest, or a range that reaches into the next huge page.
    let rest = PMD_PAGES - corner;
    let n = any(&[1, 1, 2, 256, rest, rest, PMD_PAGES], d.n);
    let (addr, len) = (at(page), n * PAGE_SIZE);
    let advise = |(addr, len), advice| Op::Madvise { addr, len, advice };
    Some(match weighed(d.kind, OPERATIONS) {
        On::Store => Op::Store { addr, byte: d.byte },
        On::Load => Op::Load { addr },
        On::Advise => advise((addr, len), Advice::DontNeed),
        On::Protect => {
            let prot = any(&[Prot::READ, RW, RW, Prot::empty()], d.byte.into());
            Op::Mprotect { addr, len, prot }
        }
        On::Unmap => Op::Munmap { addr, len },
        On::Map => map(
            nth,
            1,
            any(&[MapFlags::PRIVATE, MapFlags::SHARED], d.byte.into()),
        ),
        On::Huge => huge(whole.0, whole.1),
        On::Collapse => advise(whole, Advice::Collapse),
        // Most moves are of a whole huge page, to an aligned place.
        On::Move => match d.byte.is_multiple_of(4) {
            true => remap(page, n, other * PMD_PAGES + corner / 2, false),
            false => remap(nth * PMD_PAGES, PMD_PAGES, other * PMD_PAGES, false),
        },
        On::Out => advise((addr, len), Advice::PageOut),
        On::Reclaim => Op::Reclaim {},
        On::Migrate => Op::Migrate { addr },
        On::Merge => Op::Merge {},
        On::Scan => match d.byte.is_multiple_of(2) {
            true => Op::Khugepaged { advise: Vec::new() },
            false => Op::DropCaches { value: 2 },
        },
        On::Fork => Op::Fork { child: 0 },
        On::Exit => Op::Exit {},
        _ => return None,
    })
}
