//! A driver enters a frame in its own reverse map, and panics before it returns.

use crate::common::{PAGE, at, machine};
use emmu::{Mm, addr::Pfn, ctx::FolioCx, mm::MmapArgs, notifier::Access, rmap::RmapNotifier};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread,
};

#[derive(Default)]
struct Exporter(Mutex<Vec<Pfn>>);

impl RmapNotifier for Exporter {
    fn invalidate_frame(&self, _: FolioCx<'_>, pfn: Pfn) {
        self.0.lock().unwrap().retain(|kept| *kept != pfn);
    }
}

/// The mapping went before the frame was flagged, so `munmap` could not call the driver.
#[test]
fn a_driver_that_panics_is_called_for_the_frame_that_it_entered() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let exporter = Arc::new(Exporter::default());
    let registration = machine.register_exports(exporter.clone());
    mm.mmap(&mut cx, &MmapArgs::anonymous(PAGE).fixed(at(0)))
        .unwrap();
    let unmap = || {
        let mut thread = machine.enter().unwrap();
        mm.munmap(&mut thread.cx(), at(0), PAGE).unwrap();
    };
    let entered = catch_unwind(AssertUnwindSafe(|| {
        mm.with_locked_frame(&mut cx, at(0), Access::Write, |_, frame| {
            thread::scope(|s| s.spawn(unmap).join()).unwrap();
            frame.export();
            exporter.0.lock().unwrap().push(frame.pfn());
            panic!("the driver's own");
        })
    }));
    let why = entered.map(|_: Result<(), _>| ()).unwrap_err();
    assert_eq!(why.downcast_ref(), Some(&"the driver's own"));
    assert!(exporter.0.lock().unwrap().is_empty());
    assert_eq!(machine.mem().in_use(), 0);
    machine.unregister_exports(&mut cx, registration);
    mm.exit(&mut cx);
}
