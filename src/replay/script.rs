//! A recorded script as types: its header, its steps, and the reaction of Linux to each.

use super::{
    file_names,
    ground::{Before, OpenMode, PoolBefore, Seed, possible_pools, recorded_folios},
    hex::Hex,
    limits::{InputError, ReplayLimits, beyond},
    op::Op,
    pages::PageTables,
    uffd_op::More,
};
use crate::{
    addr::{PAGE_SIZE, TASK_SIZE},
    error::Signal,
    file::HugePolicy,
    mm::FolioPolicies,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt, ops::Range};

/// A script that could not be read.
pub type ScriptError = InputError;

/// The kernel in the header of scripts that only this library has run: no outcome is recorded in
/// them.
pub const OURS: &str = "emmu";

/// The first line of a script: the circumstances of the recording.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The family of scripts.
    pub profile: String,
    /// Number within the family, or a name.
    pub seed: Seed,
    /// The kernel that ran it.
    pub kernel: String,
    /// Bytes in a page.
    pub page: u64,
    /// First and end address of the observed range; nothing else was ever mapped there.
    arena: [Hex; 2],
    /// The files, by name.
    pub files: BTreeMap<String, FileSpec>,
    /// The other names under which files are open, and their modes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub opens: BTreeMap<String, (String, OpenMode)>,
    /// Pages of swap that the kernel had; `None`: more than the script needs. A kernel without swap
    /// keeps private pages despite the advice to page them out, but writes files back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<u32>,
    /// Huge pages of 2 MiB in the pool; `None`: see [`huge_pages`](Self::huge_pages).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    huge_pages: Option<u64>,
    /// The pages of the pool that are promised for ever.
    #[serde(
        default,
        rename = "huge_promised",
        skip_serializing_if = "super::ground::is_zero"
    )]
    promised: u64,
    /// The private memory in which faults brought in folios; `None`: see
    /// [`folios`](Self::folios).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) folios: Option<FolioPolicies>,
    /// The initial state of process 0.
    #[serde(default, rename = "extra", skip_serializing_if = "Before::is_nothing")]
    pub(super) before: Box<Before>,
}

impl Header {
    /// Returns the header of script number `seed` of a family, recorded on a kernel of release
    /// `kernel`; all its addresses lie in `arena`.
    pub fn new(
        profile: &str,
        seed: u64,
        kernel: &str,
        arena: Range<u64>,
        files: BTreeMap<String, FileSpec>,
    ) -> Self {
        Self {
            profile: profile.into(),
            seed: seed.into(),
            kernel: kernel.into(),
            page: PAGE_SIZE,
            arena: [Hex(arena.start), Hex(arena.end)],
            files,
            opens: BTreeMap::new(),
            swap: None,
            huge_pages: None,
            promised: 0,
            folios: None,
            before: Box::default(),
        }
    }
    /// Returns the name of the script with this header.
    pub fn name(&self) -> String {
        match &self.seed {
            Seed::Number(number) => format!("{}-{number}", self.profile),
            Seed::Name(name) => name.clone(),
        }
    }
    /// Returns the pool of huge pages before the first step; several for recordings of a time when
    /// the header did not tell it, and it is one of these.
    pub fn huge_pages(&self) -> Vec<PoolBefore> {
        let promised = self.promised;
        self.huge_pages.map_or_else(
            || possible_pools(&self.profile, &self.seed),
            |pages| vec![PoolBefore { pages, promised }],
        )
    }
    /// Returns the private memory in which faults bring in folios. Recordings of a time when the
    /// header did not tell it have the setting in their names.
    pub fn folios(&self) -> FolioPolicies {
        self.folios
            .unwrap_or_else(|| recorded_folios(&self.profile, &self.seed))
    }
    /// Sets the pool of huge pages before the first step.
    #[must_use]
    pub fn with_pool(mut self, before: PoolBefore) -> Self {
        (self.huge_pages, self.promised) = (Some(before.pages), before.promised);
        self
    }
    /// Sets the address of an empty heap, which process 0 has before the first step.
    #[must_use]
    pub fn with_heap(mut self, start: u64) -> Self {
        self.before = Box::new(Before::empty_heap(start));
        self
    }
    /// Returns the start of the heap that process 0 has before the first step.
    pub fn heap(&self) -> Option<u64> {
        self.before.heap()
    }
    /// Returns true if a file is open under that name.
    pub(super) fn has_file(&self, name: &str) -> bool {
        self.files.contains_key(name) || self.opens.contains_key(name)
    }
    /// Returns the observed addresses.
    pub fn arena(&self) -> Range<u64> {
        self.arena[0].0..self.arena[1].0
    }
    pub(super) fn check(&self) -> Result<(), String> {
        let Range { start, end } = self.arena();
        if self.page != PAGE_SIZE {
            return Err(format!("pages of {} bytes, not {PAGE_SIZE}", self.page));
        }
        if start >= end || end > TASK_SIZE || !(start | end).is_multiple_of(PAGE_SIZE) {
            return Err(format!("{start:#x}-{end:#x} cannot be an arena"));
        }
        file_names::check(&self.files, &self.opens)?;
        if self.promised > self.huge_pages.unwrap_or(0) {
            return Err(format!("{} huge pages cannot be promised", self.promised));
        }
        self.before.check()
    }
}

