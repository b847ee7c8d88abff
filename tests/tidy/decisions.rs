//! Decisions (`docs/adr`): numbered, dated, listed, and linked from the code that follows them.

use crate::source::files;
use std::{fs, path::Path};

#[test]
fn decisions_are_dated_listed_and_linked() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/adr");
    let list = fs::read_to_string(folder.join("README.md")).expect("a list");
    let code: String = files("src").into_iter().map(|(_, text)| text).collect();
    let mut found = 0;
    for entry in fs::read_dir(&folder).expect("a folder") {
        let path = entry.expect("readable").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        let Some((digits, _)) = name.split_once('-') else {
            continue;
        };
        let number: u32 = digits.parse().expect(&name);
        let text = fs::read_to_string(&path).expect("UTF-8");
        let heading = format!("# {number}. ");
        let title = text.lines().next().and_then(|l| l.strip_prefix(&heading));
        let title = title.unwrap_or_else(|| panic!("{name} does not begin with {heading:?}"));
        let status = text.lines().find_map(|l| l.strip_prefix("Status: "));
        let status = status.unwrap_or_else(|| panic!("{name} has no status"));
        let status = status.trim_end_matches('.');
        let row = format!("| {number} | [{title}]({name}) | {status} |");
        assert!(list.contains(&row), "the list lacks {row}");
        let date = status.rsplit(", ").next().unwrap_or_default();
        assert!(
            date.len() == 10 && date.starts_with("20"),
            "{name}: {status}"
        );
        assert!(code.contains(&*name), "no file of src names {name}");
        found += 1;
    }
    let rows = list.lines().filter(|l| l.contains("](0")).count();
    assert_eq!(rows, found, "rows of the list, and decisions");
}
