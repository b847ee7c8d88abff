//! Loom models of claims: no two threads work on one page at once. Each has a twin with a
//! mistake, which fails.

use super::{Claim, MmapLock, Ranges, ReadGuard};
use crate::{
    addr::{Vpn, VpnRange},
    notifier::models::run,
    sync::RaceProbe,
};
use std::sync::Arc;

const A: VpnRange = VpnRange::single(Vpn(16));
const B: VpnRange = VpnRange::single(Vpn(20));

/// The layout behind the lock, and the table entry of page [`A`].
struct Shared {
    lock: MmapLock<RaceProbe>,
    page: RaceProbe,
}

fn shared() -> Arc<Shared> {
    Arc::new(Shared {
        lock: MmapLock::new(RaceProbe::new()),
        page: RaceProbe::new(),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    /// The claim is of another page.
    OtherPage,
    /// The layout is changed while others read it.
    Layout,
    /// The page is not claimed.
    NoSharedClaim,
    /// A reader that does not wait does not read the state either.
    Blind,
}

fn claim(mistake: Mistake) -> Claim {
    let page = if mistake == Mistake::OtherPage { B } else { A };
    let no_readers: Ranges = [page].into_iter().collect();
    let no_writers = no_readers.clone();
    Claim {
        no_readers,
        no_writers,
    }
}

/// An operation on a page: it changes the layout before and after it works on the tables.
fn operation(s: &Shared, mistake: Mistake) {
    let mut g = s.lock.write();
    while !g.is_only_one() && !g.wait_for_conflicts(&[A], &[A]) {}
    g.write();
    g.yield_while(claim(mistake), || {
        s.page.write();
        if mistake == Mistake::Layout {
            // SAFETY: none; this is the mistake of this twin.
            unsafe { &*s.lock.value.get() }.write();
        }
    });
    g.write();
}

/// A fault on a page: it reads the layout, then the tables.
fn fault(s: &Shared, at: VpnRange) {
    let g = s.lock.read(Some(at));
    g.read();
    if at == A {
        s.page.read();
    }
}

/// A fault that does not wait: if there is a writer or a claim, a fault that waits does the work.
fn hasty_fault(s: &Shared, mistake: Mistake) {
    let g = if mistake == Mistake::Blind {
        let lane = s.lock.lanes.mine();
        s.lock.count_in(lane);
        let lock = &s.lock;
        Some(ReadGuard { lock, lane })
    } else {
        s.lock.try_read()
    };
    match g {
        Some(g) => {
            g.read();
            s.page.read();
        }
        None => fault(s, A),
    }
}

/// The operation meets a fault on its own page that does not wait.
fn hasty(mistake: Mistake) {
    let s = shared();
    let other = Arc::clone(&s);
    let thread = loom::thread::spawn(move || operation(&other, Mistake::None));
    hasty_fault(&s, mistake);
    thread.join().unwrap();
}
/// The operation meets a fault on its own page.
fn fault_inside(mistake: Mistake) {
    let s = shared();
    let other = Arc::clone(&s);
    let thread = loom::thread::spawn(move || operation(&other, mistake));
    fault(&s, A);
    thread.join().unwrap();
}
/// The operation meets a fault on another page, which needs the layout alone.
fn fault_outside(mistake: Mistake) {
    let s = shared();
    let other = Arc::clone(&s);
    let thread = loom::thread::spawn(move || operation(&other, mistake));
    fault(&s, B);
    thread.join().unwrap();
}
/// Two operations on the same page.
fn two_operations(mistake: Mistake) {
    let s = shared();
    let other = Arc::clone(&s);
    let thread = loom::thread::spawn(move || operation(&other, mistake));
    operation(&s, mistake);
    thread.join().unwrap();
}
/// The operation meets a thread that claimed the page and released the lock.
fn claimed(mistake: Mistake) {
    let s = shared();
    let other = Arc::clone(&s);
    let thread = loom::thread::spawn(move || operation(&other, Mistake::None));
    let g = s.lock.read(Some(A));
    let claim = (mistake != Mistake::NoSharedClaim).then(|| s.lock.claim_shared(&g, A));
    g.read();
    drop(g);
    s.page.write();
    drop(claim);
    thread.join().unwrap();
}

#[test]
fn mmap_fault_inside() {
    run::holds("mmap_fault_inside", || fault_inside(Mistake::None));
}
#[test]
fn mmap_claim_of_another_page() {
    run::fails("mmap_claim_of_another_page", "Causality violation", || {
        fault_inside(Mistake::OtherPage);
    });
}
#[test]
fn mmap_hasty_fault() {
    run::holds("mmap_hasty_fault", || hasty(Mistake::None));
}
#[test]
fn mmap_blind_fault() {
    run::fails("mmap_blind_fault", "Causality violation", || {
        hasty(Mistake::Blind);
    });
}
#[test]
fn mmap_fault_outside() {
    run::holds("mmap_fault_outside", || fault_outside(Mistake::None));
}
#[test]
fn mmap_layout_changed_late() {
    run::fails("mmap_layout_changed_late", "Causality violation", || {
        fault_outside(Mistake::Layout);
    });
}
#[test]
fn mmap_two_operations() {
    run::holds("mmap_two_operations", || two_operations(Mistake::None));
}
#[test]
fn mmap_two_claims_apart() {
    run::fails("mmap_two_claims_apart", "Causality violation", || {
        two_operations(Mistake::OtherPage);
    });
}
#[test]
fn mmap_shared_claim() {
    run::holds("mmap_shared_claim", || claimed(Mistake::None));
}
#[test]
fn mmap_not_claimed() {
    run::fails("mmap_not_claimed", "Causality violation", || {
        claimed(Mistake::NoSharedClaim)
    });
}
