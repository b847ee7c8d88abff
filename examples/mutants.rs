//! Breaks the protocol in every way of `mutants/table.txt`, and shows that a loom model finds each.
//!
//! `cargo run --example mutants` runs all of them, `-- NAME…` some. A copy of the crate with all breakages in it, each
//! behind a switch, is built once, below `target/mutants`. What does not apply any more, or is not found, fails the run.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// A mutant that is not found in this time counts as a survivor: each model has run to its end by then.
const PATIENCE: Duration = Duration::from_secs(300);
const SYNC: &str = "src/sync/mod.rs";
const SWITCH: &str = "
/// Whether this mutant is switched on.
pub(crate) fn mutant(name: &str) -> bool {
    static ON: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    ON.get_or_init(|| std::env::var(\"EMMU_MUTANT\").ok()).as_deref() == Some(name)
}
";

struct Hunk {
    file: String,
    old: String,
    new: String,
    /// Where the old text stands.
    at: Range<usize>,
}

struct Mutant {
    name: String,
    model: String,
    what: String,
    hunks: Vec<Hunk>,
}

fn parse(table: &str) -> Vec<Mutant> {
    let mut mutants: Vec<Mutant> = Vec::new();
    let mut file = String::new();
    for line in table.lines() {
        if let Some(head) = line.strip_prefix("== ") {
            let mut words = head.splitn(3, " | ").map(str::to_owned);
            let mut next = || words.next().expect("NAME | MODEL | what is broken");
            mutants.push(Mutant {
                name: next(),
                model: next(),
                what: next(),
                hunks: Vec::new(),
            });
            continue;
        }
        let Some((kind, text)) = line.split_at_checked(2) else {
            continue;
        };
        match kind {
            "@ " => text.clone_into(&mut file),
            "- " => hunk(&mut mutants, &file, false, text),
            "+ " => hunk(&mut mutants, &file, true, text),
            _ => assert!(line.starts_with('#'), "not understood: {line}"),
        }
    }
    mutants
}

/// A line of a hunk. What stands there after what took its place begins another hunk.
fn hunk(mutants: &mut [Mutant], file: &str, new: bool, text: &str) {
    let hunks = &mut mutants.last_mut().expect("below a mutant").hunks;
    if hunks.last().is_none_or(|h| !new && !h.new.is_empty()) {
        hunks.push(Hunk {
            file: file.to_owned(),
            old: String::new(),
            new: String::new(),
            at: 0..0,
        });
    }
    let hunk = hunks.last_mut().expect("there is one");
    let side = if new { &mut hunk.new } else { &mut hunk.old };
    if !side.is_empty() {
        side.push('\n');
    }
    side.push_str(text);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder below target");
    for entry in fs::read_dir(from).expect("a folder") {
        let from = entry.expect("readable").path();
        let to = to.join(from.file_name().expect("a name"));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            write(&to, &fs::read(&from).expect("readable"));
        }
    }
}

/// Writes what changed, so that only that is built again.
fn write(to: &Path, text: &[u8]) {
    if fs::read(to).ok().as_deref() != Some(text) {
        fs::write(to, text).expect("writable");
    }
}

/// Where each hunk stands in the sources as they are.
fn place(mutant: &mut Mutant, root: &Path) {
    for hunk in &mut mutant.hunks {
        let text = fs::read_to_string(root.join(&hunk.file)).expect("a source file");
        let there: Vec<_> = text.match_indices(&hunk.old).collect();
        assert_eq!(
            there.len(),
            1,
            "mutant {} no longer applies: how often {} has its text",
            mutant.name,
            hunk.file
        );
        hunk.at = there[0].0..there[0].0 + hunk.old.len();
    }
}

/// Puts mutants into as few builds as possible: two that change the same text cannot share one.
fn batches(mutants: Vec<Mutant>) -> Vec<Vec<Mutant>> {
    let mut batches: Vec<Vec<Mutant>> = Vec::new();
    let same =
        |x: &Hunk, y: &Hunk| x.file == y.file && x.at.start < y.at.end && y.at.start < x.at.end;
    let meet = |a: &Mutant, b: &Mutant| {
        let mut hunks = a.hunks.iter();
        hunks.any(|x| b.hunks.iter().any(|y| same(x, y)))
    };
    for mutant in mutants {
        let free = |batch: &&mut Vec<Mutant>| !batch.iter().any(|other| meet(&mutant, other));
        match batches.iter_mut().find(free) {
            Some(batch) => batch.push(mutant),
            None => batches.push(vec![mutant]),
        }
    }
    batches
}

/// Puts mutants that do not meet into the copy, the last of a file first, so that places stay true.
fn apply(mutants: &[Mutant], root: &Path, tree: &Path) {
    let named = |m: &Mutant| format!("crate::sync::mutant(\"{}\")", m.name);
    let mut hunks: Vec<(&Hunk, String)> = mutants
        .iter()
        .flat_map(|m| m.hunks.iter().map(move |h| (h, named(m))))
        .collect();
    hunks.sort_by_key(|(hunk, _)| std::cmp::Reverse(hunk.at.start));
    let read = |file: &str| fs::read_to_string(root.join(file)).expect("a source file");
    let mut files = BTreeMap::from([(SYNC, read(SYNC) + SWITCH)]);
    for (hunk, switch) in hunks {
        let text = files.entry(&hunk.file).or_insert_with(|| read(&hunk.file));
        text.replace_range(hunk.at.clone(), &hunk.new.replace("{m}", &switch));
    }
    for (file, text) in files {
        write(&tree.join(file), text.as_bytes());
    }
}

/// Builds the unit tests under loom; the program's path.
fn build(tree: &Path, target: &Path) -> PathBuf {
    let out = Command::new(env!("CARGO"))
        .args(["test", "--release", "--lib", "--no-run", "--target-dir"])
        .arg(target)
        .current_dir(tree)
        .env("RUSTFLAGS", "--cfg loom --cfg crossbeam_loom")
        .output()
        .expect("cargo runs");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "the mutants do not build:\n{said}");
    let path = said.rsplit('(').next().and_then(|s| s.split(')').next());
    tree.join(path.expect("cargo names the program"))
}

