//! Scripts from files, from folders, and the ones that come with the library.
//!
//! Compressed or not, large or broken: reading ends in scripts or in `file:line: why`.

use super::script::{Script, ScriptError};
use flate2::read::GzDecoder;
use std::{cmp::Ordering, fs, io, io::Read, path::Path};

/// Recordings that come with the library: scripts one after the other, each starting with its header.
static SHIPPED: &[u8] = include_bytes!("../../data/scripts.jsonl.gz");

/// The most that a file may hold once decompressed. A recording has tens of kilobytes.
const MAX_BYTES: u64 = 256 << 20;

/// The scripts that come with the library, in natural order of their names.
///
/// # Errors
///
/// None, unless the library was built with a damaged archive.
pub fn shipped() -> Result<Vec<Script>, ScriptError> {
    let archive = "data/scripts.jsonl.gz";
    let bytes = unpack(archive, SHIPPED)?;
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

/// The script in a file, or those in a folder (`.jsonl` and `.jsonl.gz`), in natural order of their names.
///
/// # Errors
///
/// The first script that cannot be read; a folder without any.
pub fn load(path: &Path) -> Result<Vec<Script>, ScriptError> {
    let name = path.display().to_string();
    let cannot = |why: io::Error| ScriptError {
        file: name.clone(),
        line: 1,
        why: format!("cannot be read: {why}"),
    };
    if !path.is_dir() {
        let bytes = fs::read(path).map_err(cannot)?;
        return Ok(vec![read(&name, &bytes)?]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(cannot)? {
        let file = entry.map_err(cannot)?.path();
        let text = file.to_string_lossy().into_owned();
        if text.ends_with(".jsonl") || text.ends_with(".jsonl.gz") {
            files.push((text, file));
        }
    }
    if files.is_empty() {
        let why = "a folder without any .jsonl or .jsonl.gz".into();
        return Err(ScriptError {
            file: name,
            line: 1,
            why,
        });
    }
    files.sort_by(|a, b| natural(&a.0, &b.0));
    let read_one = |(text, file): &(String, _)| {
        read(
            text,
            &fs::read::<&std::path::PathBuf>(file).map_err(cannot)?,
        )
    };
    files.iter().map(read_one).collect()
}

/// A script from the contents of a file.
///
/// # Errors
///
/// The first line that is not what it should be.
pub fn read(name: &str, bytes: &[u8]) -> Result<Script, ScriptError> {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        Script::parse(name, &unpack(name, bytes)?)
    } else {
        Script::parse(name, bytes)
    }
}

pub(super) fn unpack(name: &str, bytes: &[u8]) -> Result<Vec<u8>, ScriptError> {
    let at = |why| ScriptError {
        file: name.into(),
        line: 1,
        why,
    };
    let mut out = Vec::new();
    GzDecoder::new(bytes)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut out)
        .map_err(|e| at(format!("cannot be decompressed: {e}")))?;
    if out.len() as u64 > MAX_BYTES {
        return Err(at(format!("more than {MAX_BYTES} bytes")));
    }
    Ok(out)
}

/// Compares names with the numbers in them taken as numbers: `dense-2` before `dense-10`.
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

/// Stretches of digits and of anything else, with whether they are digits.
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
