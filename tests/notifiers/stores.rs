//! What leaves a gate does not come back, a store that says otherwise is found, and a view is of a
//! frame that lives.

use crate::common::{
    BASE, PAGE,
    driver::Driver,
    machine,
    numbered::{filled, page, said, window},
};
use emmu::{
    Mm,
    addr::{PMD_PAGES, Vpn, VpnRange},
    ctx::{Atomic, CallCx, CallbackCx},
    mm::{Advice, MmapArgs},
    notifier::{
        Access, Ack, ExternalMmu, Gate, Invalidation, OrderedStore, Rearrange, RemovedEntries,
        Seat, ShadowEntry, ShadowStore,
    },
};
use std::sync::{Arc, Mutex};

/// Whatever it is.
fn done<T>(_: T) {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lie {
    None,
    /// It keeps what it was told to forget.
    Keeps,
    /// … and hides it from audits.
    KeepsHidden,
    /// It drops what it was told to hand back.
    Drops,
    /// It keeps what it hands back beside, and puts that in again.
    Pockets,
}

/// Where entries go that should be handed back.
type Pocket = Arc<Mutex<Vec<ShadowEntry>>>;

struct Liar {
    entries: Vec<(u64, ShadowEntry)>,
    lie: Lie,
    pocket: Pocket,
}

impl ShadowStore for Liar {
    type Key = u64;
    fn insert(&mut self, key: u64, entry: ShadowEntry) -> RemovedEntries {
        let old = self.entries.iter().position(|(k, _)| *k == key);
        let old = old.map(|at| self.entries.remove(at).1);
        self.entries.push((key, entry));
        if self.lie == Lie::Drops {
            drop(old);
            return RemovedEntries::new();
        }
        old.into_iter().collect()
    }
    fn get(&self, key: &u64) -> Option<&ShadowEntry> {
        let found = self.entries.iter().find(|(k, _)| k == key);
        found.map(|(_, entry)| entry)
    }
    fn remove(&mut self, key: &u64) -> Option<ShadowEntry> {
        let at = self.entries.iter().position(|(k, _)| k == key)?;
        Some(self.entries.remove(at).1)
    }
    fn remove_range(&mut self, range: VpnRange, gone: &mut RemovedEntries) {
        if matches!(self.lie, Lie::Keeps | Lie::KeepsHidden) {
            return;
        }
        let hit = |(_, e): &mut (u64, ShadowEntry)| e.range().overlaps(range);
        let taken = self.entries.extract_if(.., hit).map(|(_, e)| e);
        match self.lie {
            Lie::Drops => taken.for_each(drop),
            Lie::Pockets => self.pocket.lock().unwrap().extend(taken),
            _ => gone.extend(taken),
        }
    }
    fn for_each(&self, visit: &mut dyn FnMut(&ShadowEntry)) {
        if self.lie != Lie::KeepsHidden {
            self.entries.iter().for_each(|(_, e)| visit(e));
        }
    }
}

enum Do {
    /// From now on it lies like this.
    Lie(Lie),
    /// An entry comes out of the pocket, under this key.
    PutIn(u64),
}

impl Rearrange for Liar {
    type How = Do;
    fn rearrange(&mut self, how: Do, _: &mut RemovedEntries) {
        match how {
            Do::Lie(lie) => self.lie = lie,
            Do::PutIn(key) => {
                let entry = self.pocket.lock().unwrap().pop();
                self.entries.extend(entry.map(|e| (key, e)));
            }
        }
    }
}

struct Of<S: ShadowStore>(Gate<S, (), Atomic>);

impl<S: ShadowStore + Send + Sync> ExternalMmu for Of<S> {
    fn invalidate_start<'i>(&self, cx: CallbackCx<'_>, inv: Invalidation<'i>) -> Ack<'i> {
        self.0.exclude_entries(cx, inv)
    }
}

/// Tells the store of the driver how to lie from now on.
fn tell(cx: &mut CallCx<'_>, driver: &Of<Liar>, lie: Lie) {
    driver.0.lock(cx).rearrange(Do::Lie(lie), |()| ());
}

fn liar(pocket: &Pocket) -> impl FnOnce(Seat) -> Arc<Of<Liar>> {
    let store = Liar {
        entries: Vec::new(),
        lie: Lie::None,
        pocket: Arc::clone(pocket),
    };
    |seat| Arc::new(Of(Gate::new(seat, store, ())))
}

fn establish<S: ShadowStore<Key = u64>>(
    cx: &mut CallCx<'_>,
    mm: &Mm,
    gate: &Gate<S, (), Atomic>,
    n: u64,
    pinned: bool,
) {
    let pending = mm.resolve(cx, gate.ticket(page(n), Access::Write)).unwrap();
    let permit = pending.admit(cx).unwrap();
    drop(if pinned {
        permit.establish_held(n)
    } else {
        permit.establish(n)
    });
}

/// With debug assertions, as the table of guarantees says; each is said once, and not again when
/// the driver goes.
#[test]
fn a_store_that_lies_is_found_by_the_next_window() {
    for (lie, text) in [
        (Lie::Keeps, "the store kept"),
        (Lie::KeepsHidden, "the store shows 0 entries, and has 1"),
        (Lie::Drops, "the store shows 0 entries, and has 1"),
        (Lie::Pockets, "the store shows 0 entries, and has 1"),
    ] {
        let machine = machine(64);
        let mut thread = machine.enter().unwrap();
        let mut cx = thread.cx();
        let mm = filled(&mut cx, &machine);
        let (driver, registration) = mm.register(&mut cx, liar(&Pocket::default()));
        establish(&mut cx, &mm, &driver.0, 1, false);
        window(&mut cx, &mm, 2);
        tell(&mut cx, &driver, lie);
        let found = said(|| window(&mut cx, &mm, 1)).unwrap_or_default();
        if cfg!(debug_assertions) {
            assert!(found.starts_with(text), "{lie:?}: {found}");
        }
        tell(&mut cx, &driver, Lie::None);
        registration.unregister(&mut cx);
        mm.exit(&mut cx);
        assert_eq!(machine.mem().in_use(), 0);
    }
}

/// What is used but not shown is what no audit can find.
#[test]
fn a_store_that_gives_what_it_hides_is_found_by_whoever_uses_it() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, liar(&Pocket::default()));
    establish(&mut cx, &mm, &driver.0, 1, false);
    let mut guard = driver.0.lock(&mut cx);
    assert_eq!(guard.lookup(&1).unwrap().read_u8(0), 1);
    guard.rearrange(Do::Lie(Lie::KeepsHidden), |()| ());
    let found = said(|| done(guard.lookup(&1))).unwrap_or_default();
    if cfg!(debug_assertions) {
        assert!(found.starts_with("the store hides"), "{found}");
    }
    guard.rearrange(Do::Lie(Lie::None), |()| ());
    drop(guard);
    registration.unregister(&mut cx);
    mm.exit(&mut cx);
}

