//! Breaks the protocol in every way of `mutants/table.txt`, and shows that a loom model finds each.
//!
//! `cargo run --example mutants` runs all of them, `-- NAME…` some, `-- --list` says which there
//! are. A copy of the crate with all breakages in it, each behind a switch, is built below
//! `target/mutants`. What does not apply any more, or is not found, fails the run.
//!
//! A model is a unit test under loom, or, written `races::NAME`, a test of `tests/shuttle`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// A mutant that is not found in this time counts as a survivor: each model has run to its end by
/// then.
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

/// Where each hunk stands in the sources as they are, or what is wrong with it.
fn place(mutant: &mut Mutant, root: &Path) -> Result<(), String> {
    for hunk in &mut mutant.hunks {
        let name = &mutant.name;
        let path = root.join(&hunk.file);
        let text = fs::read_to_string(path).map_err(|e| format!("{name}: {}: {e}", hunk.file))?;
        let there: Vec<_> = text.match_indices(&hunk.old).collect();
        let [(at, _)] = there[..] else {
            let (file, old, n) = (&hunk.file, &hunk.old, there.len());
            return Err(format!(
                "{name}: {n} times, not once, in {file}:\n    {old}"
            ));
        };
        hunk.at = at..at + hunk.old.len();
    }
    Ok(())
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

/// Which programs there are.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Checker {
    Loom,
    Shuttle,
}

impl Checker {
    fn of(model: &str) -> Self {
        if model.contains("::") {
            Self::Shuttle
        } else {
            Self::Loom
        }
    }
    /// Builds the tests; the program's path.
    fn build(self, tree: &Path, root: &Path) -> PathBuf {
        let (flags, what, target): (_, &[_], _) = match self {
            Self::Loom => (
                "--cfg loom --cfg crossbeam_loom",
                &["--features", "vm-memory", "--lib"],
                "target/loom",
            ),
            Self::Shuttle => (
                "--cfg shuttle",
                &["--features", "vm-memory", "--test", "shuttle"],
                "target/shuttle",
            ),
        };
        let out = Command::new(env!("CARGO"))
            .args(["test", "--release", "--no-run", "--target-dir"])
            .arg(root.join(target))
            .args(what)
            .current_dir(tree)
            .env("RUSTFLAGS", flags)
            .output()
            .expect("cargo runs");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "the mutants do not build:\n{said}");
        let path = said.rsplit('(').next().and_then(|s| s.split(')').next());
        tree.join(path.expect("cargo names the program"))
    }
}

/// Whether the model finds the mutant; a model that runs too long has not.
fn found(program: &Path, mutant: Option<&Mutant>, model: &str) -> bool {
    let (model, preemptions) = model.split_once('@').unwrap_or((model, "2"));
    let mut run = Command::new(program);
    run.args(["--exact", "--test-threads", "1"])
        .args(names(program, model))
        .env("LOOM_MAX_PREEMPTIONS", preemptions)
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
        thread::sleep(Duration::from_millis(20));
    }
}

/// The test of a model, in full; there is exactly one.
fn names(program: &Path, model: &str) -> Vec<String> {
    let out = Command::new(program).arg("--list").output();
    let list = String::from_utf8(out.expect("it lists its tests").stdout).expect("text");
    let tests = list.lines().filter_map(|l| l.strip_suffix(": test"));
    let model_of = |t: &str| match Checker::of(model) {
        Checker::Loom => t.contains("models::") && t.ends_with(&format!("::{model}")),
        Checker::Shuttle => t == model,
    };
    let tests: Vec<_> = tests.filter(|t| model_of(t)).map(str::to_owned).collect();
    assert_eq!(tests.len(), 1, "models of the name {model}: {tests:?}");
    tests
}

/// Does something for each on all processors; the answers in the same order.
fn on_all_processors<T: Sync, U: Send>(of: &[T], f: impl Fn(&T) -> U + Sync) -> Vec<U> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let at = next.fetch_add(1, Ordering::Relaxed)
                    && let Some(one) = of.get(at)
                {
                    let answer = f(one);
                    done.lock().expect("nobody panicked").insert(at, answer);
                }
            });
        }
    });
    let done = done.into_inner().expect("nobody panicked");
    done.into_values().collect()
}

/// A row of the table that is printed, and whether the mutant was found.
type Row = (String, bool);

/// Builds mutants that do not meet, and runs their models without them and with each.
fn run(batch: &[Mutant], root: &Path) -> Vec<Row> {
    let tree = root.join("target/mutants/tree");
    for part in ["src", "tests"] {
        copy(&root.join(part), &tree.join(part));
    }
    write(
        &tree.join("README.md"),
        &fs::read(root.join("README.md")).expect("ours"),
    );
    let made = Command::new(root.join(".ci/lean"))
        .arg(&tree)
        .arg("emmu-mutants")
        .status();
    assert!(made.is_ok_and(|s| s.success()), ".ci/lean makes a manifest");
    apply(batch, root, &tree);
    let models: Vec<_> = batch
        .iter()
        .map(|m| &*m.model)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let checkers: BTreeSet<_> = models.iter().map(|m| Checker::of(m)).collect();
    let programs: BTreeMap<_, _> = checkers
        .into_iter()
        .map(|c| (c, c.build(&tree, root)))
        .collect();
    let program = |model: &str| &programs[&Checker::of(model)];
    on_all_processors(&models, |model| {
        assert!(
            !found(program(model), None, model),
            "{model} fails without a mutant"
        );
    });
    on_all_processors(batch, |mutant| {
        let Mutant {
            name, model, what, ..
        } = mutant;
        let begun = Instant::now();
        let dead = found(program(model), Some(mutant), model);
        let (by, time) = (if dead { model } else { "SURVIVED" }, begun.elapsed());
        println!("{name}: {by}, {time:.1?}");
        (format!("| {name} | {what} | {by} | {time:.1?} |"), dead)
    })
}

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let wanted: Vec<String> = env::args().skip(1).collect();
    let table = fs::read_to_string(root.join("mutants/table.txt")).expect("the table");
    let mut mutants = parse(&table);
    if wanted == ["--list"] {
        for Mutant {
            name, model, what, ..
        } in mutants
        {
            println!("{name} ({model}): {what}");
        }
        return ExitCode::SUCCESS;
    }
    let known: BTreeSet<_> = mutants.iter().map(|m| m.name.clone()).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(*name)) {
        eprintln!("no such mutant: {unknown}; --list says which there are");
        return ExitCode::from(2);
    }
    mutants.retain(|m| wanted.is_empty() || wanted.contains(&m.name));
    let placed = mutants.iter_mut().map(|m| place(m, root));
    let wrong: Vec<String> = placed.filter_map(Result::err).collect();
    if !wrong.is_empty() {
        eprintln!(
            "no longer applies, see mutants/table.txt:\n{}",
            wrong.join("\n")
        );
        return ExitCode::from(2);
    }
    let (begun, batches) = (Instant::now(), batches(mutants));
    let builds = batches.len();
    let rows: Vec<Row> = batches.iter().flat_map(|batch| run(batch, root)).collect();
    println!("\n| mutant | broken | found by | in |\n| --- | --- | --- | --- |");
    rows.iter().for_each(|(row, _)| println!("{row}"));
    let (all, survivors) = (rows.len(), rows.iter().filter(|(_, dead)| !dead).count());
    let time = begun.elapsed();
    println!("\n{all} mutants, {survivors} survivors; {builds} builds, {time:.0?}");
    ExitCode::from(u8::from(survivors > 0))
}
