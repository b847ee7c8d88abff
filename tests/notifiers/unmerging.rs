//! Merged pages become a process's own again, even if it reads them while a driver is asked.

use crate::common::{BASE, PAGE, at};
use emmu::{
    Machine, MachineConfig, Mm,
    addr::{Vpn, VpnRange},
    ctx::{CallCx, CallbackCx, Sleepable},
    frame::FrameFlags,
    mm::{Advice, Merger, MmapArgs, Pte},
    notifier::{Ack, AgeKind, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

/// Has the pages read while it is asked for the first time.
struct Slow {
    gate: Gate<OrderedStore<u64>, (), Sleepable>,
    reader: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl ExternalMmu for Slow {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let reader = self.reader.lock().unwrap().take();
        if let Some((read, done)) = reader {
            read.send(()).unwrap();
            // A reader of the second page may have to wait for this window.
            let _read = done.recv_timeout(Duration::from_millis(300));
        }
        self.gate.exclude_entries(cx, inv)
    }
}

fn is_own(cx: &mut CallCx<'_>, machine: &Machine, mm: &Mm, n: u64) -> bool {
    match mm.walker(cx).pte(Vpn::containing(at(n))) {
        Pte::Present { pfn, .. } => {
            let flags = machine.mem().flags(pfn);
            flags.contains(FrameFlags::SWAP_BACKED | FrameFlags::ANON_EXCLUSIVE)
        }
        other => panic!("{other:?}"),
    }
}

fn unmerged_while_read(unmerge: impl FnOnce(&mut CallCx<'_>, &Arc<Machine>, &Mm)) {
    let machine = Machine::new(MachineConfig::default());
    let mut thread = machine.enter().unwrap();
    let cx = &mut thread.cx();
    let mm = Mm::new(&machine);
    mm.mmap(cx, &MmapArgs::anonymous(2 * PAGE).fixed(BASE))
        .unwrap();
    mm.madvise(cx, BASE, 2 * PAGE, Advice::Mergeable).unwrap();
    (0..2).for_each(|n| mm.store(cx, at(n), 7).unwrap());
    assert_eq!(
        machine.merge_same_pages(cx, &[(&mm, at(0)), (&mm, at(1))]),
        1
    );
    let pages = VpnRange::new(Vpn::containing(at(0)), Vpn::containing(at(2))).unwrap();
    mm.age(cx, pages, AgeKind::ClearFlush);
    let ((read, asked), (done, wait)) = (channel(), channel());
    let (_slow, registration) = mm.register(cx, |seat: Seat| {
        Arc::new(Slow {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            reader: Mutex::new(Some((read, wait))),
        })
    });
    thread::scope(|s| {
        let (machine, mm) = (&machine, &mm);
        s.spawn(move || {
            let mut thread = machine.enter().unwrap();
            asked.recv().unwrap();
            (0..2).for_each(|n| assert_eq!(mm.load(&mut thread.cx(), at(n)), Ok(7)));
            let _gone = done.send(());
        });
        unmerge(cx, machine, mm);
    });
    let own = [0, 1].map(|n| is_own(cx, &machine, &mm, n));
    assert_eq!(own, [true, true]);
    drop(registration);
    mm.exit(cx);
    assert_eq!(machine.mem().in_use(), 0);
}

#[test]
fn unmergeable_memory_is_unmerged_whoever_reads_it() {
    unmerged_while_read(|cx, _, mm| {
        mm.madvise(cx, BASE, 2 * PAGE, Advice::Unmergeable).unwrap();
    });
    unmerged_while_read(|cx, machine, mm| Merger::new(machine).unmerge_all(cx, &[mm]));
}
