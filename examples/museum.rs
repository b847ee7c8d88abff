//! A walk through the museum: what was wrong, what happened in which order, who notices.
//!
//!     cargo run --features testkit --example museum [NUMBER…]

use emmu::testkit::museum::Piece;

fn main() {
    // Some pieces panic when they are caught; the report says so.
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
        for (oracle, what) in showing.seen.iter().take(2) {
            println!("  [{oracle}] {what}");
        }
        println!();
        shown += 1;
    }
    println!("{shown} of {} pieces", all.len());
}
