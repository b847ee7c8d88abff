//! Page tables in a normal form: two sets of page tables are equal up to the names of their frames
//! if and only if their normal forms are equal.
//!
//! Frames are numbered in order of first sight, processes ascending, addresses ascending, over all
//! processes at once, so a page that two processes share has one number in both. Neighbouring pages
//! form runs of maximal length; a comparison compares runs, and a huge page costs no more than a
//! small one.

use super::names::Names;
use crate::addr::{PAGE_SIZE, Pfn};
use std::{collections::BTreeMap, fmt};

/// Most pages that one line may describe. No recording has more; the limit keeps a damaged one from
/// filling the memory.
pub const MAX_PAGES: u64 = 1 << 22;

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Present, anonymous.
    Anon,
    /// Present, page of a file or of shared memory.
    Object,
    /// The zero page.
    Zero,
    /// Swapped out.
    Swap,
    /// A guard marker.
    Guard,
}

impl Kind {
    const ALL: [(char, Self); 5] = [
        ('a', Self::Anon),
        ('s', Self::Object),
        ('z', Self::Zero),
        ('w', Self::Swap),
        ('g', Self::Guard),
    ];
    /// Returns the letter of its tokens.
    pub fn letter(self) -> char {
        Self::ALL.iter().find(|k| k.1 == self).map_or('?', |k| k.0)
    }
    /// Returns true if tokens of this kind carry a frame number.
    pub fn has_frame(self) -> bool {
        matches!(self, Self::Anon | Self::Object)
    }
}

/// Neighbouring pages of one kind; their frame numbers, if they have any, count up from `frame`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The number of the first page.
    pub page: u64,
    /// The number of pages; at least 1.
    pub len: u64,
    /// The kind of the entries.
    pub kind: Kind,
    /// The number of the first frame; 0 for kinds without frames.
    pub frame: u32,
}

impl Run {
    /// Returns the page after the last one.
    pub fn end(&self) -> u64 {
        self.page + self.len
    }
    /// Returns the entry of a page of the run.
    fn entry(&self, page: u64) -> Entry {
        let nth = u32::try_from(page - self.page).unwrap_or(u32::MAX);
        let frame = if self.kind.has_frame() {
            self.frame.saturating_add(nth)
        } else {
            0
        };
        Entry {
            kind: self.kind,
            frame,
        }
    }
    /// Appends a run, or extends the last run if the new one continues it.
    pub(super) fn append(runs: &mut Vec<Self>, run: Self) {
        match runs.last_mut() {
            Some(last) if last.continued_by(&run) => last.len += run.len,
            _ => runs.push(run),
        }
    }
    fn continued_by(&self, next: &Self) -> bool {
        self.kind == next.kind
            && self.end() == next.page
            && (!self.kind.has_frame() || u64::from(self.frame) + self.len == u64::from(next.frame))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let c = self.kind.letter();
        match (self.kind.has_frame(), self.len) {
            (true, 1) => write!(f, "{c}{}", self.frame),
            (true, n) => write!(f, "{c}{}..{}", self.frame, u64::from(self.frame) + n - 1),
            (false, 1) => write!(f, "{c}"),
            (false, n) => write!(f, "{c}*{n}"),
        }
    }
}

/// One page's entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The kind of the entry.
    pub kind: Kind,
    /// The number of the frame; 0 for kinds without frames.
    pub frame: u32,
}

/// The page tables of all processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageTables(BTreeMap<u32, Vec<Run>>);

impl PageTables {
    /// Returns the runs of a process, addresses ascending; none for a process that does not exist.
    pub fn runs(&self, process: u32) -> &[Run] {
        self.0.get(&process).map_or(&[], Vec::as_slice)
    }
    /// Returns every process.
    pub fn processes(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.keys().copied()
    }
    /// Returns every entry of a process, with its page number.
    pub fn entries(&self, process: u32) -> impl Iterator<Item = (u64, Entry)> + '_ {
        let expand = |run: &'_ Run| {
            let run = *run;
            (run.page..run.end()).map(move |page| (page, run.entry(page)))
        };
        self.runs(process).iter().flat_map(expand)
    }
}

/// The builder of page tables from a line of a script; it checks every token.
#[derive(Debug, Default)]
pub struct Parser {
    tables: PageTables,
    /// All frame numbers below this one are in use.
    next_frame: u64,
    pages: u64,
}

