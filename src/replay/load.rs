//! Scripts from files, from folders, and from the library itself.
//!
//! Any input, compressed or not, large or broken, leads to scripts or to `file:line: why`.

use super::{
    limits::{InputError, ReplayLimits, beyond},
    script::{Script, ScriptError},
};
use flate2::read::MultiGzDecoder;
use std::{cmp::Ordering, fs, io::Read, path::Path};

/// Recordings that come with the library: scripts one after the other, each starting with its
/// header.
static SHIPPED: &[u8] = include_bytes!("../../data/scripts.jsonl.gz");

/// A reader of several inputs, with [`ReplayLimits`] for all of them together.
#[derive(Clone, Debug)]
pub struct Inputs {
    limits: ReplayLimits,
    /// Bytes that the limits still allow.
    left: u64,
}

impl Inputs {
    /// Returns a reader with these limits.
    pub fn new(limits: ReplayLimits) -> Self {
        let left = limits.input;
        Self { limits, left }
    }
    /// Returns the limits of these inputs.
    pub fn limits(&self) -> &ReplayLimits {
        &self.limits
    }
    /// Reads the script in a file, or those in a folder (`.jsonl` and `.jsonl.gz`), in natural
    /// order of their names.
    ///
    /// # Errors
    ///
    /// The first script that cannot be read; a folder without any; more bytes than the limits
    /// allow.
    pub fn scripts(&mut self, path: &Path) -> Result<Vec<Script>, ScriptError> {
        if !path.is_dir() {
            return Ok(vec![self.script(path)?]);
        }
        let name = path.display().to_string();
        let mut files = Vec::new();
        for entry in fs::read_dir(path).map_err(|e| unread(&name, &e))? {
            let file = entry.map_err(|e| unread(&name, &e))?.path();
            let text = file.to_string_lossy().into_owned();
            if text.ends_with(".jsonl") || text.ends_with(".jsonl.gz") {
                files.push((text, file));
            }
        }
        if files.is_empty() {
            let why = "a folder without any .jsonl or .jsonl.gz";
            return Err(at(&name, why.into()));
        }
        files.sort_by(|a, b| natural(&a.0, &b.0));
        files.iter().map(|(_, file)| self.script(file)).collect()
    }
    fn script(&mut self, path: &Path) -> Result<Script, ScriptError> {
        let name = path.display().to_string();
        let bytes = self.file(path)?;
        let script = Script::parse(&name, &bytes)?;
        script.check_files(&self.limits)?;
        Ok(script)
    }
    /// Returns the contents of a file, decompressed.
    pub(super) fn file(&mut self, path: &Path) -> Result<Vec<u8>, InputError> {
        let name = path.display().to_string();
        let file = fs::File::open(path).map_err(|e| unread(&name, &e))?;
        let mut bytes = Vec::new();
        let read = file
            .take(self.left.saturating_add(1))
            .read_to_end(&mut bytes);
        read.map_err(|e| unread(&name, &e))?;
        self.bytes(&name, bytes)
    }
    /// Returns the bytes of an input, decompressed.
    pub(super) fn bytes(&mut self, name: &str, bytes: Vec<u8>) -> Result<Vec<u8>, InputError> {
        self.has_room_for(name, &bytes)?;
        let bytes = if bytes.starts_with(&[0x1f, 0x8b]) {
            let mut out = Vec::new();
            let mut packed = MultiGzDecoder::new(&*bytes).take(self.left.saturating_add(1));
            let read = packed.read_to_end(&mut out);
            read.map_err(|e| at(name, format!("cannot be decompressed: {e}")))?;
            self.has_room_for(name, &out)?;
            out
        } else {
            bytes
        };
        self.left -= bytes.len() as u64;
        Ok(bytes)
    }
    fn has_room_for(&self, name: &str, bytes: &[u8]) -> Result<(), InputError> {
        if bytes.len() as u64 > self.left {
            return Err(at(name, beyond(self.limits.input, "bytes of input")));
        }
        Ok(())
    }
}

fn at(name: &str, why: String) -> InputError {
    InputError {
        file: name.to_owned(),
        line: 1,
        why,
    }
}

pub(super) fn unread(name: &str, why: &std::io::Error) -> InputError {
    at(name, format!("cannot be read: {why}"))
}

/// Returns the scripts that come with the library, in natural order of their names.
///
/// # Errors
///
/// None, unless the library was built with a damaged archive.
pub fn shipped() -> Result<Vec<Script>, ScriptError> {
    let archive = "data/scripts.jsonl.gz";
    let bytes = Inputs::new(ReplayLimits::default()).bytes(archive, SHIPPED.to_vec())?;
    let mut scripts = Vec::new();
    for one in split(&bytes) {
        let mut script = Script::parse(archive, one)?;
        script.name = format!("{}.jsonl", script.header.name());
        scripts.push(script);
    }
    scripts.sort_by(|a, b| natural(&a.name, &b.name));
    Ok(scripts)
}

