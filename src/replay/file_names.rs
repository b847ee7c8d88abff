//! The names of a script's files, which stand in the last column of layouts.

use super::ground::OpenMode;
use std::collections::BTreeMap;

/// Words in the last column of a layout for memory without a file.
const FILELESS: [&str; 6] = ["anon", "zero", "heap", "hugetlb", "secret", "sysv"];

/// The words that stand before the name that a process has given to such memory.
const NAMED: [&str; 2] = ["anon:", "shm:"];

/// Returns true if a layout has this for memory without a file; no file may have such a name.
pub(crate) fn is_fileless(what: &str) -> bool {
    FILELESS.contains(&what) || NAMED.iter().any(|kind| what.starts_with(kind))
}

/// Returns true for a name that a layout shows as it is: `/proc/PID/maps` has more in front of it,
/// which ends at a slash or a colon.
fn is_shown(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', ':'])
}

/// Refuses names that layouts do not show, or show for other memory.
///
/// # Errors
///
/// The first such name.
pub(super) fn check<T>(
    files: &BTreeMap<String, T>,
    opens: &BTreeMap<String, (String, OpenMode)>,
) -> Result<(), String> {
    if let Some(name) = files.keys().find(|name| is_fileless(name)) {
        return Err(format!(
            "file {name:?} has the name of memory without a file"
        ));
    }
    if let Some(name) = files.keys().find(|name| !is_shown(name)) {
        return Err(format!("no layout can show a file {name:?}"));
    }
    for (name, (file, _)) in opens {
        if files.contains_key(name) || !files.contains_key(file) {
            return Err(format!("{name:?} cannot be another name of {file:?}"));
        }
    }
    Ok(())
}
