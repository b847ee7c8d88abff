//! Imports inside a folder run one way: no circle among its files and subfolders.
//!
//! An import through a re-export counts as one of the file that defines the item. Methods are no
//! ties: `impl Mm` may stand in any file that is above `struct Mm`.

use crate::source::{Segments, code, modules, paths_from, uses};
use std::collections::{BTreeMap, BTreeSet};

/// Where a module's items come from, by name.
type Exports = BTreeMap<Segments, BTreeMap<String, Segments>>;

struct House {
    texts: BTreeMap<Segments, String>,
    exports: Exports,
}

fn is_test(module: &[String]) -> bool {
    module
        .iter()
        .any(|part| part == "tests" || part == "models")
}

impl House {
    fn new() -> Self {
        let texts: BTreeMap<_, _> = modules()
            .into_iter()
            .filter(|(name, _)| !is_test(name))
            .map(|(name, text)| (name, code(&text)))
            .collect();
        let exports = BTreeMap::new();
        let mut house = Self { texts, exports };
        for (module, text) in house.texts.clone() {
            let paths = uses(&text).0.into_iter().filter(|u| u.exports);
            let items = paths
                .flat_map(|u| u.paths)
                .filter_map(|(path, known)| Some((known, house.absolute(&module, &path)?)));
            let items = items.collect();
            house.exports.insert(module, items);
        }
        house
    }
    /// A path as it is seen from the root of the crate; `None`: it leads out of the crate.
    fn absolute(&self, at: &[String], path: &[String]) -> Option<Segments> {
        let ups = path.iter().take_while(|part| *part == "super").count();
        let start = match path.first()?.as_str() {
            "crate" => &[][..],
            "self" => at,
            "super" => &at[..at.len().checked_sub(ups)?],
            child => {
                let mut module = at.to_vec();
                module.push(child.to_owned());
                if !self.texts.contains_key(&module) {
                    return None;
                }
                module.extend_from_slice(&path[1..]);
                return Some(module);
            }
        };
        let rest = &path[ups.max(usize::from(ups == 0))..];
        Some([start, rest].concat())
    }
    /// The module that defines the item of a path, and the item.
    fn origin(&self, path: &[String]) -> Option<(Segments, String)> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let depth = (1..=path.len())
                .rev()
                .find(|n| self.texts.contains_key(&path[..*n]))?;
            let (module, rest) = path.split_at(depth);
            let item = rest.first().cloned().unwrap_or_default();
            let Some(further) = self.exports.get(module).and_then(|e| e.get(&item)) else {
                return Some((module.to_vec(), item));
            };
            path = [&further[..], &rest[1..]].concat();
        }
        None
    }
    /// From module to module, with an item that ties them.
    fn imports(&self) -> BTreeMap<(Segments, Segments), String> {
        let mut out = BTreeMap::new();
        for (module, text) in &self.texts {
            let (found, rest) = uses(text);
            let found = found.into_iter().filter(|u| !u.exports);
            let mut paths: Vec<Segments> = found.flat_map(|u| u.paths).map(|p| p.0).collect();
            let body = rest.replace("pub(in crate", "");
            paths.extend(paths_from(&body, "crate::"));
            paths.extend(paths_from(&body, "super::"));
            let children = self
                .texts
                .keys()
                .filter(|m| m.split_last().is_some_and(|(_, up)| up == module));
            for child in children {
                let name = format!("{}::", child.last().expect("it has a parent"));
                paths.extend(paths_from(&body, &name));
            }
            for path in paths {
                let from = self
                    .absolute(module, &path)
                    .and_then(|path| self.origin(&path));
                if let Some((other, item)) = from.filter(|(other, _)| other != module) {
                    out.insert((module.clone(), other), item);
                }
            }
        }
        out
    }
}

/// The nodes of a circle, if there is one: what remains when all without a way out are taken away,
/// again and again, from either end.
fn circle(mut edges: BTreeSet<(String, String)>) -> BTreeSet<(String, String)> {
    loop {
        let from: BTreeSet<_> = edges.iter().map(|e| e.0.clone()).collect();
        let to: BTreeSet<_> = edges.iter().map(|e| e.1.clone()).collect();
        let before = edges.len();
        edges.retain(|(a, b)| to.contains(a) && from.contains(b));
        if edges.len() == before {
            return edges;
        }
    }
}

