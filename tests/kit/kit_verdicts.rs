//! The kit's own promises: a device that hangs, panics, or leaves something behind is a verdict,
//! whichever part of the kit it is given to, and never the end of the tests.

use emmu::{
    driver::*,
    testkit::{Attached, Device, Disturbances, Failure, Kit, Property, Refused, Seen, Suite},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// What its TLB has stays when everything goes.
    DeafToAll,
    /// … when so many pages go at once: the suite alone opens such windows, beside the script.
    DeafToForty,
    /// It counts windows, and never down.
    CountsUp,
    /// The access of that number never ends.
    HangsInAccess(u64),
    /// A window over everything never opens.
    HangsInWindow,
    /// The access of that number panics, with the TLB in its hands.
    PanicsInAccess(u64),
}

/// A table, and a TLB with a lock of its own that a panic spoils.
struct Faulty {
    gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    tlb: Mutex<BTreeMap<Vpn, Cached>>,
    flaw: Option<Flaw>,
    accesses: AtomicU64,
    windows: AtomicU64,
}

fn faulty(seat: Seat, flaw: Option<Flaw>) -> Arc<Faulty> {
    Arc::new(Faulty {
        gate: Gate::new(seat, OrderedStore::default(), ()),
        tlb: Mutex::default(),
        flaw,
        accesses: AtomicU64::new(0),
        windows: AtomicU64::new(0),
    })
}

/// Subscribed to all there is. When its address space ends, nobody but the kit has it.
fn subscribed(flaw: Option<Flaw>) -> Kit {
    Kit::attaching(move |cx, mm| {
        let (device, registration) =
            mm.subscribe(cx, VpnRange::ALL, |seat: Seat| faulty(seat, flaw));
        Attached {
            mmu: Arc::clone(&device) as Arc<dyn ExternalMmu>,
            device,
            registration,
        }
    })
}

fn kit(flaw: Option<Flaw>) -> Kit {
    let kit = Kit::new(move |seat: Seat| faulty(seat, flaw));
    match flaw {
        Some(Flaw::HangsInAccess(_) | Flaw::HangsInWindow) => {
            kit.deadline(Duration::from_millis(100))
        }
        _ => kit,
    }
}

fn hang() -> ! {
    loop {
        std::thread::park();
    }
}

impl Faulty {
    fn flush(&self, range: VpnRange) {
        let deaf = match self.flaw {
            Some(Flaw::DeafToAll) => range == VpnRange::ALL,
            Some(Flaw::DeafToForty) => range.pages() == 40,
            _ => false,
        };
        if !deaf {
            let mut tlb = self.tlb.lock().unwrap();
            tlb.retain(|at, _| !range.contains(*at));
        }
    }
    fn begins(&self, range: VpnRange) {
        self.windows.fetch_add(1, Relaxed);
        if self.flaw == Some(Flaw::HangsInWindow) && range == VpnRange::ALL {
            hang();
        }
    }
    fn access<T>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        addr: u64,
        access: Access,
        f: impl Fn(&Self, &Cached) -> Option<T>,
    ) -> Result<T, Refused> {
        let nth = self.accesses.fetch_add(1, Relaxed);
        let at = Vpn::containing(addr);
        if self.flaw == Some(Flaw::HangsInAccess(nth)) {
            hang();
        }
        loop {
            {
                let tlb = self.tlb.lock().unwrap();
                assert_ne!(self.flaw, Some(Flaw::PanicsInAccess(nth)), "out of order");
                if let Some(done) = tlb.get(&at).and_then(|cached| f(self, cached)) {
                    return Ok(done);
                }
            }
            self.gate.translate(cx, mm, at, access, |permit| {
                let cached = permit.cached();
                self.tlb.lock().unwrap().insert(at, cached);
                drop(permit.establish(at));
            })?;
        }
    }
}

impl SpinningMmu for Faulty {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.begins(inv.range());
        self.gate.exclude(cx, inv, |(), range, _| self.flush(range))
    }
    fn invalidate_end(&self, _: AtomicCallbackCx<'_>, range: VpnRange) {
        self.flush(range);
        if self.flaw != Some(Flaw::CountsUp) {
            self.windows.fetch_sub(1, Relaxed);
        }
    }
    fn windows(&self) -> u64 {
        self.windows.load(Relaxed)
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let tlb = self.tlb.lock().unwrap();
        tlb.values().for_each(|cached| visit(cached.translation()));
        drop(tlb);
        self.gate.audit(visit)
    }
}

