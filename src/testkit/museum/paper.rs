//! A kernel on paper: a few pages, a few frames, drivers on a list, and a schedule that the kernel
//! executes step by step.
//!
//! The paper kernel can make the mistakes that the types of this library exclude.

use crate::testkit::verdict::{Side, TrialStep};
use std::fmt;

const PAGES: usize = 4;
const FRAMES: usize = 8;
const DRIVERS: usize = 2;

/// A step of a schedule. Numbers identify drivers, pages and frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaperStep {
    /// `invalidate_range_start`: the driver counts the window in, drops the page and flushes.
    Begin(usize, usize),
    /// A driver refuses the window (`-EAGAIN`).
    Refuse(usize),
    /// `invalidate_range_end`: the sequence advances, then the driver counts the window out.
    End(usize),
    /// The first half of an end.
    EndSequence(usize),
    /// The second half of an end.
    EndCount(usize),
    /// A call for one page, without a window: the driver drops the page and flushes.
    Point(usize, usize),
    /// The page table loses an entry.
    Clear(usize),
    /// The page table gets an entry.
    Map(usize, usize),
    /// The entry of a page loses its write bit.
    WriteProtect(usize),
    /// A frame returns to the allocator.
    Free(usize),
    /// The processor writes to a page.
    Store(usize),
    /// A fault of a driver begins: the driver takes a snapshot of its sequence.
    Snapshot(usize),
    /// The fault looks a page up.
    LookUp(usize, usize),
    /// The fault begins again if a window is open.
    CheckCount(usize),
    /// The fault begins again if the sequence has moved since the snapshot.
    CheckSequence(usize),
    /// The driver enters the result of the look-up, unless the fault begins again.
    Enter(usize, usize),
    /// The device reads.
    Use(usize, usize),
    /// The device writes.
    Write(usize, usize),
    /// A driver joins the list.
    Register(usize),
    /// A driver leaves the list.
    Unhash(usize),
    /// The address space ends: the driver drops everything.
    Release(usize),
    /// The memory of a driver is freed.
    FreeDriver(usize),
    /// Aging clears the young bit of every driver.
    AgeAll,
    /// Aging stops at the first young driver.
    AgeUntilOne,
    /// The schedule ends: nothing is in progress.
    Quiet,
}

/// A rule that a schedule violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// O1: a device can still use a freed frame.
    UseAfterFree,
    /// O3: an end without its beginning.
    EndWithoutBegin,
    /// O4: a driver entered a translation that the page table does not have.
    Stale,
    /// A device sees an old value after a newer one (the memory model of the processor).
    Order,
    /// O10: a cleared young bit is still set.
    StillYoung,
    /// O12: a beginning without its end, so that every fault waits for ever.
    Unended,
    /// The kernel called a driver whose memory was freed.
    CalledAfterFree,
}

impl Violation {
    /// Returns the number of the violated invariant, or a word.
    pub const fn oracle(self) -> &'static str {
        match self {
            Self::UseAfterFree => "O1",
            Self::EndWithoutBegin => "O3",
            Self::Stale => "O4",
            Self::Order => "order",
            Self::StillYoung => "O10",
            Self::Unended => "O12",
            Self::CalledAfterFree => "lifetime",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UseAfterFree => "O1: a device can use a frame that is free",
            Self::EndWithoutBegin => {
                "O3: a window ends that has not begun, and the count is negative"
            }
            Self::Stale => "O4: a device translates a page that the page table no longer maps so",
            Self::Order => "a device sees an old value after a newer one",
            Self::StillYoung => {
                "O10: a device keeps a young bit that aging clears: the page stays young"
            }
            Self::Unended => "O12: a window has begun and never ends: faults wait for ever",
            Self::CalledAfterFree => "the kernel calls a driver whose memory is freed",
        })
    }
}

#[derive(Clone, Copy, Default)]
struct Driver {
    on_list: bool,
    freed: bool,
    count: i32,
    sequence: u32,
    snapshot: u32,
    found: Option<(usize, bool)>,
    again: bool,
    /// For each page its frame and write bit.
    has: [Option<(usize, bool)>; PAGES],
    young: bool,
    /// The newest write that the device has seen.
    saw: u32,
}

