//! A device that copies a translation out of its gate and follows the copy after the unlock is
//! found, by the oracle and by the kit; one that follows it in time is not.

use emmu::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    driver::*,
    oracle::Finding,
    testkit::{Declared, Device, Holds, Kit, Property, Refused, Seen},
};
use std::sync::{Arc, Mutex};

/// The moment at which the device follows a translation that it has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Follows {
    /// With its gate locked.
    UnderTheGate,
    /// With a lock of its own, which its invalidation takes.
    UnderAnotherLock,
    /// With a lock of its own, for which its invalidation spins.
    UnderASpinLock,
    /// After the unlock.
    Late,
    /// After the unlock, a copy that the permit gave it.
    LateAfterAMiss,
    /// With the gate locked once more.
    UnderTheGateAgain,
    /// With the gate locked; the end of a window brings back what its beginning dropped.
    UnderTheGateAndKeeps,
}

/// Four sets of four ways.
#[derive(Default)]
struct Ways([[Option<Cached>; 4]; 4], usize);

impl Ways {
    fn find(&self, at: Vpn) -> Option<Cached> {
        let mut set = self.0[at.0 as usize % 4].iter().flatten();
        set.find(|c| c.range().contains(at)).copied()
    }
    fn fill(&mut self, at: Vpn, cached: Cached) {
        self.drop_range(VpnRange::single(at));
        self.1 = (self.1 + 1) % 4;
        self.0[at.0 as usize % 4][self.1] = Some(cached);
    }
    fn drop_range(&mut self, range: VpnRange) {
        for way in self.0.as_flattened_mut() {
            way.take_if(|c| c.range().overlaps(range));
        }
    }
}

struct DeviceTlb {
    gate: Gate<NoStore, Ways, Atomic>,
    /// Held during accesses, as the instruction of a processor is.
    busy: Mutex<()>,
    kept: Mutex<Vec<Cached>>,
    follows: Follows,
}

/// A use of one translation; `None` if it does not allow the access.
type Use<'u, V> = dyn Fn(&DeviceTlb, &Cached) -> Option<V> + 'u;

impl DeviceTlb {
    fn new(seat: Seat, follows: Follows) -> Arc<Self> {
        Arc::new(Self {
            gate: Gate::new(seat, NoStore, Ways::default()),
            busy: Mutex::default(),
            kept: Mutex::default(),
            follows,
        })
    }
    fn access<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        (at, access): (Vpn, Access),
        go: &Use<'_, V>,
    ) -> Result<V, Refused> {
        loop {
            let busy = match self.follows {
                Follows::UnderAnotherLock => Some(self.busy.lock().unwrap()),
                Follows::UnderASpinLock => Some(self.spin()),
                _ => None,
            };
            if let Some(value) = self.hit(cx, at, go) {
                return Ok(value);
            }
            drop(busy);
            let cached = self.gate.translate(cx, mm, at, access, |mut permit| {
                let cached = permit.cached();
                permit.state().fill(at, cached);
                cached
            })?;
            if self.follows == Follows::LateAfterAMiss {
                return Ok(go(self, &cached).expect("translated for this access"));
            }
        }
    }
    fn hit<V>(&self, cx: &mut CallCx<'_>, at: Vpn, go: &Use<'_, V>) -> Option<V> {
        let mut gate = self.gate.lock(cx);
        let found = gate.state().find(at)?;
        if [Follows::UnderTheGate, Follows::UnderTheGateAndKeeps].contains(&self.follows) {
            return go(self, &found);
        }
        drop(gate);
        let again = self.follows == Follows::UnderTheGateAgain;
        let _gate = again.then(|| self.gate.lock(cx));
        go(self, &found)
    }
    fn spin(&self) -> std::sync::MutexGuard<'_, ()> {
        loop {
            if let Ok(held) = self.busy.try_lock() {
                return held;
            }
            std::hint::spin_loop();
        }
    }
}

impl SpinningMmu for DeviceTlb {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let _not_during_accesses = match self.follows {
            Follows::UnderAnotherLock => Some(self.busy.lock().unwrap()),
            Follows::UnderASpinLock => Some(self.spin()),
            _ => None,
        };
        self.gate.exclude(cx, inv, |ways, range, _| {
            if self.follows == Follows::UnderTheGateAndKeeps {
                let all = ways.0.iter().flatten().flatten();
                let dropped = all.filter(|c| c.range().overlaps(range));
                self.kept.lock().unwrap().extend(dropped);
            }
            ways.drop_range(range);
        })
    }
    fn invalidate_end(&self, mut cx: AtomicCallbackCx<'_>, _: VpnRange) {
        let mut gate = self.gate.lock(&mut cx);
        for cached in self.kept.lock().unwrap().drain(..) {
            gate.state().fill(cached.range().start(), cached);
        }
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audited_parts(|_, ways| {
            let all = ways.0.iter().flatten().flatten();
            all.for_each(|c| visit(c.translation()));
        })
    }
}

impl Device for DeviceTlb {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        self.access(cx, mm, (at, Access::Read), &|own, c| {
            Some(own.gate.follow(c, at)?.read_u8(offset))
        })
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        self.access(cx, mm, (at, Access::Write), &|own, c| {
            own.gate.follow_mut(c, at)?.write(offset, &[byte]);
            Some(())
        })
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Tlb,
            ..Declared::default()
        }
    }
}

fn kit(follows: Follows) -> Kit {
    Kit::new(move |seat| DeviceTlb::new(seat, follows))
}

mod under_the_gate {
    emmu::conformance_tests!(kit = super::kit(super::Follows::UnderTheGate));
}

#[test]
fn a_use_after_the_unlock_is_found_and_one_under_a_lock_is_not() {
    for follows in [
        Follows::UnderAnotherLock,
        Follows::UnderASpinLock,
        Follows::Late,
        Follows::LateAfterAMiss,
        Follows::UnderTheGateAgain,
    ] {
        let verdict = kit(follows).check(Property::Reuse);
        let sound = matches!(follows, Follows::UnderAnotherLock | Follows::UnderASpinLock);
        assert_eq!(verdict.is_failed(), !sound, "{follows:?}: {verdict}");
        if !sound {
            let found = matches!(verdict.seen()[0], Seen::Oracle(Finding::StaleUse { .. }));
            assert!(found, "{follows:?}: {verdict}");
        }
    }
}

/// The first operation takes the frame away: the access panics, and its step says which it is.
#[test]
fn a_panic_names_the_access() {
    let verdict = kit(Follows::Late).check(Property::Reuse);
    let schedule = verdict.schedule(4);
    assert!(schedule.contains("s page 3, and panics"), "{schedule}");
    let panics = |seen: &Seen| matches!(seen, Seen::Panicked(why) if why.contains("stale"));
    assert!(verdict.seen().iter().any(panics), "{verdict}");
}

#[test]
fn a_finding_after_the_end_of_a_window_names_the_window() {
    let verdict = kit(Follows::UnderTheGateAndKeeps).check(Property::DropsRange);
    let Seen::Oracle(first) = &verdict.seen()[0] else {
        panic!("{verdict}");
    };
    let text = first.to_string();
    assert!(
        text.contains("; the last window there was over 0x40000000-"),
        "{text}"
    );
}
