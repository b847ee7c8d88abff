//! The walks through the code in `docs/life-of-a-page.md`: short, and true.

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

#[test]
fn walks_are_short_and_lead_to_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/life-of-a-page.md")).expect("UTF-8");
    for (title, most) in WALKS {
        let (_, walk) = text.split_once(title).expect("the walk is there");
        let tables = tables(walk.split("\n##").next().unwrap_or_default());
        let rows = tables.first().expect("a walk has a table").len();
        assert!((2..=most).contains(&rows), "{title}: {rows} files");
        for (file, functions) in tables.into_iter().flatten() {
            let source = fs::read_to_string(root.join(file)).expect(file);
            assert!(!functions.is_empty(), "{title}: nothing to read in {file}");
            for function in functions {
                assert!(defines(&source, function), "{file} has no {function}");
            }
        }
    }
}

#[test]
fn a_function_is_found_by_name_and_type() {
    let text = "impl<T> Other for Gate<T> {\n    fn lock<D>(&self) {}\n}\nfn end() {}\n";
    assert!(defines(text, "Gate::lock") && defines(text, "end") && defines(text, "lock"));
    assert!(
        !defines(text, "Seat::lock") && !defines(text, "Gate::loc") && !defines(text, "Gate::end")
    );
}
