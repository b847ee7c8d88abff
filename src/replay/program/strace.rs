//! Lines of `strace -f -y --absolute-timestamps=format:unix,precision:ns`, as text: thread, time,
//! call, result.
//!
//! The parser joins a call that another thread's line cut in two.

use super::text::{Text, close_of, decimal, time};
use std::collections::HashMap;

/// The content of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A whole call, or one joined from two lines.
    Call {
        /// The name.
        name: String,
        /// The text between the parentheses.
        args: String,
        /// The text after `=`.
        result: String,
    },
    /// The thread ended.
    Ended,
    /// A signal, a stop, a call that never returned: nothing to follow.
    Nothing,
}

/// An event of a recording: a call from beginning to end, or the end of a thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The line with which it begins, from 1.
    pub line: usize,
    /// The thread.
    pub tid: u32,
    /// The time at which it began, in ns.
    pub start: u64,
    /// The time of the resumption, in ns; `start` for a call in one line.
    pub end: u64,
    /// The content.
    pub body: Body,
}

impl Line {
    /// Returns true if the call begins and ends in two lines, with those of other threads between.
    pub fn is_split(&self) -> bool {
        self.end > self.start
    }
}

/// A single line.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part<'l> {
    Whole(Body),
    /// The text up to `<unfinished ...>`.
    Unfinished(&'l str),
    /// The name, and the text after `<... name resumed>`.
    Resumed(&'l str, &'l str),
}

/// Reads and joins the lines of a recording.
///
/// # Errors
///
/// Number, from 1, and reason of the first line that is not one of strace's.
pub fn parse(text: &str) -> Result<Vec<Line>, (usize, String)> {
    let mut lines: Vec<Line> = Vec::new();
    let mut begun: HashMap<u32, (usize, &str)> = HashMap::new();
    for (number, row) in text.lines().enumerate().map(|(n, row)| (n + 1, row)) {
        if row.trim().is_empty() {
            continue;
        }
        let (tid, at, part) = parse_line(row).map_err(|why| (number, why))?;
        let mut line = Line {
            line: number,
            tid,
            start: at,
            end: at,
            body: Body::Nothing,
        };
        match part {
            Part::Whole(body) => line.body = body,
            Part::Unfinished(head) => {
                begun.insert(tid, (lines.len(), head));
            }
            Part::Resumed(name, tail) => {
                let (index, head) = begun
                    .remove(&tid)
                    .ok_or_else(|| (number, format!("{name} is resumed but never began")))?;
                let body = parse_call(&format!("{head}{tail}")).map_err(|why| (number, why))?;
                if let Some(line) = lines.get_mut(index) {
                    line.end = at;
                    line.body = body;
                }
                continue;
            }
        }
        lines.push(line);
    }
    // A call that never resumed did not return: its thread ended in it.
    for (index, head) in begun.into_values() {
        if let (Ok(body), Some(line)) = (parse_call(&format!("{head}) = ?")), lines.get_mut(index))
        {
            line.body = body;
        }
    }
    lines.retain(|l| l.body != Body::Nothing);
    Ok(lines)
}

/// `TID TIME rest`.
fn parse_line(row: &str) -> Result<(u32, u64, Part<'_>), String> {
    let mut text = Text(row.trim());
    let tid = text.word().ok_or("an empty line")?;
    let tid = decimal(tid)
        .and_then(|n| u32::try_from(n).ok())
        .ok_or_else(|| format!("{tid:?} is not the number of a thread"))?;
    let at = text.word().ok_or("no time")?;
    let at = time(at).ok_or_else(|| format!("{at:?} is not a time such as 12.345678901"))?;
    Ok((tid, at, parse_part(text.0)?))
}

fn parse_part(rest: &str) -> Result<Part<'_>, String> {
    const CUT: &str = "<unfinished ...>";
    if rest.starts_with("+++ ") {
        let ended = rest.starts_with("+++ exited") || rest.starts_with("+++ killed");
        return Ok(Part::Whole(if ended { Body::Ended } else { Body::Nothing }));
    }
    if rest.starts_with("--- ") || rest.starts_with("???") || rest.ends_with("<detached ...>") {
        return Ok(Part::Whole(Body::Nothing));
    }
    if let Some(resumed) = rest.strip_prefix("<... ") {
        let (name, tail) = resumed
            .split_once(" resumed>")
            .ok_or("\"<... \" without \"resumed>\"")?;
        return Ok(match tail.strip_suffix(CUT) {
            // A second cut: the thread died in the call.
            Some(_) => Part::Whole(Body::Nothing),
            None => Part::Resumed(name, tail),
        });
    }
    match rest.strip_suffix(CUT) {
        Some(head) => Ok(Part::Unfinished(head)),
        None => parse_call(rest).map(Part::Whole),
    }
}

/// `name(args) = result`.
fn parse_call(text: &str) -> Result<Body, String> {
    let not = || format!("{:?} is not a call and its result", shorten(text));
    let (name, rest) = text.split_once('(').ok_or_else(not)?;
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(not());
    }
    let close = close_of(rest).ok_or_else(not)?;
    let (args, tail) = (rest.get(..close), rest.get(close + 1..));
    let (Some(args), Some(tail)) = (args, tail) else {
        return Err(not());
    };
    let result = tail.trim_start().strip_prefix('=').ok_or_else(not)?;
    Ok(Body::Call {
        name: name.to_owned(),
        args: args.trim().to_owned(),
        result: result.trim().to_owned(),
    })
}

/// Returns the beginning of a long line.
pub(super) fn shorten(text: &str) -> String {
    const MOST: usize = 80;
    let mut out: String = text.chars().take(MOST).collect();
    if out.len() < text.len() {
        out.push('…');
    }
    out
}
