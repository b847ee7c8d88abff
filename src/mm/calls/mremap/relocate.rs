//! Moves the page-table entries of a range to another address (`move_page_tables`).

use crate::mm::{
    entry::flags::VmFlags,
    guard::{AfterYield, MmapWriteGuard},
    page_table::{LeafAt, Pin},
    space::Mm,
    vma::{Walks, hugetlb::with_shared_tables},
    window::InvalidationWindow,
};
use crate::{
    addr::{PMD_PAGES, PUD_PAGES, Vpn, VpnRange},
    ctx::Sleepable,
    error::NoMemory,
    notifier::Event,
    rmap::NewPlace,
    sync::Despite,
};

/// A move of page-table entries within one address space.
#[derive(Clone, Copy, Debug)]
pub(in crate::mm) struct Relocation {
    /// The VMA that the entries belong to.
    pub(in crate::mm) old_vma: VpnRange,
    /// The VMA that they go to.
    pub(in crate::mm) new_vma: VpnRange,
    /// The pages whose entries move.
    pub(in crate::mm) from: VpnRange,
    /// The page to which the first entry moves.
    pub(in crate::mm) to: Vpn,
    /// The write protection of userfaultfd does not move (`vma_has_uffd_without_event_remap`).
    pub(in crate::mm) unprotects: bool,
    /// The VMA itself moves, in one step, and its records in the reverse maps lead to this place
    /// afterwards. A VMA that was copied has two records while entries move.
    pub(in crate::mm) itself: Option<NewPlace>,
}

/// The number of entries at the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::mm) enum Moved {
    Nothing,
    /// Any number, perhaps none.
    Some,
    All,
}

impl MmapWriteGuard<'_> {
    /// Moves the entries in one window over the old range; moves whole tables where both sides are
    /// aligned alike. Calls `progress` whenever the number of entries at the target changes.
    ///
    /// # Errors
    ///
    /// [`NoMemory`]: a table at the target was refused. Every entry is where it was.
    pub(in crate::mm) fn relocate(
        &mut self,
        mv: Relocation,
        mut progress: impl FnMut(Moved),
    ) -> Result<(), NoMemory> {
        let (start, to) = self.realign(mv);
        let range = VpnRange::new(start, mv.from.end()).expect("realigned downwards only");
        let vma = self.vma(mv.old_vma.start());
        let walks = vma.walks();
        let whole_pages = vma.flags.contains(VmFlags::HUGETLB);
        let wide = with_shared_tables(mv.old_vma, vma.flags, range);
        // Whole VMAs: a fault on one page may map the pages around it.
        let target = VpnRange::new(to, mv.to.plus(mv.from.pages())).expect("not empty");
        let both = [range, target, mv.old_vma, mv.new_vma];
        self.yield_while(
            entries_to_move(range, to),
            AfterYield::KeepsEditing,
            &both,
            |lease| {
                let step = MoveStep {
                    at: start,
                    to,
                    end: range.end(),
                    unprotects: mv.unprotects,
                    whole_pages,
                };
                let mut window = lease.into_window(wide, Event::Unmap);
                if whole_pages {
                    window.change_tables(range, |_| None);
                }
                let mut moving = Moving {
                    window,
                    walks: &walks,
                    itself: mv.itself,
                    begin: step,
                    step,
                    progress: &mut progress,
                };
                let mut despite = Despite::default();
                let moved = despite.call(|| moving.run());
                if moved != Some(Ok(())) {
                    moving.undo();
                }
                drop(moving);
                despite.resume();
                moved.expect("it did not panic")
            },
        )
    }

    /// Returns the pages where the move begins: the 2-MiB boundary below, if both sides lie equally
    /// far above one and nothing is mapped between, so that a single entry can move
    /// (`try_realign_addr`). The window grows with it, as on Linux.
    fn realign(&self, mv: Relocation) -> (Vpn, Vpn) {
        let (from, to) = (mv.from.start(), mv.to);
        let offset = from.0 & (PMD_PAGES - 1);
        let worthwhile = mv.from.pages() >= PMD_PAGES - offset
            && offset != 0
            && offset == to.0 & (PMD_PAGES - 1);
        if worthwhile && self.free_below(mv.old_vma, from) && self.free_below(mv.new_vma, to) {
            (from.align_down(PMD_PAGES), to.align_down(PMD_PAGES))
        } else {
            (from, to)
        }
    }
    /// Returns true if the VMA starts here, and nothing is mapped from the boundary below up to it
    /// (`can_align_down`).
    fn free_below(&self, vma: VpnRange, at: Vpn) -> bool {
        vma.start() == at
            && VpnRange::new(at.align_down(PMD_PAGES), at)
                // Another operation must not be unmapping there either: its pages would move along.
                .is_some_and(|below| !self.layout.occupied(below) && !self.claimed(below))
    }
}

