//! The walks through the code in `docs/life-of-a-page.md`: short, and true.

use crate::source::code;
use std::{fs, path::Path};

/// A walk, and the most files that it may lead through.
const WALKS: [(&str, usize); 2] = [
    ("### A guest store that misses and copies", 15),
    ("### munmap with a driver registered", 12),
];

/// The names in backquotes.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Functions that no file of a walk calls by their name: a driver does, or the chain through the
/// trait of drivers.
const BY_A_DRIVER: [&str; 4] = [
    "Gate::exclude_entries",
    "Permit::establish",
    "Vm::invalidate",
    "Vm::invalidate_end",
];

/// The tables of some text: of each row, the file and the functions to read there.
fn tables(text: &str) -> Vec<Vec<(&str, Vec<&str>)>> {
    let mut out = vec![Vec::new()];
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').collect();
        match (&cells[..], out.last_mut().expect("one at least")) {
            ([_, file, functions, ..], rows) if file.contains(".rs`") => {
                rows.push((quoted(file)[0], quoted(functions)));
            }
            ([_, ..], rows) if line.is_empty() && !rows.is_empty() => out.push(Vec::new()),
            _ => {}
        }
    }
    out.retain(|rows| !rows.is_empty());
    out
}

/// Returns true if the file defines the function: `name`, or `Type::name` in an `impl` of the type.
fn defines(text: &str, function: &str) -> bool {
    let (of, name) = function.rsplit_once("::").unwrap_or(("", function));
    let begins = |line: &str, with: &str| {
        let rest = line.split_once(with).map(|(_, rest)| rest);
        rest.is_some_and(|rest| rest.starts_with(['(', '<']))
    };
    let mut inside = of.is_empty();
    text.lines().any(|line| {
        if !of.is_empty() && line.starts_with(['i', '}']) {
            let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
            inside = line.starts_with("impl") && words.any(|word| word == of);
        }
        inside && begins(line, &format!("fn {name}"))
    })
}

/// Returns true if the code calls the function by its name.
fn calls(code: &str, function: &str) -> bool {
    let name = function.rsplit("::").next().expect("one at least");
    code.match_indices(&format!("{name}(")).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_') && !before.ends_with("fn ")
    })
}

/// Checks that the first function of each row is called in a file above, and each other one in some
/// file of the table.
fn follow(title: &str, rows: &[(&str, Vec<&str>)], sources: &[String]) {
    for (nth, (file, functions)) in rows.iter().enumerate() {
        for (place, function) in functions.iter().enumerate() {
            let callers = match place {
                0 => &sources[..nth],
                _ => sources,
            };
            let is_entry = nth == 0 && place == 0;
            let called = callers.iter().any(|text| calls(&code(text), function));
            assert!(
                is_entry || called || BY_A_DRIVER.contains(function),
                "{title}: the walk leads nowhere to {function} of {file}"
            );
        }
    }
}

#[test]
fn walks_are_short_and_lead_to_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/life-of-a-page.md")).expect("UTF-8");
    for (title, most) in WALKS {
        let (_, walk) = text.split_once(title).expect("the walk is there");
        let tables = tables(walk.split("\n##").next().unwrap_or_default());
        let rows = tables.first().expect("a walk has a table").len();
        assert!((2..=most).contains(&rows), "{title}: {rows} files");
        for rows in tables {
            let source = |(file, _): &(&str, _)| fs::read_to_string(root.join(file)).expect(file);
            let sources: Vec<String> = rows.iter().map(source).collect();
            for ((file, functions), source) in rows.iter().zip(&sources) {
                assert!(!functions.is_empty(), "{title}: nothing to read in {file}");
                for function in functions {
                    assert!(defines(source, function), "{file} has no {function}");
                }
            }
            follow(title, &rows, &sources);
        }
    }
}

#[test]
fn a_call_is_found_by_its_name() {
    assert!(calls("let a = txn.entry(at);", "PteTxn::entry") && calls("end(w)", "end"));
    let text = "fn entry(at: Vpn) {}\nreentry(at); entry_of(at)";
    assert!(!calls(text, "PteTxn::entry"));
}

#[test]
fn a_function_is_found_by_name_and_type() {
    let text = "impl<T> Other for Gate<T> {\n    fn lock<D>(&self) {}\n}\nfn end() {}\n";
    assert!(defines(text, "Gate::lock") && defines(text, "end") && defines(text, "lock"));
    assert!(
        !defines(text, "Seat::lock") && !defines(text, "Gate::loc") && !defines(text, "Gate::end")
    );
}
