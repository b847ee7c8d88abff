//! Text as a reader meets it: width, plain words, summary lines, tables of files, the glossary.

use crate::source::files;
use std::{collections::BTreeSet, fs, path::Path};

/// Columns of a line of comments, as of a line of code. Rows of tables cannot be broken.
const WIDTH: usize = 100;
/// Persons do not act in a program.
const PERSONS: [&str; 8] = [
    "he", "him", "his", "whom", "whoever", "who", "nobody", "somebody",
];
/// A summary line that begins so says nothing in an index.
const STARTS: [&str; 7] = [
    "What ", "Whether ", "The same", "Its ", "It ", "As `", "As [",
];

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}
fn text_of(line: &str) -> &str {
    line.trim_start().trim_start_matches(['/', '!']).trim()
}

/// The comments of a file outside of fenced code, a line each with its number.
fn comments(text: &str) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let mut out = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if !is_comment(line) {
            fenced = false;
            continue;
        }
        let fence = text_of(line).starts_with("```");
        fenced ^= fence;
        if !fenced && !fence {
            out.push((n + 1, line));
        }
    }
    out
}

fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    let outside = text_of(line).split('`').step_by(2);
    outside
        .flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '\''))
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// The documents that people read, without the results of benchmarks.
fn documents() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let single = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name));
    let folders = ["docs", "docs/adr"].into_iter().flat_map(|folder| {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        entries.map(|entry| entry.expect("readable").path())
    });
    single
        .into_iter()
        .chain(folders)
        .filter(|path| path.extension().is_some_and(|x| x == "md"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("UTF-8");
            (path.display().to_string(), text)
        })
        .collect()
}

/// All Rust files that people read: library, examples, benchmarks and tests.
fn read() -> Vec<(String, String)> {
    let folders = ["src", "examples", "benches", "tests"].into_iter();
    let named = |folder: &str, (path, text): (std::path::PathBuf, String)| {
        (format!("{folder}/{}", path.display()), text)
    };
    folders
        .flat_map(|folder| files(folder).into_iter().map(move |f| named(folder, f)))
        .filter(|(path, _)| !path.starts_with("tests/ui/"))
        .collect()
}

fn none(found: &[String]) {
    assert!(
        found.is_empty(),
        "{} found:\n{}",
        found.len(),
        found.join("\n")
    );
}

#[test]
fn comments_are_as_narrow_as_code() {
    let mut wide = Vec::new();
    for (path, text) in read() {
        for (n, line) in comments(&text) {
            let columns = line.chars().count();
            let table = text_of(line).starts_with('|');
            let link = line.contains("https://");
            if columns > WIDTH && !table && !link {
                wide.push(format!("{path}:{n}: {columns} columns"));
            }
        }
    }
    none(&wide);
}

#[test]
fn things_act_and_no_persons() {
    let mut found = Vec::new();
    for (path, text) in read()
        .into_iter()
        .filter(|(path, _)| path.starts_with("src/"))
    {
        let (mut what, mut all) = (0, 0);
        for (n, line) in comments(&text) {
            for word in words(line) {
                all += 1;
                what += usize::from(word == "what");
                if PERSONS.contains(&word.as_str()) {
                    found.push(format!("{path}:{n}: {word}"));
                }
            }
        }
        let most = 2 * (1 + all / 1000);
        if what > most {
            found.push(format!("{path}: {what} times \"what\" in {all} words"));
        }
    }
    for (path, text) in documents() {
        for (n, line) in text.lines().enumerate() {
            // The target of a link is no prose.
            let prose = line.split("](").map(|part| match part.split_once(')') {
                Some((target, rest)) if target.ends_with(".md") => rest,
                _ => part,
            });
            let person = |word: &String| PERSONS.contains(&word.as_str());
            let persons = prose.flat_map(words).filter(person);
            found.extend(persons.map(|word| format!("{path}:{}: {word}", n + 1)));
        }
    }
    none(&found);
}

