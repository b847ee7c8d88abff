//! The first difference of a step from Linux: of outcome, windows, layout, pages, in this order.
//!
//! A recording names only changes; [`Expected`] keeps the last state, and a replay compares every
//! process after every step.

use super::{
    op::Op,
    pages::{Entry, PageTables, Run},
    script::{MapsRow, Notified, Outcome, Step},
    uffd_op::{More, Results},
};
use bitflags::bitflags;
use std::collections::BTreeMap;

bitflags! {
    /// The compared parts of a step.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Parts: u8 {
        /// Return values, bytes that were loaded, errnos, signals.
        const OUTCOMES = 1;
        /// Invalidations that the external MMU received.
        const WINDOWS = 1 << 1;
        /// VMAs.
        const LAYOUTS = 1 << 2;
        /// Page tables.
        const PAGES = 1 << 3;
        /// Flags of VMAs, where a script has them.
        const FLAGS = 1 << 4;
    }
}

/// The state of this library after a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The outcome of the operation.
    pub outcome: Outcome,
    /// Invalidations that the external MMU of process 0 received.
    pub notified: Vec<Notified>,
    /// The VMAs of every process.
    pub layouts: BTreeMap<u32, Vec<MapsRow>>,
    /// The page tables of every process.
    pub pages: PageTables,
    /// The flags of the VMAs of every process, as letters.
    pub vm_flags: BTreeMap<u32, Vec<String>>,
    /// Results, and the pages that userfaultfd protects in every process.
    pub more: Box<More>,
}

/// Two values that should be equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sides<T> {
    /// The side of Linux.
    pub linux: T,
    /// The side of this library.
    pub emmu: T,
}

impl<T: Clone + PartialEq> Sides<T> {
    fn unless_equal(linux: &T, emmu: &T) -> Option<Self> {
        (linux != emmu).then(|| Self {
            linux: linux.clone(),
            emmu: emmu.clone(),
        })
    }
}

/// The first difference of a step, or the panic that ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Return value, errno or signal.
    Outcome(Sides<Outcome>),
    /// Results of the operation beside its outcome.
    Results(Sides<Results>),
    /// Invalidations that the external MMU received.
    Windows(Sides<Vec<Notified>>),
    /// The VMAs of a process.
    Layout {
        /// The lowest process that differs.
        process: u32,
        /// The VMAs of that process.
        sides: Sides<Vec<MapsRow>>,
    },
    /// The flags of a process's VMAs.
    VmFlags {
        /// The lowest process that differs.
        process: u32,
        /// The two-letter flags, a string for each VMA, in ascending order of address.
        sides: Sides<Vec<String>>,
    },
    /// Page tables.
    Pages(Sides<PageTables>),
    /// The pages of a process that userfaultfd write-protects.
    Protected {
        /// The lowest process that differs.
        process: u32,
        /// The addresses of the pages.
        sides: Sides<Vec<u64>>,
    },
    /// The library panicked, with this message.
    Panic(String),
}

impl Difference {
    /// The columns of a summary, in the order of the comparison.
    pub const CAUSES: [&'static str; 5] = ["outcome", "windows", "layout", "pages", "panic"];
    /// Returns the index in [`CAUSES`](Self::CAUSES) of the cause of this difference.
    pub fn cause(&self) -> usize {
        match self {
            Self::Outcome(_) | Self::Results(_) => 0,
            Self::Windows(_) => 1,
            Self::Layout { .. } | Self::VmFlags { .. } => 2,
            Self::Pages(_) | Self::Protected { .. } => 3,
            Self::Panic(_) => 4,
        }
    }
}

/// The state of Linux's processes after the steps so far.
#[derive(Debug)]
pub struct Expected<'s> {
    parts: Parts,
    layouts: BTreeMap<u32, &'s [MapsRow]>,
    pages: Option<&'s PageTables>,
    vm_flags: BTreeMap<u32, &'s [String]>,
    /// The pages that userfaultfd write-protects; `None` before the first userfaultfd.
    protected: Option<BTreeMap<u32, &'s [u64]>>,
    /// No recorder looked at the page tables since a process was killed.
    unseen: bool,
}

impl Default for Expected<'_> {
    fn default() -> Self {
        Self::only(Parts::all())
    }
}