/// Whether the model finds the mutant; a model that runs too long has not.
fn found(program: &Path, mutant: Option<&Mutant>, model: &str) -> bool {
    let mut run = Command::new(program);
    run.args(["--exact", "--test-threads", "1"])
        .args(names(program, model))
        .env("LOOM_MAX_PREEMPTIONS", "2")
        .env_remove("EMMU_MUTANT")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(mutant) = mutant {
        run.env("EMMU_MUTANT", &mutant.name);
    }
    let mut child = run.spawn().expect("the program runs");
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("it is ours") {
            return !status.success();
        }
        if Instant::now() > end {
            let _gone = child.kill();
            let _gone = child.wait();
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The test of a model, in full; there is exactly one.
fn names(program: &Path, model: &str) -> Vec<String> {
    let out = Command::new(program).arg("--list").output();
    let list = String::from_utf8(out.expect("it lists its tests").stdout).expect("text");
    let tests = list.lines().filter_map(|l| l.strip_suffix(": test"));
    let fits = |t: &&str| t.contains("models::") && t.ends_with(&format!("::{model}"));
    let tests: Vec<_> = tests.filter(fits).map(str::to_owned).collect();
    assert_eq!(tests.len(), 1, "models of the name {model}: {tests:?}");
    tests
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted: Vec<String> = env::args().skip(1).collect();
    let table = fs::read_to_string(root.join("mutants/table.txt")).expect("the table");
    let mut mutants = parse(&table);
    mutants.retain(|m| wanted.is_empty() || wanted.contains(&m.name));
    mutants.iter_mut().for_each(|m| place(m, root));
    assert!(!mutants.is_empty(), "no such mutant: {wanted:?}");
    let (all, mut survivors) = (mutants.len(), 0);
    println!("| mutant | broken | found by | in |\n| --- | --- | --- | --- |");
    for batch in batches(mutants) {
        let tree = root.join("target/mutants/tree");
        for part in ["src", "benches", "examples", "tests", "data"] {
            copy(&root.join(part), &tree.join(part));
        }
        for file in ["Cargo.toml", "Cargo.lock", "README.md"] {
            write(&tree.join(file), &fs::read(root.join(file)).expect("ours"));
        }
        apply(&batch, root, &tree);
        let program = build(&tree, &root.join("target/mutants/build"));
        for model in batch.iter().map(|m| &*m.model).collect::<BTreeSet<_>>() {
            assert!(
                !found(&program, None, model),
                "{model} fails without a mutant"
            );
        }
        for mutant in &batch {
            let begun = Instant::now();
            let dead = found(&program, Some(mutant), &mutant.model);
            survivors += usize::from(!dead);
            let by = if dead { &mutant.model } else { "SURVIVED" };
            let time = begun.elapsed();
            println!("| {} | {} | {by} | {time:.1?} |", mutant.name, mutant.what);
        }
    }
    println!("\n{all} mutants, {survivors} survivors");
    ExitCode::from(u8::from(survivors > 0))
}
