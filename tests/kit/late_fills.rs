//! A device that enters a translation in its TLB when a window may have opened since the device got
//! it is found, and so is one that makes its accesses on a thread of its own.

use emmu::{
    driver::*,
    testkit::{Attached, Declared, Device, Holds, Kit, Property, Refused},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

/// The moment at which the device enters or follows a translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fills {
    /// It enters the translation while the permit lives.
    UnderThePermit,
    /// … after the permit.
    AfterThePermit,
    /// … under the lock under which it validated the ticket.
    UnderTheLock,
    /// It validates the ticket under no lock.
    AfterTheValidation,
    /// It enters those of four pages under the permit of their range.
    UnderTheRange,
    /// It enters a translation after the permit of its range.
    AfterTheRange,
    /// It enters the translation in time, and follows it when its lock was released.
    AndFollowsLate,
}
use Fills::*;

type Tlb = BTreeMap<Vpn, Cached>;

/// A device with a TLB under a lock of its own.
struct Filler {
    gate: Gate<NoStore, (), Atomic>,
    tlb: Mutex<Tlb>,
    fills: Fills,
}

fn request(access: Access) -> FaultRequest {
    match access {
        Access::Read => FaultRequest::Read,
        Access::Write => FaultRequest::Write,
    }
}

type Use<'u, V> = dyn Fn(&Cached) -> Option<V> + 'u;

impl Filler {
    fn tlb(&self) -> MutexGuard<'_, Tlb> {
        self.tlb.lock().unwrap()
    }
    fn hit<V>(&self, at: Vpn, go: &Use<'_, V>) -> Option<V> {
        let tlb = self.tlb();
        let found = *tlb.get(&at)?;
        if self.fills == AndFollowsLate {
            drop(tlb);
            return go(&found);
        }
        go(&found)
    }
    fn access<V>(
        &self,
        cx: &mut CallCx<'_>,
        mm: &Mm,
        (at, access): (Vpn, Access),
        go: &Use<'_, V>,
    ) -> Result<V, Refused> {
        loop {
            match self.hit(at, go) {
                Some(value) => return Ok(value),
                None => self.miss(cx, mm, at, access)?,
            }
        }
    }
    fn miss(&self, cx: &mut CallCx<'_>, mm: &Mm, at: Vpn, access: Access) -> Result<(), Refused> {
        let cached = match self.fills {
            UnderThePermit | AndFollowsLate => {
                self.gate.translate(cx, mm, at, access, |permit| {
                    self.tlb().insert(at, permit.cached());
                })?;
                return Ok(());
            }
            AfterThePermit => self
                .gate
                .translate(cx, mm, at, access, |permit| permit.cached())?,
            UnderTheRange => {
                let range = VpnRange::new(at, at.plus(4)).expect("not empty");
                let enter = |permit: RangePermit<'_, _, _, _>| {
                    let mut tlb = self.tlb();
                    let cached = permit.range().iter().map(|at| (at, permit.cached(at)));
                    tlb.extend(cached.filter_map(|(at, cached)| Some((at, cached?))));
                };
                self.gate
                    .translate_range(cx, mm, range, request(access), enter)?;
                return Ok(());
            }
            AfterTheRange => {
                let request = request(access);
                let only = |permit: RangePermit<'_, _, _, _>| permit.cached(at);
                let cached =
                    self.gate
                        .translate_range(cx, mm, VpnRange::single(at), request, only)?;
                cached.expect("the first page was requested")
            }
            UnderTheLock | AfterTheValidation => {
                let found = mm.resolve(cx, self.gate.ticket(at, access))?;
                let mut tlb = (self.fills == UnderTheLock).then(|| self.tlb());
                let cached = match found.validate() {
                    Ok(cached) => cached,
                    Err(Retry::Detached) => return Err(Refused::Gone),
                    Err(_) => {
                        thread::yield_now();
                        return Ok(());
                    }
                };
                if let Some(tlb) = &mut tlb {
                    tlb.insert(at, cached);
                    return Ok(());
                }
                cached
            }
        };
        self.tlb().insert(at, cached);
        Ok(())
    }
}

