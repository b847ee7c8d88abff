//! The meetings as text: the list that is compared with the one on record, and tables of pairs.

use crate::meetings::{Meetings, Place};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

/// What `docs/benchmarks/conflicts.md` says of the places: a letter, and the places it is for, by
/// the beginnings of their names.
pub(crate) struct Reasons(Vec<(char, Vec<String>)>);

/// The line of the document that the tables follow.
const TABLES: &str = "<!-- The rest is written by `.ci/run conflicts_baseline`. -->";

impl Reasons {
    /// Reads the rows of the table of reasons: `| letter | places | reason |`.
    pub(crate) fn of(document: &str) -> Self {
        let row = |line: &str| {
            let (letter, rest) = line.strip_prefix("| ")?.split_once(" | ")?;
            let mut letters = letter.chars();
            let letter = letters.next().filter(|c| c.is_alphabetic())?;
            let places = rest.split(" | ").next()?.split('`').skip(1).step_by(2);
            letters
                .next()
                .is_none()
                .then(|| (letter, places.map(str::to_owned).collect()))
        };
        Self(document.lines().filter_map(row).collect())
    }
    /// Returns the letter of a place: that of the longest beginning of its name.
    fn letter(&self, place: &Place) -> Option<char> {
        let rows = self.0.iter();
        let starts = rows.flat_map(|(letter, places)| places.iter().map(move |p| (p, *letter)));
        let fits = starts.filter(|(start, _)| place.name.starts_with(&***start));
        fits.max_by_key(|(start, _)| start.len())
            .map(|(_, letter)| letter)
    }
    /// Returns the beginnings that no place has.
    pub(crate) fn unused<'r>(&'r self, worlds: &[Meetings<'_>]) -> Vec<&'r str> {
        let used = |start: &str| {
            worlds
                .iter()
                .flatten()
                .any(|(p, _)| p.name.starts_with(start))
        };
        let starts = self.0.iter().flat_map(|(_, places)| places).map(|p| &**p);
        starts.filter(|start| !used(start)).collect()
    }
    /// Returns the names of places without a reason.
    pub(crate) fn missing<'m>(&self, worlds: &'m [Meetings<'_>]) -> BTreeSet<&'m str> {
        let places = worlds.iter().flat_map(BTreeMap::keys);
        let none = places.filter(|place| self.letter(place).is_none());
        none.map(|place| &*place.name).collect()
    }
    /// Returns a table of pairs: in the row of the one and the column of the other, the letters of
    /// the places where they meet.
    pub(crate) fn table(&self, meetings: &Meetings<'_>, operations: &[&str]) -> String {
        let mut cells: BTreeMap<(usize, usize), BTreeSet<char>> = BTreeMap::new();
        for (place, met) in meetings {
            for &(a, b) in met.pairs.keys() {
                let cell = cells.entry((a.max(b), a.min(b))).or_default();
                cell.extend(self.letter(place));
            }
        }
        let wide = cells.values().map(BTreeSet::len).max().unwrap_or(0).max(2);
        let name = operations.iter().map(|name| name.len()).max().unwrap_or(0);
        let mut out = String::new();
        let mut line = |first: &str, cells: &mut dyn Iterator<Item = String>| {
            let mut text = format!("{first:<0$}", name + 3);
            cells.for_each(|cell| write!(text, " {cell:<wide$}").expect("a string has room"));
            writeln!(out, "{}", text.trim_end()).expect("a string has room");
        };
        line("", &mut (1..=operations.len()).map(|n| n.to_string()));
        for (a, operation) in operations.iter().enumerate() {
            let cell = |b| match cells.get(&(a, b)) {
                Some(letters) => letters.iter().collect(),
                None => "·".to_owned(),
            };
            line(&format!("{:>2} {operation}", a + 1), &mut (0..=a).map(cell));
        }
        out
    }
}

/// Replaces the tables of the document.
pub(crate) fn with_tables(document: &str, tables: &[(&str, String)]) -> String {
    let head = document.split(TABLES).next().unwrap_or_default();
    let mut out = format!("{head}{TABLES}\n");
    for (world, table) in tables {
        let of = format!("\n### {world}\n\n```text\n{table}```\n");
        out.push_str(&of);
    }
    out
}

/// The meetings of a world, a line for each place and each set of operations that are met there.
pub(crate) fn list(world: &str, meetings: &Meetings<'_>, operations: &[&str]) -> String {
    let names = |of: &[usize]| {
        let names: Vec<&str> = of.iter().map(|n| operations[*n]).collect();
        names.join(", ")
    };
    let mut out = format!("[{world}]\n");
    for (place, met) in meetings {
        let mut second: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for &(a, b) in met.pairs.keys() {
            second.entry(a).or_default().push(b);
        }
        let mut alike: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for (a, set) in second {
            alike.entry(set).or_default().push(a);
        }
        let mut sets: Vec<_> = alike.into_iter().map(|(set, by)| (by, set)).collect();
        sets.sort();
        out.push_str(&place.name);
        if place.beside {
            let others: Vec<&str> = met.others.iter().map(|name| &**name).collect();
            out.extend([", beside ", &others.join(", ")]);
        }
        out.push('\n');
        for (by, set) in sets {
            writeln!(out, "    {} > {}", names(&by), names(&set)).expect("a string has room");
        }
    }
    out
}