impl<'s> Expected<'s> {
    /// Returns the state before the first step; later comparisons are of these parts only.
    pub fn only(parts: Parts) -> Self {
        Self {
            parts,
            layouts: BTreeMap::new(),
            pages: None,
            vm_flags: BTreeMap::new(),
            protected: None,
            unseen: false,
        }
    }
    /// Advances by one step.
    pub fn advance(&mut self, step: &'s Step) {
        for (&process, layout) in &step.layouts {
            self.layouts.insert(process, layout);
        }
        for (&process, flags) in &step.vm_flags {
            self.vm_flags.insert(process, flags);
        }
        if step.pages.is_some() {
            self.pages = step.pages.as_ref();
        }
        if matches!(step.op, Op::Uffd(_)) || !step.more.protected.is_empty() {
            let all = self.protected.get_or_insert_with(BTreeMap::new);
            let changed = step.more.protected.iter();
            all.extend(changed.map(|(&process, pages)| (process, pages.as_slice())));
        }
        let killed = matches!(step.op, Op::ExitAndReap { .. });
        self.unseen = step.pages.is_none() && (self.unseen || killed);
    }

    /// Returns true if this part is compared.
    pub(super) fn compares(&self, part: Parts) -> bool {
        self.parts.contains(part) && !(part == Parts::PAGES && self.unseen)
    }
    /// Returns the VMAs of a process.
    pub(super) fn rows(&self, process: u32) -> &'s [MapsRow] {
        self.layouts.get(&process).copied().unwrap_or_default()
    }
    /// Returns the flags of the VMAs of a process, where the script has them.
    pub(super) fn vm_flags(&self, process: u32) -> Option<&'s [String]> {
        self.vm_flags.get(&process).copied()
    }
    /// Returns the pages of a process that userfaultfd write-protects, once there was a
    /// userfaultfd.
    pub(super) fn protected(&self, process: u32) -> Option<&'s [u64]> {
        let all = self.protected.as_ref()?;
        Some(all.get(&process).copied().unwrap_or_default())
    }
    /// Returns the page table of a process.
    pub(super) fn runs(&self, process: u32) -> &'s [Run] {
        self.pages.map_or(&[], |pages| pages.runs(process))
    }
    /// Returns true if all pages belong to processes that exist.
    pub(super) fn has_pages_of_none_but<T>(&self, there: &BTreeMap<u32, T>) -> bool {
        let mut listed = self.pages.into_iter().flat_map(PageTables::processes);
        listed.all(|p| there.contains_key(&p) || self.runs(p).is_empty())
    }
    /// Returns true if outcome, results and invalidations of a step are those of `step`.
    pub(super) fn went(
        &self,
        step: &Step,
        (outcome, results): (&Outcome, &Results),
        notified: &[Notified],
    ) -> bool {
        let same = step.outcome == *outcome && step.more.results == *results;
        (!self.compares(Parts::OUTCOMES) || same)
            && (!self.compares(Parts::WINDOWS) || step.notified == notified)
    }

    /// Returns the first difference of `seen` from Linux's state after `step`, which was the last
    /// one that [`advance`](Self::advance) took.
    pub fn difference(&self, step: &Step, seen: &Observed) -> Option<Difference> {
        let compared = |part| self.compares(part).then_some(());
        let outcome = || Sides::unless_equal(&step.outcome, &seen.outcome).map(Difference::Outcome);
        let results = || {
            let (linux, emmu) = (&step.more.results, &seen.more.results);
            Sides::unless_equal(linux, emmu).map(Difference::Results)
        };
        let windows =
            || Sides::unless_equal(&step.notified, &seen.notified).map(Difference::Windows);
        (compared(Parts::OUTCOMES).and_then(|()| outcome().or_else(results)))
            .or_else(|| compared(Parts::WINDOWS).and_then(|()| windows()))
            .or_else(|| compared(Parts::LAYOUTS).and_then(|()| self.layout(seen)))
            .or_else(|| compared(Parts::FLAGS).and_then(|()| self.flags(seen)))
            .or_else(|| compared(Parts::PAGES).and_then(|()| self.page_tables(seen)))
            .or_else(|| compared(Parts::PAGES).and_then(|()| self.protection(seen)))
    }
    fn protection(&self, seen: &Observed) -> Option<Difference> {
        seen.more.protected.iter().find_map(|(&process, emmu)| {
            let linux = self.protected(process)?.to_vec();
            let sides = Sides::unless_equal(&linux, emmu)?;
            Some(Difference::Protected { process, sides })
        })
    }

    fn layout(&self, seen: &Observed) -> Option<Difference> {
        let differs = |(p, emmu): &(&u32, &Vec<MapsRow>)| self.rows(**p) != emmu.as_slice();
        let (&process, emmu) = seen.layouts.iter().find(differs)?;
        let sides = Sides {
            linux: self.rows(process).to_vec(),
            emmu: emmu.clone(),
        };
        Some(Difference::Layout { process, sides })
    }

    fn flags(&self, seen: &Observed) -> Option<Difference> {
        seen.vm_flags.iter().find_map(|(&process, emmu)| {
            let linux = self.vm_flags(process)?.to_vec();
            let sides = Sides::unless_equal(&linux, emmu)?;
            Some(Difference::VmFlags { process, sides })
        })
    }

    fn page_tables(&self, seen: &Observed) -> Option<Difference> {
        let nothing = PageTables::default();
        let linux = self.pages.unwrap_or(&nothing);
        // A process without pages equals one that is not listed: the loop above compared those that
        // exist.
        let processes = || linux.processes().chain(seen.pages.processes());
        processes()
            .any(|p| linux.runs(p) != seen.pages.runs(p))
            .then(|| {
                Difference::Pages(Sides {
                    linux: linux.clone(),
                    emmu: seen.pages.clone(),
                })
            })
    }
}

