//! The world of a script besides its files: number or name, other open modes of files, and the
//! mappings before the first step.

use crate::{
    addr::{PAGE_SIZE, TASK_SIZE},
    ctx::CallCx,
    error::FaultError,
    file::FileMode,
    mm::{FolioPolicies, FolioPolicy, FolioSize, Mm, Segment, VmFlags},
};
use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of a script in its family, or its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Seed {
    /// A number.
    Number(u64),
    /// A name, the family's included.
    Name(String),
}

impl Seed {
    /// Returns the number; 0 for a name.
    pub fn number(&self) -> u64 {
        match *self {
            Self::Number(number) => number,
            Self::Name(_) => 0,
        }
    }
}

impl From<u64> for Seed {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

/// The pool of huge pages before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolBefore {
    /// All pages, none of them in use.
    pub pages: u64,
    /// Those of them that are promised for ever: a mapping of huge pages that moves in part leaves
    /// promises behind that nothing takes back.
    pub promised: u64,
}

/// Returns the pools that may have been there before a recording whose header does not tell it.
pub(super) fn possible_pools(profile: &str, seed: &Seed) -> Vec<PoolBefore> {
    let all_free = |pages| vec![PoolBefore { pages, promised: 0 }];
    match (profile, seed) {
        // Mappings that moved in part in earlier scripts had left some promised.
        ("huge", _) => {
            let pages = 14;
            let before = |promised| PoolBefore { pages, promised };
            (0..=MOST_PROMISED).map(before).collect()
        }
        ("kind", Seed::Name(name)) => match &**name {
            "hugetlb_private" | "hugetlb_shared" | "hugetlb_file" => all_free(24),
            "hugetlb_exhausted" => all_free(4),
            _ => all_free(0),
        },
        _ => all_free(0),
    }
}

/// Returns the folios of a recording whose header does not tell it: those about folios of 64 KiB
/// have the kernel's word for such sizes, multi-size THP, in their names.
pub(super) fn recorded_folios(profile: &str, seed: &Seed) -> FolioPolicies {
    let none = FolioPolicies::default();
    match (profile, seed) {
        ("kind", Seed::Name(name)) if name.starts_with("mthp") => {
            none.with(FolioSize::Kib64, FolioPolicy::Advise)
        }
        _ => none,
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // That is what serde calls.
pub(super) fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The most pages that earlier scripts of a series have left promised.
const MOST_PROMISED: u64 = 8;

/// The mode in which a file is open once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OpenMode {
    /// Read only.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Write only.
    #[serde(rename = "wo")]
    WriteOnly,
    /// Read and write.
    #[serde(rename = "rw")]
    ReadWrite,
    /// Read and write, past the cache of the file.
    #[serde(rename = "direct")]
    Direct,
}

impl From<OpenMode> for FileMode {
    fn from(mode: OpenMode) -> Self {
        match mode {
            OpenMode::ReadOnly => Self::ReadOnly,
            OpenMode::WriteOnly => Self::WriteOnly,
            OpenMode::ReadWrite | OpenMode::Direct => Self::ReadWrite,
        }
    }
}

/// Most mappings of process 0 before the first step.
const MOST: usize = 1024;
/// Most bytes of heap before the first step: a script may touch each page of it.
const MOST_HEAP: u64 = 64 << 20;

/// The state of process 0 before the first step, where it matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Before {
    /// Start of the heap, the break, and the present pages of the heap. Empty: no heap.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    heap: Vec<u64>,
    /// The kernel places mappings without an address below this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    mmap_base: Option<u64>,
    /// Start and end of each mapping; the last is the stack.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    initial: Vec<[u64; 2]>,
}

impl Before {
    /// Returns an empty heap from an address on, and nothing else.
    pub(super) fn empty_heap(start: u64) -> Self {
        Self {
            heap: vec![start, start],
            ..Self::default()
        }
    }
    /// Returns the start of the heap.
    pub(super) fn heap(&self) -> Option<u64> {
        self.heap.first().copied()
    }
    pub(super) fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
    pub(super) fn check(&self) -> Result<(), String> {
        if self.initial.len() > MOST {
            return Err(format!(
                "{} initial mappings, more than {MOST}",
                self.initial.len()
            ));
        }
        let mut below = 0;
        for &[start, end] in &self.initial {
            let aligned = (start | end).is_multiple_of(PAGE_SIZE);
            if start < below || end <= start || end > TASK_SIZE || !aligned {
                return Err(format!(
                    "{start:#x}-{end:#x} cannot be an initial mapping here"
                ));
            }
            below = end;
        }
        if self.mmap_base.is_some_and(|base| base > TASK_SIZE) {
            return Err(format!("mmap_base {:#x?} lies too high", self.mmap_base));
        }
        let (start, brk, pages) = match *self.heap {
            [] => return Ok(()),
            [start, brk, ref pages @ ..] => (start, brk, pages),
            [_] => return Err("a heap has a start and a break".into()),
        };
        let fits = start <= brk && brk <= TASK_SIZE && brk - start <= MOST_HEAP;
        if !fits || !start.is_multiple_of(PAGE_SIZE) || !self.initial.is_empty() {
            return Err(format!("{start:#x}-{brk:#x} cannot be a heap here"));
        }
        match pages.iter().find(|page| !(start..brk).contains(page)) {
            Some(page) => Err(format!("page {page:#x} lies outside of the heap")),
            None => Ok(()),
        }
    }
    /// Brings an address space into this state.
    ///
    /// # Errors
    ///
    /// The first page that found no memory.
    pub(super) fn make(&self, cx: &mut CallCx<'_>, mm: &Mm) -> Result<(), FaultError> {
        if let Some(base) = self.mmap_base {
            mm.set_mmap_base(cx, base)
                .expect("checked when it was read");
        }
        for (nth, &[start, end]) in self.initial.iter().enumerate() {
            let mut flags = VmFlags::READ | VmFlags::MAYREAD | VmFlags::MAYWRITE | VmFlags::MAYEXEC;
            // Mappings of the kernel next to the program merge with nothing.
            flags |= if nth + 1 == self.initial.len() {
                VmFlags::GROWSDOWN
            } else {
                VmFlags::DONTEXPAND
            };
            let segment = Segment {
                start,
                end,
                flags,
                file: None,
                offset: 0,
            };
            mm.install(cx, &segment).expect("they ascend");
            // The program runs, so the tables of these mappings exist.
            mm.load(cx, start)?;
        }
        if let [start, brk, ref pages @ ..] = *self.heap {
            mm.set_start_brk(cx, start)
                .expect("checked when it was read");
            let _all = mm.brk(cx, brk);
            for &page in pages {
                mm.store(cx, page, 1)?;
            }
        }
        Ok(())
    }
}
