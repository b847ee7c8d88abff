//! Names of the public interface.

use crate::source::files;
use std::collections::BTreeMap;

/// The name of the type that a line declares, if the type is public. (`unreachable_pub` sees to it
/// that `pub` says so.)
fn public_type(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let (kind, rest) = rest.split_once(' ')?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    // A trait that seals another is reached by no user.
    let is_type = ["struct", "enum", "trait", "union", "type"].contains(&kind);
    let name = &rest[..end.unwrap_or(rest.len())];
    (is_type && !["", "Sealed"].contains(&name)).then_some(name) // `$name` of a macro is none
}

#[test]
fn no_two_public_types_have_one_name() {
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, text) in files("src") {
        for name in text.lines().filter_map(public_type) {
            let at = seen.entry(name.to_owned()).or_default();
            at.push(path.display().to_string());
        }
    }
    assert!(seen.len() > 200, "{} types", seen.len());
    seen.retain(|_, at| at.len() > 1);
    assert!(seen.is_empty(), "{seen:#?}");
}

#[test]
fn a_public_type_is_found_in_its_line() {
    assert_eq!(public_type("    pub struct Flags: u32 {"), Some("Flags"));
    assert_eq!(public_type("pub enum Kind<'a> {"), Some("Kind"));
    assert_eq!(public_type("pub(crate) struct Inner;"), None);
    assert_eq!(public_type("pub fn kind() {"), None);
}