/// Most pages of a stretch, as many as fit on a line.
const LONGEST: usize = 16;

/// Returns the pages that differ between two sides, at most `most` stretches of neighbours.
///
/// Frames are matched in order of appearance, so that one page more or less does not shift all
/// later numbers.
pub fn differing_pages(sides: &Sides<PageTables>, most: usize) -> Vec<Stretch> {
    let mut processes: Vec<u32> = sides
        .linux
        .processes()
        .chain(sides.emmu.processes())
        .collect();
    processes.sort_unstable();
    processes.dedup();
    let mut names = Names::default();
    let mut stretches: Vec<Stretch> = Vec::new();
    for process in processes {
        let linux: BTreeMap<_, _> = sides.linux.entries(process).collect();
        let emmu: BTreeMap<_, _> = sides.emmu.entries(process).collect();
        let mut pages: Vec<u64> = linux.keys().chain(emmu.keys()).copied().collect();
        pages.sort_unstable();
        pages.dedup();
        for page in pages {
            let sides = Sides {
                linux: linux.get(&page).copied(),
                emmu: emmu.get(&page).copied(),
            };
            if names.same(&sides) {
                continue;
            }
            let last = stretches
                .last_mut()
                .filter(|s| s.process == process && s.end() == page);
            if let Some(last) = last.filter(|s| s.sides.len() < LONGEST) {
                last.sides.push(sides);
            } else if stretches.len() < most {
                stretches.push(Stretch {
                    process,
                    page,
                    sides: vec![sides],
                });
            } else {
                return stretches;
            }
        }
    }
    stretches
}

/// Neighbouring pages that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// The process.
    pub process: u32,
    /// First page.
    pub page: u64,
    /// The entries of Linux and of this library.
    pub sides: Vec<Sides<Option<Entry>>>,
}

impl Stretch {
    fn end(&self) -> u64 {
        self.page + self.sides.len() as u64
    }
}

/// The matching between frame numbers of the two sides.
#[derive(Default)]
struct Names {
    to_emmu: BTreeMap<u32, u32>,
    to_linux: BTreeMap<u32, u32>,
}

impl Names {
    fn same(&mut self, sides: &Sides<Option<Entry>>) -> bool {
        let (Some(l), Some(e)) = (sides.linux, sides.emmu) else {
            return sides.linux == sides.emmu;
        };
        if l.kind != e.kind || !l.kind.has_frame() {
            return l.kind == e.kind;
        }
        match (self.to_emmu.get(&l.frame), self.to_linux.get(&e.frame)) {
            (Some(&mapped), _) => mapped == e.frame,
            (None, Some(_)) => false,
            (None, None) => {
                self.to_emmu.insert(l.frame, e.frame);
                self.to_linux.insert(e.frame, l.frame);
                true
            }
        }
    }
}