impl Parser {
    /// Begins a process; numbers must ascend.
    ///
    /// # Errors
    ///
    /// The reason.
    pub fn process(&mut self, process: u32) -> Result<(), String> {
        if self
            .tables
            .0
            .last_key_value()
            .is_some_and(|(&last, _)| last >= process)
        {
            return Err(format!("page tables of process {process} come too late"));
        }
        self.tables.0.insert(process, Vec::new());
        Ok(())
    }
    /// Adds entries to the table of the process that was added last, from page `first` on.
    ///
    /// # Errors
    ///
    /// The reason why the tokens are wrong.
    pub fn list(&mut self, first: u64, tokens: &str) -> Result<(), String> {
        let mut at = first;
        for word in tokens.split_ascii_whitespace() {
            let (kind, frame, len) = token(word)?;
            self.pages = self.pages.saturating_add(len);
            if self.pages > MAX_PAGES {
                return Err(format!("{word:?}: more than {MAX_PAGES} pages in a line"));
            }
            if kind.has_frame() {
                if u64::from(frame) > self.next_frame {
                    let want = self.next_frame;
                    return Err(format!(
                        "{word:?}: the next new frame must be number {want}"
                    ));
                }
                self.next_frame = self.next_frame.max(u64::from(frame) + len);
            }
            let end = at.checked_add(len).ok_or("page number out of range")?;
            self.push(Run {
                page: at,
                len,
                kind,
                frame,
            })?;
            at = end;
        }
        if at == first {
            return Err(format!("no page at {:#x}", first.saturating_mul(PAGE_SIZE)));
        }
        Ok(())
    }
    fn push(&mut self, run: Run) -> Result<(), String> {
        let Some(mut runs) = self.tables.0.last_entry() else {
            return Err("pages before any process".into());
        };
        let runs = runs.get_mut();
        if runs.last().is_some_and(|last| last.end() > run.page) {
            let at = run.page.saturating_mul(PAGE_SIZE);
            return Err(format!("page {at:#x} is listed twice"));
        }
        Run::append(runs, run);
        Ok(())
    }
    /// Returns the page tables.
    pub fn finish(self) -> PageTables {
        self.tables
    }
}

/// Parses `a3`, `a3..7`, `z`, `z*4`: kind, first frame, number of pages.
fn token(word: &str) -> Result<(Kind, u32, u64), String> {
    let bad = || format!("{word:?} is not a page token");
    let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => digits.parse::<u32>().map_err(|_| bad()),
        false => Err(bad()),
    };
    let mut chars = word.chars();
    let letter = chars.next();
    let rest = chars.as_str();
    let found = Kind::ALL.iter().find(|k| Some(k.0) == letter);
    let kind = found.ok_or_else(bad)?.1;
    if kind.has_frame() {
        let (first, last) = rest.split_once("..").unwrap_or((rest, rest));
        let (first, last) = (number(first)?, number(last)?);
        let more = last.checked_sub(first).ok_or_else(bad)?;
        return Ok((kind, first, u64::from(more) + 1));
    }
    match rest.strip_prefix('*') {
        Some(count) => match number(count)? {
            0 => Err(bad()),
            n => Ok((kind, 0, u64::from(n))),
        },
        None if rest.is_empty() => Ok((kind, 0, 1)),
        None => Err(bad()),
    }
}

/// The builder of page tables from entries; it numbers their frames.
#[derive(Debug, Default)]
pub struct Numbering {
    tables: PageTables,
    names: Names,
}

impl Numbering {
    /// Adds the entries of a process, addresses ascending; processes ascend too. Kinds without
    /// frames ignore the frame.
    pub fn process(
        &mut self,
        process: u32,
        entries: impl Iterator<Item = (u64, Kind, Option<Pfn>)>,
    ) {
        let mut runs: Vec<Run> = Vec::new();
        for (page, kind, pfn) in entries {
            let frame = pfn.map_or(0, |pfn| self.names.number(pfn));
            let run = Run {
                page,
                len: 1,
                kind,
                frame,
            };
            Run::append(&mut runs, run);
        }
        self.tables.0.insert(process, runs);
    }
    /// Returns the page tables.
    pub fn finish(self) -> PageTables {
        self.tables
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Numbering, Parser};
    use crate::addr::Pfn;

    const BAD_TOKENS: &[&str] = &[
        "",
        "a",
        "a*2",
        "a-1",
        "a+1",
        "a1",
        "a0..",
        "a..0",
        "a0..1..2",
        "a3..1",
        "z0",
        "z*",
        "z*0",
        "z*-1",
        "z*4294967296",
        "z*4294967295",
        "a99999999999",
        "a0..4294967295",
        "b",
        "é",
        "g*2*2",
    ];

    #[test]
    fn tokens_are_strict() {
        let expand = |tokens| {
            let mut parser = Parser::default();
            parser
                .process(0)
                .and_then(|()| parser.list(256, tokens))
                .map(|()| parser.finish())
        };
        for bad in BAD_TOKENS {
            assert!(expand(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a0",
            "s0..4",
            "z*3 w g*2",
            "a0 s1..2 a1 a0",
            "a0..1 z a2..5 w*7",
            "z s0 z*9",
        ] {
            let tables = expand(good).expect(good);
            let words: Vec<String> = tables.runs(0).iter().map(ToString::to_string).collect();
            assert_eq!(words.join(" "), good);
            let mut numbering = Numbering::default();
            // Any numbers will do: the first seen becomes 0.
            let renamed = |f| Pfn(900 - f * 7);
            let entries = tables.entries(0);
            numbering.process(
                0,
                entries
                    .map(|(page, e)| (page, e.kind, e.kind.has_frame().then(|| renamed(e.frame)))),
            );
            assert_eq!(numbering.finish(), tables);
        }
        let joined = expand("a0 a1 z z*2 g*1").expect("each token is right");
        let words: Vec<String> = joined.runs(0).iter().map(ToString::to_string).collect();
        assert_eq!(words, ["a0..1", "z*3", "g"]);
        assert_eq!(joined.entries(0).count(), 6);
        assert_eq!(
            joined
                .entries(0)
                .filter(|(_, e)| e.kind == Kind::Zero)
                .count(),
            3
        );
    }
}
