//! The trace of a program under lackey, read while it is written: the bytes of each line that each
//! operation loads and stores, and where each block of memory was allocated.
//!
//! Stacks of calls are known from the trace alone: a call is an instruction that stores a return
//! address, and whose successor is elsewhere.

use crate::arena::LINE;
use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufRead, Write},
};

/// Frames of a stack that are kept.
const DEPTH: usize = 40;
/// Bytes between stack pointers of one thread, at most; stacks of two threads are farther apart.
const STACK: u64 = 1 << 20;

/// Addresses of code, innermost first: the instruction, then return addresses.
pub(crate) type Stack = Vec<u64>;

/// The marks of the traced program ([`arena::Marks`](crate::arena::Marks)), by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkAddresses {
    pub(crate) begin: u64,
    pub(crate) end: u64,
    pub(crate) block: u64,
}

/// Accesses of one kind to a line: a bit for each byte, and the stack of the first.
#[derive(Default)]
pub(crate) struct Accesses {
    pub(crate) bytes: u64,
    pub(crate) first: Stack,
}

/// How an operation uses a line.
#[derive(Default)]
pub(crate) struct Use {
    pub(crate) loads: Accesses,
    pub(crate) stores: Accesses,
}

/// The lines that an operation uses, by number.
pub(crate) type Lines = HashMap<u64, Use>;

/// A block of the allocator.
pub(crate) struct Block {
    pub(crate) size: u64,
    pub(crate) stack: Stack,
}

/// All that is kept of a trace.
#[derive(Default)]
pub(crate) struct Trace {
    /// The operations, in the order in which they ran.
    pub(crate) runs: Vec<Lines>,
    /// Blocks by address, those that were allocated outside of operations.
    pub(crate) blocks: BTreeMap<u64, Block>,
}

/// The calls of one thread that have not returned: stack pointer and return address.
type Calls = Vec<(u64, u64)>;

/// The reader's place in the trace.
pub(crate) struct Reader {
    out: Trace,
    threads: Vec<Calls>,
    /// The thread that runs.
    now: usize,
    /// The instruction that runs, and the next in the text.
    at: u64,
    next: u64,
    /// The last word that it stored or loaded, at which address.
    stored: Option<u64>,
    loaded: Option<u64>,
    inside: bool,
    /// The first byte of the block that is being allocated, once it is known.
    block: Option<Option<u64>>,
}

/// An event of the trace.
enum Event {
    Instruction,
    Load,
    Store,
    Modify,
}

fn event(line: &[u8]) -> Option<(Event, u64, u64)> {
    let kind = match line.get(..3)? {
        b"I  " => Event::Instruction,
        b" L " => Event::Load,
        b" S " => Event::Store,
        b" M " => Event::Modify,
        _ => return None,
    };
    let mut numbers = line[3..].trim_ascii().splitn(2, |c| *c == b',');
    let number = |text: &[u8], radix| u64::from_str_radix(str::from_utf8(text).ok()?, radix).ok();
    Some((
        kind,
        number(numbers.next()?, 16)?,
        number(numbers.next()?, 10)?,
    ))
}