#[test]
fn summary_lines_say_something_in_an_index() {
    let mut found = Vec::new();
    for (path, text) in files("src") {
        let of_module = text.lines().next().map(text_of).unwrap_or_default();
        if STARTS.iter().any(|bad| of_module.starts_with(bad)) {
            found.push(format!("src/{}:1: {of_module}", path.display()));
        }
        let mut before = "";
        for (n, line) in text.lines().enumerate() {
            let start = line.trim_start();
            let first = start.starts_with("/// ") && !before.trim_start().starts_with("///");
            let says = text_of(line);
            if first && STARTS.iter().any(|bad| says.starts_with(bad)) {
                found.push(format!("src/{}:{}: {says}", path.display(), n + 1));
            }
            before = line;
        }
    }
    none(&found);
}

/// A folder's own file that has a table of its files names all of them.
#[test]
fn tables_of_files_are_whole() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut found, mut tables) = (Vec::new(), 0);
    for (path, text) in files("src") {
        if !path.ends_with("mod.rs") {
            continue;
        }
        let rows: String = text.lines().filter(|l| l.starts_with("//! |")).collect();
        if rows.is_empty() {
            continue;
        }
        let folder = root.join(path.parent().expect("it has a name"));
        let mut missing = Vec::new();
        for entry in fs::read_dir(folder).expect("a folder") {
            let name = entry.expect("readable").path();
            let name = name
                .file_stem()
                .expect("it has one")
                .to_string_lossy()
                .into_owned();
            let named = [
                format!("`{name}`"),
                format!("`{name}.rs`"),
                format!("`{name}/`"),
            ];
            let of_tests = ["mod", "tests", "models"].contains(&name.as_str());
            if !of_tests && !named.iter().any(|n| rows.contains(n)) {
                missing.push(name);
            }
        }
        tables += 1;
        if !missing.is_empty() {
            found.push(format!("src/{}: {}", path.display(), missing.join(" ")));
        }
    }
    none(&found);
    assert!(tables >= 10, "{tables} tables of files");
}

#[test]
fn the_glossary_names_each_word_once() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/glossary.md")).expect("a glossary");
    let mut seen = BTreeSet::new();
    for row in text.lines().filter(|l| l.starts_with("| ")) {
        let word = row
            .split('|')
            .nth(1)
            .unwrap_or_default()
            .trim()
            .to_lowercase();
        assert!(seen.insert(word.clone()), "the glossary has {word} twice");
    }
    assert!(seen.len() >= 30, "{} words", seen.len());
}

/// Each guarantee holds in a way that the first table explains.
#[test]
fn guarantees_hold_as_their_legend_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/guarantees.md")).expect("guarantees");
    let (legend, guarantees) = text.split_once("\n## ").expect("sections");
    let cells = |line: &str, nth: usize| line.split(" | ").nth(nth).unwrap_or_default().to_owned();
    let is_row = |line: &&str| {
        line.starts_with("| ") && !line.contains("how it holds") && !line.starts_with("| --")
    };
    let ways: Vec<String> = legend
        .lines()
        .filter(is_row)
        .map(|line| cells(line, 0)[2..].to_owned())
        .collect();
    let mut found = Vec::new();
    for row in guarantees.lines().filter(is_row) {
        let how = cells(row, 1);
        if !ways.iter().any(|way| how.starts_with(way.as_str())) {
            found.push(row.to_owned());
        }
    }
    none(&found);
    assert_eq!(ways.len(), 5, "{ways:?}");
}

#[test]
fn an_address_space_has_at_most_fourteen_rooms() {
    let rooms: BTreeSet<_> = files("src/mm")
        .into_iter()
        .filter_map(|(path, _)| {
            let first = path.iter().next()?.to_string_lossy().into_owned();
            Some(first.trim_end_matches(".rs").to_owned())
        })
        .filter(|room| room != "mod")
        .collect();
    assert!(rooms.len() <= 14, "{} rooms: {rooms:?}", rooms.len());
}
