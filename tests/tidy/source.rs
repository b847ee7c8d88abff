//! Rust sources as these checks read them: modules, the paths that they import, and comments.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Every `.rs` file below a folder of the package, by its path there.
pub(crate) fn files(under: &str) -> Vec<(PathBuf, String)> {
    fn visit(dir: &Path, out: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(dir).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                visit(&path, out);
            } else if path.extension().is_some_and(|x| x == "rs") {
                let text = fs::read_to_string(&path).expect("UTF-8");
                out.push((path, text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(under);
    let mut out = Vec::new();
    visit(&root, &mut out);
    for (path, _) in &mut out {
        *path = path.strip_prefix(&root).expect("below it").to_owned();
    }
    out.sort();
    out
}

/// A path in the module tree, without `crate`.
pub(crate) type Segments = Vec<String>;

/// The modules of `src`, each with its text.
pub(crate) fn modules() -> BTreeMap<Segments, String> {
    let module = |(path, text): (PathBuf, String)| {
        let stem = path.with_extension("");
        let mut name: Segments = stem
            .iter()
            .map(|part| part.to_string_lossy().into_owned())
            .collect();
        name.pop_if(|last| last == "mod");
        (name != ["lib"]).then_some((name, text))
    };
    files("src").into_iter().filter_map(module).collect()
}

/// The text without comments, and without the unit tests at its end.
pub(crate) fn code(text: &str) -> String {
    let tests = ["#[cfg(test)]\nmod ", "#[cfg(all(test"];
    let of_tests = |at: &usize| {
        let rest = &text[*at..];
        let module = rest.find("\nmod ").map(|start| &rest[start + 1..]);
        module.is_some_and(|m| {
            m.find('{')
                .is_some_and(|b| m.find(';').is_none_or(|s| b < s))
        })
    };
    let end = tests
        .iter()
        .filter_map(|start| text.find(start))
        .filter(of_tests)
        .min();
    text[..end.unwrap_or(text.len())]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .flat_map(|line| [line, "\n"])
        .collect()
}

/// One `use` declaration: whether it re-exports, and the paths that its tree names.
pub(crate) struct Use {
    pub(crate) exports: bool,
    pub(crate) paths: Vec<(Segments, String)>,
}

/// The declarations of some code, and the code without them.
pub(crate) fn uses(code: &str) -> (Vec<Use>, String) {
    let (mut found, mut rest) = (Vec::new(), String::new());
    let mut lines = code.split_inclusive('\n');
    while let Some(line) = lines.next() {
        let start = line.trim_start();
        let exports = start.starts_with("pub");
        let is_use = start.starts_with("use ") || (exports && start.contains(" use "));
        if !is_use {
            rest.push_str(line);
            continue;
        }
        let mut whole = line.to_owned();
        while !whole.contains(';') {
            let Some(more) = lines.next() else { break };
            whole.push_str(more);
        }
        let tree = whole.split_once("use ").expect("it was found").1;
        let tree = tree.split(';').next().unwrap_or_default();
        let mut paths = Vec::new();
        flatten(&[], tree.trim(), &mut paths);
        found.push(Use { exports, paths });
    }
    (found, rest)
}

/// The paths of a tree, each with the name under which it is known.
fn flatten(before: &[String], tree: &str, out: &mut Vec<(Segments, String)>) {
    let split = |text: &str| -> Segments {
        let parts = text.split("::").map(str::trim).filter(|p| !p.is_empty());
        parts.map(str::to_owned).collect()
    };
    let Some((head, group)) = tree.split_once('{') else {
        let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
        let mut whole = before.to_vec();
        whole.extend(split(path));
        whole.pop_if(|last| last == "self");
        let last = whole.last().cloned().unwrap_or_default();
        let known = if alias.is_empty() {
            last
        } else {
            alias.trim().to_owned()
        };
        return out.push((whole, known));
    };
    let mut whole = before.to_vec();
    whole.extend(split(head));
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut start) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                part(&whole, &group[start..at], out);
                start = at + 1;
            }
            _ => {}
        }
    }
    part(&whole, &group[start..], out);
}

fn part(before: &[String], tree: &str, out: &mut Vec<(Segments, String)>) {
    if !tree.trim().is_empty() {
        flatten(before, tree.trim(), out);
    }
}

/// The paths from `start` (such as `crate::`) that stand in code.
pub(crate) fn paths_from(code: &str, start: &str) -> Vec<Segments> {
    let boundary = |at: usize| {
        let before = code[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_:.".contains(c))
    };
    let mut out = Vec::new();
    for (at, _) in code.match_indices(start).filter(|(at, _)| boundary(*at)) {
        let rest = &code[at..];
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        let path = rest[..end.unwrap_or(rest.len())].trim_end_matches(':');
        out.push(path.split("::").map(str::to_owned).collect());
    }
    out
}

#[test]
fn trees_of_imports_are_read() {
    let text = "use crate::{addr::{Vpn, Pfn as P}, mm::Mm};\npub use super::x::*;\nfn f() {}\n";
    let (found, rest) = uses(text);
    let shown = |u: &Use| -> Vec<String> {
        let path = |(path, name): &(Segments, String)| format!("{} {name}", path.join("::"));
        u.paths.iter().map(path).collect()
    };
    assert_eq!(
        shown(&found[0]),
        [
            "crate::addr::Vpn Vpn",
            "crate::addr::Pfn P",
            "crate::mm::Mm Mm"
        ]
    );
    assert!(!found[0].exports && found[1].exports);
    assert_eq!(rest, "fn f() {}\n");
}