/// In every build: a frame of another address space, or of another machine, is nobody's to look at
/// here.
#[test]
fn an_entry_of_another_gate_is_refused() {
    for same_machine in [true, false] {
        let pocket = Pocket::default();
        let first = machine(64);
        {
            let mut thread = first.enter().unwrap();
            let mut cx = thread.cx();
            let mm = filled(&mut cx, &first);
            let (driver, registration) = mm.register(&mut cx, liar(&pocket));
            establish(&mut cx, &mm, &driver.0, 1, false);
            tell(&mut cx, &driver, Lie::Pockets);
            let _found = said(|| window(&mut cx, &mm, 1));
            tell(&mut cx, &driver, Lie::None);
            registration.unregister(&mut cx);
            mm.exit(&mut cx);
        }
        let second = if same_machine {
            Arc::clone(&first)
        } else {
            machine(64)
        };
        let mut thread = second.enter().unwrap();
        let mut cx = thread.cx();
        let victim = filled(&mut cx, &second);
        let spy = Mm::new(&second);
        let (driver, registration) = spy.register(&mut cx, liar(&pocket));
        let mut guard = driver.0.lock(&mut cx);
        guard.rearrange(Do::PutIn(1), |()| ());
        let text = "is an entry of another registration";
        for found in [
            said(|| done(guard.lookup(&1))),
            said(|| done(guard.lookup_mut(&1).map(|mut v| v.write(0, &[66])))),
            said(|| done(guard.cached(&1))),
            said(|| guard.forget(&1)),
        ] {
            assert!(found.unwrap().contains(text));
        }
        drop(guard);
        registration.unregister(&mut cx);
        spy.exit(&mut cx);
        assert_eq!(victim.load(&mut cx, BASE + PAGE), Ok(1));
        victim.exit(&mut cx);
        assert_eq!(second.mem().in_use(), 0);
    }
}

