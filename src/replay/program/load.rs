//! A recording from a folder, and the one that comes with the library.

use super::{
    event::{ProgramEvent, events},
    faults, maps,
    maps::Row,
    strace,
};
use crate::replay::{
    limits::{InputError, ReplayLimits},
    load::{Inputs, unread},
};
use std::{collections::BTreeMap, fs, path::Path};

/// A recording that cannot be read, or cannot be followed.
pub type ProgramError = InputError;

/// A recording of a program, read and ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The name of the recording, from its folder.
    pub name: String,
    /// Calls and faults in the order in which they took effect.
    pub events: Vec<ProgramEvent>,
    /// Layouts right after `execve`, by process.
    pub initial: BTreeMap<u32, Vec<Row>>,
    /// Layouts at `exit_group`, by process.
    pub finals: BTreeMap<u32, Vec<Row>>,
    /// The process that the recording began with.
    pub first: u32,
}

/// The calls of a recording.
pub(super) const CALLS: &str = "calls.strace";
/// The page faults of a recording.
pub(super) const FAULTS: &str = "faults.txt";
/// The end of the names of compressed files.
const PACKED: &str = ".gz";

/// Files of the recording that comes with the library.
const SHIPPED: &[(&str, &[u8])] = &[
    (
        "calls.strace.gz",
        include_bytes!("../../../data/programs/redis/calls.strace.gz"),
    ),
    (
        "faults.txt.gz",
        include_bytes!("../../../data/programs/redis/faults.txt.gz"),
    ),
    (
        "9864.initial.maps.gz",
        include_bytes!("../../../data/programs/redis/9864.initial.maps.gz"),
    ),
    (
        "9864.final.maps.gz",
        include_bytes!("../../../data/programs/redis/9864.final.maps.gz"),
    ),
    (
        "9896.final.maps.gz",
        include_bytes!("../../../data/programs/redis/9896.final.maps.gz"),
    ),
];

/// Returns the recording that comes with the library: a Redis server that forks to save during
/// writes.
///
/// # Errors
///
/// None, unless the library was built with damaged files.
pub fn shipped() -> Result<Program, ProgramError> {
    let files = SHIPPED
        .iter()
        .map(|(name, bytes)| ((*name).to_owned(), bytes.to_vec()));
    Program::from_files("redis", files.collect())
}

/// Returns true if `path` is a folder with a recording of a program in it.
pub fn is_program(path: &Path) -> bool {
    [CALLS.to_owned(), format!("{CALLS}{PACKED}")]
        .iter()
        .any(|name| path.join(name).is_file())
}

impl Program {
    /// Reads the folder of a recording, within the usual [`ReplayLimits`] ([`Inputs::program`]).
    ///
    /// # Errors
    ///
    /// As [`Inputs::program`].
    pub fn load(path: &Path) -> Result<Self, ProgramError> {
        Inputs::new(ReplayLimits::default()).program(path)
    }

    /// Reads a recording from the contents of its files, by name, compressed or not, within the
    /// usual [`ReplayLimits`]. The function skips files of other names.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_files(name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Self, ProgramError> {
        let mut inputs = Inputs::new(ReplayLimits::default());
        let mut parts = Parts::default();
        for (file, bytes) in files {
            if let Some(part) = part_of(name, &file)? {
                let bytes = inputs.bytes(&format!("{name}/{file}"), bytes)?;
                parts.add(name, (&file, part), &bytes)?;
            }
        }
        Self::from_parts(name, &parts)
    }

    fn from_parts(name: &str, parts: &Parts) -> Result<Self, ProgramError> {
        let need = |file: &str| {
            parts.0.get(file).map(|(_, text)| text).ok_or_else(|| {
                let why = "is missing".into();
                in_file(name, file, (1, why))
            })
        };
        // Errors name the file as found, compressed or not.
        let at = |file: &str, why| {
            let there = parts.0.get(file).map_or(file, |(there, _)| there);
            in_file(name, there, why)
        };
        let lines = strace::parse(need(CALLS)?).map_err(|e| at(CALLS, e))?;
        let faults = faults::parse(need(FAULTS)?).map_err(|e| at(FAULTS, e))?;
        let (mut initial, mut finals) = (BTreeMap::new(), BTreeMap::new());
        for (file, (_, text)) in &parts.0 {
            if let Some((pid, is_final)) = whose(file) {
                let rows = maps::parse(text).map_err(|e| at(file, e))?;
                let layouts = if is_final { &mut finals } else { &mut initial };
                layouts.insert(pid, rows);
            }
        }
        let first = lines.first().map(|l| l.tid);
        let first = first.ok_or_else(|| at(CALLS, (1, "no call in it".into())))?;
        if !initial.contains_key(&first) {
            let file = format!("{first}.initial.maps");
            return Err(at(&file, (1, "is missing".into())));
        }
        Ok(Self {
            name: name.to_owned(),
            events: events(&lines, &faults).map_err(|e| at(CALLS, e))?,
            initial,
            finals,
            first,
        })
    }
}

