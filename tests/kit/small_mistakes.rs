//! Mistakes that show in one byte of a page, in one refusal, in one entry that made room for
//! another; and a device that is slow and sound.

use emmu::{
    addr::{PAGE_SIZE, Vpn, VpnRange},
    driver::*,
    error::FaultError,
    testkit::{Declared, Device, Holds, Kit, Property, Refused, Seen},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// A buffer of two entries; a third takes the place of the older one.
struct Buffer {
    entries: Vec<ShadowEntry>,
    flaw: Option<Flaw>,
}

impl ShadowStore for Buffer {
    type Key = Vpn;
    fn insert(&mut self, at: Vpn, entry: ShadowEntry) -> RemovedEntries {
        let mut gone: RemovedEntries = self.remove(&at).into_iter().collect();
        if self.entries.len() == 2 {
            let oldest = self.entries.remove(0);
            if self.flaw == Some(Flaw::ForgetsUse) {
                oldest.clear_accessed();
            }
            gone.push(oldest);
        }
        self.entries.push(entry);
        gone
    }
    fn get(&self, at: &Vpn) -> Option<&ShadowEntry> {
        self.entries.iter().find(|e| e.vpn() == *at)
    }
    fn remove(&mut self, at: &Vpn) -> Option<ShadowEntry> {
        let nth = self.entries.iter().position(|e| e.vpn() == *at)?;
        Some(self.entries.remove(nth))
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        gone.extend(self.entries.extract_if(.., |e| e.range().overlaps(range)));
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        self.entries.iter().for_each(visit);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flaw {
    /// Reads the first byte of the page.
    ReadsFirstByte,
    /// Writes eight bytes where one is asked for.
    WritesWords,
    /// Remembers that a page is not mapped, until a window tells of it.
    RemembersNothing,
    /// Clears the accessed bit of an entry that makes room for another.
    ForgetsUse,
    /// Clears the accessed bits of all entries when one page is aged.
    ForgetsAll,
    /// Clears no accessed bit.
    StaysYoung,
    /// Writes the last byte of a page to the first as well.
    WrapsAround,
}

struct Small {
    gate: Gate<Buffer, (), Atomic>,
    flaw: Option<Flaw>,
    delay: Duration,
    nothing: Mutex<BTreeSet<Vpn>>,
}

fn kit(flaw: Option<Flaw>, delay: Duration) -> Kit {
    Kit::new(move |seat| {
        let entries = Vec::new();
        Arc::new(Small {
            gate: Gate::new(seat, Buffer { entries, flaw }, ()),
            flaw,
            delay,
            nothing: Mutex::default(),
        })
    })
}

impl Small {
    fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }
    fn access(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        addr: u64,
        byte: Option<u8>,
    ) -> Result<u8, Refused> {
        thread::sleep(self.delay);
        let at = Vpn::containing(addr);
        let offset = (addr % PAGE_SIZE) as usize;
        let access = byte.map_or(Access::Read, |_| Access::Write);
        loop {
            if self.nothing.lock().unwrap().contains(&at) {
                return Err(FaultError::NotMapped(addr).into());
            }
            let mut gate = self.gate.lock(cx);
            let used = |e: &ShadowEntry| {
                e.set_accessed();
                true
            };
            let there = gate.cached_if(&at, used).is_some();
            if let Some(byte) = byte {
                if let Some(mut view) = gate.lookup_mut(&at) {
                    let word = [byte, 0, 0, 0, 0, 0, 0, 0];
                    let long = self.has(Flaw::WritesWords) && offset.is_multiple_of(8);
                    view.write(offset, if long { &word } else { &word[..1] });
                    if self.has(Flaw::WrapsAround) && offset as u64 == PAGE_SIZE - 1 {
                        view.write(0, &[byte]);
                    }
                    return Ok(byte);
                }
            } else if there {
                let view = gate.lookup(&at).expect("there");
                let first = self.has(Flaw::ReadsFirstByte);
                return Ok(view.read_u8(if first { 0 } else { offset }));
            }
            drop(gate);
            let missed = self
                .gate
                .translate(cx, mm, at, access, |permit| drop(permit.establish(at)));
            if let Err(TranslateError::Fault(FaultError::NotMapped(_))) = missed
                && self.has(Flaw::RemembersNothing)
            {
                self.nothing.lock().unwrap().insert(at);
            }
            missed?;
        }
    }
}

impl SpinningMmu for Small {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let range = inv.range();
        let mut nothing = self.nothing.lock().unwrap();
        nothing.retain(|at| !range.contains(*at));
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audit(visit)
    }
    fn age(&self, mut cx: AtomicCallbackCx<'_>, range: VpnRange, kind: AgeKind) -> bool {
        let gate = self.gate.lock(&mut cx);
        let mut young = false;
        gate.store().for_each_in(range, &mut |e| {
            young |= e.is_accessed();
            if kind != AgeKind::Test && !self.has(Flaw::StaysYoung) {
                e.clear_accessed();
            }
        });
        if kind != AgeKind::Test && self.has(Flaw::ForgetsAll) {
            gate.store().for_each(&mut |e| {
                let _was = e.clear_accessed();
            });
        }
        young
    }
}

impl Device for Small {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        self.access(cx, mm, addr, None)
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.access(cx, mm, addr, Some(byte)).map(|_| ())
    }
    fn declares(&self) -> Declared {
        Declared {
            holds: Holds::Tlb,
            ages: true,
            ..Declared::default()
        }
    }
}

#[test]
fn each_is_caught_where_it_should_be() {
    for (flaw, by) in [
        (Flaw::ReadsFirstByte, Property::Bytes),
        (Flaw::WritesWords, Property::Bytes),
        (Flaw::RemembersNothing, Property::Rights),
        (Flaw::ForgetsUse, Property::Aging),
        (Flaw::ForgetsAll, Property::Aging),
        (Flaw::StaysYoung, Property::Aging),
        (Flaw::WrapsAround, Property::Bytes),
    ] {
        let sound = kit(None, Duration::ZERO).check(by);
        assert!(!sound.is_failed(), "{sound}");
        let verdict = kit(Some(flaw), Duration::ZERO).check(by);
        assert!(verdict.is_failed(), "{verdict}");
        let seen = |one: &Seen| match flaw {
            Flaw::ReadsFirstByte => matches!(one, Seen::Stale { .. }),
            Flaw::WritesWords | Flaw::WrapsAround => matches!(one, Seen::Overwritten { .. }),
            Flaw::RemembersNothing => matches!(one, Seen::RefusedWrongly(_)),
            Flaw::ForgetsUse | Flaw::ForgetsAll => matches!(one, Seen::Forgot(_)),
            Flaw::StaysYoung => matches!(one, Seen::StaysYoung(_)),
        };
        assert!(verdict.seen().iter().all(seen), "{verdict}");
    }
}

/// The deadline is that of an access, not of all that a check makes.
#[test]
fn a_slow_device_is_sound() {
    let slow = kit(None, Duration::from_millis(5)).deadline(Duration::from_millis(100));
    for property in [Property::Progress, Property::ForeignThreads] {
        let verdict = slow.check(property);
        assert!(!verdict.is_failed(), "{verdict}");
    }
}

#[test]
fn no_deadline_is_too_long() {
    let verdict = kit(None, Duration::ZERO)
        .deadline(Duration::MAX)
        .check(Property::Edges);
    assert!(!verdict.is_failed(), "{verdict}");
}
