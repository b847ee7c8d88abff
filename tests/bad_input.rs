//! Input that is wrong, hostile or huge ends in an error that says where it stands: never in a panic, never nowhere.

use emmu::{
    replay::load,
    testkit::{Seen, Suite},
};
use std::{fs, path::PathBuf};

/// A folder of its own, removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("emmu-bad-{name}-{}", std::process::id()));
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

const OURS: &str = r#"{"profile":"testkit","seed":0,"kernel":"emmu","page":4096,"arena":["0x10000000000","0x10000080000"],"files":{}}"#;

#[test]
fn a_kept_script_that_shrinks_is_run_again() {
    let folder = Folder::new("shrink");
    let shrink = r#"{"as":0,"op":"shrink","frames":3,"ret":0}"#;
    folder.file("emmu-1.jsonl", format!("{OURS}\n{shrink}\n"));
    let ran = Suite::new([]).cases(0).regressions(&folder.0).run();
    assert_eq!(ran.expect("a script that can be read"), 1);
}

#[test]
fn a_kept_script_that_cannot_be_read_is_a_failure_that_names_it() {
    let folder = Folder::new("kept");
    let path = folder.file("emmu-1.jsonl", format!("{OURS}\nnothing\n"));
    let why = load(&path).expect_err("no script").to_string();
    let suite = Suite::new([]).cases(0).regressions(&folder.0);
    let failure = suite.run().expect_err("it cannot be read");
    assert_eq!(failure.seen.len(), 1, "{failure}");
    assert!(matches!(&failure.seen[0], Seen::Unreadable(w) if *w == why));
    assert_eq!(failure.saved.as_deref(), Some(&*path));
}
