//! A walk through the museum of mistakes: each piece with its mistake, its schedule, and the check
//! that catches it.
//!
//! ```text
//! cargo run --features testkit --example museum -- [NUMBER…]
//! ```

use emmu::testkit::museum::Piece;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A few pieces panic when they are caught; the report says so.
    std::panic::set_hook(Box::new(|_| ()));
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let all = Piece::all();
    let chosen = all
        .iter()
        .filter(|p| wanted.is_empty() || wanted.iter().any(|w| w.eq_ignore_ascii_case(p.id)));
    let mut shown = 0;
    for piece in chosen {
        let showing = piece.show();
        println!("{piece}\n  caught by {}", piece.catcher());
        print!("{}", showing.schedule);
        for (oracle, report) in showing.seen.iter().take(2) {
            println!("  [{oracle}] {report}");
        }
        println!();
        shown += 1;
    }
    println!("{shown} of {} pieces", all.len());
    if shown == 0 {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
