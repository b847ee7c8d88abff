//! A kernel on paper: a few pages, a few frames, drivers on a list, and steps that are done one at a time in the order of
//! a schedule. It can make the mistakes that this library's types exclude, so that they can be seen.

use crate::testkit::verdict::{Side, Step};
use std::fmt;

const PAGES: usize = 4;
const FRAMES: usize = 8;
const DRIVERS: usize = 2;

/// One step. Pages and frames are numbers, and so are drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Do {
    /// A driver is told the beginning of a window: it counts itself in, drops the page and flushes.
    Begin(usize, usize),
    /// It refuses to (`-EAGAIN`).
    Refuse(usize),
    /// It is told the end: the sequence advances, then it counts itself out.
    End(usize),
    /// The first half of an end.
    EndSequence(usize),
    /// The second half of an end.
    EndCount(usize),
    /// Told of one page, with no window: it drops it and flushes.
    Point(usize, usize),
    /// The page table loses an entry.
    Clear(usize),
    /// The page table gets one.
    Map(usize, usize),
    /// The entry of a page may not be written any more.
    WriteProtect(usize),
    /// A frame is given back.
    Free(usize),
    /// The processor writes.
    Store(usize),
    /// A fault of a driver: it takes its sequence.
    Snapshot(usize),
    /// It looks a page up.
    LookUp(usize, usize),
    /// It looks at its count, and begins again if it is up.
    CheckCount(usize),
    /// It looks at its sequence, and begins again if it has moved.
    CheckSequence(usize),
    /// It enters what it has looked up, unless it has to begin again.
    Enter(usize, usize),
    /// The device reads.
    Use(usize, usize),
    /// The device writes.
    Write(usize, usize),
    /// A driver is on the list from here on.
    Register(usize),
    /// It is not any more.
    Unhash(usize),
    /// It is told the end: it drops everything.
    Release(usize),
    /// Its memory is freed.
    FreeDriver(usize),
    /// All are asked whether they were used, and asked to forget it.
    AgeAll,
    /// The first that says yes ends the question.
    AgeUntilOne,
    /// The history ends here: nothing is under way any more.
    Quiet,
}

/// What is violated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// O1: a frame that was given back can still be used.
    UseAfterFree,
    /// O3: an end without its beginning.
    EndWithoutBegin,
    /// O4: what was entered is not what the page table says.
    Stale,
    /// A device sees an old value after a newer one (the memory model of the processor).
    Order,
    /// O10: what was cleared is still set.
    StillYoung,
    /// O12: a beginning without its end: every fault waits for ever.
    Unended,
    /// A driver is called whose memory was freed.
    CalledAfterFree,
}

impl Broken {
    /// Its number in the tables of invariants, or a word.
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

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UseAfterFree => "O1: a frame is free, and a device can still use it",
            Self::EndWithoutBegin => "O3: an end without its beginning, the count is negative",
            Self::Stale => "O4: the device has what the page table does not have any more",
            Self::Order => "the device sees an old value after a newer one",
            Self::StillYoung => {
                "O10: asked to forget, a device did not: the page is young for ever"
            }
            Self::Unended => "O12: a beginning without its end: faults wait for ever",
            Self::CalledAfterFree => "a driver is called whose memory is gone",
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
    /// For each page a frame, and whether it may be written.
    has: [Option<(usize, bool)>; PAGES],
    young: bool,
    /// The newest write that its device has seen.
    saw: u32,
}

/// The state of the paper.
#[derive(Default)]
struct Paper {
    table: [Option<(usize, bool)>; PAGES],
    free: [bool; FRAMES],
    /// When each page was written last, and which write each frame holds.
    written: [u32; PAGES],
    holds: [u32; FRAMES],
    now: u32,
    drivers: [Driver; DRIVERS],
}