/// The state of the paper.
#[derive(Default)]
struct Paper {
    table: [Option<(usize, bool)>; PAGES],
    free: [bool; FRAMES],
    /// The last write to each page, and the write that each frame holds.
    written: [u32; PAGES],
    holds: [u32; FRAMES],
    now: u32,
    drivers: [Driver; DRIVERS],
}

impl Paper {
    fn step(&mut self, step: PaperStep) -> Result<(), Violation> {
        match step {
            PaperStep::Begin(d, page) => {
                self.alive(d)?;
                let driver = &mut self.drivers[d];
                driver.count += 1;
                driver.has[page] = None;
            }
            PaperStep::Refuse(d) => self.alive(d)?,
            PaperStep::End(d) => {
                self.step(PaperStep::EndSequence(d))?;
                self.step(PaperStep::EndCount(d))?;
            }
            PaperStep::EndSequence(d) => {
                self.alive(d)?;
                self.drivers[d].sequence += 1;
            }
            PaperStep::EndCount(d) => {
                self.alive(d)?;
                self.drivers[d].count -= 1;
                if self.drivers[d].count < 0 {
                    return Err(Violation::EndWithoutBegin);
                }
            }
            PaperStep::Point(d, page) => {
                self.alive(d)?;
                self.drivers[d].sequence += 1;
                self.drivers[d].has[page] = None;
            }
            PaperStep::Clear(page) => self.table[page] = None,
            PaperStep::Map(page, frame) => {
                self.free[frame] = false;
                self.table[page] = Some((frame, true));
            }
            PaperStep::WriteProtect(page) => {
                self.table[page] = self.table[page].map(|(f, _)| (f, false));
            }
            PaperStep::Free(frame) => return self.give_back(frame),
            PaperStep::Store(page) => self.store(page),
            other => return self.driver_step(other),
        }
        Ok(())
    }
    fn driver_step(&mut self, step: PaperStep) -> Result<(), Violation> {
        match step {
            PaperStep::Snapshot(d) => self.drivers[d].snapshot = self.drivers[d].sequence,
            PaperStep::LookUp(d, page) => self.drivers[d].found = self.table[page],
            PaperStep::CheckCount(d) => self.drivers[d].again |= self.drivers[d].count > 0,
            PaperStep::CheckSequence(d) => {
                let driver = &mut self.drivers[d];
                driver.again |= driver.sequence != driver.snapshot;
            }
            PaperStep::Enter(d, page) => {
                let driver = &mut self.drivers[d];
                if driver.again {
                    driver.again = false;
                } else {
                    driver.has[page] = driver.found;
                    if driver.found != self.table[page] {
                        return Err(Violation::Stale);
                    }
                }
            }
            PaperStep::Use(d, page) => return self.read(d, page),
            PaperStep::Write(d, page) => {
                if let Some((_, true)) = self.drivers[d].has[page]
                    && !matches!(self.table[page], Some((_, true)))
                {
                    return Err(Violation::Stale);
                }
            }
            PaperStep::Register(d) => self.drivers[d].on_list = true,
            PaperStep::Unhash(d) => self.drivers[d].on_list = false,
            PaperStep::Release(d) => self.drivers[d].has = [None; PAGES],
            PaperStep::FreeDriver(d) => self.drivers[d].freed = true,
            PaperStep::AgeAll => self.drivers.iter_mut().for_each(|d| d.young = false),
            PaperStep::AgeUntilOne => {
                if let Some(first) = self.drivers.iter_mut().find(|d| d.young) {
                    first.young = false;
                }
            }
            PaperStep::Quiet => return self.quiet(),
            _ => {}
        }
        Ok(())
    }
    fn alive(&self, d: usize) -> Result<(), Violation> {
        if self.drivers[d].freed {
            return Err(Violation::CalledAfterFree);
        }
        Ok(())
    }
    fn give_back(&mut self, frame: usize) -> Result<(), Violation> {
        self.free[frame] = true;
        let has = |d: &Driver| d.has.iter().flatten().any(|(f, _)| *f == frame);
        if self.drivers.iter().any(has) {
            return Err(Violation::UseAfterFree);
        }
        Ok(())
    }
    fn store(&mut self, page: usize) {
        self.now += 1;
        self.written[page] = self.now;
        if let Some((frame, _)) = self.table[page] {
            self.holds[frame] = self.now;
        }
    }
    fn read(&mut self, d: usize, page: usize) -> Result<(), Violation> {
        let Some((frame, _)) = self.drivers[d].has[page] else {
            return Ok(());
        };
        if self.free[frame] {
            return Err(Violation::UseAfterFree);
        }
        self.drivers[d].young = true;
        let there = self.holds[frame];
        // The device has seen a later write, but not an earlier one to this page.
        if there < self.written[page] && self.written[page] < self.drivers[d].saw {
            return Err(Violation::Order);
        }
        self.drivers[d].saw = self.drivers[d].saw.max(there);
        Ok(())
    }
    fn quiet(&self) -> Result<(), Violation> {
        if self.drivers.iter().any(|d| !d.freed && d.count > 0) {
            return Err(Violation::Unended);
        }
        if self.drivers.iter().any(|d| d.young) {
            return Err(Violation::StillYoung);
        }
        Ok(())
    }
}

