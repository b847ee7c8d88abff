//! Objects of others that do not keep to what is asked of them: an error, and nothing of anybody
//! else's is seen.

use crate::common::{PAGE, RW, World, at, machine};
use emmu::{
    FaultError, Machine,
    ctx::{CallCx, FaultCx},
    driver::*,
    error::ObjectError,
    file::{Backing, File, FileMode, MemoryObject, PageCache, PageRequest},
    frame::Frame,
    mm::MapFlags,
    rmap::Mapping,
};
use std::{
    borrow::Cow,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    /// Frames of another machine.
    Foreign,
    /// … where there is nothing around them.
    ForeignAround,
    /// Frames that belong to nobody.
    Unowned,
    /// The next page.
    Other,
    Again,
    /// `fill` asks the cache that it fills.
    Asks,
    /// `fill` panics, once.
    Panics,
    /// It read and wrote more than it was given, and has more pages than there are.
    Boasts,
}

#[derive(Debug)]
struct Strange {
    cache: Arc<PageCache>,
    here: Arc<Machine>,
    other: Arc<Machine>,
    how: How,
    panicked: AtomicBool,
}

impl MemoryObject for Strange {
    fn name(&self) -> Cow<'_, str> {
        "/strange".into()
    }
    fn mapping(&self) -> &Arc<Mapping> {
        self.cache.mapping()
    }
    fn size(&self) -> u64 {
        8 * PAGE
    }
    fn page(
        &self,
        mut cx: FaultCx<'_>,
        index: u64,
        _: &PageRequest,
    ) -> Result<Frame<'_>, ObjectError> {
        let out = |_| ObjectError::Unsupported;
        let index = match self.how {
            How::Foreign | How::ForeignAround => return self.other.mem().alloc().map_err(out),
            How::Unowned => return self.here.mem().alloc().map_err(out),
            How::Again => return Err(ObjectError::Again),
            How::Other => index + 1,
            How::Asks | How::Panics | How::Boasts => index,
        };
        let mut filling = self.cache.filling(&mut cx);
        let (frame, _new) = filling.get_or_make(index, |frame| {
            if self.how == How::Asks {
                assert!(self.cache.get(index).is_none(), "not up to date yet");
                assert_eq!(self.cache.len(), 1);
            }
            if self.how == How::Panics && !self.panicked.swap(true, SeqCst) {
                panic!("fill");
            }
            frame.write(0, &[7]);
            Ok(())
        })?;
        Ok(frame)
    }
    fn resident(&self, index: u64) -> Option<Frame<'_>> {
        match self.how {
            How::ForeignAround => self.other.mem().alloc().ok(),
            _ => self.cache.get(index),
        }
    }
    fn pages(&self) -> u64 {
        match self.how {
            How::Boasts => u64::MAX,
            _ => 8,
        }
    }
    fn read_at(&self, _: CallCx<'_>, _: u64, out: &mut [u8]) -> Result<usize, ObjectError> {
        out.fill(7);
        Ok(match self.how {
            How::Boasts => usize::MAX,
            _ => 0,
        })
    }
    fn write_at(&self, _: CallCx<'_>, _: u64, _: &[u8]) -> Result<usize, ObjectError> {
        Ok(usize::MAX)
    }
}

/// Such an object, mapped shared on pages 0 to 8; the machine beside it.
fn strange(how: How) -> (World, Arc<Machine>) {
    let (w, other, _) = strange_file(how);
    (w, other)
}

fn strange_file(how: How) -> (World, Arc<Machine>, Arc<File>) {
    let mut w = World::on(machine(4096));
    let other = machine(64);
    let object = Arc::new(Strange {
        cache: PageCache::new(w.machine.host(), Backing::Swap).unwrap(),
        here: Arc::clone(&w.machine),
        other: Arc::clone(&other),
        how,
        panicked: AtomicBool::new(false),
    });
    let file = File::open(object, FileMode::ReadWrite);
    w.map_file(0, 8, &file, 0, MapFlags::SHARED);
    (w, other, file)
}

