//! Recorded scripts go as they went on Linux; the program that replays them keeps its promises.

#![cfg(feature = "replay")]

use emmu::replay::{Replayed, Report, Script, Summary, load, replay, shipped};
use std::{fs, path::PathBuf};

fn replayed(profile: &str) -> Vec<Replayed> {
    let scripts = shipped().expect("the archive is whole");
    let chosen: Vec<Script> = scripts
        .into_iter()
        .filter(|s| s.header.profile == profile)
        .collect();
    assert!(!chosen.is_empty(), "{profile}");
    chosen
        .iter()
        .map(|s| replay(s).expect("no machine is in use"))
        .collect()
}

#[track_caller]
fn as_linux(profile: &str) {
    let done = replayed(profile);
    let reports: Vec<String> = done
        .iter()
        .filter_map(Report::of)
        .map(|r| r.to_string())
        .collect();
    let shown = reports
        .iter()
        .take(3)
        .map(String::as_str)
        .collect::<String>();
    assert!(reports.is_empty(), "{}\n{shown}", Summary::of(&done));
}

#[test]
fn dense_scripts_go_as_on_linux() {
    as_linux("dense");
}

#[test]
fn sparse_scripts_go_as_on_linux() {
    as_linux("sparse");
}

#[test]
fn errors_scripts_go_as_on_linux() {
    as_linux("errors");
}

#[test]
fn files_scripts_go_as_on_linux() {
    as_linux("files");
}

#[test]
fn fork_scripts_go_as_on_linux() {
    as_linux("fork");
}

#[test]
fn swap_scripts_go_as_on_linux() {
    as_linux("swap");
}

#[test]
fn thp_scripts_go_as_on_linux() {
    as_linux("thp");
}

#[test]
fn writeback_scripts_go_as_on_linux() {
    as_linux("writeback");
}

/// What is left depends on where the stacks of the recorded processes began, and on what was read
/// from swap before.
#[test]
fn reclaim_scripts_go_as_on_linux_but_for_a_few() {
    let done = replayed("reclaim");
    let summary = Summary::of(&done);
    let total = summary.total();
    assert!(total.agreed * 100 >= total.steps * 95, "{summary}");
    assert!(
        done.iter().filter(|r| !r.is_whole()).count() <= 4,
        "{summary}"
    );
}

#[test]
fn every_profile_is_shipped() {
    let scripts = shipped().expect("the archive is whole");
    let count = |profile: &str| {
        scripts
            .iter()
            .filter(|s| s.header.profile == profile)
            .count()
    };
    for (profile, least) in [("dense", 40), ("sparse", 32)] {
        assert_eq!(count(profile), least, "{profile}");
    }
    for profile in [
        "errors",
        "files",
        "fork",
        "reclaim",
        "swap",
        "thp",
        "writeback",
    ] {
        assert!(count(profile) >= 10, "{profile}");
    }
}

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("emmu-replay-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a temporary file");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

const HEADER: &str = r#"{"profile":"t","seed":1,"kernel":"6","arena":["0x100000","0x200000"],"page":4096,"files":{}}"#;

#[test]
fn unreadable_input_is_named_with_file_and_line() {
    let folder = Folder::new("bad");
    let none = load(&folder.0).expect_err("an empty folder");
    assert!(
        none.to_string()
            .ends_with(":1: a folder without any .jsonl or .jsonl.gz"),
        "{none}"
    );
    let missing = folder.0.join("missing.jsonl");
    for (path, line) in [
        (missing, 1),
        (folder.file("empty.jsonl", ""), 1),
        (folder.file("text.jsonl", "hello"), 1),
        (folder.file("latin.jsonl", b"{\"profile\":\"\xe9\"}"), 1),
        (
            folder.file(
                "op.jsonl",
                format!("{HEADER}\n{{\"as\":0,\"op\":\"dance\",\"ret\":0}}\n"),
            ),
            2,
        ),
        (folder.file("cut.jsonl.gz", b"\x1f\x8b\x08"), 1),
    ] {
        let e = load(&path).expect_err("unreadable");
        assert!(
            e.to_string()
                .starts_with(&format!("{}:{line}: ", path.display())),
            "{e}"
        );
    }
}

#[test]
fn a_step_that_goes_another_way_is_reported() {
    let folder = Folder::new("lie");
    let lie = r#"{"as":0,"op":"munmap","addr":"0x100000","len":0,"ret":0,"pages":{"0":[]}}"#;
    let path = folder.file("lie.jsonl", format!("{HEADER}\n{lie}\n"));
    let scripts = load(&path).expect("a script");
    let done = replay(&scripts[0]).expect("no machine is in use");
    let report = Report::of(&done)
        .expect("munmap of nothing is EINVAL")
        .to_string();
    assert!(
        report.contains("lie.jsonl:2: outcome (the first 0 of 1 steps"),
        "{report}"
    );
    assert!(
        report.contains("Linux: returns 0\n  emmu:  fails with EINVAL"),
        "{report}"
    );
    assert!(
        report.contains(r#"{"as":0,"op":"munmap","addr":"0x100000","len":0}"#),
        "{report}"
    );
    let summary = Summary::of(&[done]);
    assert_eq!(
        summary.line(),
        "replayed 1 scripts, 1 steps: 0 as Linux (0.00 %)"
    );
}
