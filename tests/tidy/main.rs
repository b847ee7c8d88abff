//! Properties of the source itself: layers, sizes, one home for each risky name.

mod circles;
mod decisions;
mod mutants;
mod names;
mod prose;
#[path = "../common/skipped.rs"]
mod skipped;
mod source;
mod walks;
mod words;

use skipped::skipped;
use source::files;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A module imports only from those before it.
const LAYERS: &[&str] = &[
    "sync", "addr", "trace", "interval", "error", "ctx", "frame", "notifier", "rmap", "file",
    "reclaim", "mm", "oracle", "driver", "extmmu", "replay", "host", "testkit",
];
/// Files that may hold unsafe code.
const UNSAFE: &[&str] = &[
    "sync/checked.rs",
    "sync/sharded_rwlock.rs",
    "sync/spin_lock.rs",
    "notifier/epoch_list.rs",
    "notifier/grace.rs",
    "notifier/once_arc.rs",
    "mm/page_table/node.rs",
    "frame/atomic_bytes.rs",
    "frame/shared.rs",
    "mm/lock/mod.rs",
    "extmmu/host_mapping/area.rs",
    "extmmu/host_mapping/guest.rs",
    "extmmu/host_mapping/userfault.rs",
    "extmmu/vm_memory.rs",
    "extmmu/iommu/leased_memory.rs",
    "extmmu/vhost_iotlb/frame_memory.rs",
    "host/executor.rs",
    "host/access.rs",
    "host/held.rs",
    "host/own_calls.rs",
    "host/raw.rs",
];

/// The modules that a file names behind `crate::`, in `use` groups too.
fn imports(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    for part in text.split("crate::").skip(1) {
        let Some(group) = part.strip_prefix('{') else {
            let end = part.find(|c: char| !c.is_alphanumeric() && c != '_');
            out.push(part[..end.unwrap_or(part.len())].to_owned());
            continue;
        };
        let mut depth = 0;
        let mut word = String::new();
        let mut fresh = true;
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => fresh = true,
                c if depth == 0 && fresh && (c.is_alphanumeric() || c == '_') => word.push(c),
                _ if !word.is_empty() => {
                    out.push(std::mem::take(&mut word));
                    fresh = false;
                }
                _ => {}
            }
        }
        out.extend((!word.is_empty()).then_some(word));
    }
    out
}