/// Cuts before every header: the recorder writes `profile` first in a header and nowhere else.
fn split(archive: &[u8]) -> Vec<&[u8]> {
    let mut starts = Vec::new();
    let mut at = 0;
    for line in archive.split_inclusive(|&b| b == b'\n') {
        if line.starts_with(b"{\"profile\"") {
            starts.push(at);
        }
        at += line.len();
    }
    let ends = starts.iter().skip(1).copied().chain([archive.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|(&start, end)| archive.get(start..end))
        .collect()
}

/// Reads the script in a file, or those in a folder, within the usual [`ReplayLimits`]
/// ([`Inputs::scripts`]).
///
/// # Errors
///
/// As [`Inputs::scripts`].
pub fn load(path: &Path) -> Result<Vec<Script>, ScriptError> {
    Inputs::new(ReplayLimits::default()).scripts(path)
}

/// Reads a script from the contents of a file, compressed with gzip or not, within the usual
/// [`ReplayLimits`].
///
/// # Errors
///
/// The first line that is wrong.
///
/// # Examples
///
/// ```
/// use emmu::replay::{read, shipped};
///
/// let script = &shipped()?[0];
/// let text = script.to_jsonl();
/// assert_eq!(read("again", text.as_bytes())?.to_jsonl(), text);
/// assert!(read("nothing", b"{}").is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn read(name: &str, bytes: &[u8]) -> Result<Script, ScriptError> {
    let limits = ReplayLimits::default();
    let bytes = Inputs::new(limits).bytes(name, bytes.to_vec())?;
    let script = Script::parse(name, &bytes)?;
    script.check_files(&limits)?;
    Ok(script)
}

/// Compares names in natural order, digits as numbers: `dense-2` before `dense-10`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut a_parts, mut b_parts) = (parts(a), parts(b));
    loop {
        let order = match (a_parts.next(), b_parts.next()) {
            (None, None) => return a.cmp(b),
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some((number_a, x)), Some((number_b, y))) if number_a && number_b => {
                let (x, y) = (x.trim_start_matches('0'), y.trim_start_matches('0'));
                x.len().cmp(&y.len()).then_with(|| x.cmp(y))
            }
            (Some((_, x)), Some((_, y))) => x.cmp(y),
        };
        if order.is_ne() {
            return order;
        }
    }
}

/// Splits a text into stretches of digits and of other characters; the flag is true for digits.
fn parts(text: &str) -> impl Iterator<Item = (bool, &str)> {
    let digit = |c: &char| c.is_ascii_digit();
    let mut rest = text;
    std::iter::from_fn(move || {
        let number = digit(&rest.chars().next()?);
        let end = rest.find(|c| digit(&c) != number).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        rest = tail;
        Some((number, part))
    })
}

#[cfg(test)]
mod tests {
    use super::{natural, read, split};
    use std::{cmp::Ordering, io::Write};

    #[test]
    fn names_sort_by_their_numbers() {
        let mut names = [
            "dense-10", "sparse-1", "dense-2", "dense-2b", "dense-", "dense-02",
        ];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(
            names,
            [
                "dense-", "dense-02", "dense-2", "dense-2b", "dense-10", "sparse-1"
            ]
        );
        assert_eq!(natural("a1", "a1"), Ordering::Equal);
    }

    #[test]
    fn archives_are_cut_at_headers() {
        let archive = b"{\"profile\":1}\n{\"as\":0}\n{\"profile\":2}\n";
        let cut: [&[u8]; 2] = [b"{\"profile\":1}\n{\"as\":0}\n", b"{\"profile\":2}\n"];
        assert_eq!(split(archive), cut);
        assert!(split(b"").is_empty());
    }

    #[test]
    fn broken_archives_are_errors() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&[b' '; 4096]).expect("a Vec takes everything");
        let gz = gz.finish().expect("a Vec takes everything");
        let cut = gz.get(..gz.len() / 2).expect("half of it");
        for bytes in [&gz[..2], cut] {
            let e = read("x.gz", bytes).expect_err("cut short");
            assert!(
                e.to_string()
                    .starts_with("x.gz:1: cannot be decompressed: "),
                "{e}"
            );
        }
        let e = read("x.gz", &gz).expect_err("blanks");
        assert!(e.to_string().starts_with("x.gz:1: header: "), "{e}");
    }
}