/// A reference that goes with an entry is not lost without a word.
#[test]
fn a_pinned_entry_that_a_store_drops_is_missed() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, liar(&Pocket::default()));
    establish(&mut cx, &mm, &driver.0, 1, true);
    tell(&mut cx, &driver, Lie::Drops);
    let found = said(|| establish(&mut cx, &mm, &driver.0, 1, true)).unwrap();
    assert!(found.starts_with("a store dropped"), "{found}");
    tell(&mut cx, &driver, Lie::None);
    registration.unregister(&mut cx);
    mm.exit(&mut cx);
    assert_eq!(
        machine.mem().in_use(),
        1,
        "it is lost, but not without a word"
    );
}

/// A window elsewhere in the block empties the account of where entries are only when none is
/// there.
#[test]
fn an_entry_is_found_by_its_window_after_others_have_gone() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let (driver, registration) = mm.register(&mut cx, |seat| {
        Arc::new(Of(Gate::new(seat, OrderedStore::default(), ())))
    });
    establish(&mut cx, &mm, &driver.0, 0, false);
    establish(&mut cx, &mm, &driver.0, 1, false);
    driver.0.lock(&mut cx).forget(&1);
    mm.madvise(&mut cx, BASE + PAGE, PAGE, Advice::DontNeed)
        .unwrap();
    let child = mm.fork(&mut cx).unwrap();
    mm.store(&mut cx, BASE, 9).unwrap();
    assert!(driver.0.lock(&mut cx).lookup(&0).is_none());
    child.exit(&mut cx);
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
}

/// An entry given up twice gives one reference up.
#[test]
fn a_reference_is_given_up_once() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &machine);
    let new = |seat| Arc::new(Of(Gate::new(seat, OrderedStore::default(), ())));
    let (mine, mine_reg) = mm.register(&mut cx, new);
    let (other, other_reg) = mm.register(&mut cx, new);
    for driver in [&mine, &other] {
        establish(&mut cx, &mm, &driver.0, 1, true);
    }
    let pfn = mine.0.lock(&mut cx).store().get(&1).unwrap().pfn();
    for _ in 0..2 {
        let mut guard = mine.0.lock(&mut cx);
        guard.forget(&1);
        guard.forget(&1);
        assert!(!guard.forget_range(VpnRange::ALL, |()| ()));
        drop(guard);
        assert_eq!(machine.mem().refcount(pfn), 2, "the page's and the other's");
    }
    mm.madvise(&mut cx, BASE, 16 * PAGE, Advice::DontNeed)
        .unwrap();
    assert_eq!(machine.mem().refcount(pfn), 0);
    mm.unregister(&mut cx, mine_reg);
    mm.unregister(&mut cx, other_reg);
    mm.exit(&mut cx);
}

/// A copy of a translation is one of its registration, wherever it is carried.
#[test]
fn a_cached_translation_is_followed_by_its_own_gate_alone() {
    let machine = machine(64);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let (mm, other) = (filled(&mut cx, &machine), filled(&mut cx, &machine));
    let (driver, registration) = mm.register(&mut cx, Driver::new);
    let (spy, spy_reg) = other.register(&mut cx, Driver::new);
    let pending = mm.resolve(&mut cx, driver.gate.ticket(page(1), Access::Write));
    let cached = pending.unwrap().admit(&mut cx).unwrap().cached();
    assert_eq!(driver.gate.follow(&cached, page(1)).unwrap().read_u8(0), 1);
    assert!(driver.gate.follow_mut(&cached, page(1)).is_some());
    assert!(driver.gate.follow(&cached, page(2)).is_none());
    assert!(spy.gate.follow(&cached, page(1)).is_none());
    assert!(spy.gate.follow_mut(&cached, page(1)).is_none());
    mm.unregister(&mut cx, registration);
    other.unregister(&mut cx, spy_reg);
    mm.exit(&mut cx);
    other.exit(&mut cx);
}

/// Bytes of a huge page.
const HUGE: u64 = PMD_PAGES * PAGE;