impl Inputs {
    /// Reads the folder of a recording; each file may be compressed with gzip, with `.gz` at the
    /// end of its name.
    ///
    /// # Errors
    ///
    /// [`ProgramError`] for the first wrong file or line, for a part that exists twice, and for
    /// more bytes than the limits allow.
    pub fn program(&mut self, path: &Path) -> Result<Program, ProgramError> {
        let name = path.display().to_string();
        let mut parts = Parts::default();
        for entry in fs::read_dir(path).map_err(|e| unread(&name, &e))? {
            let file = entry.map_err(|e| unread(&name, &e))?.path();
            let there = file.file_name().unwrap_or_default().to_string_lossy();
            if let Some(part) = part_of(&name, &there)? {
                let bytes = self.file(&file)?;
                parts.add(&name, (&there, part), &bytes)?;
            }
        }
        Program::from_parts(&name, &parts)
    }
}

/// The text of each part of a recording, and the name of its file.
#[derive(Default)]
struct Parts(BTreeMap<String, (String, String)>);

impl Parts {
    /// Adds a file; bytes that are not UTF-8 are replaced, since paths may hold any.
    fn add(
        &mut self,
        name: &str,
        (file, part): (&str, &str),
        bytes: &[u8],
    ) -> Result<(), ProgramError> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let twin = self.0.insert(part.to_owned(), (file.to_owned(), text));
        twin.map_or(Ok(()), |(twin, _)| {
            let (first, second) = (twin.as_str().min(file), twin.as_str().max(file));
            let why = format!("is there twice: {first} and {second}");
            Err(in_file(name, file, (1, why)))
        })
    }
}

fn in_file(name: &str, file: &str, (line, why): (usize, String)) -> ProgramError {
    ProgramError {
        file: format!("{name}/{file}"),
        line,
        why,
    }
}

/// Returns the part of a recording that a file of that name is, or `None`.
fn part_of<'f>(name: &str, file: &'f str) -> Result<Option<&'f str>, ProgramError> {
    let part = file.strip_suffix(PACKED).unwrap_or(file);
    let is_layout = [INITIAL, FINAL].iter().any(|end| part.ends_with(end));
    if is_layout && whose(part).is_none() {
        let why = format!("{part:?} does not begin with the number of a process");
        return Err(in_file(name, file, (1, why)));
    }
    Ok((part == CALLS || part == FAULTS || is_layout).then_some(part))
}

/// The end of the names of initial layouts.
const INITIAL: &str = ".initial.maps";
const FINAL: &str = ".final.maps";

/// Returns the process of `PID.initial.maps` or `PID.final.maps`, and true for the latter. Each
/// name has one spelling.
fn whose(name: &str) -> Option<(u32, bool)> {
    let initial = name.strip_suffix(INITIAL).map(|pid| (pid, false));
    let (pid, is_final) = initial.or_else(|| Some((name.strip_suffix(FINAL)?, true)))?;
    let number: u32 = pid.parse().ok()?;
    (number.to_string() == pid).then_some((number, is_final))
}