/// A file or subfolder of `folder`, `mod` for the folder's own file.
fn room(folder: &[String], module: &[String]) -> Option<String> {
    let below = module.strip_prefix(folder)?;
    Some(below.first().map_or("mod", String::as_str).to_owned())
}

#[test]
fn no_circle_in_any_folder() {
    let house = House::new();
    let imports = house.imports();
    let folders: BTreeSet<&[String]> = house
        .texts
        .keys()
        .filter_map(|m| m.split_last().map(|(_, folder)| folder))
        .filter(|folder| !folder.is_empty())
        .collect();
    let mut circles = Vec::new();
    for folder in folders {
        let mut edges = BTreeMap::new();
        for ((from, to), item) in &imports {
            if let (Some(a), Some(b)) = (room(folder, from), room(folder, to))
                && a != b
            {
                edges.insert((a, b), item);
            }
        }
        for (a, b) in circle(edges.keys().cloned().collect()) {
            let item = edges[&(a.clone(), b.clone())];
            circles.push(format!("{}: {a} -> {b} ({item})", folder.join("::")));
        }
    }
    assert!(circles.is_empty(), "circles:\n{}", circles.join("\n"));
}

/// The rank of each part of a folder, from the top: by the line of the plan that names it.
fn ranks<'t>(plan: impl Iterator<Item = &'t str>) -> BTreeMap<&'t str, usize> {
    let names = |line: &'t str| line.split(|c: char| !c.is_alphanumeric() && c != '_');
    plan.enumerate()
        .flat_map(|(rank, line)| names(line).map(move |name| (name, rank)))
        .filter(|(name, _)| !name.is_empty())
        .collect()
}

/// The plan of `mm/mod.rs` is drawn, and that of `notifier/mod.rs` is a table; both are true.
#[test]
fn folders_import_downwards_as_their_plans_say() {
    let imports = House::new().imports();
    let texts = modules();
    let text = |folder: &str| &texts[&vec![folder.to_owned()]];
    let drawn = text("mm").split("```text").nth(1).expect("a plan");
    let drawn = drawn.lines().map(|l| l.trim_start_matches("//!"));
    let drawn = drawn.skip(1).take_while(|l| !l.contains("```"));
    // The names of rooms, up to the description.
    let rooms = drawn.map(|line| line[..line.len().min(32)].trim_end());
    let rows = text("notifier").lines();
    let rows = rows.filter_map(|l| l.strip_prefix("//! | `")?.split('|').next());
    let plans = [("mm", ranks(rooms), 14), ("notifier", ranks(rows), 25)];
    for (folder, ranks, least) in plans {
        assert!(ranks.len() >= least, "{folder}: {ranks:?}");
        let own = [folder.to_owned()];
        for ((from, to), item) in &imports {
            let (Some(from), Some(to)) = (room(&own, from), room(&own, to)) else {
                continue;
            };
            // `super` of a module inside a file is that file, not the folder.
            if from == "mod" || to == "mod" || from == to {
                continue;
            }
            let rank = |name: &str| ranks.get(name).copied();
            let (Some(a), Some(b)) = (rank(&from), rank(&to)) else {
                panic!("{folder}: the plan lacks {from} or {to} ({item})");
            };
            let beside = folder == "notifier" && a == b;
            assert!(a < b || beside, "{folder}: {from} uses {to} ({item})");
        }
    }
}

#[test]
fn a_circle_is_found_and_a_way_into_it_is_none() {
    let edges = |pairs: &[(&str, &str)]| -> BTreeSet<_> {
        let own = |(a, b): &(&str, &str)| ((*a).to_owned(), (*b).to_owned());
        pairs.iter().map(own).collect()
    };
    let found = circle(edges(&[
        ("in", "a"),
        ("a", "b"),
        ("b", "c"),
        ("c", "a"),
        ("c", "out"),
    ]));
    assert_eq!(found, edges(&[("a", "b"), ("b", "c"), ("c", "a")]));
    assert!(circle(edges(&[("a", "b"), ("b", "c"), ("a", "c")])).is_empty());
}