impl Paper {
    fn step(&mut self, step: Do) -> Result<(), Broken> {
        match step {
            Do::Begin(d, page) => {
                self.alive(d)?;
                let driver = &mut self.drivers[d];
                driver.count += 1;
                driver.has[page] = None;
            }
            Do::Refuse(d) => self.alive(d)?,
            Do::End(d) => {
                self.step(Do::EndSequence(d))?;
                self.step(Do::EndCount(d))?;
            }
            Do::EndSequence(d) => {
                self.alive(d)?;
                self.drivers[d].sequence += 1;
            }
            Do::EndCount(d) => {
                self.alive(d)?;
                self.drivers[d].count -= 1;
                if self.drivers[d].count < 0 {
                    return Err(Broken::EndWithoutBegin);
                }
            }
            Do::Point(d, page) => {
                self.alive(d)?;
                self.drivers[d].sequence += 1;
                self.drivers[d].has[page] = None;
            }
            Do::Clear(page) => self.table[page] = None,
            Do::Map(page, frame) => {
                self.free[frame] = false;
                self.table[page] = Some((frame, true));
            }
            Do::WriteProtect(page) => {
                self.table[page] = self.table[page].map(|(f, _)| (f, false));
            }
            Do::Free(frame) => return self.give_back(frame),
            Do::Store(page) => self.store(page),
            other => return self.driver_step(other),
        }
        Ok(())
    }
    fn driver_step(&mut self, step: Do) -> Result<(), Broken> {
        match step {
            Do::Snapshot(d) => self.drivers[d].snapshot = self.drivers[d].sequence,
            Do::LookUp(d, page) => self.drivers[d].found = self.table[page],
            Do::CheckCount(d) => self.drivers[d].again |= self.drivers[d].count > 0,
            Do::CheckSequence(d) => {
                let driver = &mut self.drivers[d];
                driver.again |= driver.sequence != driver.snapshot;
            }
            Do::Enter(d, page) => {
                let driver = &mut self.drivers[d];
                if driver.again {
                    driver.again = false;
                } else {
                    driver.has[page] = driver.found;
                    if driver.found != self.table[page] {
                        return Err(Broken::Stale);
                    }
                }
            }
            Do::Use(d, page) => return self.read(d, page),
            Do::Write(d, page) => {
                if let Some((_, true)) = self.drivers[d].has[page]
                    && !matches!(self.table[page], Some((_, true)))
                {
                    return Err(Broken::Stale);
                }
            }
            Do::Register(d) => self.drivers[d].on_list = true,
            Do::Unhash(d) => self.drivers[d].on_list = false,
            Do::Release(d) => self.drivers[d].has = [None; PAGES],
            Do::FreeDriver(d) => self.drivers[d].freed = true,
            Do::AgeAll => self.drivers.iter_mut().for_each(|d| d.young = false),
            Do::AgeUntilOne => {
                if let Some(first) = self.drivers.iter_mut().find(|d| d.young) {
                    first.young = false;
                }
            }
            Do::Quiet => return self.quiet(),
            _ => {}
        }
        Ok(())
    }
    fn alive(&self, d: usize) -> Result<(), Broken> {
        if self.drivers[d].freed {
            return Err(Broken::CalledAfterFree);
        }
        Ok(())
    }
    fn give_back(&mut self, frame: usize) -> Result<(), Broken> {
        self.free[frame] = true;
        let has = |d: &Driver| d.has.iter().flatten().any(|(f, _)| *f == frame);
        if self.drivers.iter().any(has) {
            return Err(Broken::UseAfterFree);
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
    fn read(&mut self, d: usize, page: usize) -> Result<(), Broken> {
        let Some((frame, _)) = self.drivers[d].has[page] else {
            return Ok(());
        };
        if self.free[frame] {
            return Err(Broken::UseAfterFree);
        }
        self.drivers[d].young = true;
        let there = self.holds[frame];
        // A write to this page came before one that was seen already, and is not there.
        if there < self.written[page] && self.written[page] < self.drivers[d].saw {
            return Err(Broken::Order);
        }
        self.drivers[d].saw = self.drivers[d].saw.max(there);
        Ok(())
    }
    fn quiet(&self) -> Result<(), Broken> {
        if self.drivers.iter().any(|d| !d.freed && d.count > 0) {
            return Err(Broken::Unended);
        }
        if self.drivers.iter().any(|d| d.young) {
            return Err(Broken::StillYoung);
        }
        Ok(())
    }
}

impl Do {
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

impl fmt::Display for Do {
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
            Self::AgeAll => f.write_str("clear_flush_young: every driver is asked"),
            Self::AgeUntilOne => f.write_str("clear_flush_young: until one says yes"),
            Self::Quiet => f.write_str("(nothing is under way any more)"),
        }
    }
}

/// Does the steps in their order. What was done, up to what was violated, if anything was.
pub(super) fn play(schedule: &[Do]) -> (Vec<Step>, Option<Broken>) {
    let mut paper = Paper::default();
    let mut done = Vec::new();
    for step in schedule {
        done.push(Step {
            side: step.side(),
            what: step.to_string(),
        });
        if let Err(broken) = paper.step(*step) {
            return (done, Some(broken));
        }
    }
    (done, None)
}