impl Reader {
    pub(crate) fn new() -> Self {
        Self {
            out: Trace::default(),
            threads: Vec::new(),
            now: 0,
            at: 0,
            next: 0,
            stored: None,
            loaded: None,
            inside: false,
            block: None,
        }
    }
    /// Reads to the end. Lines that are no events are shown: the program's own messages. Events
    /// before `marks` tells the marks are passed over.
    pub(crate) fn read(
        mut self,
        mut from: impl BufRead,
        marks: impl Fn() -> Option<MarkAddresses>,
    ) -> io::Result<Trace> {
        let mut line = Vec::new();
        let mut known = None;
        while from.read_until(b'\n', &mut line)? > 0 {
            match event(&line) {
                Some((kind, at, size)) => {
                    known = known.or_else(&marks);
                    if let Some(known) = known {
                        self.event(known, &kind, at, size);
                    }
                }
                None => io::stderr().write_all(&line)?,
            }
            line.clear();
        }
        Ok(self.out)
    }
    fn event(&mut self, marks: MarkAddresses, kind: &Event, at: u64, size: u64) {
        match kind {
            Event::Instruction => self.instruction(at, size),
            Event::Load => {
                self.loaded = Some(at);
                self.access(at, size, true, false);
            }
            Event::Modify => self.access(at, size, true, true),
            Event::Store => {
                self.stored = (size == 8).then_some(at);
                self.store(marks, at, size);
            }
        }
    }
    /// A new instruction: the one before it was a call if it stored a word and led elsewhere, and a
    /// return if it loaded a return address and led there.
    fn instruction(&mut self, at: u64, size: u64) {
        if at != self.next {
            if let Some(sp) = self.stored {
                self.switch_to(sp);
                let calls = &mut self.threads[self.now];
                calls.retain(|(of, _)| *of > sp);
                calls.push((sp, self.next));
            } else if let Some(sp) = self.loaded
                && self.calls().last() == Some(&(sp, at))
            {
                self.threads[self.now].pop();
            }
        }
        (self.at, self.next) = (at, at + size);
        (self.stored, self.loaded) = (None, None);
    }
    fn calls(&self) -> &[(u64, u64)] {
        self.threads.get(self.now).map_or(&[], |calls| calls)
    }
    /// Finds the thread whose stack has that address.
    fn switch_to(&mut self, sp: u64) {
        let near = |calls: &Calls| calls.last().is_some_and(|(of, _)| of.abs_diff(sp) < STACK);
        if self.threads.get(self.now).is_some_and(near) {
            return;
        }
        self.now = self.threads.iter().position(near).unwrap_or_else(|| {
            self.threads.push(Calls::new());
            self.threads.len() - 1
        });
    }
    fn stack(&self) -> Stack {
        let callers = self.calls().iter().rev().map(|(_, to)| *to);
        std::iter::once(self.at)
            .chain(callers)
            .take(DEPTH)
            .collect()
    }
    fn store(&mut self, marks: MarkAddresses, at: u64, size: u64) {
        if at == marks.begin {
            self.inside = true;
            self.out.runs.push(Lines::new());
        } else if at == marks.end {
            self.inside = false;
        } else if at == marks.block {
            self.block = Some(None);
        } else if size == 1
            && let Some(first) = self.block
        {
            self.block = Some(Some(at));
            if let Some(first) = first {
                self.allocated(first, at + 1 - first);
            }
        } else {
            self.access(at, size, false, true);
        }
    }
    fn allocated(&mut self, at: u64, size: u64) {
        self.block = None;
        if !self.inside {
            let stack = self.stack();
            self.out.blocks.insert(at, Block { size, stack });
        }
    }
    fn access(&mut self, at: u64, size: u64, loads: bool, stores: bool) {
        if !self.inside {
            return;
        }
        let line = LINE as u64;
        for byte in at..at + size {
            let used = |run: &mut Lines| {
                run.get(&(byte / line))
                    .map(|u| (u.loads.bytes, u.stores.bytes))
            };
            let run = self.out.runs.last_mut().expect("it has begun");
            let (loaded, stored) = used(run).unwrap_or_default();
            let bit = 1 << (byte % line);
            let fresh = [loads && loaded == 0, stores && stored == 0];
            let stack = if fresh.contains(&true) {
                self.stack()
            } else {
                Stack::new()
            };
            let run = self.out.runs.last_mut().expect("it has begun");
            let used = run.entry(byte / line).or_default();
            for (accesses, does, fresh) in [
                (&mut used.loads, loads, fresh[0]),
                (&mut used.stores, stores, fresh[1]),
            ] {
                if fresh {
                    accesses.first.clone_from(&stack);
                }
                if does {
                    accesses.bytes |= bit;
                }
            }
        }
    }
}