impl Device for Faulty {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % emmu::PAGE_SIZE) as usize);
        self.access(cx, mm, addr, Access::Read, |own, cached| {
            own.gate.follow(cached, at).map(|view| view.read_u8(offset))
        })
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % emmu::PAGE_SIZE) as usize);
        self.access(cx, mm, addr, Access::Write, |own, cached| {
            let view = own.gate.follow_mut(cached, at);
            view.map(|mut view| view.write(offset, &[byte]))
        })
    }
}

fn failure(suite: &Suite) -> Box<Failure> {
    let failure = suite.run().expect_err("it is wrong");
    if let Some(path) = &failure.saved {
        let _gone = std::fs::remove_file(path);
    }
    failure
}

#[test]
fn without_a_flaw_it_is_a_sound_device() {
    let disturbed = Disturbances {
        windows: true,
        threads: 1,
        ..Disturbances::default()
    };
    for suite in [
        Suite::new([kit(None)]).cases(32),
        Suite::new([kit(None)]).cases(32).disturbed(disturbed),
    ] {
        suite.run().unwrap_or_else(|failure| panic!("\n{failure}"));
    }
    kit(None).cases(8).run().assert();
}

/// The last checks of a suite, when all processes have ended, see its devices.
#[test]
fn what_is_left_in_the_end_is_seen() {
    for (flaw, oracles) in [
        (Flaw::DeafToAll, &["O1", "O4", "O11"][..]),
        (Flaw::CountsUp, &["O12"]),
    ] {
        for kit in [kit(Some(flaw)), subscribed(Some(flaw))] {
            let failure = failure(&Suite::new([kit]).cases(64));
            let seen = failure.seen[0].oracle();
            assert!(oracles.contains(&seen), "{flaw:?}\n{failure}");
        }
    }
    let sound = Suite::new([subscribed(None)]).cases(64);
    sound.run().unwrap_or_else(|failure| panic!("\n{failure}"));
}

#[test]
fn a_hang_is_a_verdict_with_the_steps_that_led_there() {
    let threads = Disturbances {
        threads: 1,
        ..Disturbances::default()
    };
    for (flaw, disturbances, says) in [
        (Flaw::HangsInAccess(3), Disturbances::default(), "the step"),
        (Flaw::HangsInAccess(3), threads, "the threads that use"),
        (Flaw::HangsInWindow, Disturbances::default(), "exit"),
    ] {
        let suite = Suite::new([kit(Some(flaw))]).disturbed(disturbances);
        let failure = failure(&suite);
        let Seen::Stuck { what, .. } = &failure.seen[0] else {
            panic!("{flaw:?}\n{failure}");
        };
        assert!(what.contains(says), "{flaw:?}: {what}");
        assert!(!failure.script.steps.is_empty(), "{flaw:?}");
    }
}

/// It takes its lock with it, so whoever asks it anything after that makes it panic again: an
/// oracle, while memory is given back, and windows that end while the first panic unwinds.
#[test]
fn a_panic_is_a_verdict_and_the_first_one_comes_first() {
    let first =
        |seen: &[Seen]| matches!(&seen[0], Seen::Panicked(why) if why.contains("out of order"));
    for nth in [0, 5, 12] {
        let kit = kit(Some(Flaw::PanicsInAccess(nth))).cases(8);
        let kit = kit.deadline(Duration::from_millis(100));
        let mut failed = 0;
        for property in Property::ALL {
            let verdict = kit.check(*property);
            if verdict.is_failed() {
                assert!(first(verdict.seen()), "{verdict}");
                failed += 1;
            }
        }
        assert!(failed > 12, "{failed} properties for access {nth}");
        for threads in [0, 1, 2] {
            let disturbed = Disturbances {
                windows: true,
                threads,
                ..Disturbances::default()
            };
            let failure = failure(&Suite::new([kit.clone()]).disturbed(disturbed));
            assert!(first(&failure.seen), "{failure}");
        }
    }
}

/// What happens beside a step stays with it when others are left out: otherwise nothing could be.
#[test]
fn what_fails_by_a_disturbance_is_made_short() {
    let disturbed = Disturbances {
        windows: true,
        ..Disturbances::default()
    };
    let suite = Suite::new([kit(Some(Flaw::DeafToForty))]).disturbed(disturbed);
    let failure = failure(&suite);
    let steps = failure.script.steps.len();
    assert!(steps <= 4, "{steps} steps are not short:\n{failure}");
    assert!(suite.again(&failure.script).is_err());
    let sound = Suite::new([kit(None)]).disturbed(disturbed);
    assert!(sound.again(&failure.script).is_ok());
}