/// A file that a script maps. Byte 0 of page `p` starts as `p % 200 + 1`, all others as zero; a
/// file of huge pages is all zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Size in bytes.
    pub size: u64,
    /// The kind of the file.
    pub kind: FileKind,
}

/// Kinds of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// A shmem object.
    Memfd,
    /// A shmem object that takes seals.
    Sealable,
    /// A file of a file system in memory that is mounted with `huge=always`.
    Shm,
    /// A file of a file system in memory that is mounted with `huge=within_size`.
    #[serde(rename = "shm_within_size")]
    ShmWithinSize,
    /// A file of a file system in memory that is mounted with `huge=advise`.
    #[serde(rename = "shm_advise")]
    ShmAdvise,
    /// A file of a disk file system.
    Disk,
    /// A file on memory that executes in place. No recording has one.
    Xip,
    /// A file of huge pages of 2 MiB (`MFD_HUGETLB`), which starts as a hole.
    #[serde(rename = "hugefd")]
    Hugetlb,
}

impl FileKind {
    /// Returns true if pages of such a file may come in together.
    #[cfg(feature = "testkit")]
    pub(crate) fn comes_together(self) -> bool {
        self.policy() != HugePolicy::Never
    }
    /// Returns the policy by which pages of a file in memory come in together.
    pub(super) fn policy(self) -> HugePolicy {
        match self {
            Self::Shm => HugePolicy::Always,
            Self::ShmWithinSize => HugePolicy::WithinSize,
            Self::ShmAdvise => HugePolicy::Advise,
            Self::Memfd | Self::Sealable | Self::Disk | Self::Xip | Self::Hugetlb => {
                HugePolicy::Never
            }
        }
    }
}

/// The outcome of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// The operation returned this value.
    Ret(u64),
    /// The operation failed with the errno of this name.
    Err(String),
    /// The operation raised a signal.
    Signal(#[serde(serialize_with = "signal_name")] Signal),
}

fn signal_name<S: serde::Serializer>(signal: &Signal, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(signal)
}

/// A kind of notice of the external MMU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// An invalidation window opened and closed.
    Unmap,
    /// A query and reset of the accessed state (`clear_flush_young`).
    Age,
    /// A query of the accessed state (`test_young`).
    TestAge,
}

/// One notice over `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notified {
    /// The kind of the notice.
    pub notice: Notice,
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl fmt::Display for Notified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.notice {
            Notice::Unmap => "unmap",
            Notice::Age => "age",
            Notice::TestAge => "test_age",
        };
        write!(f, "{name} {:#x}-{:#x}", self.start, self.end)
    }
}

/// One VMA as `/proc/PID/maps` shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MapsRow {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// `rw-p`.
    pub perms: String,
    /// Offset into the object, in bytes; 0 for private anonymous memory.
    pub offset: u64,
    /// `anon`, `zero` (shared anonymous memory), `hugetlb` (`MAP_HUGETLB`) or a file's name.
    pub what: String,
}