struct Device(Gate<OrderedStore<Vpn>, (), Atomic>);

impl SpinningMmu for Device {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude(cx, inv, |(), _, _| ())
    }
}

/// The look-up of a range of one page by a driver.
fn look_up_range(w: &mut World, addr: u64) -> Result<(), FaultError> {
    let cx = &mut w.thread.cx();
    let new = |seat| Arc::new(Device(Gate::new(seat, OrderedStore::default(), ())));
    let (device, registration) = w.mm.register(cx, new);
    let range = VpnRange::single(Vpn::containing(addr));
    let ticket = device.0.range_ticket(range, FaultRequest::Read);
    let found = w.mm.resolve_range(cx, ticket).map(|_pending| ());
    w.mm.unregister(cx, registration);
    found.map_err(|fault| fault.why)
}

/// A load, a store and a driver's look-up end with that error; nothing is mapped, and every frame
/// is given back.
#[track_caller]
fn refused(how: How, why: ObjectError) {
    let (mut w, other) = strange(how);
    let before = w.machine.mem().in_use();
    let addr = at(2);
    let wanted = FaultError::Object { addr, why };
    assert_eq!(w.get(2), Err(wanted));
    let stored = w.mm.store(&mut w.thread.cx(), addr, 1);
    assert_eq!(stored, Err(wanted));
    assert_eq!(look_up_range(&mut w, addr), Err(wanted));
    assert_eq!(other.mem().in_use(), 0, "the other machine's");
    let cached = u32::from(how == How::Other);
    assert_eq!(w.machine.mem().in_use(), before + cached);
    w.end();
}

#[test]
fn frames_of_another_machine_are_not_mapped() {
    refused(How::Foreign, ObjectError::NotItsPage(2));
}

#[test]
fn frames_of_another_machine_are_not_mapped_around() {
    refused(How::ForeignAround, ObjectError::NotItsPage(2));
}

#[test]
fn frames_that_an_object_does_not_own_are_not_mapped() {
    refused(How::Unowned, ObjectError::NotItsPage(2));
}

#[test]
fn another_page_of_the_object_is_not_mapped() {
    refused(How::Other, ObjectError::NotItsPage(2));
}

#[test]
fn an_object_that_never_has_a_page_ends_the_access() {
    refused(How::Again, ObjectError::Again);
}

#[test]
fn who_fills_a_page_may_ask_the_cache() {
    let (mut w, _other) = strange(How::Asks);
    assert_eq!(w.get(2), Ok(7));
    w.end();
}

#[test]
fn a_page_whose_filling_panicked_can_be_had_later() {
    let (mut w, _other) = strange(How::Panics);
    let loaded = catch_unwind(AssertUnwindSafe(|| w.get(2)));
    assert!(loaded.is_err());
    assert_eq!(w.get(2), Ok(7));
    w.end();
}

#[test]
fn a_count_beyond_what_was_given_is_all_of_it() {
    let (mut w, _other, file) = strange_file(How::Boasts);
    w.map(16, 2, RW);
    let cx = &mut w.thread.cx();
    let mut bytes = [0; 16];
    assert_eq!(file.read_at(cx.reborrow(), 0, &mut bytes), Ok(16));
    assert_eq!(file.write_at(cx.reborrow(), 0, &bytes), Ok(16));
    let (addr, len) = (at(16), 5000);
    assert_eq!(w.mm.write_file(cx, (&file, 0), addr, len), Ok(len));
    assert_eq!(w.mm.read_file(cx, (&file, 0), addr, len), Ok(len));
    let ends = [addr, addr + len as u64 - 1, addr + len as u64];
    let loaded = ends.map(|addr| w.mm.load(cx, addr));
    assert_eq!(loaded, [Ok(7), Ok(7), Ok(0)]);
    let cached = w.mm.mincore(cx, at(0), 8 * PAGE).unwrap();
    assert!(cached.iter().all(|is| !is));
    w.end();
}