/// A huge page at `addr` whose first byte is 1, and a 5 at the beginning of its last page.
fn map_huge(cx: &mut CallCx<'_>, mm: &Mm, addr: u64) -> (Vpn, Vpn) {
    mm.mmap(cx, &MmapArgs::anonymous(HUGE).fixed(addr)).unwrap();
    mm.madvise(cx, addr, HUGE, Advice::HugePage).unwrap();
    let (first, last) = (Vpn::containing(addr), Vpn::containing(addr + HUGE - 1));
    mm.store(cx, first.addr(), 1).unwrap();
    mm.store(cx, last.addr(), 5).unwrap();
    (first, last)
}

/// Small pages at `addr`, enough to take every frame that was given back.
fn map_small(cx: &mut CallCx<'_>, mm: &Mm, addr: u64) {
    let args = MmapArgs::anonymous(2 * HUGE).fixed(addr);
    mm.mmap(cx, &args).unwrap();
    for advice in [Advice::NoHugePage, Advice::PopulateWrite] {
        mm.madvise(cx, addr, 2 * HUGE, advice).unwrap();
    }
}

/// Of a huge translation that a driver failed to drop, each frame is checked, not the first alone.
#[test]
fn a_view_is_of_a_frame_that_lives() {
    let machine = machine(4096);
    let mut thread = machine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = Mm::new(&machine);
    let (driver, registration) = mm.register(&mut cx, Driver::new);
    let (first, last) = map_huge(&mut cx, &mm, 2 << 30);
    let ticket = driver.gate.ticket(last, Access::Write).allow_huge();
    let permit = mm.resolve(&mut cx, ticket).unwrap().admit(&mut cx).unwrap();
    let cached = permit.cached();
    assert_eq!(cached.range().pages(), PMD_PAGES);
    assert_eq!(permit.frame().read_u8(0), 5);
    drop(permit);
    let follow = |at| driver.gate.follow(&cached, at).unwrap();
    mm.munmap(&mut cx, (2 << 30) + HUGE / 2, HUGE / 2).unwrap();
    assert_eq!(follow(first).read_u8(0), 1);
    for reused in [false, true] {
        if reused {
            map_small(&mut cx, &mm, 3 << 30);
        }
        let pfn = cached.translation().frame_of(last).unwrap();
        assert_eq!(machine.mem().refcount(pfn) > 0, reused);
        assert!(follow(last).is_stale());
        let read = said(|| done(follow(last).read_u8(0)));
        let mut view = driver.gate.follow_mut(&cached, last).unwrap();
        let written = said(|| view.write(0, &[0xee]));
        assert!(
            [read, written]
                .map(Option::unwrap)
                .iter()
                .all(|text| text.contains("stale"))
        );
    }
    let mut bytes = vec![1; 4 << 20];
    mm.read_bytes(&mut cx, 3 << 30, &mut bytes).unwrap();
    assert!(bytes.iter().all(|b| *b == 0), "new pages are as new");
    mm.unregister(&mut cx, registration);
    mm.exit(&mut cx);
    assert_eq!(machine.mem().in_use(), 0);
}

/// Frames are known by number, and every machine has the same ones.
#[test]
fn a_machine_does_nothing_for_pages_or_tokens_of_another() {
    let (mine, other) = (machine(64), machine(64));
    let mut thread = mine.enter().unwrap();
    let mut cx = thread.cx();
    let mm = filled(&mut cx, &mine);
    let pages = [(&*mm, BASE + PAGE), (&*mm, BASE + 2 * PAGE)];
    // There both are zero.
    assert!(said(|| done(other.merge_same_pages(&mut cx, &pages))).is_some());
    assert!(said(|| done(other.reclaim(&mut cx, 1))).is_some());
    assert!(said(|| done(other.reclaim_all(&mut cx))).is_some());
    assert!(said(|| other.settle_counts(&mut cx)).is_some());
    for n in [1, 2] {
        assert_eq!(mm.load(&mut cx, BASE + n * PAGE), Ok(n as u8));
    }
    let foreign = Mm::new(&other);
    let pages = [(&*foreign, BASE), pages[0], (&*foreign, BASE), pages[1]];
    assert_eq!(mine.merge_same_pages(&mut cx, &pages), 0);
    mm.store(&mut cx, BASE + PAGE, 2).unwrap();
    assert_eq!(mine.merge_same_pages(&mut cx, &pages), 1);
    mm.exit(&mut cx);
    assert_eq!(mine.mem().in_use(), 0);
}