impl PaperStep {
    fn side(self) -> Side {
        match self {
            Self::Snapshot(_)
            | Self::LookUp(..)
            | Self::CheckCount(_)
            | Self::CheckSequence(_)
            | Self::Enter(..)
            | Self::Use(..)
            | Self::Write(..) => Side::Device,
            _ => Side::Process,
        }
    }
}

impl fmt::Display for PaperStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |d: usize| if d == 0 { "M" } else { "N" };
        match *self {
            Self::Begin(d, p) => write!(f, "begin({}, page {p}): count up, drop, flush", name(d)),
            Self::Refuse(d) => write!(f, "begin({}): -EAGAIN", name(d)),
            Self::End(d) => write!(f, "end({}): sequence up, count down", name(d)),
            Self::EndSequence(d) => write!(f, "end({}), in it: sequence up", name(d)),
            Self::EndCount(d) => write!(f, "end({}), in it: count down", name(d)),
            Self::Point(d, p) => write!(f, "invalidate_page({}, page {p})", name(d)),
            Self::Clear(p) => write!(f, "clear the entry of page {p}"),
            Self::Map(p, frame) => write!(f, "map page {p} to frame {frame}"),
            Self::WriteProtect(p) => write!(f, "write-protect page {p}"),
            Self::Free(frame) => write!(f, "free frame {frame}"),
            Self::Store(p) => write!(f, "store to page {p}"),
            Self::Snapshot(d) => write!(f, "{}: take the sequence", name(d)),
            Self::LookUp(d, p) => write!(f, "{}: look up page {p}", name(d)),
            Self::CheckCount(d) => write!(f, "{}: count 0?", name(d)),
            Self::CheckSequence(d) => write!(f, "{}: same sequence?", name(d)),
            Self::Enter(d, p) => write!(f, "{}: enter page {p}", name(d)),
            Self::Use(d, p) => write!(f, "{}: read page {p}", name(d)),
            Self::Write(d, p) => write!(f, "{}: write page {p}", name(d)),
            Self::Register(d) => write!(f, "register {}", name(d)),
            Self::Unhash(d) => write!(f, "take {} off the list", name(d)),
            Self::Release(d) => write!(f, "release({}): drop everything", name(d)),
            Self::FreeDriver(d) => write!(f, "free the memory of {}", name(d)),
            Self::AgeAll => f.write_str("clear_flush_young: ask every driver"),
            Self::AgeUntilOne => f.write_str("clear_flush_young: ask until one says yes"),
            Self::Quiet => f.write_str("(nothing is in progress)"),
        }
    }
}

/// Executes the steps in order, up to the first violation; returns the executed steps and the
/// violation.
pub(super) fn play(schedule: &[PaperStep]) -> (Vec<TrialStep>, Option<Violation>) {
    let mut paper = Paper::default();
    let mut done = Vec::new();
    for step in schedule {
        done.push(TrialStep {
            side: step.side(),
            what: step.to_string(),
        });
        if let Err(broken) = paper.step(*step) {
            return (done, Some(broken));
        }
    }
    (done, None)
}