impl SpinningMmu for Filler {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.gate.exclude(cx, inv, |(), gone, _| {
            self.tlb().retain(|at, _| !gone.contains(*at));
        })
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        let tlb = self.tlb();
        tlb.values().for_each(|cached| visit(cached.translation()));
        true
    }
}

impl Device for Filler {
    fn read(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        self.access(cx, mm, (at, Access::Read), &|cached| {
            Some(self.gate.follow(cached, at)?.read_u8(offset))
        })
    }
    fn write(&self, cx: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        let (at, offset) = (Vpn::containing(addr), (addr % PAGE_SIZE) as usize);
        self.access(cx, mm, (at, Access::Write), &|cached| {
            let mut frame = self.gate.follow_mut(cached, at)?;
            frame.write(offset, &[byte]);
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

/// Makes each access of a device on another thread.
struct OnItsOwnThread(Arc<Filler>);

impl OnItsOwnThread {
    fn run<V: Send>(
        &self,
        mm: &Mm,
        f: impl Send + FnOnce(&Filler, &mut CallCx<'_>) -> Result<V, Refused>,
    ) -> Result<V, Refused> {
        let access = || {
            let mut thread = mm.machine().enter().unwrap();
            f(&self.0, &mut thread.cx())
        };
        let came = thread::scope(|scope| scope.spawn(access).join());
        came.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Device for OnItsOwnThread {
    fn read(&self, _: &mut CallCx<'_>, mm: &Mm, addr: u64) -> Result<u8, Refused> {
        self.run(mm, |device, cx| device.read(cx, mm, addr))
    }
    fn write(&self, _: &mut CallCx<'_>, mm: &Mm, addr: u64, byte: u8) -> Result<(), Refused> {
        self.run(mm, |device, cx| device.write(cx, mm, addr, byte))
    }
    fn declares(&self) -> Declared {
        self.0.declares()
    }
}

fn kit(fills: Fills, own_thread: bool) -> Kit {
    Kit::attaching(move |cx, mm| {
        let (filler, registration) = mm.register(cx, |seat| {
            Arc::new(Filler {
                gate: Gate::new(seat, NoStore, ()),
                tlb: Mutex::default(),
                fills,
            })
        });
        let device: Arc<dyn Device> = match own_thread {
            true => Arc::new(OnItsOwnThread(Arc::clone(&filler))),
            false => Arc::clone(&filler) as Arc<dyn Device>,
        };
        let mmu = filler;
        Attached {
            device,
            mmu,
            registration,
        }
    })
}

#[test]
fn a_late_fill_is_found_on_any_thread_and_one_in_time_is_not() {
    for (fills, sound) in [
        (UnderThePermit, true),
        (AfterThePermit, false),
        (UnderTheLock, true),
        (AfterTheValidation, false),
        (UnderTheRange, true),
        (AfterTheRange, false),
        (AndFollowsLate, false),
    ] {
        for own_thread in [false, true] {
            let verdict = kit(fills, own_thread).check(Property::Reuse);
            assert_eq!(verdict.is_failed(), !sound, "{fills:?}: {verdict}");
        }
    }
}

#[test]
fn a_device_with_a_thread_of_its_own_is_sound() {
    for property in [Property::Retry, Property::Progress, Property::Scripts] {
        let verdict = kit(UnderThePermit, true).cases(8).check(property);
        assert!(!verdict.is_failed(), "{verdict}");
    }
}

/// The model hears of each page that a range is asked for to write: its look-up copies the page.
#[test]
fn a_device_that_looks_up_ranges_for_writing_is_sound() {
    for own_thread in [false, true] {
        let verdict = kit(UnderTheRange, own_thread).check(Property::Scripts);
        assert!(!verdict.is_failed(), "{verdict}");
    }
}
