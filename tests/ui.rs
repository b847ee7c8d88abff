//! The compile-fail suite: each `tests/ui/RULE/*.rs` must be rejected, with exactly the error that
//! it names.
//!
//! `//@ error: E0505` is the error code, or `lifetime` for the borrow checker's error without a
//! code; each `//@ contains:` is text that the user must read. A file that names the wrong error,
//! none, or more than one, or that does not say what the user reads, fails.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The library that this test was linked with: the newest one beside it.
fn library() -> (PathBuf, PathBuf) {
    let exe = std::env::current_exe().expect("a test knows where it is");
    let deps = exe.parent().expect("in a folder").to_owned();
    let newest = fs::read_dir(&deps)
        .expect("the folder of the test")
        .map(|e| e.expect("readable").path())
        .filter(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libemmu-") && name.ends_with(".rlib")
        })
        .max_by_key(|p| fs::metadata(p).and_then(|m| m.modified()).ok())
        .expect("cargo builds the library before its tests");
    (deps, newest)
}

fn wanted<'s>(source: &'s str, key: &str) -> Vec<&'s str> {
    let lines = source.lines().filter_map(|l| l.strip_prefix(key));
    let all: Vec<_> = lines.map(str::trim).collect();
    let said = !all.is_empty() && all.iter().all(|text| !text.is_empty());
    assert!(said, "each file says what it expects");
    all
}

/// What is wrong with the file's rejection; `None` if it is rejected as it says.
fn wrong(file: &Path, deps: &Path, rlib: &Path, out: &Path) -> Option<String> {
    let source = fs::read_to_string(file).expect("readable");
    let (code, texts) = (
        wanted(&source, "//@ error:")[0],
        wanted(&source, "//@ contains:"),
    );
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let done = Command::new(rustc)
        .args([
            "--edition",
            "2024",
            "--crate-type",
            "lib",
            "--emit",
            "metadata",
        ])
        .arg("--out-dir")
        .arg(out)
        .arg("-L")
        .arg(format!("dependency={}", deps.display()))
        .arg("--extern")
        .arg(format!("emmu={}", rlib.display()))
        .arg(file)
        .output()
        .expect("the compiler that built this test");
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    let mut codes: Vec<&str> = said
        .lines()
        .filter_map(|l| l.strip_prefix("error["))
        .map(|l| &l[..5])
        .collect();
    codes.dedup();
    let plain = said
        .lines()
        .filter(|l| l.starts_with("error: ") && !l.starts_with("error: aborting"))
        .count();
    let as_named = if code == "lifetime" {
        codes.is_empty() && said.contains("lifetime may not live long enough")
    } else {
        codes == [code] && plain == 0
    };
    if !done.status.success() && as_named && texts.iter().all(|text| said.contains(text)) {
        return None;
    }
    Some(format!(
        "{}: wanted {code} with {texts:?}, got {codes:?} and {plain} without code\n{said}",
        file.display()
    ))
}

#[test]
fn every_misuse_is_rejected_with_the_error_it_names() {
    let (deps, rlib) = library();
    let out = deps.join("ui");
    fs::create_dir_all(&out).expect("a folder beside the test");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
    let paths = |folder: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(folder).expect("a folder of the suite");
        entries.map(|e| e.expect("readable").path()).collect()
    };
    let rules = paths(&root).into_iter().filter(|p| p.is_dir());
    let mut files: Vec<PathBuf> = rules
        .flat_map(|rule| paths(&rule))
        .filter(|p| p.extension().is_some_and(|x| x == "rs"))
        .collect();
    files.sort();
    let bad: Vec<String> = files
        .iter()
        .filter_map(|f| wrong(f, &deps, &rlib, &out))
        .collect();
    assert!(files.len() >= 70, "only {} misuses found", files.len());
    assert!(
        bad.is_empty(),
        "{} of {}:\n{}",
        bad.len(),
        files.len(),
        bad.join("\n")
    );
    println!("{} misuses rejected", files.len());
}