/// Estimates how many entries move if all tables are present: entries of the highest level at which
/// both sides are aligned alike.
fn entries_to_move(range: VpnRange, to: Vpn) -> u64 {
    let alike = |span: u64| (range.start().0 ^ to.0) & (span - 1) == 0;
    let span = [PUD_PAGES, PMD_PAGES].into_iter().find(|&s| alike(s));
    range.pages() / span.unwrap_or(1)
}

/// The rest of a move.
#[derive(Clone, Copy)]
struct MoveStep {
    at: Vpn,
    to: Vpn,
    end: Vpn,
    unprotects: bool,
    /// Only huge pages of a pool move, each alone (`move_hugetlb_page_tables`).
    whole_pages: bool,
}

impl MoveStep {
    fn advance(&mut self, pages: u64) {
        self.at = self.at.plus(pages);
        self.to = self.to.plus(pages);
    }
    /// Returns the number of pages up to the next boundary of `span` on either side, or to the end
    /// (`get_extent`).
    fn extent(self, span: u64) -> u64 {
        let up_to = |v: Vpn| span - (v.0 & (span - 1));
        up_to(self.at)
            .min(up_to(self.to))
            .min(self.end.0 - self.at.0)
    }
}

/// Entries that are being moved in a window. A refused table takes the move back, and so does a
/// driver's panic, possible if a huge page must be split first (ADR 0024).
struct Moving<'w, F: FnMut(Moved)> {
    window: InvalidationWindow<'w, Sleepable>,
    walks: &'w Walks,
    itself: Option<NewPlace>,
    begin: MoveStep,
    step: MoveStep,
    progress: F,
}

/// The tables of the place to which entries move.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetTables {
    /// They are made.
    Made,
    /// They are there, or no entry has come from where there is none.
    Kept,
}

impl<F: FnMut(Moved)> Moving<'_, F> {
    fn run(&mut self) -> Result<(), NoMemory> {
        (self.progress)(Moved::Some);
        while self.step.at < self.step.end {
            // A walk could otherwise pass the target before, and the source after its entry moved,
            // and miss it (`take_rmap_locks`).
            let mut walks_wait = self.walks.freeze();
            match self.window.move_step(self.step, TargetTables::Made)? {
                Some(pages) => {
                    self.step.advance(pages);
                    if let Some(place) = self.itself {
                        assert!(self.step.at == self.step.end, "one record, but two steps");
                        walks_wait.lead_to(place);
                    }
                }
                None => {
                    drop(walks_wait);
                    self.window.split_pmd(self.step.at);
                }
            }
        }
        (self.progress)(Moved::All);
        Ok(())
    }
    /// Moves the entries back in a window over the target, inside of this one: a driver may have
    /// translations of them there.
    #[cold]
    fn undo(&mut self) {
        let back = MoveStep {
            at: self.begin.to,
            to: self.begin.at,
            end: self.step.to,
            unprotects: false,
            whole_pages: self.begin.whole_pages,
        };
        let mut despite = Despite::default();
        if let Some(moved) = VpnRange::new(back.at, back.end) {
            let (window, walks) = (&mut self.window, self.walks);
            let taken = despite.call(|| {
                let mut window = window.nested(moved, Event::Unmap);
                window.take_back(back, walks);
            });
            if taken.is_none() {
                // A driver panicked, and a move that failed must not stay half done.
                window.take_back(back, walks);
            }
        }
        (self.progress)(Moved::Nothing);
        despite.resume();
    }
}

