//! The parser of scripts: any bytes lead to a script or to `file:line: why`.
//!
//! An accepted script is consistent in itself: every process acts between its fork and its exit,
//! every named file exists, addresses lie in the arena and ascend, frame numbers appear in order.

use super::{
    file_names::is_fileless,
    hex::Hex,
    json::object,
    op::Op,
    pages::{PageTables, Parser},
    script::{Header, MapsRow, Notice, Notified, Outcome, Script, ScriptError, Step},
    uffd_op::{More, Results},
    wire_words::hex_word,
};
use crate::{addr::PAGE_SIZE, error::Signal};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

impl Script {
    /// Reads a script; errors and reports call it `name`.
    ///
    /// # Errors
    ///
    /// The first line that is wrong.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Self, ScriptError> {
        let at = |line, why| ScriptError {
            file: name.into(),
            line,
            why,
        };
        let text = str::from_utf8(bytes).map_err(|e| {
            let good = bytes.get(..e.valid_up_to()).unwrap_or_default();
            let line = 1 + good.iter().filter(|&&b| b == b'\n').count();
            at(line, "not UTF-8".into())
        })?;
        let mut lines = (1..).zip(text.lines());
        let Some((_, first)) = lines.next() else {
            return Err(at(
                1,
                "empty: the first line of a script is its header".into(),
            ));
        };
        let header = header(first).map_err(|why| at(1, format!("header: {why}")))?;
        let mut world = World {
            header: &header,
            live: BTreeSet::from([0]),
            threads: BTreeMap::new(),
            opened: BTreeMap::new(),
        };
        let steps = lines
            .map(|(line, text)| world.step(line, text).map_err(|why| at(line, why)))
            .collect::<Result<Vec<_>, _>>()?;
        if steps.is_empty() {
            return Err(at(2, "no step follows the header".into()));
        }
        Ok(Self {
            name: name.into(),
            header,
            steps,
        })
    }
}

fn header(text: &str) -> Result<Header, String> {
    // By way of a map: a struct would take a bare array too.
    let keys = object(text)?;
    let header = Header::deserialize(Value::Object(keys)).map_err(|e| e.to_string())?;
    header.check()?;
    Ok(header)
}

/// Moves the `grows` number of a recorded `mprotect` into the word of its rights.
fn with_growth(keys: &mut Map<String, Value>) -> Result<(), String> {
    let Some(bits) = keys.remove("grows") else {
        return Ok(());
    };
    let bits = bits.as_u64().ok_or("\"grows\" is not a number")?;
    let word = keys.get("prot").and_then(Value::as_str);
    let word = word.ok_or("\"grows\" without \"prot\"")?;
    keys.insert("prot".into(), Value::String(format!("{word}+{bits:#x}")));
    Ok(())
}

fn are_perms(perms: &str) -> bool {
    let sets: [&[u8]; 4] = [b"r-", b"w-", b"x-", b"ps"];
    perms.len() == sets.len() && perms.bytes().zip(sets).all(|(c, set)| set.contains(&c))
}

fn outcome(
    op: &Op,
    ret: Option<Value>,
    err: Option<Value>,
    signal: Option<Value>,
) -> Result<Outcome, String> {
    match (ret, err, signal) {
        (Some(Value::String(at)), None, None) if op.returns_address() => {
            hex_word(&at).map(Outcome::Ret)
        }
        (Some(ret), None, None) if !op.returns_address() => {
            let ret = ret
                .as_u64()
                .ok_or_else(|| format!("\"ret\": {ret} is not a number"))?;
            Ok(Outcome::Ret(ret))
        }
        (Some(ret), None, None) => Err(format!("\"ret\": {ret} is not an address")),
        (None, Some(Value::String(err)), None) if is_errno(&err) => Ok(Outcome::Err(err)),
        (None, Some(err), None) => Err(format!("\"err\": {err} is not the name of an errno")),
        (None, None, Some(signal)) => match signal.as_str() {
            Some("SIGSEGV") => Ok(Outcome::Signal(Signal::Segv)),
            Some("SIGBUS") => Ok(Outcome::Signal(Signal::Bus)),
            _ => Err(format!(
                "\"signal\": {signal} is neither SIGSEGV nor SIGBUS"
            )),
        },
        _ => Err("needs exactly one of \"ret\", \"err\" and \"signal\"".into()),
    }
}

fn is_errno(word: &str) -> bool {
    word.starts_with('E')
        && word
            .bytes()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
}

fn notified(list: Value) -> Result<Vec<Notified>, String> {
    let list: Vec<(Notice, Hex, Hex)> = serde_json::from_value(list).map_err(|e| e.to_string())?;
    let one = |(notice, Hex(start), Hex(end))| match start < end {
        true => Ok(Notified { notice, start, end }),
        false => Err(format!("{start:#x}-{end:#x} is empty")),
    };
    list.into_iter().map(one).collect()
}