impl fmt::Display for MapsRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x} {}", self.start, self.end, self.perms)?;
        write!(f, " {:#x} {}", self.offset, self.what)
    }
}

/// One operation and the reaction of Linux.
#[derive(Clone, Debug)]
pub struct Step {
    /// The line, from 1.
    pub line: usize,
    /// The process that acted.
    pub actor: u32,
    /// The operation.
    pub op: Op,
    /// The outcome of the operation.
    pub outcome: Outcome,
    /// The notices of the external MMU of process 0, in order.
    pub notified: Vec<Notified>,
    /// The VMAs of each process that has other ones now.
    pub layouts: BTreeMap<u32, Vec<MapsRow>>,
    /// The page tables of all processes, if any changed.
    pub pages: Option<PageTables>,
    /// The flags of the VMAs of each process with changes: the letters of `VmFlags` in
    /// `/proc/PID/smaps`, sorted.
    pub vm_flags: BTreeMap<u32, Vec<String>>,
    /// Results beside the outcome, and the pages that userfaultfd protects.
    pub more: Box<More>,
}

impl Step {
    /// Returns a step that was not recorded: it has no reaction, and the outcome 0.
    #[cfg(feature = "testkit")]
    pub(crate) fn unrecorded(line: usize, actor: u32, op: Op) -> Self {
        Self {
            line,
            actor,
            op,
            outcome: Outcome::Ret(0),
            notified: Vec::new(),
            layouts: BTreeMap::new(),
            vm_flags: BTreeMap::new(),
            more: Box::default(),
            pages: None,
        }
    }
    /// Returns the operation as JSON, without its outcome.
    pub fn to_json(&self) -> String {
        #[derive(Serialize)]
        struct Line<'a> {
            r#as: u32,
            #[serde(flatten)]
            op: &'a Op,
        }
        let line = Line {
            r#as: self.actor,
            op: &self.op,
        };
        serde_json::to_string(&line).unwrap_or_else(|why| format!("{:?} ({why})", self.op))
    }
}

/// A whole script.
#[derive(Clone, Debug)]
pub struct Script {
    /// The name of the script in errors and reports.
    pub name: String,
    /// The first line.
    pub header: Header,
    /// The other lines.
    pub steps: Vec<Step>,
}

impl Script {
    /// Checks that the files of a replay stay within the limits.
    pub(super) fn check_files(&self, limits: &ReplayLimits) -> Result<(), ScriptError> {
        // A file of huge pages starts as a hole, and costs nothing.
        let filled = |file: &&FileSpec| file.kind != FileKind::Hugetlb;
        let files = self.header.files.values().filter(filled);
        let sizes = files.map(|file| file.size);
        let all = sizes.fold(0_u64, u64::saturating_add);
        if all <= limits.files {
            return Ok(());
        }
        let most = beyond(limits.files, "bytes of files");
        Err(ScriptError {
            file: self.name.clone(),
            line: 1,
            why: format!("header: the files have {all} bytes, {most}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{FileKind, FileSpec, Header, Script};
    use crate::replay::ReplayLimits;

    #[test]
    fn files_that_no_replay_could_fill_are_refused() {
        let most = ReplayLimits::default().files;
        let check = |sizes: &[u64]| {
            let kind = FileKind::Memfd;
            let files = (0..).zip(sizes);
            let files = files.map(|(n, &size)| (format!("f{n}"), FileSpec { size, kind }));
            let header = Header::new("x", 0, "6.18", 1 << 40..1 << 41, files.collect());
            let (name, steps) = ("x".to_owned(), Vec::new());
            let script = Script {
                name,
                header,
                steps,
            };
            script.check_files(&ReplayLimits::default())
        };
        assert_eq!(check(&[most / 2, most / 2]), Ok(()));
        for large in [&[most, 1][..], &[u64::MAX, u64::MAX]] {
            let why = check(large).unwrap_err().to_string();
            assert!(why.contains(&format!("more than {most} bytes")), "{why}");
        }
    }
}
