//! `madv_populate`: memory is filled in for reading or for writing, if the rights allow it and no
//! page is missing from the map.

use crate::common::{RW, World, calls::READ};
use emmu::{
    Errno::{EINVAL, ENOMEM},
    mm::{
        Advice::{PopulateRead, PopulateWrite},
        PageState, Prot,
    },
};

const N: u64 = 512;

fn mapped(prot: Prot) -> World {
    let mut w = World::new();
    w.map(0, N, prot);
    w
}
fn states(w: &mut World) -> Vec<PageState> {
    let pages = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, N));
    pages.into_iter().map(|(_, state)| state).collect()
}

#[test]
fn prot_read() {
    let mut w = mapped(READ);
    assert_eq!(w.advise(0, N, PopulateRead), Ok(()));
    assert_eq!(w.advise(0, N, PopulateWrite), Err(EINVAL));
    w.end();
}

/// Memory that may be written may be read too, on x86; the call looks at the rights alone.
#[test]
fn prot_write() {
    let mut w = mapped(Prot::WRITE);
    assert_eq!(w.advise(0, N, PopulateRead), Err(EINVAL));
    assert_eq!(w.advise(0, N, PopulateWrite), Ok(()));
    w.end();
}

#[test]
fn holes() {
    let mut w = mapped(RW);
    w.munmap(1, 1).unwrap();
    for advice in [PopulateRead, PopulateWrite] {
        for (from, n) in [(0, N), (0, 2), (1, 1)] {
            assert_eq!(w.advise(from, n, advice), Err(ENOMEM), "{from} {n}");
        }
    }
    w.end();
}

#[test]
fn populate_read() {
    let mut w = mapped(RW);
    assert!(states(&mut w).is_empty());
    w.advise(0, N, PopulateRead).unwrap();
    assert_eq!(states(&mut w), vec![PageState::Zero; 512]);
    w.end();
}

#[test]
fn populate_write() {
    let mut w = mapped(RW);
    assert!(states(&mut w).is_empty());
    w.advise(0, N, PopulateWrite).unwrap();
    let states = states(&mut w);
    assert_eq!(states.len(), 512);
    assert!(states.iter().all(|s| matches!(s, PageState::Anon(_))));
    w.end();
}