/// The beginning of the last page of the largest file.
const MOST_OFFSET: u64 = i64::MAX as u64 - (PAGE_SIZE - 1);

/// The state of the processes after the lines so far.
struct World<'h> {
    header: &'h Header,
    live: BTreeSet<u32>,
    /// Threads besides the first one of each process, with their processes.
    threads: BTreeMap<u32, u32>,
    /// The paths of the files that the script opened, by their names; empty for a descriptor that
    /// is not open.
    opened: BTreeMap<String, String>,
}

impl World<'_> {
    fn step(&mut self, line: usize, text: &str) -> Result<Step, String> {
        let mut keys = object(text)?;
        let actor = keys.remove("as").ok_or("missing \"as\"")?;
        let actor = serde_json::from_value(actor).map_err(|e| format!("\"as\": {e}"))?;
        let name = keys
            .get("op")
            .and_then(Value::as_str)
            .ok_or("missing \"op\"")?
            .to_owned();
        let [ret, err, signal, notify, maps, pages, flags, protected] = [
            "ret", "err", "signal", "notify", "maps", "pages", "vmflags", "uffd_wp",
        ]
        .map(|key| keys.remove(key));
        let results = Results::take(&mut keys)?;
        with_growth(&mut keys)?;
        let op = Op::deserialize(Value::Object(keys)).map_err(|e| format!("{name}: {e}"))?;
        let outcome = outcome(&op, ret, err, signal).map_err(|why| format!("{name}: {why}"))?;
        self.happen(actor, &op, &outcome)?;
        let notified = notify.map(notified).transpose();
        let layouts = maps.map(|maps| self.layouts(maps)).transpose();
        let pages = pages.map(|pages| self.pages(pages)).transpose();
        let vm_flags = flags.map(|flags| self.vm_flags(flags)).transpose();
        let protected = protected.map(|pages| self.protected(pages)).transpose();
        Ok(Step {
            more: Box::new(More {
                results,
                protected: protected
                    .map_err(|why| format!("uffd_wp: {why}"))?
                    .unwrap_or_default(),
            }),
            line,
            actor,
            op,
            outcome,
            notified: notified
                .map_err(|why| format!("notify: {why}"))?
                .unwrap_or_default(),
            layouts: layouts
                .map_err(|why| format!("maps: {why}"))?
                .unwrap_or_default(),
            pages: pages.map_err(|why| format!("pages: {why}"))?,
            vm_flags: vm_flags
                .map_err(|why| format!("vmflags: {why}"))?
                .unwrap_or_default(),
        })
    }

    /// Applies an operation to the processes, and checks the names that it uses.
    fn happen(&mut self, actor: u32, op: &Op, outcome: &Outcome) -> Result<(), String> {
        if !self.live.contains(&actor) && !self.threads.contains_key(&actor) {
            return Err(format!("process {actor} does not exist"));
        }
        if let Some(target) = op.targets().find(|target| !self.live.contains(target)) {
            return Err(format!("process {target} does not exist"));
        }
        if let Some(why) = op.refused() {
            return Err(why);
        }
        if let Some(file) = op.file()
            && !self.header.has_file(file)
            && !self.opened.contains_key(file)
        {
            return Err(format!("file {file:?} is not in the header"));
        }
        match (op, outcome) {
            (Op::Open(file), Outcome::Ret(_)) if !file.path.starts_with('/') => {
                Err(format!("{:?} is no path that a layout can show", file.path))
            }
            (Op::Open(file), Outcome::Ret(_)) => self.open(&file.name, &file.path),
            (Op::BadFd { name, .. }, Outcome::Ret(_)) => self.open(name, ""),
            (Op::Fork { child: new } | Op::Thread { thread: new }, _)
                if self.live.contains(new) || self.threads.contains_key(new) =>
            {
                Err(format!("process {new} exists already"))
            }
            (Op::Fork { child }, Outcome::Ret(_)) => {
                self.live.insert(*child);
                Ok(())
            }
            (Op::Thread { thread }, Outcome::Ret(_)) => {
                let process = self.threads.get(&actor).copied().unwrap_or(actor);
                self.threads.insert(*thread, process);
                Ok(())
            }
            (Op::Exit {}, _) if self.threads.contains_key(&actor) => {
                Err(format!("{actor} is a thread, and exits with its process"))
            }
            (Op::ExitAndReap { target: gone }, _) => {
                self.live.remove(gone);
                self.threads.retain(|_, process| process != gone);
                Ok(())
            }
            (Op::Exit {}, _) => {
                self.live.remove(&actor);
                self.threads.retain(|_, process| *process != actor);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, name: &str, path: &str) -> Result<(), String> {
        if self.header.has_file(name) {
            return Err(format!("file {name:?} is open already"));
        }
        self.opened.insert(name.to_owned(), path.to_owned());
        Ok(())
    }

    /// Returns true if a line of a layout can have this in its last column.
    fn is_mapped(&self, what: &str) -> bool {
        is_fileless(what)
            || self.header.files.contains_key(what)
            || self.opened.values().any(|path| path == what)
    }

    fn layouts(&self, maps: Value) -> Result<BTreeMap<u32, Vec<MapsRow>>, String> {
        type Rows = Vec<(String, String, String, String, String)>;
        let maps: BTreeMap<String, Rows> =
            serde_json::from_value(maps).map_err(|e| e.to_string())?;
        let mut layouts = BTreeMap::new();
        for (process, rows) in maps {
            let process = self.process(&process)?;
            let mut below = self.header.arena().start;
            let mut layout = Vec::with_capacity(rows.len());
            for (start, end, perms, offset, what) in rows {
                let (start, end) = (hex_word(&start)?, hex_word(&end)?);
                if start < below
                    || end <= start
                    || end > self.header.arena().end
                    || !(start | end).is_multiple_of(PAGE_SIZE)
                {
                    return Err(format!(
                        "{start:#x} to {end:#x}: out of order or out of the arena"
                    ));
                }
                below = end;
                if !are_perms(&perms) {
                    return Err(format!("{perms:?} are not permissions such as \"rw-p\""));
                }
                if !self.is_mapped(&what) {
                    return Err(format!("file {what:?} is not in the header"));
                }
                let offset = hex_word(&offset)?;
                if !offset.is_multiple_of(PAGE_SIZE) || offset > MOST_OFFSET {
                    return Err(format!("{offset:#x} is no offset of a page in a file"));
                }
                layout.push(MapsRow {
                    start,
                    end,
                    perms,
                    offset,
                    what,
                });
            }
            layouts.insert(process, layout);
        }
        Ok(layouts)
    }

    fn vm_flags(&self, flags: Value) -> Result<BTreeMap<u32, Vec<String>>, String> {
        let flags: BTreeMap<String, Vec<String>> =
            serde_json::from_value(flags).map_err(|e| e.to_string())?;
        let of_process = |(process, flags): (String, _)| Ok((self.process(&process)?, flags));
        flags.into_iter().map(of_process).collect()
    }

    fn protected(&self, pages: Value) -> Result<BTreeMap<u32, Vec<u64>>, String> {
        let pages: BTreeMap<String, Vec<Hex>> =
            serde_json::from_value(pages).map_err(|e| e.to_string())?;
        let of_process = |(process, pages): (String, Vec<Hex>)| {
            let pages = pages.into_iter().map(|Hex(page)| page).collect();
            Ok((self.process(&process)?, pages))
        };
        pages.into_iter().map(of_process).collect()
    }

    fn pages(&self, pages: Value) -> Result<PageTables, String> {
        type Lists = Vec<(String, String)>;
        let pages: BTreeMap<String, Lists> =
            serde_json::from_value(pages).map_err(|e| e.to_string())?;
        let mut lists = BTreeMap::new();
        for (process, list) in pages {
            lists.insert(self.process(&process)?, list);
        }
        if !lists.keys().eq(&self.live) {
            return Err(format!(
                "not of every process; these exist: {:?}",
                self.live
            ));
        }
        let arena = self.header.arena();
        let mut parser = Parser::default();
        for (process, lists) in lists {
            parser.process(process)?;
            for (first, tokens) in lists {
                let at = hex_word(&first)?;
                if !at.is_multiple_of(PAGE_SIZE) {
                    return Err(format!("{first} is not page aligned"));
                }
                parser.list(at / PAGE_SIZE, &tokens)?;
            }
        }
        let tables = parser.finish();
        let outside = |p| {
            let runs = tables.runs(p);
            runs.first()
                .is_some_and(|r| r.page < arena.start / PAGE_SIZE)
                || runs.last().is_some_and(|r| r.end() > arena.end / PAGE_SIZE)
        };
        let stray = tables.processes().find(|&p| outside(p));
        stray.map_or(Ok(tables), |p| {
            Err(format!("process {p} has a page outside the arena"))
        })
    }

    fn process(&self, key: &str) -> Result<u32, String> {
        let process: u32 = key
            .parse()
            .map_err(|_| format!("{key:?} is not a process"))?;
        if key != process.to_string() {
            return Err(format!("{key:?} is not how process {process} is written"));
        }
        if self.live.contains(&process) {
            Ok(process)
        } else {
            Err(format!("process {process} does not exist"))
        }
    }
}
