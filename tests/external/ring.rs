//! A ring in guest memory, whose pages are forked, moved and swapped all the time.

use crate::beside::churn;
use emmu::Mm;
use std::{
    ops::{Deref, Range},
    sync::atomic::{
        AtomicBool,
        Ordering::{Acquire, Relaxed, Release},
    },
    thread,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory};

/// The guest fills slots, 512 of them, and moves the index, `rounds` times; the device reads the
/// slots behind the index, and sees each whole. Each turn of either asks `memory` anew. The ring
/// lies in `pages` of the process.
pub(crate) fn run<M>(
    memory: impl Fn() -> M + Sync,
    (index, slots): (GuestAddress, GuestAddress),
    rounds: u16,
    (mm, pages): (&Mm, Range<u64>),
) where
    M: Deref<Target: GuestMemory>,
{
    let slot = |n: u16| GuestAddress(slots.0 + u64::from(n % 512) * 16);
    let done = AtomicBool::new(false);
    thread::scope(|s| {
        s.spawn(|| churn(mm, pages, 4, &done));
        s.spawn(|| {
            for n in 1..=rounds {
                let memory = memory();
                memory.write_obj([u64::from(n); 2], slot(n)).unwrap();
                memory.store(n, index, Release).unwrap();
            }
        });
        let mut seen = 0;
        while seen < rounds {
            let memory = memory();
            let now: u16 = memory.load(index, Acquire).unwrap();
            assert!(now >= seen, "{now} after {seen}");
            seen = now;
            let n: u16 = memory.load(index, Relaxed).unwrap();
            let got: [u64; 2] = memory.read_obj(slot(now)).unwrap();
            // The guest may have come around meanwhile, and never by halves of a word.
            assert!(
                now == 0 || got[0] >= u64::from(now),
                "{got:?} at {now}, {n}"
            );
        }
        done.store(true, Release);
    });
}
