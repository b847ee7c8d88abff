//! Devices that only read: put on trial as such, caught by their mistakes, and told to say so.

use emmu::{
    driver::*,
    testkit::{Declared, Device, Kit, Property, PropertyOutcome, Refused},
};
use std::{collections::BTreeMap, sync::Arc};

/// A device of TLBs alone that reads.
struct Reader {
    gate: Gate<NoStore, BTreeMap<Vpn, Cached>, Atomic>,
    flushes: bool,
    says_so: bool,
}

impl SpinningMmu for Reader {
    fn invalidate<'i>(&self, mut cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude_with(&mut cx, inv, |tlb, gone, _| {
            tlb.retain(|_, c| !self.flushes || !c.range().overlaps(gone.range()));
        })
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let mut show = |cached: &Cached| visit(cached.translation());
        self.gate
            .audited_parts(|_, tlb| tlb.values().for_each(&mut show))
    }
}

impl Device for Reader {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        let mut gate = self.gate.lock(cx);
        if let Some(cached) = gate.state().get(&at) {
            let frame = self.gate.follow(cached, at).expect("of this gate and page");
            return Ok(frame.read_u8(offset));
        }
        drop(gate);
        let miss = |mut permit: Permit<'_, NoStore, BTreeMap<Vpn, Cached>, Atomic>| {
            let cached = permit.cached();
            permit.state().insert(at, cached);
            permit.frame().read_u8(offset)
        };
        Ok(self.gate.translate(cx, mm, at, Access::Read, miss)?)
    }
    fn declares(&self) -> Declared {
        match self.says_so {
            true => Declared::default().reads_only(),
            false => Declared::default(),
        }
    }
}

fn reader(flushes: bool, says_so: bool) -> Kit {
    Kit::new(move |seat| {
        let gate = Gate::new(seat, NoStore, BTreeMap::new());
        Arc::new(Reader {
            gate,
            flushes,
            says_so,
        })
    })
}

#[test]
fn one_that_says_so_passes_and_what_is_about_writes_is_skipped() {
    let trial = reader(true, true).run();
    assert!(trial.passed(), "{trial}");
    let skipped =
        |v: &&emmu::testkit::Verdict| v.outcome == PropertyOutcome::Skipped("it only reads");
    let skipped: Vec<_> = trial
        .verdicts
        .iter()
        .filter(skipped)
        .map(|v| v.property)
        .collect();
    assert_eq!(skipped, [Property::Dirty, Property::Reentrant]);
}

#[test]
fn one_that_keeps_translations_is_caught() {
    let kit = reader(false, true);
    for property in [
        Property::DropsRange,
        Property::Forks,
        Property::Retry,
        Property::Scripts,
    ] {
        let verdict = kit.check(property);
        assert!(verdict.is_failed(), "{verdict}");
        assert!(verdict.to_string().contains(": Reader "), "{verdict}");
    }
}

#[test]
fn one_that_does_not_say_so_is_told_to() {
    let verdict = reader(true, false).check(Property::Bytes);
    let report = verdict.to_string();
    assert!(verdict.is_failed(), "{report}");
    assert!(report.contains("does not declare `reads_only`"), "{report}");
    assert!(
        report.contains("page 0 is 0x40000000-0x40001000"),
        "{report}"
    );
}
