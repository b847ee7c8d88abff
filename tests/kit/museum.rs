//! Every piece of the museum is caught by what should catch it, and its sound twin is not.

use emmu::testkit::museum::{Piece, Shown};
use std::{collections::BTreeSet, fs, path::Path};

#[test]
fn each_is_caught_by_the_right_one_and_its_twin_is_not() {
    let mut wrong = Vec::new();
    for piece in Piece::all() {
        let shown = piece.show();
        let first = shown.seen.first().map(|(oracle, _)| *oracle);
        let right = match piece.shown {
            Shown::Device { oracles, .. } => first.is_some_and(|f| oracles.contains(&f)),
            Shown::Schedule { broken_by, .. } => first == Some(broken_by.oracle()),
            Shown::Type(case) => Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("tests/ui/{case}.rs"))
                .exists(),
        };
        if !right {
            wrong.push(format!("{piece}\n  by {}: {shown:#?}", piece.catcher()));
        }
        let sound = piece.show_sound();
        if !sound.seen.is_empty() {
            wrong.push(format!(
                "the twin of {piece}\n{}{:#?}",
                sound.schedule, sound.seen
            ));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong.join("\n\n"));
}

/// The list and the family of a piece of Linux; `None` for one of another system.
fn family(piece: &Piece) -> Option<(char, u32)> {
    let list = piece.id.chars().next()?;
    let number = piece.id.strip_prefix(['B', 'C'])?.trim_end_matches('\'');
    Some((list, number.parse().ok()?))
}

#[test]
fn documents_count_as_the_museum_does() {
    let all = Piece::all();
    let linux = all.iter().filter_map(family).count();
    let others = all.len() - linux;
    let count = format!(
        "{} mistakes: {linux} of Linux, its drivers and their users, {others} of other systems",
        all.len()
    );
    for name in ["README.md", "CHANGELOG.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
        let text = fs::read_to_string(path).expect("UTF-8");
        let words: Vec<&str> = text.split_whitespace().collect();
        assert!(words.join(" ").contains(&count), "{name}: not {count}");
    }
}

#[test]
fn each_family_of_linux_has_a_piece_but_two_that_are_costs() {
    let shown: BTreeSet<(char, u32)> = Piece::all().iter().filter_map(family).collect();
    let missing: Vec<u32> = (1..=51).filter(|n| !shown.contains(&('B', *n))).collect();
    assert_eq!(missing, [10, 48]); // Of the later ones, those that a model can make.
    let later = shown.iter().filter(|(list, _)| *list == 'C').count();
    assert!(later >= 30, "{later}");
}
