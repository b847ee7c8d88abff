//! Every piece of the museum is caught by what should catch it, and its sound twin is not.

use emmu::testkit::museum::{Piece, Shown};
use std::{collections::BTreeSet, path::Path};

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

#[test]
fn forty_of_linux_and_ten_of_others() {
    let all = Piece::all();
    let number = |id: &str| {
        id.strip_prefix('B')
            .map(|n| n.trim_end_matches('\'').to_owned())
    };
    let linux: BTreeSet<String> = all.iter().filter_map(|p| number(p.id)).collect();
    let others = all.iter().filter(|p| number(p.id).is_none()).count();
    assert!(linux.len() >= 40, "{} of Linux: {linux:?}", linux.len());
    assert!(others >= 10, "{others} of others");
}
