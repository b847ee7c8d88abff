//! A window by hand: an operation of one's own changes entries under the mmap lock.
//!
//! The operation is a write barrier, as a garbage collector wants one: it takes the right to write
//! from the pages of a range, and the next store to each page faults.
//!
//! ```text
//! cargo run --example window_by_hand
//! ```

use emmu::{
    Machine, MachineConfig, Mm, PAGE_SIZE,
    addr::{Vpn, VpnRange},
    ctx::CallCx,
    extmmu::{Recorded, Recorder},
    mm::{MmapArgs, Pte},
    notifier::Event,
};
use std::error::Error;

/// Takes the right to write from the pages of `range`, and returns how many had it.
fn write_barrier(mm: &Mm, cx: &mut CallCx<'_>, range: VpnRange) -> usize {
    // The mmap lock, held shared: the VMAs stay, and faults of other threads go on.
    let mut guard = mm.lock_shared(cx);
    // The lease is the right to open windows. The window exists after every registered MMU has
    // dropped the range, and only a window hands out entries that may lose something.
    let mut lease = guard.lease();
    lease.with_window(range, Event::ProtectionPage, |window| {
        let mut protected = 0;
        window.for_each_leaf(|entries| {
            entries.for_each(|entry| protected += usize::from(entry.write_protect()));
        });
        protected
    })
    // The window has ended: each MMU may look the pages up again.
}

fn main() -> Result<(), Box<dyn Error>> {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter()?;
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (recorder, registration) = mm.register(&mut cx, Recorder::new);

    // Eight pages, of which three are written to.
    let at = mm.mmap(&mut cx, &MmapArgs::anonymous(8 * PAGE_SIZE))?;
    for page in [0, 3, 5] {
        mm.store(&mut cx, at + page * PAGE_SIZE, 1)?;
    }
    let first = Vpn::containing(at);
    let range = VpnRange::new(first, first.plus(8)).expect("not empty");
    assert_eq!(write_barrier(&mm, &mut cx, range), 3);
    assert_eq!(recorder.take(), [Recorded::Window(range)]);

    // A store gets the right back for its page, without a copy: the frame is still exclusive.
    let writable = |cx: &mut CallCx<'_>| {
        let walker = mm.walker(cx);
        let writes = |at: &Vpn| matches!(walker.pte(*at), Pte::Present { write: true, .. });
        range.iter().filter(writes).count()
    };
    assert_eq!(writable(&mut cx), 0);
    mm.store(&mut cx, at + 3 * PAGE_SIZE, 2)?;
    assert_eq!(writable(&mut cx), 1);
    assert!(
        recorder.take().is_empty(),
        "an entry that gains needs no window"
    );
    assert_eq!(write_barrier(&mm, &mut cx, range), 1);
    println!("three pages had the right to write, then one");

    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
    Ok(())
}
