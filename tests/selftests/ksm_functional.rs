//! `ksm_functional_tests`: memory that is merged no longer has no page twice.

use crate::common::{RW, World};
use emmu::{
    addr::Pfn,
    mm::{Advice, Merger, PageState, ProtectMode, RegisterMode, UffdFeatures},
};
use std::collections::BTreeSet;

const N: u64 = 512;

/// Equal pages, merged to one.
fn merged() -> World {
    let mut w = World::new();
    w.map(0, N, RW);
    w.advise(0, N, Advice::NoHugePage).unwrap();
    (0..N).for_each(|page| w.put(page, 0xcf));
    w.advise(0, N, Advice::Mergeable).unwrap();
    scan(&mut w);
    assert!(has_duplicates(&mut w), "they were merged");
    w
}
fn scan(w: &mut World) -> usize {
    let mm = w.mm.clone();
    let mut merger = Merger::new(&w.machine);
    let mut twice = || merger.scan(&mut w.thread.cx(), &[&mm]);
    twice() + twice()
}
fn frames(w: &mut World) -> Vec<Pfn> {
    let pages = w.mm.pagemap(&mut w.thread.cx(), World::pages(0, N));
    let frame = |(_, state)| match state {
        PageState::Anon(pfn) | PageState::Object(pfn) => Some(pfn),
        _ => None,
    };
    pages.into_iter().filter_map(frame).collect()
}
fn has_duplicates(w: &mut World) -> bool {
    let frames = frames(w);
    frames.iter().collect::<BTreeSet<_>>().len() < frames.len()
}
/// The range has no frame twice, and keeps its bytes.
fn unmerged(mut w: World, from: u64) {
    assert!(!has_duplicates(&mut w));
    for page in from..N {
        assert_eq!(w.get(page), Ok(0xcf), "page {page}");
    }
    w.check_rmap();
    w.end();
}

#[test]
fn unmerge() {
    let mut w = merged();
    w.advise(0, N, Advice::Unmergeable).unwrap();
    assert_eq!(frames(&mut w).len() as u64, N);
    unmerged(w, 0);
}

#[test]
fn unmerge_discarded() {
    let mut w = merged();
    w.advise(0, N / 2, Advice::DontNeed).unwrap();
    w.advise(0, N, Advice::Unmergeable).unwrap();
    assert_eq!(frames(&mut w).len() as u64, N / 2);
    unmerged(w, N / 2);
}

/// The pages are unmerged, and stay protected.
#[test]
fn unmerge_uffd_wp() {
    let mut w = merged();
    let uffd = w.userfaultfd(UffdFeatures::PAGEFAULT_FLAG_WP);
    w.register(&uffd, 0, N, RegisterMode::WP);
    w.write_protect(&uffd, 0, N, ProtectMode::WP);
    w.advise(0, N, Advice::Unmergeable).unwrap();
    let all = w.mm.protected_pages(&mut w.thread.cx(), World::pages(0, N));
    assert_eq!(all.len() as u64, N);
    unmerged(w, 0);
}

/// Memory without rights is unmerged like any.
#[test]
fn prot_none() {
    let mut w = merged();
    w.protect(0, N, crate::common::calls::NONE).unwrap();
    w.advise(0, N, Advice::Unmergeable).unwrap();
    w.protect(0, N, RW).unwrap();
    unmerged(w, 0);
}

#[test]
fn prctl() {
    let mut w = World::new();
    let mm = w.mm.clone();
    for on in [true, false] {
        mm.set_merge_all(&mut w.thread.cx(), on).unwrap();
        assert_eq!(mm.merges_all(&mut w.thread.cx()), on);
    }
    w.end();
}

#[test]
fn prctl_fork() {
    let mut w = World::new();
    let mm = w.mm.clone();
    mm.set_merge_all(&mut w.thread.cx(), true).unwrap();
    let child = w.fork();
    assert!(child.merges_all(&mut w.thread.cx()));
    w.reap(&child);
    w.end();
}

#[test]
fn prctl_unmerge() {
    let mut w = World::new();
    w.map(0, N, RW);
    (0..N).for_each(|page| w.put(page, 0xcf));
    let mm = w.mm.clone();
    mm.set_merge_all(&mut w.thread.cx(), true).unwrap();
    assert!(scan(&mut w) > 0);
    assert!(has_duplicates(&mut w));
    mm.set_merge_all(&mut w.thread.cx(), false).unwrap();
    unmerged(w, 0);
}
