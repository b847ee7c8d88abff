//! `fallocate`, and transfers past the cache of a file.

use super::{
    Reference,
    file_seals::WRITES,
    outcome::{Came, DONE, Step, errno, must},
    page::{Kind, Object, PAGE, Pages},
};
use crate::{
    file::{FallocateMode, Seals},
    replay::{FileKind, Op, Outcome},
};
use std::ops::Range;

/// The multiples that offsets and lengths of direct transfers are.
const SECTOR: u64 = 512;
/// The longest range that the model follows.
const LONG: u64 = 1 << 30;

/// The effect of a mode on a range.
enum Change {
    Allocate,
    Punch,
    Zero,
    TakeOut,
    PutIn,
}

impl Object {
    /// Returns the effect of a mode; `None` if the object, or every object, refuses it.
    fn change(&self, mode: u32) -> Option<Change> {
        let disk = self.kind == Kind::File(FileKind::Disk);
        let memory = !disk && self.kind != Kind::File(FileKind::Xip);
        match mode {
            0 | 1 if disk || memory => Some(Change::Allocate),
            3 => Some(Change::Punch),
            16 | 17 if disk => Some(Change::Zero),
            8 if disk => Some(Change::TakeOut),
            32 if disk => Some(Change::PutIn),
            _ => None,
        }
    }
    /// Moves the pages from `from` on by `to - from` pages; those between are gone.
    fn shift(&mut self, from: u64, to: u64) {
        let mut above = self.pages.split_off(&from);
        self.pages.retain(|&index, _| index < to);
        while let Some((index, bytes)) = above.pop_first() {
            self.pages.insert(index - from + to, bytes);
        }
    }
    fn grow(&mut self, to: u64) {
        if to > self.size {
            self.drop_tail();
            self.size = to;
        }
    }
    /// Does a change to a range; returns false if the range is none for it.
    fn apply(&mut self, change: &Change, range: &Range<u64>, keep: bool) -> bool {
        let whole = (range.start | range.end).is_multiple_of(PAGE);
        let (from, to) = (range.start / PAGE, range.end / PAGE);
        match change {
            Change::Allocate if keep => {}
            Change::Allocate => self.grow(range.end),
            Change::Punch => self.punch(range.start, range.end),
            Change::Zero => {
                if !keep {
                    self.grow(range.end);
                }
                self.cut(range.start, range.end);
            }
            Change::TakeOut if whole && range.end < self.size => {
                self.drop_tail();
                self.shift(to, from);
                self.size -= range.end - range.start;
            }
            Change::PutIn if whole && range.start < self.size => {
                self.drop_tail();
                self.shift(from, to);
                self.size += range.end - range.start;
            }
            Change::TakeOut | Change::PutIn => return false,
        }
        true
    }
}

impl Reference {
    pub(super) fn on_range_of_file(&mut self, op: &Op, came: Came<'_>) -> Step {
        let name = op.file().expect("the caller matched");
        let (nth, direct) = (self.files[name], self.direct.contains(name));
        let object = &mut self.objects[nth];
        match *op {
            Op::Fallocate { mode, off, len, .. } => self.fallocate(nth, (mode, off, len), came),
            Op::DirectWrite { off, len, byte, .. } => {
                let direct = direct && object.kind == Kind::File(FileKind::Disk);
                if direct && !(off | len).is_multiple_of(SECTOR) {
                    // The pages of the range are written back and dropped all the same.
                    object.tail_perhaps |= object.tail().is_some();
                    self.resident = false;
                    return must(&errno("EINVAL"), came);
                }
                // Of a sealed file a part may be written.
                let sealed = object.has(WRITES | Seals::GROW);
                if len == 0 || len > LONG || off > LONG || sealed {
                    return self.odd(came);
                }
                must(&Outcome::Ret(len), came)?;
                let last = object.tail().map_or(u64::MAX, |tail| tail.0 * PAGE);
                if direct && (off + len > object.size || off + len > last) {
                    object.drop_tail();
                }
                (off..off + len).for_each(|at| object.write(at, byte));
                self.resident = false;
                Ok(())
            }
            Op::FadviseDontneed { len, .. } if i64::try_from(len).is_err() => {
                must(&errno("EINVAL"), came)
            }
            Op::SyncFileRange {
                off, len, flags, ..
            } if flags > 7
                || off
                    .checked_add(len)
                    .is_none_or(|end| i64::try_from(end).is_err()) =>
            {
                must(&errno("EINVAL"), came)
            }
            Op::FadviseDontneed { .. } | Op::SyncFileRange { .. } => {
                // What of it wrote the last page is not followed.
                object.tail_perhaps |= object.tail().is_some();
                self.resident = false;
                must(&DONE, came)
            }
            _ => self.odd(came),
        }
    }
    fn fallocate(&mut self, nth: usize, (mode, off, len): (u32, u64, u64), came: Came<'_>) -> Step {
        const MOST: u64 = i64::MAX as u64;
        if len == 0 || len > MOST || off > MOST {
            return must(&errno("EINVAL"), came);
        }
        let object = &mut self.objects[nth];
        let Some(change) = object.change(mode) else {
            return must(&errno("EOPNOTSUPP"), came);
        };
        if off > LONG || len > LONG {
            return self.odd(came);
        }
        let forbids = match change {
            Change::Allocate => off + len > object.size && object.has(Seals::GROW),
            _ => object.has(WRITES),
        };
        if forbids {
            return must(&errno("EPERM"), came);
        }
        let keep = mode & FallocateMode::KEEP_SIZE.bits() != 0;
        if !object.apply(&change, &(off..off + len), keep) {
            return must(&errno("EINVAL"), came);
        }
        must(&DONE, came)?;
        self.resident = false;
        if matches!(change, Change::TakeOut | Change::PutIn) {
            // Private copies of what moved go with it.
            for page in self.processes.values_mut().flat_map(Pages::values_mut) {
                if page
                    .object
                    .is_some_and(|(o, index)| o == nth && index >= off / PAGE)
                {
                    page.clear();
                }
            }
        }
        Ok(())
    }
}
