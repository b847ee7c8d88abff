//! The state of processes, from outside: `maps`, `smaps`, `pagemap` and `mem` of `/proc/PID`, in
//! the arena.

use super::{ARENA, family::refused};
use crate::{
    addr::{PAGE_SIZE, Pfn},
    replay::{Kind, MapsRow, Outcome},
};
use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
};

/// Returns the VMAs of a process.
pub(super) fn layout(pid: i32) -> io::Result<Vec<MapsRow>> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    Ok(layout_of(&text).0)
}

/// Returns the flags of each VMA of a process, sorted. The kernel looks at all pages of the process
/// for it, those of the recorder's program among them.
pub(super) fn flags(pid: i32) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    Ok(layout_of(&text).1)
}

fn layout_of(smaps: &str) -> (Vec<MapsRow>, Vec<String>) {
    let (mut rows, mut flags) = (Vec::new(), Vec::new());
    let mut inside = false;
    for line in smaps.lines() {
        if let Some(letters) = line.strip_prefix("VmFlags:") {
            if inside {
                let mut letters: Vec<_> = letters.split_ascii_whitespace().collect();
                letters.sort_unstable();
                flags.push(letters.join(" "));
            }
        } else if let Some(vma) = row(line) {
            inside = ARENA.contains(&vma.start);
            rows.extend(inside.then_some(vma));
        }
    }
    (rows, flags)
}

/// `10000000000-10000002000 rw-p 00000000 00:01 1029 /memfd:f0 (deleted)`
fn row(line: &str) -> Option<MapsRow> {
    let mut words = line.split_ascii_whitespace();
    let hex = |word: &str| u64::from_str_radix(word, 16).ok();
    let (start, end) = words.next()?.split_once('-')?;
    let perms = words.next()?.to_owned();
    let offset = words.next().and_then(hex)?;
    let is_named = words.nth(2).is_some();
    // A name may have blanks in it.
    let column = line.splitn(6, ' ').nth(5).unwrap_or_default();
    Some(MapsRow {
        start: hex(start)?,
        end: hex(end)?,
        perms,
        offset: if is_named { offset } else { 0 },
        what: what(column.trim_start()),
    })
}

/// Returns the word of a script for the last column.
fn what(column: &str) -> String {
    if let Some(named) = MapsRow::named(column) {
        return named;
    }
    let path = column.strip_suffix(" (deleted)").unwrap_or(column);
    let word = match path {
        "[heap]" => "heap",
        path if path.is_empty() || path.starts_with('[') => "anon",
        path => match (MapsRow::fileless(path), path.strip_prefix("/memfd:")) {
            (Some(word), _) | (None, Some(word)) => word,
            // A file of the plan, or one that it opened by its path.
            (None, None) => path.rsplit_once('@').map_or(path, |(_, name)| name),
        },
    };
    word.to_owned()
}

/// Reads or writes one byte of `/proc/PID/mem`, and returns the outcome.
pub(super) fn force(pid: i32, addr: u64, write: Option<u8>) -> io::Result<Outcome> {
    let mem = File::options()
        .read(true)
        .write(true)
        .open(format!("/proc/{pid}/mem"))?;
    let mut byte = [write.unwrap_or_default()];
    let done = match write {
        Some(_) => mem.write_at(&byte, addr),
        None => mem.read_at(&mut byte, addr),
    };
    match (done, write) {
        (Ok(written), Some(_)) => Ok(Outcome::Ret(written as u64)),
        (Ok(_), None) => Ok(Outcome::Ret(byte[0].into())),
        (Err(e), _) => refused(&e),
    }
}

/// Bits of an entry of `pagemap`.
const PRESENT: u64 = 1 << 63;
const SWAPPED: u64 = 1 << 62;
const FILE: u64 = 1 << 61;
const GUARD: u64 = 1 << 58;
const PROTECTED: u64 = 1 << 57;
const FRAME: u64 = (1 << 55) - 1;

/// One page with an entry: its number, its kind, its frame.
pub(super) type Entry = (u64, Kind, Option<Pfn>);

/// Returns the frame of a present page; `None`: not present, or not visible.
pub(super) fn frame(pid: i32, page: u64) -> io::Result<Option<u64>> {
    let entry = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut bytes = [0; 8];
    entry.read_exact_at(&mut bytes, page * 8)?;
    let entry = u64::from_ne_bytes(bytes);
    Ok(Some(entry & FRAME).filter(|f| entry & PRESENT != 0 && *f != 0))
}