impl InvalidationWindow<'_, Sleepable> {
    /// Moves the entries that one entry of the highest usable level covers, and flushes the old
    /// place. Returns the number of pages, or `None` if a huge page must be split first.
    ///
    /// No walk over a reverse map reaches the new place before the flush: the caller makes them
    /// wait.
    fn move_step(&mut self, step: MoveStep, tables: TargetTables) -> Result<Option<u64>, NoMemory> {
        let moved = self.move_entries(step, tables)?;
        if let Some(old) = moved.and_then(|n| VpnRange::new(step.at, step.at.plus(n))) {
            self.flush(old);
        }
        Ok(moved)
    }
    fn move_entries(
        &mut self,
        step: MoveStep,
        tables: TargetTables,
    ) -> Result<Option<u64>, NoMemory> {
        let makes = tables == TargetTables::Made;
        let mm = self.mm();
        let mut cx = self.cx();
        let view = mm.table.view(&mut cx);
        let extent = step.extent(PUD_PAGES);
        if !view.has_pmd(step.at) || !makes && !view.has_pud(step.to) {
            return Ok(Some(extent));
        }
        let whole = !step.unprotects;
        let by_table = whole && !step.whole_pages && extent == PUD_PAGES;
        if by_table && mm.table.move_pud(step.at, step.to, view.pin())? {
            return Ok(Some(extent));
        }
        if makes {
            mm.table.make_pud_for(step.to, view.pin())?;
        } else if !view.has_pmd(step.to) {
            return Ok(Some(extent));
        }
        let extent = step.extent(PMD_PAGES);
        let Some(old) = view.leaf(step.at) else {
            return Ok(Some(extent));
        };
        if makes {
            mm.table.make_pmd(step.to, view.pin())?;
        }
        if makes && step.whole_pages {
            mm.table.free_if_empty(step.to, view.pin());
        }
        let whole = whole || old.is_huge();
        if whole && extent == PMD_PAGES && mm.table.move_pmd(step.at, step.to, view.pin())? {
            if step.unprotects {
                unprotect_block(mm, step.to, view.pin());
            }
            return Ok(Some(extent));
        }
        if old.is_huge() {
            // The huge page cannot move as a whole: split it, and repeat this step.
            return Ok(None);
        }
        let new = match tables {
            TargetTables::Made => Some(view.make_leaf(step.to)?),
            TargetTables::Kept => view.leaf(step.to),
        };
        if let Some(new) = new {
            move_ptes(old, new, step, extent)?;
        }
        Ok(Some(extent))
    }
    /// Takes a move back, and makes no table for it: nothing was moved from where the source has
    /// none, but tables that went as a whole.
    fn take_back(&mut self, mut back: MoveStep, walks: &Walks) {
        while back.at < back.end {
            let _walks_wait = walks.freeze();
            let moved = self.move_step(back, TargetTables::Kept);
            let pages = moved.expect("both sides have the tables above, and leaves of their own");
            back.advance(pages.expect("a huge page has moved as a whole or is split"));
        }
    }
}

/// Lifts the write protection of a block that moved with its table.
fn unprotect_block(mm: &Mm, at: Vpn, pin: Pin<'_>) {
    let block = VpnRange::block_of(at);
    mm.table.for_each_locked_leaf(block, pin, |part, leaf| {
        let each = part.iter().map(|at| (at, leaf.get(at)));
        each.for_each(|(at, pte)| leaf.set(at, pte.clear_uffd_wp()));
    });
}

/// Moves entries between two locked leaves (`move_ptes`). Counts stay as they are.
fn move_ptes(old: LeafAt<'_>, new: LeafAt<'_>, step: MoveStep, pages: u64) -> Result<(), NoMemory> {
    let (from, to) = LeafAt::lock_pair(old, new)?;
    for i in 0..pages {
        let at = step.at.plus(i);
        let pte = from.get(at);
        if !pte.is_none() {
            from.set(at, crate::mm::entry::pte::RawPte::NONE);
            let moved = match step.unprotects {
                true => pte.clear_uffd_wp(),
                false => pte,
            };
            to.as_ref().unwrap_or(&from).set(step.to.plus(i), moved);
        }
    }
    Ok(())
}
