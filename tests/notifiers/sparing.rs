//! Windows with an owner, and entries that the owner keeps in them.

use crate::common::{
    RW, World,
    mirror::{Board, Mirror, bytes, fill, pages, world_of},
};
use emmu::{
    driver::*,
    mm::{Advice, MigrateSelect, MigrateTo},
    oracle::{Finding, Invariant, Oracle},
};
use std::sync::{Arc, Mutex};

/// Notes of each window its event, whether it has this owner, and whether entries may be kept.
struct Notes {
    gate: Gate<OrderedStore<Vpn>, (), Atomic>,
    board: Arc<Board>,
    seen: Mutex<Vec<(Event, bool, bool)>>,
}

impl SpinningMmu for Notes {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let mine = inv.owner() == Some(self.board.memory.id());
        let spare = inv.spare(&self.board.memory).is_some();
        self.seen.lock().unwrap().push((inv.event(), mine, spare));
        self.gate.exclude(cx, inv, |(), _, _| ())
    }
}

fn notes(w: &mut World, board: &Arc<Board>) -> Arc<Notes> {
    let new = |seat| {
        Arc::new(Notes {
            gate: Gate::new(seat, OrderedStore::default(), ()),
            board: board.clone(),
            seen: Mutex::default(),
        })
    };
    w.mm.register(&mut w.thread.cx(), new).0
}

/// The owner may keep entries while pages go to its device and holes are filled; nobody else may,
/// and nobody while pages come home, nor in any other window.
#[test]
fn only_the_owner_spares_and_only_where_the_opener_promises() {
    let mut w = world_of(4, RW, 0);
    fill(&mut w, 0, 2);
    let (board, _device) = Board::add(&w, 8);
    let (other, _other_device) = Board::add(&w, 8);
    let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
    let (owner, stranger) = (notes(&mut w, &board), notes(&mut w, &other));
    let seen = |n: &Notes| std::mem::take(&mut *n.seen.lock().unwrap());
    let go = |w: &mut World, select, to| {
        let cx = &mut w.thread.cx();
        mirror.migrate(cx, &w.mm, (0, 3), select, to).unwrap();
    };
    go(&mut w, MigrateSelect::SYSTEM, MigrateTo::Device);
    assert_eq!(seen(&owner), [(Event::Migrate, true, true); 2]);
    assert_eq!(seen(&stranger), [(Event::Migrate, false, false); 2]);
    assert_eq!(bytes(&mut w, 0, 1), [1]);
    go(&mut w, MigrateSelect::DEVICE_PRIVATE, MigrateTo::System);
    let both = MigrateSelect::all();
    go(&mut w, both, MigrateTo::Nowhere);
    assert_eq!(seen(&owner), [(Event::Migrate, true, false); 3]);
    seen(&stranger);
    go(&mut w, MigrateSelect::SYSTEM, MigrateTo::Device);
    seen(&owner);
    w.advise(1, 1, Advice::DontNeed).unwrap();
    w.machine.evict_device(&mut w.thread.cx(), &board.memory);
    let seen = seen(&owner);
    assert!(seen.len() == 3 && seen.iter().all(|w| *w == (Event::Clear, false, false)));
    w.mm.exit(&mut w.thread.cx());
}

/// A driver that keeps its entries still has to look pages up anew: the board makes its tickets
/// stale, whatever it spares.
#[test]
fn a_ticket_is_stale_after_a_window_that_spared() {
    let mut w = world_of(2, RW, 0);
    fill(&mut w, 0, 2);
    let (board, _device) = Board::add(&w, 8);
    let mirror = Mirror::with(&mut w.thread.cx(), &w.mm, Some(board.clone()));
    let cx = &mut w.thread.cx();
    let mm = w.mm.clone();
    mirror.take_in(cx, &mm, 0, 1).unwrap();
    let ticket = |page| {
        let ticket = mirror.gate.range_ticket(pages(page, 1), FaultRequest::Read);
        ticket.allow_private(&board.memory)
    };
    let on_device = mm.resolve_range(cx, ticket(0)).unwrap();
    let at_home = mm.resolve_range(cx, ticket(1)).unwrap();
    let (select, to) = (MigrateSelect::SYSTEM, MigrateTo::Device);
    mirror.migrate(cx, &mm, (0, 2), select, to).unwrap();
    assert!(mirror.has(cx, 0), "spared");
    for pending in [on_device, at_home] {
        let refused = pending.admit(cx).expect_err("a window has closed");
        assert_eq!(refused.reason(), Retry::Stale);
    }
    mm.exit(cx);
}

/// A device with a TLB of one entry.
struct Tlb {
    gate: Gate<NoStore, Option<Cached>, Atomic>,
    board: Arc<Board>,
    /// Keeps the entry in each window that has this owner, as if that were the promise.
    trusts_owner: bool,
}

impl SpinningMmu for Tlb {
    fn invalidate<'i>(&self, cx: AtomicCallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        let keeps = match self.trusts_owner {
            true => inv.owner() == Some(self.board.memory.id()),
            false => inv.spare(&self.board.memory).is_some(),
        };
        self.gate.exclude(cx, inv, |tlb, _, _| {
            if !keeps {
                *tlb = None;
            }
        })
    }
    fn translations(&self, visit: &mut dyn FnMut(Translation)) -> bool {
        self.gate.audited_parts(|_, tlb| {
            tlb.iter().for_each(|cached| visit(cached.translation()));
        })
    }
}

/// To ask for the owner is not enough: a page that comes home is a window of the same owner. The
/// oracle finds the driver that does so, and is silent about the one that asks for the promise.
#[test]
fn an_owner_is_no_promise() {
    for trusts_owner in [false, true] {
        let mut w = world_of(2, RW, 0);
        fill(&mut w, 0, 2);
        let (board, _device) = Board::add(&w, 8);
        let oracle = Oracle::new(&w.machine);
        let cx = &mut w.thread.cx();
        let new = |seat| {
            let gate = Gate::new(seat, NoStore, None);
            Arc::new(Tlb {
                gate,
                board: board.clone(),
                trusts_owner,
            })
        };
        let (device, _registration) = w.mm.register(cx, new);
        oracle.watch(&w.mm, device.clone());
        let mover = Mirror::with(cx, &w.mm, Some(board.clone()));
        mover.take_in(cx, &w.mm, 0, 1).unwrap();
        let ticket = device.gate.range_ticket(pages(0, 1), FaultRequest::Read);
        let ticket = ticket.allow_private(&board.memory);
        let fill_tlb = |mut permit: RangePermit<'_, _, _, _>| {
            let cached = permit.cached(pages(0, 1).start());
            *permit.state() = cached;
        };
        device
            .gate
            .translate_ticket(cx, &w.mm, ticket, fill_tlb)
            .unwrap();
        mover.take_in(cx, &w.mm, 1, 1).unwrap();
        let (select, to) = (MigrateSelect::SYSTEM, MigrateTo::Device);
        mover.migrate(cx, &w.mm, (0, 2), select, to).unwrap();
        assert!(device.gate.lock(cx).state().is_some(), "kept, rightly");
        oracle.assert_silent();
        assert_eq!(bytes(&mut w, 0, 1), [1]);
        let found = oracle.take();
        assert_eq!(found.is_empty(), !trusts_owner, "{found:?}");
        let coherent = |f: &Finding| f.invariant() == Invariant::Coherent;
        assert_eq!(found.iter().any(coherent), trusts_owner);
        *device.gate.lock(&mut w.thread.cx()).state() = None;
        w.mm.exit(&mut w.thread.cx());
    }
}