/// Returns the entries of a process under these VMAs, and the addresses of the pages that
/// userfaultfd write-protects; `zero` is the frame of the zero page.
pub(super) fn entries(
    pid: i32,
    layout: &[MapsRow],
    zero: u64,
) -> io::Result<(Vec<Entry>, Vec<u64>)> {
    let file = File::open(format!("/proc/{pid}/pagemap"))?;
    let (mut all, mut protected) = (Vec::new(), Vec::new());
    for vma in layout {
        let (first, pages) = (vma.start / PAGE_SIZE, (vma.end - vma.start) / PAGE_SIZE);
        let mut bytes = vec![0; usize::try_from(pages * 8).map_err(io::Error::other)?];
        file.read_exact_at(&mut bytes, first * 8)?;
        for (page, bytes) in (first..).zip(bytes.as_chunks::<8>().0) {
            let entry = u64::from_ne_bytes(*bytes);
            if entry & PROTECTED != 0 {
                protected.push(page * PAGE_SIZE);
            }
            let pfn = entry & FRAME;
            let (kind, has_frame) = match entry {
                e if e & GUARD != 0 => (Kind::Guard, false),
                e if e & PRESENT != 0 && pfn == zero => (Kind::Zero, false),
                e if e & (PRESENT | FILE) == PRESENT | FILE => (Kind::Object, true),
                e if e & PRESENT != 0 => (Kind::Anon, true),
                e if e & SWAPPED != 0 => (Kind::Swap, false),
                _ => continue,
            };
            let frame = has_frame.then(|| u32::try_from(pfn).map(Pfn)).transpose();
            all.push((page, kind, frame.map_err(io::Error::other)?));
        }
    }
    Ok((all, protected))
}

#[cfg(test)]
mod tests {
    use super::{layout_of, row};

    #[test]
    fn lines_of_maps_are_read() {
        let what = |line| row(line).map(|r| (r.start, r.offset, r.what));
        let memfd = "10000000000-10000002000 rw-s 00001000 00:01 1029  /memfd:f0 (deleted)";
        assert_eq!(what(memfd), Some((1 << 40, 0x1000, "f0".into())));
        let disk = "10000000000-10000002000 rw-s 00001000 08:01 10 /tmp/emmu-7-0@f1 (deleted)";
        assert_eq!(what(disk), Some((1 << 40, 0x1000, "f1".into())));
        let anon = "10000000000-10000002000 rw-p 00000000 00:00 0 ";
        assert_eq!(what(anon), Some((1 << 40, 0, "anon".into())));
        let zero = "10000000000-10000002000 rw-s 00001000 00:01 7  /dev/zero (deleted)";
        assert_eq!(what(zero), Some((1 << 40, 0x1000, "zero".into())));
        let secret = "10000000000-10000002000 rw-s 00000000 00:0b 9  /secretmem (deleted)";
        assert_eq!(what(secret), Some((1 << 40, 0, "secret".into())));
        let sysv = "10000000000-10000002000 rw-s 00000000 00:01 3  /SYSV00000000 (deleted)";
        assert_eq!(what(sysv), Some((1 << 40, 0, "sysv".into())));
        let named = "10000000000-10000002000 rw-p 00000000 00:00 0  [anon:my heap]";
        assert_eq!(what(named), Some((1 << 40, 0, "anon:my heap".into())));
        let named = "10000000000-10000002000 rw-s 00001000 00:01 7  [anon_shmem:pool]";
        assert_eq!(what(named), Some((1 << 40, 0x1000, "shm:pool".into())));
        let heap = "10000000000-10000002000 rw-p 00000000 00:00 0                     [heap]";
        assert_eq!(what(heap), Some((1 << 40, 0, "heap".into())));
        let opened = "10000000000-10000001000 r--p 00000000 fe:00 77           /etc/hostname";
        assert_eq!(what(opened), Some((1 << 40, 0, "/etc/hostname".into())));
        assert_eq!(what("nonsense"), None);
    }

    #[test]
    fn flags_are_those_of_the_arena() {
        let outside = "00400000-00401000 r-xp 00000000 fe:00 77 /bin/x\nVmFlags: rd ex mr mw me \n";
        let one = "10000000000-10000002000 rw-p 00000000 00:00 0 \nSize: 8 kB\n\
            VmFlags: rd wr mr mw me ac \n";
        let other = "10000004000-10000005000 ---p 00000000 00:00 0 \nVmFlags: mr mw me \n";
        let (rows, flags) = layout_of(&[outside, one, other].concat());
        let starts: Vec<_> = rows.iter().map(|row| row.start).collect();
        assert_eq!(starts, [1 << 40, (1 << 40) + 0x4000]);
        assert_eq!(flags, ["ac me mr mw rd wr", "me mr mw"]);
    }
}
