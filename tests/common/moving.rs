//! A page on its way: something is done while all its mappings are marks. No clock: whoever must be
//! somewhere says so.

use super::{World, at};
use emmu::{
    Mm,
    addr::{Pfn, Vpn},
    ctx::{CallCx, CallbackCx, Cx, Sleepable, rank},
    frame::FrameFlags,
    mm::Pte,
    notifier::{Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Seat},
    rmap::RmapNotifier,
};
use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{scope, yield_now},
};

/// What comes of a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comes {
    /// The page is in another frame.
    Through,
    /// Somebody else held it, so it stays where it was.
    ToNothing,
    /// The same, because of what is done meanwhile.
    ToNothingByThat,
}

pub const BOTH: [Comes; 2] = [Comes::Through, Comes::ToNothing];

/// A place where a thread says that it is there, and waits until it may go on: once, if armed.
struct Stop(Mutex<Option<(SyncSender<()>, Receiver<()>)>>);

/// The other side of it. If it goes, whoever waits there goes on.
struct Watch {
    there: Receiver<()>,
    go: SyncSender<()>,
}

impl Stop {
    fn new() -> (Self, Watch) {
        let ((says, there), (go, may)) = (sync_channel(1), sync_channel(1));
        (Self(Mutex::new(Some((says, may)))), Watch { there, go })
    }
    fn pass(&self) {
        let armed = self.0.lock().unwrap().take();
        if let Some((says, may)) = armed {
            let _nobody_cares = says.send(());
            let _or_gone = may.recv();
        }
    }
}

/// A driver of an address space: its first window is held up.
struct Slow {
    gate: Gate<OrderedStore<Vpn>, (), Sleepable>,
    stop: Stop,
}

impl ExternalMmu for Slow {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.stop.pass();
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

/// A driver that is told by frame: when all mappings are gone.
struct Told(Stop);

impl RmapNotifier for Told {
    fn invalidate_frame(&self, _: Cx<'_, rank::Folio, Sleepable>, _: Pfn) {
        self.0.pass();
    }
}

impl World {
    /// Does something while page `page`, which is mapped and may be read, is on its way.
    pub fn while_moving<T>(
        &mut self,
        page: u64,
        comes: Comes,
        work: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let pfn = self.pfn(page).expect("mapped");
        let (slow, begins) = Stop::new();
        let (told, marked) = Stop::new();
        let (_slow, on_the_chain) = self.mm.register(&mut self.thread.cx(), |seat: Seat| {
            Arc::new(Slow {
                gate: Gate::new(seat, OrderedStore::default(), ()),
                stop: slow,
            })
        });
        let by_frame = self.machine.register_exports(Arc::new(Told(told)));
        let export = |_: Cx<'_, rank::Folio, Sleepable>, frame: &emmu::frame::FrameLock<'_>| {
            frame.export();
        };
        self.mm
            .with_locked_frame(&mut self.thread.cx(), at(page), Access::Read, export)
            .expect("mapped");
        let held = self.machine.mem().refcount(pfn);
        let mm = Arc::clone(&self.mm);
        let migrate = || {
            let mut thread = mm.machine().enter().unwrap();
            mm.migrate(&mut thread.cx(), at(page)).unwrap()
        };
        let out = scope(|s| {
            let first = s.spawn(migrate);
            begins.there.recv().unwrap();
            let second = (comes == Comes::ToNothing).then(|| {
                // It takes a reference, and waits for the lock.
                let second = s.spawn(migrate);
                while self.machine.mem().refcount(pfn) < held + 2 {
                    yield_now();
                }
                second
            });
            begins.go.send(()).unwrap();
            marked.there.recv().unwrap();
            // Dropped when `work` panics, so that nobody waits for ever.
            let marked = marked;
            let out = work(self);
            marked.go.send(()).unwrap();
            assert_eq!(first.join().unwrap().is_some(), comes == Comes::Through);
            let _moved_or_gone = second.map(|second| second.join().unwrap());
            out
        });
        self.machine
            .unregister_exports(&mut self.thread.cx(), by_frame);
        self.mm.unregister(&mut self.thread.cx(), on_the_chain);
        out
    }
    /// What the page table says of page `n`.
    pub fn pte(&mut self, n: u64) -> Pte {
        let mm: &Mm = &self.mm;
        mm.walker(&mut self.thread.cx()).pte(Vpn::containing(at(n)))
    }
    /// The frame that page `n` is mapped to.
    pub fn pfn(&mut self, n: u64) -> Option<Pfn> {
        match self.pte(n) {
            Pte::Present { pfn, .. } => Some(pfn),
            _ => None,
        }
    }
}

impl World {
    /// Has another thread do something that waits for page `page`, which is on its way: the page
    /// arrives when that thread waits.
    pub fn waits_for_moving<T: Send>(
        &mut self,
        page: u64,
        comes: Comes,
        what: impl FnOnce(&Mm, &mut CallCx<'_>) -> T + Send,
    ) -> T {
        let pfn = self.pfn(page).expect("mapped");
        let mm = Arc::clone(&self.mm);
        scope(|s| {
            let waits = self.while_moving(page, comes, |w| {
                let waits = s.spawn(move || {
                    let mut thread = mm.machine().enter().unwrap();
                    what(&mm, &mut thread.cx())
                });
                let waited_for =
                    |w: &Self| w.machine.mem().flags(pfn).contains(FrameFlags::WAITERS);
                while !waited_for(w) {
                    assert!(!waits.is_finished(), "it did not wait");
                    yield_now();
                }
                waits
            });
            waits.join().unwrap()
        })
    }
}
