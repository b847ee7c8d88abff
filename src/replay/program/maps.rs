//! `/proc/PID/maps`, line by line.

use super::text::{Text, hexadecimal};
use crate::{PAGE_SIZE, TASK_SIZE};
use std::fmt;

/// A line of `/proc/PID/maps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// The four letters.
    pub perms: String,
    /// Offset into the file in bytes.
    pub offset: u64,
    /// Major number of the device; 0 without a disk.
    pub device: u64,
    /// The text of the last column.
    pub path: String,
}

/// Reads the rows of a file.
///
/// # Errors
///
/// Number, from 1, and reason of the first line that is not one of `/proc/PID/maps`, that does not
/// lie above the line before, or that no process could have.
pub fn parse(text: &str) -> Result<Vec<Row>, (usize, String)> {
    let mut rows: Vec<Row> = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let row =
            Row::parse(line).ok_or_else(|| (n + 1, "not a line of /proc/PID/maps".to_owned()))?;
        if rows.last().is_some_and(|last| last.end > row.start) {
            return Err((n + 1, "overlaps the line before".to_owned()));
        }
        row.check().map_err(|why| (n + 1, why))?;
        rows.push(row);
    }
    Ok(rows)
}

impl Row {
    fn parse(line: &str) -> Option<Self> {
        let mut text = Text(line);
        let (start, end) = text.word()?.split_once('-')?;
        let perms = text.word()?.to_owned();
        let offset = hexadecimal(text.word()?)?;
        let device = hexadecimal(text.word()?.split_once(':')?.0)?;
        let _inode = super::text::decimal(text.word()?)?;
        let row = Self {
            start: hexadecimal(start)?,
            end: hexadecimal(end)?,
            perms,
            offset,
            device,
            path: text.0.trim_end().to_owned(),
        };
        let letters = row.perms.chars().zip(["r-", "w-", "x-", "ps"]);
        let fine = row.perms.len() == 4
            && letters.clone().all(|(c, of)| of.contains(c))
            && [row.start, row.end, row.offset]
                .iter()
                .all(|a| a % PAGE_SIZE == 0)
            && row.start < row.end;
        fine.then_some(row)
    }
    /// Checks that only the kernel's own page lies above the range of user addresses, and that no
    /// file has more than 2^63 bytes.
    fn check(&self) -> Result<(), String> {
        const MOST: u64 = i64::MAX as u64;
        if self.end > TASK_SIZE && !self.is_special() {
            return Err(format!(
                "ends above {TASK_SIZE:#x}, where no process has memory"
            ));
        }
        let last = self.offset.checked_add(self.end - self.start - PAGE_SIZE);
        if last.is_none_or(|last| last > MOST) {
            let offset = self.offset;
            return Err(format!("offset {offset:#x} lies beyond what any file has"));
        }
        Ok(())
    }
    /// Returns true for a mapping of the kernel's own, which no comparison includes.
    pub fn is_special(&self) -> bool {
        matches!(
            &*self.path,
            "[vdso]" | "[vvar]" | "[vvar_vclock]" | "[vsyscall]"
        )
    }
}

/// The kernel's format, with inode 0.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            start,
            end,
            perms,
            offset,
            device,
            path,
        } = self;
        let line = format!("{start:08x}-{end:08x} {perms} {offset:08x} {device:02x}:00 0 ");
        if path.is_empty() {
            f.write_str(&line)
        } else {
            write!(f, "{line:<73}{path}")
        }
    }
}
