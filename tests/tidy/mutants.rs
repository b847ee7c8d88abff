//! The table of breakages (`mutants/table.txt`) follows the code.

use std::{collections::BTreeSet, fs, path::Path};

/// A text to be replaced: the breakage, its file, and the text.
struct Hunk<'t> {
    name: &'t str,
    file: &'t str,
    old: String,
    is_whole: bool,
}

fn hunks(table: &str) -> Vec<Hunk<'_>> {
    let (mut name, mut file) = ("", "");
    let mut out: Vec<Hunk<'_>> = Vec::new();
    for line in table.lines() {
        if let Some(head) = line.strip_prefix("== ") {
            name = head.split(" | ").next().unwrap_or(head);
        } else if let Some(path) = line.strip_prefix("@ ") {
            file = path;
        } else if let Some(text) = line.strip_prefix("- ") {
            match out.last_mut().filter(|hunk| !hunk.is_whole) {
                Some(hunk) => hunk.old = [&*hunk.old, text].join("\n"),
                None => out.push(Hunk {
                    name,
                    file,
                    old: text.to_owned(),
                    is_whole: false,
                }),
            }
        } else if let Some(hunk) = out.last_mut() {
            hunk.is_whole |= line.starts_with("+ ");
        }
    }
    out
}

/// `cargo run --example mutants` builds them; here each text to be replaced stands exactly once.
#[test]
fn every_breakage_applies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("mutants/table.txt")).expect("UTF-8");
    let hunks = hunks(&table);
    let names: BTreeSet<&str> = hunks.iter().map(|hunk| hunk.name).collect();
    assert!(names.len() > 40, "{} breakages", names.len());
    for Hunk {
        name, file, old, ..
    } in &hunks
    {
        let text = fs::read_to_string(root.join(file)).expect(file);
        let there = text.matches(&**old).count();
        assert_eq!(there, 1, "{name}: the text in {file} is:\n{old}");
    }
}

#[test]
fn a_text_of_several_lines_is_one_hunk() {
    let table = "== a | m | w\n@ f\n- x\n-  y\n+ z\n- u\n+ v\n\n== b | m | w\n@ g\n- k\n+ l\n";
    let found = hunks(table);
    let shown: Vec<_> = found.iter().map(|h| (h.name, h.file, &*h.old)).collect();
    assert_eq!(
        shown,
        [("a", "f", "x\n y"), ("a", "f", "u"), ("b", "g", "k")]
    );
}
