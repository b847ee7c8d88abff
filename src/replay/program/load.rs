//! A recording from a folder, and the one that comes with the library.

use super::{
    event::{Event, events},
    faults, maps,
    maps::Row,
    strace,
};
use crate::replay::load::unpack;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};
use thiserror::Error;

/// A recording that cannot be read: which file, which line, why.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{file}:{line}: {why}")]
pub struct ProgramError {
    /// The file.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub why: String,
}

/// A recording of a program, read and ordered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Where it comes from.
    pub name: String,
    /// Calls and faults in the order in which they took effect.
    pub events: Vec<Event>,
    /// Layouts right after `execve`, by process.
    pub initial: BTreeMap<u32, Vec<Row>>,
    /// Layouts at `exit_group`, by process.
    pub finals: BTreeMap<u32, Vec<Row>>,
    /// The process that the recording began with.
    pub first: u32,
}

/// The calls of a recording.
const CALLS: &str = "calls.strace";
/// Its page faults.
const FAULTS: &str = "faults.txt";
/// What the name of a compressed file ends in.
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

/// The recording that comes with the library: a Redis server that forks to save while it is written to.
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

/// Whether `path` is a folder with a recording of a program in it.
pub fn is_program(path: &Path) -> bool {
    [CALLS.to_owned(), format!("{CALLS}{PACKED}")]
        .iter()
        .any(|name| path.join(name).is_file())
}

impl Program {
    /// Reads the folder of a recording; each file may be compressed with gzip, `.gz` behind its name.
    ///
    /// # Errors
    ///
    /// [`ProgramError`]: the first file or line that is not what it should be.
    pub fn load(path: &Path) -> Result<Self, ProgramError> {
        let name = path.display().to_string();
        let cannot = |path: &Path, why: &io::Error| ProgramError {
            file: path.display().to_string(),
            line: 1,
            why: format!("cannot be read: {why}"),
        };
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(path).map_err(|e| cannot(path, &e))? {
            let file: PathBuf = entry.map_err(|e| cannot(path, &e))?.path();
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            if is_part(name.trim_end_matches(PACKED)) {
                let bytes = fs::read(&file).map_err(|e| cannot(&file, &e))?;
                files.insert(name.into_owned(), bytes);
            }
        }
        Self::from_files(&name, files)
    }

    /// A recording from the contents of its files, by name, compressed or not.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn from_files(name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Self, ProgramError> {
        let mut texts = BTreeMap::new();
        for (file, bytes) in files {
            let text = text(&format!("{name}/{file}"), bytes)?;
            texts.insert(file.trim_end_matches(PACKED).to_owned(), text);
        }
        let need = |file: &str| {
            texts.get(file).ok_or_else(|| ProgramError {
                file: format!("{name}/{file}"),
                line: 1,
                why: "is missing".into(),
            })
        };
        let at = |file: &str, (line, why)| ProgramError {
            file: format!("{name}/{file}"),
            line,
            why,
        };
        let lines = strace::parse(need(CALLS)?).map_err(|e| at(CALLS, e))?;
        let faults = faults::parse(need(FAULTS)?).map_err(|e| at(FAULTS, e))?;
        let (mut initial, mut finals) = (BTreeMap::new(), BTreeMap::new());
        for (file, text) in &texts {
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

fn is_part(name: &str) -> bool {
    name == CALLS || name == FAULTS || whose(name).is_some()
}

/// The process of `PID.initial.maps` and `PID.final.maps`, and whether it is the latter.
fn whose(name: &str) -> Option<(u32, bool)> {
    let initial = name.strip_suffix(".initial.maps").map(|pid| (pid, false));
    let (pid, is_final) = initial.or_else(|| Some((name.strip_suffix(".final.maps")?, true)))?;
    Some((pid.parse().ok()?, is_final))
}

/// The text of a file; bytes that are not UTF-8 are replaced, since paths may hold any.
fn text(name: &str, bytes: Vec<u8>) -> Result<String, ProgramError> {
    let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
        unpack(name, &bytes).map_err(|e| ProgramError {
            file: e.file,
            line: e.line,
            why: e.why,
        })?
    } else {
        bytes
    };
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