#[test]
fn imports_go_one_way() {
    let layer = |name: &str| LAYERS.iter().position(|l| *l == name);
    for (path, text) in files("src") {
        let first = path.iter().next().expect("a name").to_string_lossy();
        let Some(mine) = layer(first.trim_end_matches(".rs")) else {
            assert_eq!(first, "lib.rs", "{} is in no layer", path.display());
            continue;
        };
        // Documentation may point anywhere.
        let code: String = text
            .lines()
            .filter(|l| !l.trim_start().starts_with("//"))
            .flat_map(|l| [l, "\n"])
            .collect();
        for import in imports(&code) {
            if let Some(theirs) = layer(&import) {
                assert!(
                    theirs <= mine,
                    "{} imports upwards: {import}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn the_import_check_sees_groups_and_paths() {
    let text = "use crate::{addr::{Vpn, Pfn}, mm::Mm}; fn f(x: crate::replay::X) {}";
    assert_eq!(imports(text), ["addr", "mm", "replay"]);
}

#[test]
fn files_and_functions_stay_small() {
    let limit = |path: &Path| {
        let tests = path.file_stem().is_some_and(|s| s == "tests");
        if tests { 600 } else { 400 }
    };
    let sized = files("src")
        .into_iter()
        .map(|(p, t)| (limit(&p), p, t))
        .chain(files("examples").into_iter().map(|(p, t)| (400, p, t)))
        .chain(files("benches").into_iter().map(|(p, t)| (400, p, t)))
        .chain(files("tests").into_iter().map(|(p, t)| (600, p, t)));
    for (limit, path, text) in sized {
        let lines = text.lines().count();
        assert!(lines <= limit, "{} has {lines} lines", path.display());
    }
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in files("src") {
        assert!(
            text.starts_with("//! "),
            "{} has no module documentation",
            path.display()
        );
    }
}

#[test]
fn unsafe_code_and_locks_have_their_homes() {
    let table = fs::read_to_string("src/lib.rs").unwrap();
    for (path, text) in files("src") {
        let name = path.to_string_lossy().replace('\\', "/");
        let unsafe_home = UNSAFE.contains(&&*name);
        assert!(
            !unsafe_home || table.contains(&format!("`{name}`")),
            "{name}: lib.rs names it among the modules with unsafe code"
        );
        assert_eq!(
            text.contains("#![allow(unsafe_code)]"),
            unsafe_home,
            "{name}: unsafe code lives in {UNSAFE:?}"
        );
        // Examples in documentation are users.
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let names_a_lock = ["parking_lot::", "std::sync::Mutex", "std::sync::atomic"]
            .iter()
            .any(|word| text.lines().filter(code).any(|line| line.contains(word)));
        assert!(
            !names_a_lock || name.starts_with("sync/"),
            "{name} names a lock beside sync"
        );
    }
}

/// What `cargo test` runs is fixed, and what it leaves out is seen (CONTRIBUTING.md,
/// tests-say-the-same).
#[test]
fn tests_draw_the_same_and_leave_nothing_out_in_silence() {
    let mine = Path::new("tidy/main.rs");
    let tests = files("tests").into_iter().filter(|(p, _)| p != mine);
    let of_units = |p: &PathBuf| p.file_stem().is_some_and(|s| s == "tests");
    let units = files("src").into_iter().filter(|(p, _)| of_units(p));
    for (path, text) in tests.chain(units) {
        let path = path.display();
        let attribute = |name: &str| text.contains(&format!("#[{name}"));
        assert!(!attribute("ignore"), "{path} leaves a test out");
        let draws = text.contains("proptest!") || text.contains("TestRunner::new");
        assert!(
            !draws || text.contains("drawn::config"),
            "{path} draws anew"
        );
        for word in [
            "RandomState",
            "thread_rng",
            "println!(\"skipped",
            "ProptestConfig::default",
        ] {
            assert!(!text.contains(word), "{path} says {word}");
        }
    }
}

/// What this harness cannot run is a step of `.ci/run`, and is named here as left out.
#[test]
fn what_only_a_checker_runs_is_a_step_of_its_own() {
    let steps = Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run");
    let Ok(steps) = fs::read_to_string(steps) else {
        return skipped("the steps of .ci/run", "this is a package without them");
    };
    let mut checked = 0;
    for (path, text) in files("tests") {
        let scheduled = text.lines().any(|line| line == "#![cfg(shuttle)]");
        if scheduled && path.components().count() < 3 {
            let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
            let name = parent.unwrap_or(&path).with_extension("");
            let name = name.display();
            let run = format!("--test {name} ");
            assert!(steps.contains(&run), "no step runs {name}");
            skipped(
                &format!("tests/{name}"),
                "its schedules are a step of .ci/run",
            );
            checked += 1;
        }
    }
    assert!(checked >= 2, "{checked} of them");
    let models = files("src").into_iter();
    let models = models.filter(|(_, text)| text.contains("cfg(all(test, loom))"));
    assert!(models.count() > 0 && steps.contains("--cfg loom"));
    skipped("models of the protocol", ".ci/run loom runs them");
}

#[test]
fn nothing_is_unfinished() {
    for (path, text) in files("src") {
        for word in ["todo!", "unimplemented!", "FIXME", "XXX"] {
            assert!(!text.contains(word), "{} says {word}", path.display());
        }
    }
}

/// A document that names a file of the library names one that is there.
#[test]
fn documents_name_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut documents = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for folder in ["docs", "docs/adr", "docs/benchmarks"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder");
        documents.extend(entries.map(|entry| entry.expect("readable").path()));
    }
    for document in documents
        .iter()
        .filter(|d| d.extension().is_some_and(|x| x == "md"))
    {
        let text = fs::read_to_string(document).expect("UTF-8");
        for name in text.split(['`', '(', ')', ' ', '\n']) {
            let is_path = name.ends_with(".rs") && name.contains('/') && !name.contains('*');
            // Documents of a folder may name files from the root, or from `src`.
            let found = ["", "src", "docs"]
                .iter()
                .any(|at| root.join(at).join(name).is_file());
            assert!(!is_path || found, "{} names {name}", document.display());
        }
    }
}
